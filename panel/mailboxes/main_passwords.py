"""A mailbox's main password: found by the address, and whether it opens the mailbox's pages now; with what beside."""

import ipaddress
from collections.abc import Sequence

from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from panel.mailboxes.models import Credential, Mailbox
from panel.rules.addresses import BadAddress, parse_address
from panel.rules.status import Status, strictest
from panel.tenants.models import SecondFactor, Tenant
from panel.tenants.standing import with_parents

MOST_COUNTED = 10_000  # mailboxes that a page looks at


def credential_of(login: str) -> Credential | None:
    """The main password of the mailbox with this address, whether or not it opens anything now."""
    try:
        address = parse_address(login.strip()).canonical
    except BadAddress:
        return None
    named = {"mailbox__address__local_part": address.local_part, "mailbox__address__domain__name": address.domain}
    return main_passwords().filter(**named).first()


def may_open(credential: Credential, ip: str | None) -> bool:
    """Whether it opens the mailbox's page now and from there, as it opens the mailbox (rules/policy)."""
    expired = credential.expires_at is not None and credential.expires_at <= timezone.now()
    address = credential.mailbox.address
    stati = (credential.mailbox.status, address.domain.status, *(each.status for each in with_parents(address.tenant)))
    may_log_in = strictest(map(Status, stati)).may_log_in
    return credential.frozen_at is None and not expired and may_log_in and _is_from(credential.networks, ip)


def without_second_factor(tenant: Tenant) -> int:
    """How many of its mailboxes a main password alone opens; of MOST_COUNTED that are looked at. Two queries."""
    rows = Mailbox.objects.filter(tenant=tenant).exclude(status=Status.CLOSED)
    people = rows.order_by("pk").values("person")[:MOST_COUNTED]
    return people.count() - SecondFactor.objects.filter(user__in=people).count()


def is_beside_factor() -> Exists:
    """Whether the person of a password's mailbox has a second factor: a part of a query of passwords."""
    return Exists(SecondFactor.objects.filter(user=OuterRef("mailbox__person")))


def main_passwords() -> "QuerySet[Credential]":
    """With what `may_open` and a person's pages read."""
    return Credential.objects.filter(kind=Credential.Kind.MAIN).select_related(
        "mailbox__person", "mailbox__usage", "mailbox__address__domain", "mailbox__address__tenant__plan",
        "mailbox__address__tenant__parent__parent",
    )


def _is_from(networks: Sequence[str], ip: str | None) -> bool:
    if not networks:
        return True
    try:
        address = ipaddress.ip_address(ip or "")
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(network, strict=False) for network in networks)
