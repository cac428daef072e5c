"""Changes to mailboxes, aliases and credentials: each atomic, audited, told to the mailserver's caches.

Decides who may have which address: one table of addresses, so that the database refuses a
collision; a plan's numbers; whose a shared domain's addresses are. Suspending and closing a
mailbox stand in operations/services.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from panel.domains.models import Domain, DomainAlias
from panel.mailboxes import loops, passwords
from panel.mailboxes.models import MOST_QUOTA_BYTES, Address, Alias, AliasTarget, Credential, Mailbox
from panel.rules import addresses
from panel.rules.addresses import BadAddress
from panel.rules.status import Status
from panel.tenants import audit, decided
from panel.tenants.changes import (
    KEEP,
    AlreadySo,
    HashedPassword,
    NotFound,
    ServiceError,
    Taken,
    alone,
    changed,
    check_password_rules,
    count_against_plan,
    delete,
    hash_password,
    lock,
    number,
    one_line,
    write,
)
from panel.tenants.models import PasswordReset, Plan, Tenant, User
from panel.tenants.shown import size

SCOPES = ("submission", "imap", "pop3", "sieve")
MOST_TARGETS = 100  # below what the directory follows for one recipient (200)
MOST_NETWORKS = 50
# In a shared domain. RFC 2142's that mail or certificates are entrusted to, and those that a certificate authority
# takes for the domain's owner (CA/Browser Forum, Baseline Requirements §3.2.2.4.4).
OF_THE_PROVIDER = frozenset({
    "abuse", "admin", "administrator", "dmarc", "hostmaster", "mailer-daemon", "noc", "noreply", "postmaster", "root",
    "security", "ssladmin", "support", "tlsrpt", "webmaster",
})


# Mailboxes


def create_mailbox(
    *,
    address: str,
    password: str | HashedPassword,
    tenant: Tenant | None = None,
    name: str = "",
    quota_bytes: int | None = None,
    actor: User | None,
    ip: str | None = None,
) -> Mailbox:
    """A new mailbox with its address, its person and its main password.

    `tenant` is whose it is: needed in a shared domain; elsewhere it is the domain's.
    """
    parsed = _parse(address, "address")
    name = one_line(name, "name", most=100)
    _quota(quota_bytes)
    hashed = _hash_main(password, User(email=str(parsed), name=name))
    with transaction.atomic():
        taken = _take_address(parsed, tenant, "mailboxes", actor)
        hold_storage(taken.tenant, [quota_bytes])
        person = User(kind=User.Kind.PERSON, email=None, name=name)
        person.set_unusable_password()
        person.save(force_insert=True)
        mailbox = Mailbox.objects.create(
            **Mailbox.standing_at(taken), person=person, name=name, quota_bytes=quota_bytes
        )
        Credential.objects.create(mailbox=mailbox, kind=Credential.Kind.MAIN, secret=hashed.stored)
        after = {"address": taken, "name": name, "quota_bytes": quota_bytes}
        audit.record(actor, "mailbox.created", mailbox, tenant=taken.tenant, after=after, ip=ip)
        changed(taken.domain.name)
    return mailbox


@transaction.atomic
def change_mailbox(
    mailbox: Mailbox,
    *,
    name: str = KEEP,
    quota_bytes: int | None = KEEP,
    actor: User | None,
    ip: str | None = None,
) -> Mailbox:
    """Give the mailbox another name or quota (None: no bound)."""
    values: dict[str, Any] = {}
    if name is not KEEP:
        values["name"] = one_line(name, "name", most=100)
    if quota_bytes is not KEEP:
        values["quota_bytes"] = _quota(quota_bytes)
        _hold_quota(mailbox, quota_bytes)
    before, after = write(mailbox, **values)
    if after:
        tenant = mailbox.address.tenant
        audit.record(actor, "mailbox.changed", mailbox, tenant=tenant, before=before, after=after, ip=ip)
        changed(mailbox.address.domain.name)
    return mailbox


def _quota(quota_bytes: int | None) -> int | None:
    if quota_bytes is not None and quota_bytes > MOST_QUOTA_BYTES:
        raise ServiceError(
            _("A mailbox has {most} of storage at most.").format(most=size(MOST_QUOTA_BYTES)), "quota_bytes"
        )
    return number(quota_bytes, "quota_bytes", most=MOST_QUOTA_BYTES)


def _hold_quota(mailbox: Mailbox, quota_bytes: int | None) -> None:
    """Refuse a larger quota when the plan has no storage left; a smaller one always fits."""
    tenant = lock(mailbox.address.tenant)
    now = lock(mailbox).quota_bytes
    if quota_bytes != now and (quota_bytes is None or now is None or quota_bytes > now):
        hold_storage(tenant, [quota_bytes], instead_of=now or 0)


def set_password(
    mailbox: Mailbox, password: str | HashedPassword, *, reason: str = "", actor: User | None, ip: str | None = None
) -> None:
    """Give the mailbox another main password. A frozen one stays frozen; links that were sent to set one are void."""
    hashed = hash_main(password, mailbox)
    with transaction.atomic():
        lock(mailbox)
        mains = Credential.objects.filter(mailbox=mailbox, kind=Credential.Kind.MAIN)
        if not mains.update(secret=hashed.stored, began_as=""):
            Credential.objects.create(mailbox=mailbox, kind=Credential.Kind.MAIN, secret=hashed.stored)
        PasswordReset.objects.filter(user=mailbox.person_id).update(token="")
        audit.record(actor, "mailbox.password_set", mailbox, tenant=mailbox.address.tenant, reason=reason, ip=ip)
        changed(mailbox.address.domain.name)


# Aliases


@transaction.atomic
def create_alias(
    *,
    address: str,
    targets: Sequence[str],
    tenant: Tenant | None = None,
    description: str = "",
    expires_at: datetime | None = None,
    actor: User | None,
    ip: str | None = None,
) -> Alias:
    """A new alias that leads to `targets`, here or elsewhere. "@example.com" is that domain's catch-all.

    From `expires_at` on its address is as one that isn't there, until it is given a later end.
    """
    parsed = _parse_alias(address)
    wanted = _parse_targets(targets)
    description = one_line(description, "description", most=200)
    expires_at = _later(expires_at, _("The alias would have expired already: write a later end."))
    alone("aliases")
    taken = _take_address(parsed, tenant, "aliases", actor)
    alias = Alias.objects.create(**Alias.standing_at(taken), description=description, expires_at=expires_at)
    AliasTarget.objects.bulk_create(AliasTarget(alias=alias, target=target) for target in wanted)
    _refuse_loop(alias)
    after = {"address": taken, "targets": wanted, "description": description}
    if expires_at:
        after["expires_at"] = expires_at
    audit.record(actor, "alias.created", alias, tenant=taken.tenant, after=after, ip=ip)
    changed(taken.domain.name, *_domains_here(wanted))
    return alias


@transaction.atomic
def change_alias(
    alias: Alias,
    *,
    targets: Sequence[str] = KEEP,
    description: str = KEEP,
    expires_at: datetime | None = KEEP,
    actor: User | None,
    ip: str | None = None,
) -> Alias:
    """Let the alias lead to other targets, describe it otherwise, or end at another time (None: never)."""
    alone("aliases")
    values: dict[str, Any] = {}
    if description is not KEEP:
        values["description"] = one_line(description, "description", most=200)
    if expires_at is not KEEP and expires_at != alias.expires_at:  # one that has expired may stay so
        values["expires_at"] = _later(expires_at, _("The alias would have expired already: write a later end."))
    before, after = write(alias, **values) if values else ({}, {})
    old = list(lock(alias).targets.values_list("target", flat=True))
    wanted = old if targets is KEEP else _parse_targets(targets)
    if wanted != old:
        alias.targets.all().delete()
        AliasTarget.objects.bulk_create(AliasTarget(alias=alias, target=target) for target in wanted)
        _refuse_loop(alias)
        before, after = {**before, "targets": old}, {**after, "targets": wanted}
    if after:
        tenant = alias.address.tenant
        audit.record(actor, "alias.changed", alias, tenant=tenant, before=before, after=after, ip=ip)
        changed(alias.address.domain.name, *_domains_here([*old, *wanted]))
    return alias


@transaction.atomic
def delete_alias(alias: Alias, *, actor: User | None, ip: str | None = None) -> None:
    """Delete an alias; its address is free again."""
    address, targets = alias.address, list(lock(alias).targets.values_list("target", flat=True))
    audit.record(
        actor, "alias.deleted", alias, tenant=address.tenant, before={"address": address, "targets": targets}, ip=ip
    )
    delete(alias, _("{name} is still in use.").format(name=alias))
    delete(address, _("{name} is still in use.").format(name=address))
    changed(address.domain.name, *_domains_here(targets))


# Credentials


@transaction.atomic
def create_credential(
    mailbox: Mailbox,
    *,
    label: str = "",
    scopes: Iterable[str] = ("submission",),
    networks: Iterable[str] = (),
    expires_at: datetime | None = None,
    actor: User | None,
    ip: str | None = None,
) -> tuple[Credential, str]:
    """A new app password, and its secret, which nobody can show a second time.

    `networks` are where it may be used from (none: anywhere), `expires_at` until when.
    """
    values = _credential_values(label=label, scopes=scopes, networks=networks, expires_at=expires_at)
    count_against_plan(mailbox.address.tenant, "credentials", _COUNTS["credentials"])
    domain = mailbox.address.domain
    if lock(domain).status == Status.CLOSED:
        raise ServiceError(_("The domain {domain} is closed.").format(domain=domain), "mailbox")
    stored = lock(mailbox)
    if stored.status == Status.CLOSED:
        raise ServiceError(_("{mailbox} is closed.").format(mailbox=mailbox), "mailbox")
    secret = passwords.new_app_secret()
    credential = Credential.objects.create(
        mailbox=stored, kind=Credential.Kind.APP, secret=passwords.hash_app(secret), **values
    )
    _tell(credential, "created", actor, ip, after=values)
    return credential, secret


@transaction.atomic
def change_credential(
    credential: Credential,
    *,
    label: str = KEEP,
    scopes: Iterable[str] = KEEP,
    networks: Iterable[str] = KEEP,
    expires_at: datetime | None = KEEP,
    actor: User | None,
    ip: str | None = None,
) -> Credential:
    """Give an app password another label, other scopes, networks, or another end."""
    given = {"label": label, "scopes": scopes, "networks": networks, "expires_at": expires_at}
    values = _credential_values(**{name: value for name, value in given.items() if value is not KEEP})
    if credential.kind != Credential.Kind.APP:
        raise ServiceError(_("Scopes, networks and an end are for app passwords; freeze a main password instead."))
    before, after = write(credential, **values)
    if after:
        _tell(credential, "changed", actor, ip, before=before, after=after)
    return credential


@transaction.atomic
def freeze_credential(credential: Credential, *, reason: str, actor: User | None, ip: str | None = None) -> None:
    """Let nobody log in with it until it is unfrozen.

    What its person froze the tenant freezes over again, and what the tenant froze the provider: then those
    lower can't unfreeze it.
    """
    reason = one_line(reason, "reason", most=audit.MOST_REASON, required=True)
    lock(credential)
    thawed = Credential.objects.filter(pk=credential.pk)
    if decided.Freezer.of(actor) <= decided.froze(credential):
        thawed = thawed.filter(frozen_at=None)
    credential.frozen_at, credential.frozen_reason = timezone.now(), reason
    if not thawed.update(frozen_at=credential.frozen_at, frozen_reason=reason):
        raise AlreadySo(_("The {password} of {mailbox} is frozen already.").format(
            password=credential.words, mailbox=credential.mailbox
        ), "frozen")
    _tell(credential, "frozen", actor, ip, reason=reason)


@transaction.atomic
def unfreeze_credential(
    credential: Credential, *, reason: str = "", actor: User | None, ip: str | None = None
) -> None:
    """Let it log in again. Raises ServiceError where somebody above froze it: the provider, or a person's tenant."""
    reason = one_line(reason, "reason", most=audit.MOST_REASON)
    lock(credential)  # whoever freezes it meanwhile has to be seen
    froze = decided.froze(credential)
    if decided.Freezer.of(actor) < froze:
        raise ServiceError(_frozen_above(credential, froze).format(password=credential.words))
    frozen = Credential.objects.filter(pk=credential.pk, frozen_at__isnull=False)
    if not frozen.update(frozen_at=None, frozen_reason=""):
        raise AlreadySo(_("The {password} of {mailbox} is not frozen.").format(
            password=credential.words, mailbox=credential.mailbox
        ), "frozen")
    credential.frozen_at, credential.frozen_reason = None, ""
    _tell(credential, "unfrozen", actor, ip, reason=reason)


