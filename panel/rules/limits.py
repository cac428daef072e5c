"""Sending limits over sliding windows: pure arithmetic over rings.

Decides what one message is charged, whether it fits, and when what is taken is free
again; not who pays (policy.charges) nor in what order counters are locked (the spool).

The promise: while the clock rises, no interval of a window's length ever holds more
than the limit, the limit is reached exactly, and what was charged is free again at
most one bucket after it has left the window. A bucket is a minute of the hour's
window and an hour of the day's.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from struct import Struct


class Kind(IntEnum):
    """What a limit can stand on."""

    CREDENTIAL = 1
    MAILBOX = 2
    DOMAIN = 3
    TENANT = 4


class Window(Enum):
    """How long a charge counts."""

    HOUR = "hour"
    DAY = "day"

    @property
    def words(self) -> str:
        return "1 hour" if self is Window.HOUR else "24 hours"

    @property
    def short(self) -> str:
        return "1 h" if self is Window.HOUR else "24 h"


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that is charged, and what it may reach. A window without an entry is unlimited.

    A subject without limits is charged all the same: its usage is shown.
    """

    kind: Kind
    id: int
    name: str  # "shop@demo.test", "demo.test", "Demo"; of a credential its words: 'app password "web shop"'
    limits: tuple[tuple[Window, int], ...]
    tenant_id: int | None = None  # whose it is: others are not told of its limits

    @property
    def key(self) -> tuple[Kind, int]:
        """What its rings are kept under; the order of keys is the order of locks."""
        return self.kind, self.id

    @property
    def words(self) -> str:
        """For its owner's eyes: "mailbox shop@demo.test"."""
        return self.name if self.kind is Kind.CREDENTIAL else f"{self.kind.name.lower()} {self.name}"


# The packed form: a format byte, the number of the newest minute since 1970 (the head),
# then a ring a bucket width; the bucket with number n stands in slot n % buckets. All little-endian.
_FORMAT = 1
_HEAD = Struct("<BI")
_SLOT = Struct("<I")
_MOST = 2**32 - 1  # a slot holds no more, and stays there
_MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class _Ring:
    offset: int
    buckets: int  # one more than the window has: the oldest counts whole
    minutes: int  # how wide a bucket is
    values: Struct


def _ring(offset: int, buckets: int, minutes: int) -> _Ring:
    return _Ring(offset, buckets, minutes, Struct(f"<{buckets}I"))


_MINUTES = _ring(_HEAD.size, 61, 1)
_HOURS = _ring(_MINUTES.offset + _MINUTES.values.size, 25, 60)
_DAYS = _ring(_HOURS.offset + _HOURS.values.size, 32, 24 * 60)  # for a month's window, when one comes
_EACH = (_MINUTES, _HOURS, _DAYS)
_HOURS_AND_DAYS = Struct(f"<{_HOURS.buckets + _DAYS.buckets}I")  # which stand side by side
_OF = {Window.HOUR: _MINUTES, Window.DAY: _HOURS}
PACKED_BYTES = _DAYS.offset + _DAYS.values.size  # 477

Raw = bytes | bytearray | memoryview  # as the database gives it


class UnknownRings(ValueError):
    """Bytes that no version of this program up to this one has packed."""


