"""What sending limits allow and how much of each is taken, as pages show it.

Reads the rows that the mailserver decides by (Counter, SendingLimit, plans) and the same rules
(rules/limits): what is shown is what is enforced. The number of queries doesn't grow with the
subjects. Limits slide: nothing is reset, what is oldest comes free.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.domains.models import Domain
from panel.mailboxes.models import Credential, Mailbox
from panel.rules.limits import Kind, Raw, Rings, UnknownRings, Usage, Window, effective, usage
from panel.sending.models import Counter, SendingLimit
from panel.tenants.gauge import Gauge
from panel.tenants.models import Plan, Tenant
from panel.tenants.shown import moment

Subject = Tenant | Domain | Mailbox | Credential
Key = tuple[Kind, int]

_KINDS: dict[type, Kind] = {
    Credential: Kind.CREDENTIAL, Mailbox: Kind.MAILBOX, Domain: Kind.DOMAIN, Tenant: Kind.TENANT,
}
_THIS: dict[Kind, Any] = {
    Kind.CREDENTIAL: gettext_lazy("This password"), Kind.MAILBOX: gettext_lazy("This mailbox"),
    Kind.DOMAIN: gettext_lazy("This domain"), Kind.TENANT: gettext_lazy("This tenant"),
}
_COLUMNS = {kind: f"{kind.name.lower()}_id" for kind in Kind}


@dataclass(frozen=True, slots=True)
class Bar(Gauge):
    """One level and window: how many recipients are taken of how many, and why that many.

    Nothing is known of what was used where the counter is of a format that this version doesn't know.
    """

    kind: Kind
    subject_id: int
    name: str
    window: Window
    next_free: int  # recipients, at
    next_free_at: datetime | None  # None: nothing is taken
    limit_id: int | None  # of the subject's own SendingLimit
    plan: Plan | None  # whose number holds where there is no own one
    is_first: bool = True  # of the subject that the page is about, not of what stands above it

    @property
    def title(self) -> str:
        """Such as "This mailbox, 1 hour" or "acme.example, 24 hours"."""
        name = str(_THIS[self.kind]) if self.is_first else self.name
        return _("{name}, {window}").format(name=name, window=window_words(self.window))

    @property
    def comes_free(self) -> str:
        """Such as "17 in 3 min", the exact time on hover; empty where nothing is taken or nothing limits."""
        if self.next_free_at is None or not self.allowed:
            return ""
        return format_html(_("{n} {when}"), n=f"{self.next_free:,}", when=moment(self.next_free_at))


@dataclass(frozen=True, slots=True)
class Levels:
    """What is charged when something sends, from the narrowest level up."""

    bars: tuple[Bar, ...]
    # Levels that have no limit, and are then not even counted: credentials and domains.
    unlimited: tuple[str, ...]


def window_words(window: Window) -> str:
    return _("1 hour") if window is Window.HOUR else _("24 hours")


def levels_of(subject: Subject) -> list[Subject]:
    """What is charged when it sends: itself and what stands above it, as the mailserver does.

    Give a mailbox with its address's domain and tenant, a tenant with its plan: else each is a query.
    """
    match subject:
        case Credential():
            return [subject, *levels_of(subject.mailbox)]
        case Mailbox():
            return [subject, subject.address.domain, subject.address.tenant]
        case Domain():
            return [subject, *([subject.tenant] if subject.tenant else [])]
    return [subject]


def used(subjects: Sequence[Subject], now: datetime | None = None) -> Levels:
    """The bars of these, in their order, each with its windows: two queries."""
    now = now or timezone.now()
    keys = [(_KINDS[type(each)], each.pk) for each in subjects]
    own = _own(keys)
    counters = _counters(keys)
    bars: list[Bar] = []
    unlimited: list[str] = []
    for place, (each, key) in enumerate(zip(subjects, keys, strict=True)):
        rows = own.get(key, {})
        plan, inherited = _inherited(each)
        allowed = dict(effective({window: row.recipients for window, row in rows.items()}, inherited))
        if not allowed and key[0] in (Kind.CREDENTIAL, Kind.DOMAIN):
            unlimited.append(_words(each))
            continue
        taken = _taken(counters.get(key), now)
        bars += [
            _bar(key, str(each), taken, window, allowed.get(window), rows.get(window), plan, place == 0)
            for window in Window
            if window in allowed or key[0] in (Kind.MAILBOX, Kind.TENANT)
        ]
    return Levels(tuple(bars), tuple(unlimited))


def with_day(tenants: "QuerySet[Tenant]") -> "QuerySet[Tenant]":
    """The tenants with what `day_of` reads, and no query a row. Select their plans as well."""
    own = SendingLimit.objects.filter(tenant=OuterRef("pk"), window=Window.DAY.value)
    return tenants.annotate(
        day_rings=Subquery(Counter.objects.filter(kind=Kind.TENANT, subject=OuterRef("pk")).values("rings")[:1]),
        day_is_own=Exists(own), day_own=Subquery(own.values("recipients")[:1]),
    )


def day_of(tenant: Any, now: datetime | None = None) -> Bar:
    """What a tenant of `with_day` sent in 24 hours."""
    allowed = tenant.day_own if tenant.day_is_own else tenant.plan.tenant_day
    taken = _taken(tenant.day_rings, now or timezone.now())
    plan = None if tenant.day_is_own else tenant.plan
    return _bar((Kind.TENANT, tenant.pk), str(tenant), taken, Window.DAY, allowed, None, plan)


def hours_of(tenant: Any, now: datetime) -> tuple[int, ...]:
    """What a tenant of `with_day` sent in each of the last 24 hours, the present one last. Empty: it isn't known."""
    try:
        return Rings.of(tenant.day_rings).by_hour(now.timestamp())
    except UnknownRings:
        return ()