@transaction.atomic
def revoke_credential(credential: Credential, *, actor: User | None, ip: str | None = None) -> None:
    """Delete an app password for good."""
    if credential.kind != Credential.Kind.APP:
        raise ServiceError(_("A main password can't be revoked: set another one, or freeze it."))
    _tell(credential, "revoked", actor, ip, before={"label": credential.label, "scopes": credential.scopes})
    delete(credential, _("The {name} is still in use.").format(name=credential.words))


def find_mailbox(address: str) -> Mailbox:
    """The mailbox of this address. Raises NotFound, and ServiceError for what is no address."""
    parsed = _parse(address, "address")
    mailboxes = Mailbox.objects.select_related("address__domain", "address__tenant")
    mailbox = mailboxes.filter(local_part=parsed.local_part, domain_name=parsed.domain).first()
    if mailbox is None:
        raise NotFound(_("There is no mailbox {address}.").format(address=parsed), "address")
    return mailbox


def find_alias(address: str) -> Alias:
    """The alias of this address. Raises NotFound, and ServiceError for what is no address."""
    parsed = _parse_alias(address)
    aliases = Alias.objects.select_related("address__domain", "address__tenant")
    alias = aliases.filter(local_part=parsed.local_part, domain_name=parsed.domain).first()
    if alias is None:
        raise NotFound(_("There is no alias {address}.").format(address=_name(parsed)), "address")
    return alias