class Rings:
    """What one subject was charged, by minute, hour and day.

    It works on the packed bytes: `of` and `pack` copy 477 bytes (1.2 and 0.2 µs), a
    `count` decodes the one ring that it needs (3 µs), a `charge` writes three slots (1 µs);
    `reserve` of a message for mailbox and tenant, two limits each, takes 11 µs.

    A clock behind the head is taken for the head: nothing is freed, and what is charged
    then counts a little longer. A head far in the future (a clock that was once wrong)
    holds its charges until then; the way out is to delete the counter.
    """

    __slots__ = ("_head", "_packed")

    def __init__(self) -> None:
        self._packed = bytearray(PACKED_BYTES)
        self._head = 0

    @classmethod
    def of(cls, raw: Raw | None) -> "Rings":
        """Unpack what `pack` gave; None or nothing at all is a subject that was never charged.

        Raises UnknownRings: to begin anew would let a whole limit through once more.
        """
        rings = cls()
        if raw is not None and len(raw) > 0:
            rings._head = _head(raw)
            rings._packed[:] = raw
        return rings

    def pack(self) -> bytes:
        """The bytes of the Counter row."""
        _HEAD.pack_into(self._packed, 0, _FORMAT, self._head)
        return bytes(self._packed)

    def charge(self, recipients: int, now_s: float) -> None:
        """Add recipients at now (seconds since 1970), whatever the limits are."""
        if recipients < 0:
            raise ValueError("a charge is never taken back")
        self._advance(int(now_s) // _MINUTE_S)
        for ring in _EACH:
            at = ring.offset + _SLOT.size * (self._head // ring.minutes % ring.buckets)
            held = _SLOT.unpack_from(self._packed, at)[0]
            _SLOT.pack_into(self._packed, at, min(held + recipients, _MOST))

    def count(self, window: Window, now_s: float) -> int:
        """The recipients that still count in the window that ends now."""
        return _count(self._packed, self._head, _OF[window], now_s)

    def by_day(self, days: int, now_s: float) -> tuple[int, ...]:
        """What was charged on each of the last days (calendar days in UTC, at most 31), oldest first, today last."""
        return _each(self._packed, self._head, _DAYS, days, now_s)

    def by_hour(self, now_s: float) -> tuple[int, ...]:
        """What was charged in each of the last 24 hours (of the clock, in UTC), oldest first, the present one last."""
        return _each(self._packed, self._head, _HOURS, 24, now_s)

    def allows(self, window: Window, allowed: int, asked: int, now_s: float) -> bool:
        """Whether `asked` more keep the window within `allowed`."""
        return self.count(window, now_s) + asked <= allowed

    def free_at(self, window: Window, allowed: int, asked: int, now_s: float) -> int:
        """The second since 1970 from which `allows` holds, if nothing is charged until then.

        When more is asked than is ever allowed: when the window is empty.
        """
        room_needed = self.count(window, now_s) - max(allowed - asked, 0)
        if room_needed <= 0:
            return int(now_s)
        return next(free_s for free_s, freed in self._frees(window, now_s) if freed >= room_needed)

    def next_free(self, window: Window, now_s: float) -> tuple[int, int] | None:
        """When (seconds since 1970) what is oldest is free again, and how many recipients that is.

        None: nothing counts.
        """
        return next(self._frees(window, now_s), None)

    def _frees(self, window: Window, now_s: float) -> Iterator[tuple[int, int]]:
        """When each bucket that counts leaves the window, oldest first, with all that is free by then."""
        ring = _OF[window]
        width_s = _MINUTE_S * ring.minutes
        values = ring.values.unpack_from(self._packed, ring.offset)
        last = self._head // ring.minutes
        oldest = max(int(now_s) // width_s, last) - ring.buckets + 1
        freed = 0
        for number in range(oldest, last + 1):
            if value := values[number % ring.buckets]:
                freed += value
                yield (number + ring.buckets) * width_s, freed

    def _advance(self, minute: int) -> None:
        """Move the head on to `minute`, forgetting what leaves the rings."""
        if minute <= self._head:
            return
        for ring in _EACH:
            last, number = self._head // ring.minutes, minute // ring.minutes
            if number - last >= ring.buckets:
                self._packed[ring.offset : ring.offset + ring.values.size] = bytes(ring.values.size)
                continue
            for passed in range(last + 1, number + 1):
                _SLOT.pack_into(self._packed, ring.offset + _SLOT.size * (passed % ring.buckets), 0)
        self._head = minute


def summed(raws: Iterable[Raw | None], days: int, now_s: float) -> Iterator[tuple[int, int]]:
    """Of each, the sum of `by_day` and the `count` of a day's window: for thousands at once (2 µs each).

    Without charges in these days both are 0; so they are of bytes that aren't understood.
    """
    today, hour = (int(now_s) // (_MINUTE_S * ring.minutes) for ring in (_DAYS, _HOURS))
    # Where something stands that no longer counts, or not yet: the same for all whose newest day, or hour, is the same.
    not_days: dict[int, list[int]] = {}
    not_hours: dict[int, list[int]] = {}
    for raw in raws:
        if not raw or len(raw) != PACKED_BYTES or raw[0] != _FORMAT:
            yield 0, 0
            continue
        head = _HEAD.unpack_from(raw)[1]
        last, last_hour = head // _DAYS.minutes, head // _HOURS.minutes
        if last not in not_days:
            held = range(last - _DAYS.buckets + 1, last + 1)
            not_days[last] = [
                _HOURS.buckets + each % _DAYS.buckets for each in held if not today - days < each <= today
            ]
        if last_hour not in not_hours:
            gone = range(last_hour - _HOURS.buckets + 1, min(hour - _HOURS.buckets, last_hour) + 1)
            not_hours[last_hour] = [each % _HOURS.buckets for each in gone]
        values = _HOURS_AND_DAYS.unpack_from(raw, _HOURS.offset)
        total = sum(values[_HOURS.buckets :])
        for slot in not_days[last]:
            total -= values[slot]
        if not total:
            yield 0, 0
            continue
        day = sum(values[: _HOURS.buckets])
        for slot in not_hours[last_hour]:
            day -= values[slot]
        yield total, day


def by_day(raw: Raw | None, days: int, now_s: float) -> tuple[int, ...]:
    """`Rings.by_day` of packed bytes that aren't copied; empty for what was never charged. Raises UnknownRings."""
    return _each(raw, _head(raw), _DAYS, days, now_s) if raw else ()


def _head(packed: Raw) -> int:
    if len(packed) != PACKED_BYTES or packed[0] != _FORMAT:
        raise UnknownRings(f"a counter of {len(packed)} bytes and format {packed[0]} is not understood")
    return int(_HEAD.unpack_from(packed)[1])


def _count(packed: Raw, head: int, ring: _Ring, now_s: float) -> int:
    last = head // ring.minutes
    passed = int(now_s) // (_MINUTE_S * ring.minutes) - last
    if passed >= ring.buckets:
        return 0
    values = ring.values.unpack_from(packed, ring.offset)
    if passed <= 0:
        return sum(values)
    return sum(values) - sum(values[n % ring.buckets] for n in range(last + 1, last + passed + 1))


def _each(packed: Raw, head: int, ring: _Ring, many: int, now_s: float) -> tuple[int, ...]:
    """The latest `many` buckets of a ring, oldest first, the present one last."""
    last, present = head // ring.minutes, int(now_s) // (_MINUTE_S * ring.minutes)
    later = min(max(present - last, 0), many)  # of which nothing is known yet
    early = min(max(last - present, 0), ring.buckets)  # to come, of a clock that was ahead
    values = ring.values.unpack_from(packed, ring.offset)
    oldest = (last + 1) % ring.buckets
    known = values[oldest:] + values[:oldest]
    return ((0,) * early + known[: ring.buckets - early] + (0,) * later)[-many:]


@dataclass(frozen=True, slots=True)
class OverLimit:
    """A message doesn't fit: nothing was charged. Of several limits the one that is free last."""

    subject: Subject
    window: Window
    allowed: int
    asked: int
    free_at_s: int  # seconds since 1970; when `never`, when the window is empty
    at_s: int  # when it was decided

    @property
    def never(self) -> bool:
        """More than the limit by itself: no waiting helps."""
        return self.asked > self.allowed


@dataclass(frozen=True, slots=True)
class Charged:
    """What one limit stands at after a message was charged to it."""

    kind: Kind
    id: int
    name: str
    window: Window
    used_after: int
    allowed: int

    def __str__(self) -> str:
        return f"{self.name} {self.used_after}/{self.allowed} in {self.window.short}"


def reserve(
    rings: MutableMapping[tuple[Kind, int], Rings], charges: Sequence[tuple[Subject, int]], now_s: float
) -> OverLimit | tuple[Charged, ...]:
    """Charge one message to all of its subjects, or to none.

    `rings` are those of the batch under lock; a subject without an entry was never charged.
    Gives what each limit stands at then; a subject without limits is charged and not named.
    """
    merged: dict[tuple[Kind, int], tuple[Subject, int]] = {}
    for subject, asked in charges:
        merged[subject.key] = (subject, merged.get(subject.key, (subject, 0))[1] + asked)
    charged: list[Charged] = []
    worst: OverLimit | None = None
    unused = Rings()
    for key, (subject, asked) in merged.items():
        ring = rings.get(key, unused)
        for window, allowed in subject.limits if asked else ():
            after = ring.count(window, now_s) + asked
            if after > allowed:
                free_at_s = ring.free_at(window, allowed, asked, now_s)
                over = OverLimit(subject, window, allowed, asked, free_at_s, int(now_s))
                if worst is None or (over.never, over.free_at_s) > (worst.never, worst.free_at_s):
                    worst = over
            charged.append(Charged(subject.kind, subject.id, subject.name, window, after, allowed))
    if worst is not None:
        return worst
    for key, (_, asked) in merged.items():
        if asked:
            rings.setdefault(key, Rings()).charge(asked, now_s)
    return tuple(charged)


def charge_facts(charged: Iterable[Charged]) -> list[dict[str, str | int]]:
    """The same for a message's log, as JSON takes it."""
    return [
        {
            "kind": each.kind.name.lower(),
            "id": each.id,
            "name": each.name,
            "window": each.window.value,
            "used": each.used_after,
            "allowed": each.allowed,
        }
        for each in charged
    ]


@dataclass(frozen=True, slots=True)
class Usage:
    """What counts in one window, and what of it is free next."""

    window: Window
    used: int
    next_free: int = 0  # recipients
    next_free_at_s: int | None = None  # seconds since 1970; None: nothing counts


def usage(raw: Raw | None, now_s: float) -> tuple[Usage, ...]:
    """What a Counter row says, window by window. Raises UnknownRings."""
    rings = Rings.of(raw)
    used: list[Usage] = []
    for window in Window:
        at_s, recipients = rings.next_free(window, now_s) or (None, 0)
        used.append(Usage(window, rings.count(window, now_s), recipients, at_s))
    return tuple(used)


def effective(
    own: Mapping[Window, int | None], inherited: Mapping[Window, int | None]
) -> tuple[tuple[Window, int], ...]:
    """The limits that hold: a subject's own rows before what it inherits (its plan's numbers).

    In both, None is unlimited. A window that `own` doesn't name is inherited; one that
    neither names is unlimited.
    """
    held = {window: own[window] if window in own else inherited.get(window) for window in Window}
    return tuple((window, allowed) for window, allowed in held.items() if allowed is not None)
