"""Which tenants are near a limit, or near what their plan allows.

A bounded number of tenants is looked at, in the order in which they were made, and what was found is kept for
half a minute. What each holds is counted for all of them at once and kept for some minutes: 100,000 addresses
are not counted at each look.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.cache import cache
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from panel.domains.models import Domain
from panel.mailboxes.models import Address
from panel.operations.needs import Need, page
from panel.rules import limits
from panel.rules.status import Status
from panel.sending.models import Counter, SendingLimit
from panel.tenants.models import Tenant, User
from panel.tenants.shown import size

MOST_TENANTS = 2000
NAMED = 6
NEAR = 0.8  # of a limit
NEARLY_FULL = 0.9  # of a plan's number
KEPT_S, HELD = 300, "room-held"
FRESH_S, ROOM = 30, "room"
UNLIMITED = -1  # in the question; no row of its own is None
_HAS: dict[str, Any] = {
    "domains": gettext_lazy("has {has:,} of the {allowed:,} domains of its plan"),
    "mailboxes": gettext_lazy("has {has:,} of the {allowed:,} mailboxes of its plan"),
    "aliases": gettext_lazy("has {has:,} of the {allowed:,} aliases of its plan"),
}


@dataclass(frozen=True, slots=True)
class Near:
    """A tenant that used much of a window."""

    pk: int
    tenant: str
    window: limits.Window
    used: int
    allowed: int

    @property
    def url(self) -> str:
        return page("tenants_tenant", self.pk)

    @property
    def percent(self) -> int:
        return self.used * 100 // self.allowed if self.allowed else 100


@dataclass(frozen=True, slots=True)
class _Tenant:
    pk: int
    name: str
    tenant_hour: int | None
    tenant_day: int | None
    domains: int | None
    mailboxes: int | None
    aliases: int | None
    storage_bytes: int | None
    rings: bytes | None
    own_hour: int | None
    own_day: int | None
    has_domains: int


@dataclass(slots=True)
class Room:
    """`bounded`: there are more tenants than were looked at."""

    near: list[Near]
    full: list[Need]
    tenants: int
    bounded: bool


def room(user: User, now: datetime) -> Room:
    """Kept for half a minute for who sees everything; else two questions, one of them only every few minutes."""
    if not user.has_provider_role:
        return _look(user, now)
    kept = cache.get(room_key := f"{ROOM}-{get_language()}")
    if kept is None or not 0 <= now.timestamp() - kept[0] <= FRESH_S:
        kept = (now.timestamp(), _look(user, now))
        if kept[1].tenants:  # whoever makes the first one sees the next step at once
            cache.set(room_key, kept, FRESH_S)
    found: Room = kept[1]
    return found


def _look(user: User, now: datetime) -> Room:
    rows = [_Tenant(*row) for row in _tenants(user)]
    shown = rows[:MOST_TENANTS]
    near = [each for row in shown for each in _near(row, now.timestamp())]
    near.sort(key=lambda each: (-each.percent, each.tenant))
    held = _held()
    full = [need for row in shown for need in _full(row, held.get(row.pk, {}))]
    return Room(near, full, len(shown), len(rows) > MOST_TENANTS)


def _tenants(user: User) -> QuerySet[Any, Any]:
    own = {
        window.value: Subquery(
            SendingLimit.objects.filter(tenant=OuterRef("pk"), window=window.value)
            .values_list(Coalesce("recipients", Value(UNLIMITED), output_field=IntegerField()))[:1]
        )
        for window in limits.Window
    }
    counter = Counter.objects.filter(kind=limits.Kind.TENANT, subject=OuterRef("pk")).values("rings")[:1]
    domains = (
        Domain.objects.filter(tenant=OuterRef("pk")).order_by().values("tenant").annotate(n=Count("pk")).values("n")
    )
    return (
        Tenant.objects.for_user(user).exclude(status=Status.CLOSED).order_by("pk")
        .annotate(
            rings=Subquery(counter), own_hour=own["hour"], own_day=own["day"],
            has_domains=Coalesce(Subquery(domains), Value(0)),
        )
        .values_list(
            "pk", "name", "plan__tenant_hour", "plan__tenant_day", "plan__domains", "plan__mailboxes", "plan__aliases",
            "plan__storage_bytes", "rings", "own_hour", "own_day", "has_domains",
        )[: MOST_TENANTS + 1]
    )


def _near(row: _Tenant, now_s: float) -> Iterable[Near]:
    if not row.rings:
        return
    own = {
        window: None if number == UNLIMITED else number
        for window, number in ((limits.Window.HOUR, row.own_hour), (limits.Window.DAY, row.own_day))
        if number is not None
    }
    plan = {limits.Window.HOUR: row.tenant_hour, limits.Window.DAY: row.tenant_day}
    try:
        rings = limits.Rings.of(row.rings)
    except limits.UnknownRings:
        return  # of another version of this program
    for window, allowed in limits.effective(own, plan):
        used = rings.count(window, now_s)
        if used and used >= NEAR * allowed:
            yield Near(row.pk, row.name, window, used, allowed)


def _held() -> dict[int, dict[str, int]]:
    """What each tenant's addresses are, at most some minutes old."""
    kept = cache.get(HELD)
    if kept is None or not 0 <= time.time() - kept[0] <= KEPT_S:
        rows = Address.objects.order_by().values_list("tenant").annotate(
            mailboxes=Count("mailbox"), aliases=Count("alias"), storage_bytes=Sum("mailbox__quota_bytes")
        )
        kept = (time.time(), {
            tenant: {"mailboxes": mailboxes, "aliases": aliases, "storage_bytes": storage_bytes or 0}
            for tenant, mailboxes, aliases, storage_bytes in rows
        })
        cache.set(HELD, kept, KEPT_S)
    return kept[1]


def _full(row: _Tenant, held: dict[str, int]) -> Iterable[Need]:
    for what, has in (("domains", row.has_domains), *held.items()):
        allowed = getattr(row, what)
        if allowed is None or has < NEARLY_FULL * allowed or not has:
            continue
        if what == "storage_bytes":
            told = _("gave its mailboxes {has} of the {allowed} of its plan").format(
                has=size(has), allowed=size(allowed)
            )
        else:
            told = str(_HAS[what]).format(has=has, allowed=allowed)
        yield Need("warn", _("full") if has >= allowed else _("nearly full"), row.name, told,
                   page("tenants_tenant", row.pk), mono=False)
