"""The queue as the first page tells it: what waits for each next hop, and which of them put it off."""

from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import Count, Max, Min, Q
from django.urls import reverse
from django.utils.http import urlencode

from panel.database import ids
from panel.sending.models import Hold, Recipient
from panel.tenants.models import User


@dataclass(frozen=True, slots=True)
class Hop:
    """A next hop; `deferred` counts those of its recipients that were tried and wait without being held."""

    name: str
    waiting: int
    oldest: int
    deferred: int
    first_deferred: int | None
    last_deferred: int | None
    poison: int
    undeliverable: int

    @property
    def oldest_at(self) -> datetime:
        return _made_at(self.oldest)

    @property
    def deferred_since(self) -> datetime | None:
        return _made_at(self.first_deferred) if self.first_deferred else None

    @property
    def url(self) -> str:
        query = urlencode({"state__exact": Recipient.State.WAITING, "q": self.name})
        return f"{reverse('admin:sending_recipient_changelist')}?{query}"


def waiting(user: User) -> list[Hop]:
    """All next hops for which something waits, the fullest first. One question."""
    put_off = Q(tries__gt=0, holds=0)
    rows = (
        Recipient.objects.for_user(user).filter(state=Recipient.State.WAITING).order_by().values_list("next_hop")
        .annotate(
            waiting=Count("pk"), oldest=Min("pk"), deferred=Count("pk", filter=put_off),
            first_deferred=Min("pk", filter=put_off), last_deferred=Max("pk", filter=put_off),
            poison=Count("pk", filter=Q(holds__in=_with(Hold.POISON))),
            undeliverable=Count("pk", filter=Q(holds__in=_with(Hold.UNDELIVERABLE))),
        )
    )
    return sorted((Hop(*row) for row in rows), key=lambda hop: (-hop.waiting, hop.name))


def _made_at(number: int) -> datetime:
    return datetime.fromtimestamp(ids.made_at_ms(number) / 1000, UTC)


def _with(hold: Hold) -> list[int]:
    """Every combination of holds in which this one is."""
    return [bits for bits in range(1, 1 << len(Hold)) if bits & hold]
