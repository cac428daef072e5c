"""What a tenant sent in the last 30 days, in all, by domain and by mailbox: from the counters that enforce its limits.

A few queries, however many mailboxes there are. A domain's is the sum of its mailboxes': a domain without
a limit is not counted by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from panel.domains.models import Domain
from panel.mailboxes.models import Mailbox
from panel.rules.forecast import Forecast, forecast
from panel.rules.limits import Kind, Rings, UnknownRings, Window
from panel.sending.models import Counter, SendingLimit
from panel.sending.used import Subject, used
from panel.tenants.models import Tenant

DAYS = 30
MOST_NAMED = 20  # domains and mailboxes with limits of their own, among the bars
FULLEST = 5  # mailboxes


@dataclass(frozen=True, slots=True)
class Sent:
    """What one sent, day by day: oldest first, today last."""

    kind: str  # tenant, domain or mailbox
    name: str
    pk: int | None
    by_day: tuple[int, ...]
    day: int = 0  # in the last 24 hours

    @property
    def total(self) -> int:
        return sum(self.by_day)


@dataclass(slots=True)
class Usage:
    """`mailboxes` and `domains` with the largest first; those that sent nothing are left out."""

    first_day: date
    tenant: Sent
    domains: list[Sent] = field(default_factory=list)
    mailboxes: list[Sent] = field(default_factory=list)
    others: int = 0  # by aliases that lead outside, and by mailboxes that are gone

    @property
    def days(self) -> list[date]:
        return [self.first_day + timedelta(days=each) for each in range(DAYS)]


def usage_of(tenant: Tenant, now: datetime) -> Usage:
    """Three queries."""
    names = {
        pk: (f"{local}@{domain}", domain, domain_id)
        for pk, local, domain, domain_id in Mailbox.objects.filter(address__tenant=tenant).values_list(
            "pk", "address__local_part", "address__domain__name", "address__domain"
        )
    }
    today = now.astimezone(UTC).date()
    found = Usage(today - timedelta(days=DAYS - 1), Sent("tenant", str(tenant), tenant.pk, (0,) * DAYS))
    sums: dict[str, tuple[int, list[int]]] = {}
    for kind, pk, rings in _rings(tenant):
        by_day, day = rings.by_day(DAYS, now.timestamp()), rings.count(Window.DAY, now.timestamp())
        if kind is Kind.TENANT:
            found.tenant = Sent("tenant", str(tenant), tenant.pk, by_day, day)
        elif any(by_day) and pk in names:
            name, domain, domain_id = names[pk]
            found.mailboxes.append(Sent("mailbox", name, pk, by_day, day))
            together = sums.setdefault(domain, (domain_id, [0] * DAYS))[1]
            together[:] = [one + other for one, other in zip(together, by_day, strict=True)]
    found.domains = [Sent("domain", name, pk, tuple(days)) for name, (pk, days) in sums.items()]
    for each in (found.domains, found.mailboxes):
        each.sort(key=lambda one: (-one.total, one.name))
    found.others = max(0, found.tenant.total - sum(each.total for each in found.mailboxes))
    return found


def limited(tenant: Tenant, usage: Usage) -> list[Any]:
    """The bars of the tenant, of what has limits of its own, and of the mailboxes that sent most: six queries."""
    own = SendingLimit.objects.filter(owner=tenant, tenant=None, credential=None).order_by("pk")
    rows = list(own.values_list("domain", "mailbox")[: 2 * MOST_NAMED])
    domains = {domain for domain, _ in rows if domain}
    mailboxes = {mailbox for _, mailbox in rows if mailbox}
    fullest = sorted(usage.mailboxes, key=lambda each: -each.day)[:FULLEST]
    mailboxes |= {each.pk for each in fullest if each.day and each.pk}
    boxes = Mailbox.objects.filter(pk__in=mailboxes, address__tenant=tenant).select_related(
        "address__domain", "address__tenant__plan"
    )
    subjects: list[Subject] = [
        tenant, *Domain.objects.filter(pk__in=domains, tenant=tenant).order_by("name")[:MOST_NAMED],
        *boxes.order_by("pk")[: MOST_NAMED + FULLEST],
    ]
    bars = used(subjects).bars
    # A mailbox of the plan's limit is told of when it comes near it.
    return [each for each in bars if each.kind is not Kind.MAILBOX or each.limit_id or each.look in ("warn", "bad")]


def forecasts(bars: list[Any], now: datetime) -> dict[tuple[Kind, int], Forecast]:
    """Of each bar of 24 hours that has a limit: one query."""
    asked = {(each.kind, each.subject_id): each.allowed for each in bars if each.window is Window.DAY and each.allowed}
    by_kind: dict[Kind, list[int]] = {}
    for kind, pk in asked:
        by_kind.setdefault(kind, []).append(pk)
    found = {}
    rows = Counter.objects.none()
    for kind, pks in by_kind.items():
        rows = rows | Counter.objects.filter(kind=kind, subject__in=pks)
    for row in rows.order_by():
        rings = _read(row.rings)
        key = Kind(row.kind), row.subject
        if rings is not None:
            found[key] = forecast(rings, asked[key], now.timestamp())
    return found


def _rings(tenant: Tenant) -> Iterator[tuple[Kind, int, Rings]]:
    mailboxes = Mailbox.objects.filter(address__tenant=tenant).values("pk")
    asked = Counter.objects.filter(kind=Kind.MAILBOX, subject__in=mailboxes)
    own = Counter.objects.filter(kind=Kind.TENANT, subject=tenant.pk)
    for row in (*own.order_by(), *asked.order_by()):
        rings = _read(row.rings)
        if rings is not None:
            yield Kind(row.kind), row.subject, rings


def _read(raw: Any) -> Rings | None:
    """None: of a format that this version doesn't know."""
    try:
        return Rings.of(raw)
    except UnknownRings:
        return None
