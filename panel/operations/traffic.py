"""How much mail went in and out in the last 24 hours, by hour, and how much of it arrived within a minute.

A day can be 300,000 messages, so they are not counted at each look: five minutes that are over are counted
by the first who asks, and kept. What is left to count are the last minutes, found by their ids, which are
ordered by time. After nobody looked for long, one look counts all that is missing of the day.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import BigIntegerField, Count, F, Func, Max, Q, Value

from panel.database import ids
from panel.operations.models import Traffic
from panel.sending.models import Message, Recipient

SLOT_MS = 5 * 60 * 1000
SLOTS_AN_HOUR = 12
HOURS = 24
PROMPT_MS = 60_000
# What was accepted in the last second of a slot may be delivered a minute later, and its row a moment after that.
SETTLED_AFTER_MS = PROMPT_MS + 30_000
KEPT_SLOTS = 31 * 24 * SLOTS_AN_HOUR


@dataclass(slots=True)
class Hour:
    """One of the last 24, the newest ends now."""

    begins_at: datetime
    inbound: int = 0
    outbound: int = 0


@dataclass(slots=True)
class Day:
    hours: list[Hour] = field(default_factory=list)
    inbound: int = 0
    outbound: int = 0
    recipients: int = 0
    prompt: int = 0
    last_message: int | None = None


class _Milliseconds(Func):
    """A moment as milliseconds since 1970."""

    arity = 1
    output_field = BigIntegerField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "CAST(EXTRACT(EPOCH FROM %(expressions)s) * 1000 AS bigint)"
        return self.as_sql(compiler, connection, template=template, **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "CAST((julianday(%(expressions)s) - 2440587.5) * 86400000 AS integer)"
        return self.as_sql(compiler, connection, template=template, **context)


_COLUMNS = ("slot", "inbound", "outbound", "recipients", "prompt", "last_message")
_MADE_MS = F("id").bitrightshift(ids.BITS_BELOW_MS)  # since the ids' first millisecond
_IS_PROMPT = Q(state=Recipient.State.DELIVERED, took_ms__lte=PROMPT_MS)


def last_day(now: datetime) -> Day:
    """The 24 hours until now. Writes the counts that are missing."""
    newest = _slot_of(now)
    first = newest - HOURS * SLOTS_AN_HOUR + 1
    open_from = _slot_of(now - timedelta(milliseconds=SETTLED_AFTER_MS))
    kept = Traffic.objects.filter(slot__gte=first, slot__lt=open_from)
    # Not as instances: making 288 of them takes longer than to read them.
    slots: dict[int, Any] = {row[0]: row for row in kept.values_list(*_COLUMNS, named=True)}
    missing = [slot for slot in range(first, open_from) if slot not in slots]
    counted = _count(min([*missing, open_from]), now)
    slots |= {slot: row for slot, row in counted.items() if slot not in slots}
    if missing:
        _keep([counted.get(slot) or _nothing(slot) for slot in missing], first)
    return _day(slots, first)


def _slot_of(at: datetime) -> int:
    return (int(at.timestamp() * 1000) - ids.EPOCH_MS) // SLOT_MS


def _count(first: int, now: datetime) -> dict[int, Traffic]:
    """Every slot from this one on in which there was mail; of what waits, what has had its minute."""
    since = ids.first_of_ms(ids.EPOCH_MS + first * SLOT_MS)
    found: dict[int, Traffic] = {}
    messages = Message.objects.filter(pk__gte=since).order_by().annotate(slot=_MADE_MS / SLOT_MS).values_list("slot")
    for slot, inbound, outbound, last in messages.annotate(
        inbound=Count("pk", filter=Q(direction=Message.Direction.INBOUND)),
        outbound=Count("pk", filter=Q(direction=Message.Direction.SUBMISSION)), last=Max("pk"),
    ):
        found[slot] = Traffic(
            slot=slot, inbound=inbound, outbound=outbound, recipients=0, prompt=0, last_message=last
        )
    in_time = Q(state=Recipient.State.WAITING, pk__gte=ids.first_of_ms(int(now.timestamp() * 1000) - PROMPT_MS))
    took_ms = _Milliseconds("settled_at") - Value(ids.EPOCH_MS) - _MADE_MS
    recipients = (
        Recipient.objects.filter(pk__gte=since).exclude(state=Recipient.State.DISCARDED).exclude(in_time).order_by()
        .alias(took_ms=took_ms).annotate(slot=_MADE_MS / SLOT_MS).values_list("slot")
    )
    for slot, count, prompt in recipients.annotate(count=Count("pk"), prompt=Count("pk", filter=_IS_PROMPT)):
        row = found.setdefault(slot, _nothing(slot))
        row.recipients, row.prompt = count, prompt
    return found


def _nothing(slot: int) -> Traffic:
    return Traffic(slot=slot, inbound=0, outbound=0, recipients=0, prompt=0)


@transaction.atomic
def _keep(rows: list[Traffic], first: int) -> None:
    # Somebody else may look at the same moment, and count the same.
    Traffic.objects.bulk_create(rows, ignore_conflicts=True)
    Traffic.objects.filter(slot__lt=first - KEPT_SLOTS).delete()


def _day(slots: dict[int, Any], first: int) -> Day:
    day = Day()
    for at in range(HOURS):
        begins = first + at * SLOTS_AN_HOUR
        day.hours.append(Hour(datetime.fromtimestamp((ids.EPOCH_MS + begins * SLOT_MS) / 1000, UTC)))
    for slot, row in slots.items():
        if not 0 <= slot - first < HOURS * SLOTS_AN_HOUR:
            continue  # a clock that is ahead
        hour = day.hours[(slot - first) // SLOTS_AN_HOUR]
        hour.inbound += row.inbound
        hour.outbound += row.outbound
        day.inbound += row.inbound
        day.outbound += row.outbound
        day.recipients += row.recipients
        day.prompt += row.prompt
    day.last_message = max((row.last_message for row in slots.values() if row.last_message), default=None)
    return day
