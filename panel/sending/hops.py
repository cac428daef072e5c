"""The queue by next hop: how much waits for each, since when, what it last said, when it is tried next.

Counted from the index recipient_hop alone, whatever the size of the table; what a hop last
said is read for the hops of one page, in two queries.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db.models import Count, Max, Min, Q, QuerySet

from panel.database import ids
from panel.sending.models import Attempt, Hold, Recipient


@dataclass(slots=True)
class Hop:
    """What waits for one next hop. Of those that are held `by_hold` says how many by which hold."""

    name: str
    waiting: int
    oldest: int  # the smallest id
    due_at: datetime | None  # the next try of what is not held
    tried: int | None  # the newest recipient that was tried
    deferred: int = 0  # of what goes, what was tried and put off
    first_deferred: int | None = None  # the smallest id of these
    held: int = 0
    by_hold: dict[Hold, int] = field(default_factory=dict)

    @property
    def oldest_at(self) -> datetime:
        return made_at(self.oldest)

    @property
    def deferred_since(self) -> datetime | None:
        return made_at(self.first_deferred) if self.first_deferred else None


@dataclass(frozen=True, slots=True)
class Said:
    """The last reply that a next hop gave, and when."""

    reply: str
    at: datetime | None


def waiting_hops(rows: QuerySet[Recipient], *, deferred: bool = True) -> list[Hop]:
    """The next hops of what waits among the rows, the fullest first; without `deferred` what was put off isn't counted.

    Two queries. What is held, which is little as a rule, apart from what goes: so few columns are summed of all the
    rest.
    """
    waits = rows.filter(state=Recipient.State.WAITING).order_by()
    put_off = Q(tries__gt=0)
    more = {"deferred": Count("pk", filter=put_off), "first_deferred": Min("pk", filter=put_off)} if deferred else {}
    going = waits.filter(holds=0).values_list("next_hop").annotate(
        Count("pk"), Min("pk"), Min("due_at"), tried=Max("pk", filter=put_off), **more
    )
    hops = {name: Hop(name, *sums) for name, *sums in going}
    held = waits.filter(holds__gt=0).values_list("next_hop", "holds").annotate(
        Count("pk"), Min("pk"), tried=Max("pk", filter=put_off)
    )
    for name, holds, count, oldest, tried in held:
        hop = hops.setdefault(name, Hop(name, 0, oldest, None, None))
        hop.waiting += count
        hop.held += count
        hop.oldest = min(hop.oldest, oldest)
        hop.tried = max(filter(None, (hop.tried, tried)), default=None)
        for hold in Hold:
            if holds & hold:
                hop.by_hold[hold] = hop.by_hold.get(hold, 0) + count
    return sorted(hops.values(), key=lambda hop: (-hop.waiting, hop.name))


def last_said(hops: Sequence[Hop]) -> dict[str, Said]:
    """What each of these hops last said, as its newest tried recipient was told; without one, nothing."""
    tried = {hop.tried: hop.name for hop in hops if hop.tried is not None}
    replies = Recipient.objects.filter(pk__in=tried).values_list("pk", "last_reply")
    newest = dict(
        Attempt.objects.filter(recipient__in=tried).order_by().values_list("recipient").annotate(Max("pk"))
    )
    return {
        tried[pk]: Said(reply, made_at(newest[pk]) if pk in newest else None) for pk, reply in replies if reply
    }


def oldest_of(hops: Iterable[Hop]) -> datetime | None:
    return min((hop.oldest_at for hop in hops), default=None)


def made_at(number: int) -> datetime:
    """When a row with such an id was made."""
    return datetime.fromtimestamp(ids.made_at_ms(number) / 1000, UTC)