# How addresses are read and taken


def check_main_password(password: str, about: User) -> None:
    """Refuse what can't be a main password. Raises ServiceError."""
    _refuse_app_prefix(password)
    check_password_rules(password, about)


def hash_main(password: str | HashedPassword, mailbox: Mailbox) -> HashedPassword:
    """A new main password of the mailbox, checked and hashed: before a transaction opens. Raises ServiceError."""
    return _hash_main(password, User(email=str(mailbox.address), name=mailbox.name))


def _hash_main(password: str | HashedPassword, about: User) -> HashedPassword:
    if isinstance(password, str):
        _refuse_app_prefix(password)
    return hash_password(password, about)


def _refuse_app_prefix(password: str) -> None:
    if password.startswith(passwords.APP_PREFIX):
        # A login with it would be looked for among the app passwords alone.
        raise ServiceError(
            _("A password can't begin with {text}: app passwords do.").format(text=passwords.APP_PREFIX), "password"
        )


def hold_storage(tenant: Tenant, quotas: Sequence[int | None], *, instead_of: int = 0) -> None:
    """Refuse quotas that the tenant's plan has no storage left for; `instead_of`: bytes that they replace.

    The tenant is locked by the caller. A plan that bounds storage wants a quota for each
    mailbox, or its number would mean nothing. Raises ServiceError (field "quota_bytes").
    """
    plan = Plan.objects.get(pk=tenant.plan_id)
    if plan.storage_bytes is None:
        return
    if None in quotas:
        raise ServiceError(_("The plan {plan} allows {most} of storage: give the mailbox a quota.").format(
            plan=plan, most=size(plan.storage_bytes)
        ), "quota_bytes")
    mailboxes = Mailbox.objects.filter(tenant=tenant)
    used = mailboxes.aggregate(total=Sum("quota_bytes"))["total"] or 0
    asked = sum(quota or 0 for quota in quotas)
    if used - instead_of + asked > plan.storage_bytes:
        taken = size(used - instead_of) if used > instead_of else _("nothing")
        raise ServiceError(_(
            "The plan {plan} allows {most} of storage; the quotas of {tenant} take {taken} of it, and {asked} more are "
            "asked for. Choose a larger plan first."
        ).format(
            plan=plan, most=size(plan.storage_bytes), tenant=tenant, taken=taken, asked=size(asked)
        ), "quota_bytes")


