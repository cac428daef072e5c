"""Turns at what is costly: so many at once in a process, so few of one person that nobody stops the others."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """`at_once` have their turn and `waiting` wait for one; of one person one each."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._at_once, self._waiting = at_once, waiting
        self._changed = threading.Condition()
        self._working: set[int] = set()
        self._waits: Counter[int] = Counter()

    @contextmanager
    def turn(self, person: int, timeout_s: float) -> Iterator[bool]:
        """Whether it is this person's turn, after at most `timeout_s`; at once where others wait already."""
        has_turn = self._take(person, timeout_s)
        try:
            yield has_turn
        finally:
            if has_turn:
                with self._changed:
                    self._working.remove(person)
                    self._changed.notify_all()

    def _is_free(self, person: int) -> bool:
        return person not in self._working and len(self._working) < self._at_once

    def _take(self, person: int, timeout_s: float) -> bool:
        with self._changed:
            if not self._is_free(person):
                if self._waits[person] or self._waits.total() >= self._waiting:
                    return False
                self._waits[person] += 1
                try:
                    if not self._changed.wait_for(lambda: self._is_free(person), timeout_s):
                        return False
                finally:
                    del self._waits[person]
            self._working.add(person)
            return True
