"""Ids that a program makes before its transaction, and their text form.

63 bits: 41 of milliseconds since 2026-01-01 UTC (until 2095), 6 of node, 6 of
worker, 10 of sequence. Ids of one worker rise strictly, even when the clock goes
back. As text: 13 characters of Crockford's base 32; a Message's is its queue id.
"""

import threading
import time
from collections.abc import Callable

EPOCH_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
NODES = WORKERS = 64
_SEQUENCE_BITS, _WORKER_BITS, _NODE_BITS = 10, 6, 6
BITS_BELOW_MS = _NODE_BITS + _WORKER_BITS + _SEQUENCE_BITS
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 13
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
# What people mistype when they read an id aloud (Crockford).
_VALUES |= {character.lower(): value for character, value in _VALUES.items()}
_VALUES |= dict.fromkeys("oO", 0) | dict.fromkeys("iIlL", 1)


class IdMaker:
    """Makes ids for one worker of one node; safe to call from its threads."""

    def __init__(self, node: int, worker: int, clock_s: Callable[[], float] = time.time) -> None:
        if not 0 <= node < NODES or not 0 <= worker < WORKERS:
            raise ValueError(f"node {node} and worker {worker} must be from 0 to 63")
        self._tail = (node << _WORKER_BITS | worker) << _SEQUENCE_BITS
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._millisecond = 0
        self._sequence = 0

    def next(self) -> int:
        with self._lock:
            now = int(self._clock_s() * 1000) - EPOCH_MS
            if now > self._millisecond:
                self._millisecond, self._sequence = now, 0
            elif self._sequence + 1 < 1 << _SEQUENCE_BITS:
                self._sequence += 1
            else:
                # A thousand in a millisecond, or a clock that went back: go on ahead of it.
                self._millisecond, self._sequence = self._millisecond + 1, 0
            return self._millisecond << (_NODE_BITS + _WORKER_BITS + _SEQUENCE_BITS) | self._tail | self._sequence


def to_text(number: int) -> str:
    """The id as 13 characters."""
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))


def from_text(text: str) -> int:
    """The id behind its text. Raises ValueError when it is none."""
    if len(text) != _LENGTH:
        raise ValueError(f"{text!r} is not an id: it has 13 characters")
    number = 0
    for character in text:
        if character not in _VALUES:
            raise ValueError(f"{text!r} is not an id: it holds {character!r}")
        number = number << 5 | _VALUES[character]
    if number >= 1 << 63:
        raise ValueError(f"{text!r} is not an id: it is too large")
    return number


def first_of_ms(at_ms: int) -> int:
    """The smallest id that is made at this time (milliseconds since 1970): all newer ones are larger."""
    return max(0, at_ms - EPOCH_MS) << (_NODE_BITS + _WORKER_BITS + _SEQUENCE_BITS)


def worker_of(number: int) -> int:
    """Which of its node's workers made the id."""
    return number >> _SEQUENCE_BITS & WORKERS - 1


def made_at_ms(number: int) -> int:
    """When the id was made, in milliseconds since 1970."""
    return (number >> (_NODE_BITS + _WORKER_BITS + _SEQUENCE_BITS)) + EPOCH_MS