def _parse(text: str, field: str) -> addresses.Address:
    try:
        return addresses.parse_address(text).canonical
    except BadAddress as error:
        raise ServiceError(error.said(_), field) from None


def _parse_alias(text: str) -> addresses.Address:
    text = text.strip()
    text = text.removeprefix("*") if text.startswith("*@") else text  # as lists show it
    if not text.startswith("@"):
        return _parse(text, "address")
    try:
        return addresses.Address("", addresses.canonical_domain(text[1:]))
    except BadAddress as error:
        raise ServiceError(error.said(_), "address") from None


def _parse_targets(texts: Sequence[str]) -> list[str]:
    """The targets, canonical, each once, in the order given."""
    wanted: dict[str, None] = {}
    for text in texts:
        try:
            wanted[str(addresses.parse_address(text).canonical)] = None
        except BadAddress as error:
            raise ServiceError(_("Target {text!r}: {error}").format(
                text=text.strip()[:100], error=error.said(_)
            ), "targets") from None
    if not wanted:
        raise ServiceError(_("An alias needs a target: write at least one address."), "targets")
    if len(wanted) > MOST_TARGETS:
        raise ServiceError(_("An alias leads to {most} addresses at most.").format(most=MOST_TARGETS), "targets")
    return list(wanted)


def _name(address: addresses.Address) -> str:
    return str(address) if address.local_part else f"@{address.domain}"


