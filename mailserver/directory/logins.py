"""Who a login is: what its password is compared with, and all that decides what it may do.

Decides who may send as whom (DESIGN §4); what a session does with it is decided in panel/rules/policy.
"""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from mailserver.directory.found import EVERY_TENANT, Dependency, Found
from mailserver.directory.hosting import find_hosted
from mailserver.directory.limits import login_limits
from mailserver.directory.nodes import expiry_of, has_expired
from mailserver.directory.statuses import OWNERS, address_status, what_is_suspended
from panel.domains import models as domains
from panel.mailboxes import models as mailboxes
from panel.mailboxes import passwords
from panel.mailboxes.main_passwords import is_beside_factor
from panel.rules.addresses import Address
from panel.rules.facts import Login, Proof, SenderRights
from panel.rules.limits import Subject
from panel.rules.lockout import network_of
from panel.tenants.models import Tenant

EVERY_SCOPE = frozenset({"submission", "imap", "pop3", "sieve"})  # the main password's


def login(credential_id: int, *, separator: str, now: datetime) -> Found[Login | None]:
    """A credential and all that decides what it may do; None when it is no more. Four queries."""
    credential = _credentials().filter(pk=credential_id).first()
    if credential is None or not credential.mailbox.address.local_part:
        return Found(None, frozenset())
    row = credential.mailbox.address
    tenant = row.tenant
    aliases = list(domains.DomainAlias.objects.filter(domain=row.domain).order_by())
    aliases_of_its_own, from_domains, ends = _alias_rights(Address(row.local_part, row.domain.name), tenant, now)
    rights = SenderRights(
        local_part=row.local_part,
        domains=frozenset({row.domain.name, *(a.name for a in aliases if a.proof == domains.Proof.PROVED)}),
        aliases=aliases_of_its_own,
        separator=separator,
    )
    fact = _login_fact(credential, rights, login_limits(credential), now)
    names = {row.domain.name, *(alias.name for alias in aliases), *from_domains}
    depends: frozenset[Dependency] = frozenset({*names, tenant.pk, EVERY_TENANT})
    if credential.expires_at is not None and credential.expires_at > now:
        ends.append(credential.expires_at)
    return Found(fact, depends, min(ends, default=None))


def readers(credential_ids: Collection[int], *, now: datetime) -> dict[int, Login]:
    """What decides whether these may go on reading: no rights to send, no limits. One query."""
    return {
        credential.pk: _login_fact(credential, SenderRights("", frozenset(), frozenset()), (), now)
        for credential in _credentials().filter(pk__in=credential_ids, mailbox__address__local_part__gt="")
    }


def _credentials() -> QuerySet[mailboxes.Credential]:
    rows = mailboxes.Credential.objects.select_related(
        "mailbox__address__mailbox", *(f"mailbox__address__{path}" for path in OWNERS)
    )
    return rows.annotate(has_factor=is_beside_factor())


def _login_fact(
    credential: mailboxes.Credential, rights: SenderRights, limits: tuple[Subject, ...], now: datetime
) -> Login:
    box = credential.mailbox
    row = box.address
    is_main = credential.kind == credential.Kind.MAIN
    usable = credential.frozen_at is None and (credential.expires_at is None or credential.expires_at > now)
    # What a mail program sends is one factor: it would open the mailbox without the other.
    has_factor = is_main and usable and bool(credential.has_factor)  # type: ignore[attr-defined]
    return Login(
        credential_id=credential.pk,
        credential=str(credential),
        mailbox_id=box.pk,
        address=Address(row.local_part, row.domain.name),
        tenant_id=row.tenant.pk,
        domain=row.domain.name,
        status=address_status(row),
        suspended=what_is_suspended(row),
        proof=Proof(row.domain.proof),
        usable=usable and not has_factor,
        scopes=EVERY_SCOPE if is_main else frozenset(credential.scopes),
        networks=tuple(ipaddress.ip_network(network, strict=False) for network in credential.networks),
        may_send_as=rights,
        limits=limits,
        expires_at=credential.expires_at,
        fingerprint=_fingerprint(credential),
        has_factor=has_factor,
    )


def _alias_rights(
    address: Address, tenant: Tenant, now: datetime
) -> tuple[frozenset[Address], set[str], list[datetime]]:
    """The aliases that the mailbox may send as, the domains of all that name it, and when these will expire.

    Those of its own tenant that name it directly and haven't expired; never a catch-all, and only while
    their domain is proved and may send.
    """
    query = mailboxes.Address.objects.filter(alias__targets__target=str(address.canonical), tenant=tenant)
    rows = list(query.select_related("alias", *OWNERS).order_by())
    rights = frozenset(
        Address(row.local_part, row.domain.name)
        for row in rows
        if row.local_part and row.domain.proof == domains.Proof.PROVED and address_status(row).may_send
        and not has_expired(row, now)
    )
    ends = [at for row in rows if (at := expiry_of(row)) and at > now]
    return rights, {row.domain.name for row in rows}, ends


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a password for a login name is compared with. Secrets: never logged."""

    address: Address  # the mailbox's own
    mailbox_id: int
    tenant_id: int
    main: tuple[int, str] | None  # credential id, its stored hash
    apps: tuple[tuple[int, str], ...]  # credential id, SHA-256 hex
    used_from: frozenset[str]  # the networks from which these were last used, as rules/lockout counts them
    main_fingerprint: str = ""  # of the main password, also before it was hashed anew

    def __repr__(self) -> str:
        return f"Candidates({self.address})"


def candidates(address: Address) -> Candidates | None:
    """The credentials of a mailbox, by its address or that of a proved domain alias."""
    name = address.domain
    query = mailboxes.Credential.objects.filter(mailbox__address__local_part=address.local_part)
    query = query.select_related("mailbox__address")
    found = list(query.filter(mailbox__address__domain__name=name).order_by())
    if not found:
        hosted = find_hosted([name]).get(name)
        if hosted is None or hosted.row.name == name:
            return None
        name = hosted.row.name
        found = list(query.filter(mailbox__address__domain__name=name).order_by())
    if not found or not address.local_part:
        return None
    mains = [(row.pk, row.secret) for row in found if row.kind == row.Kind.MAIN]
    apps = tuple((row.pk, row.secret) for row in found if row.kind == row.Kind.APP)
    box = found[0].mailbox
    used_from = frozenset(network_of(row.last_used_ip) for row in found if row.last_used_ip)
    prints = [_fingerprint(row) for row in found if row.kind == row.Kind.MAIN]
    return Candidates(
        Address(address.local_part, name), box.pk, box.address.tenant_id, mains[0] if mains else None, apps, used_from,
        prints[0] if prints else "",
    )


def _fingerprint(credential: mailboxes.Credential) -> str:
    return credential.began_as or passwords.fingerprint(credential.secret)


def replace_hash(credential_id: int, old: str, new: str) -> bool:
    """Keep a main password by a hash of ours, unless it was changed meanwhile; whether it was kept.

    Never a DirectoryChange: it is the same password, and its fingerprint stays.
    """
    with transaction.atomic():
        mine = mailboxes.Credential.objects.filter(pk=credential_id, secret=old, began_as="")
        return bool(mine.update(secret=new, began_as=passwords.fingerprint(old)))