def _own(keys: Iterable[Key]) -> dict[Key, dict[Window, SendingLimit]]:
    found: dict[Key, dict[Window, SendingLimit]] = {}
    named = [Q(**{f"{_COLUMNS[kind]}__in": pks}) for kind, pks in _by_kind(keys).items()]
    if not named:
        return found
    rows = SendingLimit.objects.filter(_any(named)).order_by()
    for row in rows:
        key = next((kind, getattr(row, column)) for kind, column in _COLUMNS.items() if getattr(row, column))
        found.setdefault(key, {})[Window(row.window)] = row
    return found


def _counters(keys: Iterable[Key]) -> dict[Key, Raw]:
    named = [Q(kind=kind, subject__in=pks) for kind, pks in _by_kind(keys).items()]
    if not named:
        return {}
    rows = Counter.objects.filter(_any(named)).order_by()
    return {(Kind(row.kind), row.subject): row.rings for row in rows}


def _by_kind(keys: Iterable[Key]) -> dict[Kind, list[int]]:
    found: dict[Kind, list[int]] = {}
    for kind, pk in keys:
        found.setdefault(kind, []).append(pk)
    return found


def _any(conditions: Sequence[Q]) -> Q:
    found = conditions[0]
    for each in conditions[1:]:
        found |= each
    return found


def _inherited(subject: Subject) -> tuple[Plan | None, Mapping[Window, int | None]]:
    """The plan that holds without an own limit, and its numbers."""
    match subject:
        case Tenant():
            plan = subject.plan
            return plan, {Window.HOUR: plan.tenant_hour, Window.DAY: plan.tenant_day}
        case Mailbox():
            plan = subject.address.tenant.plan
            return plan, {Window.HOUR: plan.mailbox_hour, Window.DAY: plan.mailbox_day}
    return None, {}


def _taken(rings: Any, now: datetime) -> dict[Window, Usage]:
    """By window; nothing where the counter is of a format that this version doesn't know."""
    try:
        return {each.window: each for each in usage(rings, now.timestamp())}
    except UnknownRings:
        return {}


def _bar(
    key: Key, name: str, taken: Mapping[Window, Usage], window: Window, allowed: int | None,
    limit: SendingLimit | None, plan: Plan | None, is_first: bool = True,
) -> Bar:
    one = taken.get(window)
    free_at = datetime.fromtimestamp(one.next_free_at_s, UTC) if one and one.next_free_at_s is not None else None
    return Bar(
        one.used if one else None, allowed, *key, name, window, one.next_free if one else 0, free_at,
        limit.pk if limit else None, None if limit else plan, is_first,
    )


def _words(subject: Subject) -> str:
    if isinstance(subject, Domain):
        return _("the domain {name}").format(name=subject)
    return _("the {name}").format(name=subject.words if isinstance(subject, Credential) else subject)
