"""What a tenant sent in the last 30 days, in all, by domain and by mailbox: from the counters that enforce its limits.

A few queries, however many mailboxes there are; a page looks at no more than MOST_COUNTED of them. A domain's
is the sum of its mailboxes': a domain without a limit is not counted by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from heapq import nlargest, nsmallest
from operator import itemgetter
from typing import Any

from django.db.models import OuterRef, Subquery

from panel.domains.models import Domain
from panel.mailboxes.models import BY_ADDRESS, Mailbox
from panel.rules.forecast import Forecast, forecast
from panel.rules.limits import Kind, Rings, UnknownRings, Window, by_day, summed
from panel.sending.models import Counter, SendingLimit
from panel.sending.used import Subject, used
from panel.tenants.models import Tenant

DAYS = 30
MOST_NAMED = 20  # domains and mailboxes with limits of their own, among the bars
FULLEST = 5  # mailboxes
MOST_COUNTED = 10_000  # mailboxes that a page looks at, at some 10 µs each


@dataclass(frozen=True, slots=True)
class Sent:
    """What a mailbox or a domain sent in these days."""

    name: str
    pk: int | None
    total: int
    day: int = 0  # in the last 24 hours


@dataclass(slots=True)
class Usage:
    """`mailboxes` and `domains` with the largest first; those that sent nothing are left out."""

    days: list[date]
    by_day: tuple[int, ...]  # the tenant's, oldest first, today last
    domains: list[Sent] = field(default_factory=list)
    mailboxes: list[Sent] = field(default_factory=list)
    fullest: list[Sent] = field(default_factory=list)  # mailboxes that sent most in the last 24 hours
    others: int = 0  # by aliases that lead outside, and by mailboxes that are gone
    is_cut: bool = False  # only MOST_COUNTED mailboxes were looked at, which `domains` and `mailboxes` are of

    @property
    def total(self) -> int:
        return sum(self.by_day)


@dataclass(frozen=True, slots=True)
class OnDays:
    """What one sent on each day on which it sent anything, oldest first."""

    kind: str  # tenant, domain or mailbox
    name: str
    sent: list[tuple[date, int]]


def usage_of(tenant: Any, now: datetime, most: int) -> Usage:
    """Of a tenant of `used.with_day`; two queries. So many mailboxes are named, of MOST_COUNTED."""
    found = Usage(_days(now), _by_day(tenant.day_rings, now) or (0,) * DAYS)
    counted: list[tuple[int, str, str, int, int]] = []  # with what it sent below zero: so the largest is the first
    of_domains: dict[str, int] = {}
    told = list(_mailboxes(tenant)[: MOST_COUNTED + 1])
    found.is_cut = len(told) > MOST_COUNTED
    told = told[:MOST_COUNTED]
    sums = summed((rings for *_of, rings in told), DAYS, now.timestamp())
    for (pk, local_part, domain, _rings), (total, day) in zip(told, sums, strict=True):
        if total:
            counted.append((-total, local_part, domain, pk, day))
            of_domains[domain] = of_domains.get(domain, 0) + total
    found.mailboxes = [_sent(one) for one in nsmallest(most, counted)]
    found.fullest = [_sent(one) for one in nlargest(FULLEST, counted, key=itemgetter(4)) if one[4]]
    keys = dict(Domain.objects.filter(name__in=list(of_domains)).order_by().values_list("name", "pk"))
    found.domains = [Sent(name, keys.get(name), total) for name, total in of_domains.items()]
    found.domains.sort(key=lambda one: (-one.total, one.name))
    if not found.is_cut:
        found.others = max(0, found.total - sum(of_domains.values()))
    return found


def days_of(tenant: Any, now: datetime) -> Iterator[OnDays]:
    """A tenant of `used.with_day`, its domains and all of its mailboxes, the largest of each first: one query."""
    days = _days(now)
    yield OnDays("tenant", str(tenant), _on(days, _by_day(tenant.day_rings, now)))
    boxes: list[tuple[int, str, str, list[tuple[date, int]]]] = []
    of_domains: dict[str, dict[date, int]] = {}
    for _pk, local_part, domain, rings in _mailboxes(tenant):
        sent = _on(days, _by_day(rings, now))
        if not sent:
            continue
        in_all, of_domain = 0, of_domains.setdefault(domain, {})
        for day, recipients in sent:
            in_all += recipients
            of_domain[day] = of_domain.get(day, 0) + recipients
        boxes.append((-in_all, local_part, domain, sent))
    for name, of_domain in sorted(of_domains.items(), key=lambda each: (-sum(each[1].values()), each[0])):
        yield OnDays("domain", name, sorted(of_domain.items()))
    for _minus, local_part, domain, sent in sorted(boxes):
        yield OnDays("mailbox", f"{local_part}@{domain}", sent)


def _days(now: datetime) -> list[date]:
    today = now.astimezone(UTC).date()
    return [today - timedelta(days=ago) for ago in range(DAYS - 1, -1, -1)]


def _mailboxes(tenant: Tenant) -> Any:
    """Key, local part, domain and rings of each, in the order of the addresses."""
    counters = Counter.objects.filter(kind=Kind.MAILBOX, subject=OuterRef("pk")).order_by()
    boxes = Mailbox.objects.filter(tenant=tenant).order_by(*BY_ADDRESS)
    return boxes.values_list("pk", "local_part", "domain_name", Subquery(counters.values("rings")))


def _on(days: list[date], recipients: tuple[int, ...]) -> list[tuple[date, int]]:
    return [each for each in zip(days, recipients, strict=False) if each[1]]


def _sent(one: tuple[int, str, str, int, int]) -> Sent:
    minus, local_part, domain, pk, day = one
    return Sent(f"{local_part}@{domain}", pk, -minus, day)


def limited(tenant: Tenant, usage: Usage) -> list[Any]:
    """The bars of the tenant, of what has limits of its own, and of the mailboxes that sent most: six queries."""
    own = SendingLimit.objects.filter(owner=tenant, tenant=None, credential=None).order_by("pk")
    rows = list(own.values_list("domain", "mailbox")[: 2 * MOST_NAMED])
    domains = {domain for domain, _ in rows if domain}
    mailboxes = {mailbox for _, mailbox in rows if mailbox}
    mailboxes |= {each.pk for each in usage.fullest if each.pk}
    boxes = Mailbox.objects.filter(pk__in=mailboxes, tenant=tenant).select_related("address__domain").order_by("pk")
    found = list(boxes[: MOST_NAMED + FULLEST])
    for mailbox in found:
        mailbox.address.tenant = tenant  # with its plan, at hand
    subjects: list[Subject] = [
        tenant, *Domain.objects.filter(pk__in=domains, tenant=tenant).order_by("name")[:MOST_NAMED], *found,
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


def _by_day(rings: Any, now: datetime) -> tuple[int, ...]:
    """Empty: never anything, or the counter is of a format that isn't known here."""
    try:
        return by_day(rings, DAYS, now.timestamp())
    except UnknownRings:
        return ()


def _read(raw: Any) -> Rings | None:
    """None: of a format that this version doesn't know."""
    try:
        return Rings.of(raw)
    except UnknownRings:
        return None