def _take_address(
    parsed: addresses.Address, tenant: Tenant | None, what: str, actor: User | None
) -> Address:
    """The Address row for a new mailbox or alias ("mailboxes", "aliases"), within the tenant's plan."""
    domain = Domain.objects.filter(name=parsed.domain).first()
    if decided.is_bound(actor) and (domain is None or domain.tenant_id not in (None, tenant.pk if tenant else None)):
        _refuse_foreign(parsed.domain, tenant)
    if domain is None:
        other = DomainAlias.objects.filter(name=parsed.domain).select_related("domain").first()
        if other:
            raise _stands_for(other)
        raise ServiceError(
            _("The domain {domain} isn't hosted here: create it first.").format(domain=parsed.domain), "address"
        )
    separator = settings.ENVIRONMENT.separator
    if separator and parsed.without_subaddress(separator) != parsed:
        raise ServiceError(_(
            "The address holds {separator}: what follows it is a subaddress, mail for which reaches {address}."
        ).format(separator=separator, address=parsed.without_subaddress(separator)), "address")
    owner = count_against_plan(_holder(domain, parsed, tenant, actor), what, _COUNTS[what])
    if lock(domain).status == Status.CLOSED:
        raise ServiceError(_("The domain {domain} is closed.").format(domain=domain), "address")
    if what == "mailboxes" and User.objects.filter(email=str(parsed)).exists():
        # Whose account it is, and that there is one, isn't a tenant's to know.
        raise Taken(
            _("{address} can't be given to a mailbox: ask your provider.").format(address=parsed)
            if decided.is_bound(actor) else
            _("{address} is the login of a panel account: give that account another address first.").format(
                address=parsed
            ), "address",
        )
    try:
        with transaction.atomic():
            return Address.objects.create(local_part=parsed.local_part, domain=domain, tenant=owner)
    except IntegrityError:
        raise _taken(parsed, owner) from None


def _refuse_foreign(name: str, tenant: Tenant | None) -> None:
    """Say that it is none of the tenant's domains, the same whether or not it is hosted for somebody else."""
    own = DomainAlias.objects.filter(name=name, domain__tenant=tenant).select_related("domain").first()
    if tenant and own:
        raise _stands_for(own)
    raise ServiceError(_("{name} is none of your domains: add it first.").format(name=name), "address")


def _stands_for(alias: DomainAlias) -> ServiceError:
    return ServiceError(_("{name} stands for {domain}: use an address in {domain}.").format(
        name=alias.name, domain=alias.domain
    ), "address")


_COUNTS = {
    "mailboxes": lambda tenant: Mailbox.objects.filter(tenant=tenant).count(),
    "aliases": lambda tenant: Alias.objects.filter(tenant=tenant).count(),
    "credentials": lambda tenant: Credential.objects.filter(
        kind=Credential.Kind.APP, mailbox__tenant=tenant
    ).count(),
}


def _holder(domain: Domain, parsed: addresses.Address, tenant: Tenant | None, actor: User | None) -> Tenant:
    """Whose the new address is."""
    if domain.tenant:
        if tenant and tenant.pk != domain.tenant_id:
            raise ServiceError(_("{domain} is not a domain of {tenant}: leave the tenant out.").format(
                domain=domain, tenant=tenant
            ), "tenant")
        return domain.tenant
    if not parsed.local_part:
        raise ServiceError(_("{domain} is a shared domain: it has no catch-all.").format(domain=domain), "address")
    if tenant is None:
        raise ServiceError(
            _("{domain} is a shared domain: name the tenant whose address this is.").format(domain=domain), "tenant"
        )
    by_staff = actor is None or actor.has_provider_role
    if not by_staff and not domain.plans.filter(pk=tenant.plan_id).exists():
        raise ServiceError(_("Addresses in {domain} are given by the provider.").format(domain=domain), "address")
    if not by_staff and parsed.local_part in OF_THE_PROVIDER:
        raise ServiceError(
            _("{address} speaks for the whole domain: the provider keeps it.").format(address=parsed), "address"
        )
    return tenant


