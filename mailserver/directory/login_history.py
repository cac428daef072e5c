"""Who logged in when and from where: LoginEvents and last uses, written, forgotten, and looked up again."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from panel.mailboxes import models as mailboxes
from panel.rules.lockout import network_of

MOST_NETWORKS = 1000  # from which a mailbox logged in


@dataclass(frozen=True, slots=True)
class Use:
    """When and from where a credential was last used."""

    credential_id: int
    at: datetime
    ip: str


def record_use(uses: Sequence[Use]) -> None:
    """Write the last uses. Never a DirectoryChange: nothing that anybody caches has changed."""
    with transaction.atomic():
        # In order of id, as everybody who locks several rows.
        for use in sorted(uses, key=lambda use: use.credential_id):
            mailboxes.Credential.objects.filter(pk=use.credential_id).update(
                last_used_at=use.at, last_used_ip=_ip(use.ip)
            )


@dataclass(frozen=True, slots=True)
class LoginFact:
    """Logins that were alike, as a LoginEvent keeps them: its fields, its outcomes."""

    at: datetime
    last_at: datetime
    count: int
    login: str
    protocol: str
    outcome: str
    ip: str = ""  # empty: from many networks
    mailbox_id: int | None = None  # None: no mailbox's, or not looked up
    tenant_id: int | None = None
    credential_id: int | None = None
    credential: str = ""


def record_logins(facts: Sequence[LoginFact]) -> None:
    """Write them in one transaction. What a client said is cleaned and cut to what a column holds."""
    mailboxes.LoginEvent.objects.bulk_create(
        [
            mailboxes.LoginEvent(
                at=fact.at,
                last_at=fact.last_at,
                count=fact.count,
                tenant_id=fact.tenant_id,
                mailbox_id=fact.mailbox_id,
                credential_id=fact.credential_id,
                credential_text=_clean(fact.credential, 120),
                login=_clean(fact.login, 320),
                ip=_ip(fact.ip),
                protocol=_clean(fact.protocol, 20),
                outcome=fact.outcome,
            )
            for fact in facts
        ],
        batch_size=500,
    )


def forget_logins(before: datetime, most: int) -> int:
    """Delete at most so many LoginEvents from before then, the oldest first; how many that were."""
    events = mailboxes.LoginEvent.objects
    old = list(events.filter(at__lt=before).order_by("at").values_list("pk", flat=True)[:most])
    if old:
        with transaction.atomic():
            events.filter(pk__in=old).delete()
    return len(old)


def known_networks(mailbox_id: int, since: datetime) -> frozenset[str]:
    """The networks from which a mailbox logged in since then, as rules/lockout counts them."""
    events = mailboxes.LoginEvent.objects.filter(mailbox=mailbox_id, outcome="ok", last_at__gte=since)
    uses = mailboxes.Credential.objects.filter(mailbox=mailbox_id, last_used_at__gte=since)
    ips = {
        *events.order_by().values_list("ip", flat=True).distinct()[:MOST_NETWORKS],
        *uses.order_by().values_list("last_used_ip", flat=True),
    }
    return frozenset(network_of(ip) for ip in ips if ip)


def _clean(text: str, most: int) -> str:
    """What a column can hold (no NUL, no lone surrogate) and a page can show."""
    return "".join(character if character.isprintable() else "?" for character in text[:most])


def _ip(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None
