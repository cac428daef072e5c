"""Answers kept in the process, each dropped when something that it depends on changes.

Decides what is kept, and whether an answer may be kept at all: a look-up begun before a
drop must not be stored after it, so each dependency remembers the version of its last
drop. Knows nothing of the database, tasks or time.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from mailserver.directory.found import Dependency, Found

MOST_WEIGHT = 50_000  # about 1 KB each, a long alias more: its weight is that of its deliveries
MOST_DROPS = 100_000


@dataclass(frozen=True, slots=True)
class _Entry:
    found: Found[Any]
    weight: int


class Cache:
    """The answers, the least recently used going first, and the drops.

    `version` rises with each drop: read it before a look-up, and give it to `keep`.
    """

    def __init__(self, most_weight: int = MOST_WEIGHT, most_drops: int = MOST_DROPS) -> None:
        self.version = 0
        self._most_weight = most_weight
        self._most_drops = most_drops
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._weight = 0
        self._keys: dict[Dependency, set[Hashable]] = {}
        # The version of each dependency's last drop; what was forgotten counts as dropped at the floor.
        self._dropped: OrderedDict[Dependency, int] = OrderedDict()
        self._floor = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Found[Any] | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.found

    def is_current(self, version: int, depends: Iterable[Dependency]) -> bool:
        """Whether none of these was dropped after `version`."""
        return version >= self._floor and all(self._dropped.get(name, 0) <= version for name in depends)

    def keep(self, key: Hashable, found: Found[Any], version: int, weight: int = 1) -> bool:
        """Keep an answer looked up from `version` on, unless it may be stale; whether it was kept."""
        if not self.is_current(version, found.depends):
            return False
        self._forget(key)
        self._entries[key] = _Entry(found, weight)
        self._weight += weight
        for name in found.depends:
            self._keys.setdefault(name, set()).add(key)
        while self._weight > self._most_weight:
            self._forget(next(iter(self._entries)))
        return True

    def drop(self, names: Iterable[Dependency] | None) -> None:
        """Drop what depends on these; with None everything."""
        self.version += 1
        if names is None:
            self._entries.clear()
            self._keys.clear()
            self._dropped.clear()
            self._weight = 0
            self._floor = self.version
            return
        for name in names:
            for key in list(self._keys.get(name, ())):
                self._forget(key)
            self._dropped[name] = self.version
            self._dropped.move_to_end(name)
        while len(self._dropped) > self._most_drops:
            _, version = self._dropped.popitem(last=False)
            self._floor = max(self._floor, version)

    def _forget(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._weight -= entry.weight
        for name in entry.found.depends:
            keys = self._keys[name]
            keys.discard(key)
            if not keys:
                del self._keys[name]