def _taken(parsed: addresses.Address, asking: Tenant) -> Taken:
    """Who has the address already is told only to its own tenant."""
    held = Address.objects.filter(local_part=parsed.local_part, domain__name=parsed.domain).first()
    told = _("The address {address} is taken already.")
    if held and held.tenant_id == asking.pk:
        told = _("The address {address} is taken already: it is a mailbox.") if (
            Mailbox.objects.filter(address=held).exists()
        ) else _("The address {address} is taken already: it is an alias.")
    return Taken(told.format(address=_name(parsed)), "address")


def _refuse_loop(alias: Alias) -> None:
    targets = alias.targets.values_list("target", flat=True)
    chain = loops.chain_back_to(alias.address, targets, settings.ENVIRONMENT.separator)
    if chain:
        raise ServiceError(
            _("The alias would lead back to itself: {chain}.").format(chain=" → ".join(chain)), "targets"
        )


def _domains_here(targets: Iterable[str]) -> set[str]:
    """The domains of these targets that are hosted here: who may send as the alias changes there."""
    names = {target.rpartition("@")[2] for target in targets}
    rows = Domain.objects.filter(Q(name__in=names) | Q(aliases__name__in=names))
    return set(rows.values_list("name", flat=True))


def _frozen_above(credential: Credential, froze: decided.Freezer) -> str:
    """Says who froze it and what is left to do; `{password}` is still to be put in."""
    own = credential.kind == Credential.Kind.APP  # another one of which can be made
    if froze is decided.Freezer.PROVIDER:
        return _("The {password} was frozen by your provider: make another one.") if own else _(
            "The {password} was frozen by your provider: ask there."
        )
    return _("The {password} was frozen by your organisation: make another one.") if own else _(
        "The {password} was frozen by your organisation: ask there."
    )


def _credential_values(**values: Any) -> dict[str, Any]:
    if "label" in values:
        values["label"] = one_line(values["label"], "label", most=100)
    if "scopes" in values:
        asked = set(values["scopes"])
        values["scopes"] = [scope for scope in SCOPES if scope in asked]
        if not asked or asked - set(SCOPES):
            raise ServiceError(
                _("An app password is for one or more of {scopes}.").format(scopes=", ".join(SCOPES)), "scopes"
            )
    if "networks" in values:
        values["networks"] = _networks(values["networks"])
    if values.get("expires_at"):
        values["expires_at"] = _later(
            values["expires_at"], _("The app password would have expired already: write a later end.")
        )
    return values


def _later(expires_at: datetime | None, sentence: str) -> datetime | None:
    """The end with its zone. Raises ServiceError with this sentence for one that has passed."""
    if expires_at is None:
        return None
    if timezone.is_naive(expires_at):
        expires_at = timezone.make_aware(expires_at)
    if expires_at <= timezone.now():
        raise ServiceError(sentence, "expires_at")
    return expires_at


def _networks(texts: Iterable[str]) -> list[str]:
    networks: dict[str, None] = {}
    for text in texts:
        try:
            networks[str(ipaddress.ip_network(text.strip()))] = None
        except ValueError:
            raise ServiceError(_("{text!r} is not a network: write 192.0.2.0/24 or 2001:db8::/32.").format(
                text=text.strip()[:60]
            ), "networks") from None
    if len(networks) > MOST_NETWORKS:
        raise ServiceError(_("An app password has {most} networks at most.").format(most=MOST_NETWORKS), "networks")
    return list(networks)


def _tell(
    credential: Credential, act: str, actor: User | None, ip: str | None, *, before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None, reason: str = "",
) -> None:
    address = credential.mailbox.address
    audit.record(
        actor, f"credential.{act}", credential, tenant=address.tenant, before={"mailbox": address, **(before or {})},
        after=after, reason=reason, ip=ip,
    )
    changed(address.domain.name)
