"""What a tenant sent in the last 30 days, in all, by domain and by mailbox: from the counters that enforce its limits.

A few queries, however many mailboxes there are; a page looks at no more than MOST_COUNTED of them. A domain's
is the sum of its mailboxes': a domain without a limit is not counted by itself.
"""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from heapq import nlargest, nsmallest
from operator import itemgetter
from typing import Any

from django.db.models import OuterRef, Subquery

from panel.domains.models import Domain
from panel.mailboxes.models import BY_ADDRESS, Mailbox
from panel.rules.forecast import Forecast, forecast
from panel.rules.limits import Kind, Rings, UnknownRings, Window, seen
from panel.sending.models import Counter, SendingLimit
from panel.sending.used import Subject, used
from panel.tenants.models import Tenant

DAYS = 30
MOST_NAMED = 20  # domains and mailboxes with limits of their own, among the bars
FULLEST = 5  # mailboxes
MOST_COUNTED = 10_000  # mailboxes that a page looks at, at some 10 µs each


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
    fullest: list[Sent] = field(default_factory=list)  # mailboxes that sent most in the last 24 hours
    others: int = 0  # by aliases that lead outside, and by mailboxes that are gone
    is_cut: bool = False  # only MOST_COUNTED mailboxes were looked at, which `domains` and `mailboxes` are of

    @property
    def days(self) -> list[date]:
        return [self.first_day + timedelta(days=each) for each in range(DAYS)]


def usage_of(tenant: Tenant, now: datetime, *, most: int | None = None) -> Usage:
    """Three queries. With `most` so many mailboxes are named, of MOST_COUNTED; else all of them."""
    today = now.astimezone(UTC).date()
    own = _counter(Kind.TENANT, tenant.pk).first()
    by_day, day = _seen(own, now)
    found = Usage(today - timedelta(days=DAYS - 1), Sent("tenant", str(tenant), tenant.pk, by_day or (0,) * DAYS, day))
    rings = Subquery(_counter(Kind.MAILBOX, OuterRef("pk"))[:1])
    boxes = Mailbox.objects.filter(tenant=tenant).order_by(*BY_ADDRESS)
    told: Any = boxes.values_list("pk", "local_part", "domain_name", rings)
    counted: list[tuple[int, str, str, int, tuple[int, ...], int]] = []
    of_domains: dict[str, list[tuple[int, ...]]] = {}
    for number, (pk, local_part, domain, raw) in enumerate(told[: None if most is None else MOST_COUNTED + 1]):
        if most is not None and number == MOST_COUNTED:
            found.is_cut = True
            break
        by_day, day = _seen(raw, now)
        if by_day:
            counted.append((sum(by_day), local_part, domain, pk, by_day, day))
            of_domains.setdefault(domain, []).append(by_day)
    largest = nsmallest(len(counted) if most is None else most, counted, key=lambda one: (-one[0], one[1], one[2]))
    found.mailboxes = [_sent(one) for one in largest]
    found.fullest = [_sent(one) for one in nlargest(FULLEST, counted, key=itemgetter(5)) if one[5]]
    keys = dict(Domain.objects.filter(name__in=list(of_domains)).order_by().values_list("name", "pk"))
    sums = {name: tuple(map(sum, zip(*days, strict=True))) for name, days in of_domains.items()}
    found.domains = [Sent("domain", name, keys.get(name), days) for name, days in sums.items()]
    found.domains.sort(key=lambda one: (-one.total, one.name))
    if not found.is_cut:
        found.others = max(0, found.tenant.total - sum(one[0] for one in counted))
    return found


def _sent(one: tuple[int, str, str, int, tuple[int, ...], int]) -> Sent:
    _total, local_part, domain, pk, by_day, day = one
    return Sent("mailbox", f"{local_part}@{domain}", pk, by_day, day)


def limited(tenant: Tenant, usage: Usage) -> list[Any]:
    """The bars of the tenant, of what has limits of its own, and of the mailboxes that sent most: six queries."""
    own = SendingLimit.objects.filter(owner=tenant, tenant=None, credential=None).order_by("pk")
    rows = list(own.values_list("domain", "mailbox")[: 2 * MOST_NAMED])
    domains = {domain for domain, _ in rows if domain}
    mailboxes = {mailbox for _, mailbox in rows if mailbox}
    mailboxes |= {each.pk for each in usage.fullest if each.pk}
    boxes = Mailbox.objects.filter(pk__in=mailboxes, tenant=tenant).select_related(
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


def _counter(kind: Kind, subject: Any) -> Any:
    return Counter.objects.filter(kind=kind, subject=subject).order_by().values_list("rings", flat=True)


def _seen(raw: Any, now: datetime) -> tuple[tuple[int, ...], int]:
    """Day by day, and in the last 24 hours; nothing where the counter is of a format that isn't known here."""
    try:
        return seen(raw, DAYS, now.timestamp())
    except UnknownRings:
        return (), 0


def _read(raw: Any) -> Rings | None:
    """None: of a format that this version doesn't know."""
    try:
        return Rings.of(raw)
    except UnknownRings:
        return None
