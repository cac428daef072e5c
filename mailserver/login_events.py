"""What authd saw of logins, gathered into LoginEvents and written in batches.

Decides how many rows there are. The first login of its kind (credential or mailbox,
network, protocol, outcome) is written at the next flush. Those that follow are counted
into one row for a minute, then for two, four … up to an hour while they go on, so that a
client which polls costs two or three dozen rows a day, and so does one that guesses.
Failures of one mailbox from more than MOST_SOURCES networks share one row without an
address; login names that are no mailbox here count as one mailbox.
Rows that are old enough are deleted, a few hundred at a time, so that nobody waits behind it.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from mailserver import log
from mailserver.directory import Directory, DirectoryUnavailable, LoginFact
from mailserver.recent import Recent
from panel.rules.lockout import network_of

FIRST_S = 60.0
LONGEST_S = 3600.0
MOST_KINDS = 50_000  # followed at once, about 1 KB each
MOST_SOURCES = 20  # networks in an hour
MOST_WAITING = 100_000  # rows, while the database is gone; 0.3 KB each
BATCH = 1000
FORGOTTEN_AT_ONCE = 500
FORGET_PAUSE_S = 0.2  # between two of these: others write as well

_Kind = tuple[int | None, int | None, str | None, str, str]


async def forget(directory: Directory, days: int) -> int:
    """Delete the rows that are older; how many. Raises DirectoryUnavailable."""
    count = 0
    while gone := await directory.forget_logins(days, FORGOTTEN_AT_ONCE):
        count += gone
        await asyncio.sleep(FORGET_PAUSE_S)
    return count


@dataclass(slots=True)
class _Repeated:
    """The first that came since the last row of this kind (None: nothing), how many, and when a row is due."""

    last_at: datetime
    last_s: float  # monotonic, as the others
    due_s: float
    interval_s: float = FIRST_S
    fact: LoginFact | None = None
    count: int = 0


@dataclass(slots=True)
class _Sources:
    """The networks from which a mailbox's logins failed since then."""

    since_s: float
    networks: set[str]


class LoginEvents:
    """Takes every login, gives rows. Everything but the constructor runs on one event loop."""

    def __init__(self, directory: Directory, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._monotonic_s = monotonic_s
        self._repeated: OrderedDict[_Kind, _Repeated] = OrderedDict()  # the quietest first
        self._sources: Recent[_Sources] = Recent(MOST_KINDS)
        self._waiting: list[LoginFact] = []
        self._dropped = 0

    def add(self, fact: LoginFact) -> None:
        """Take one login (its count is 1)."""
        now_s = self._monotonic_s()
        network: str | None = network_of(fact.ip)
        if fact.outcome != "ok" and not self._is_one_of_few(fact.mailbox_id, network or "", now_s):
            network, fact = None, replace(fact, ip="")
        kind = (fact.mailbox_id, fact.credential_id, network, fact.protocol[:20], fact.outcome)
        repeated = self._repeated.get(kind)
        if repeated is None or now_s - repeated.last_s > LONGEST_S:
            self._write(repeated)
            self._repeated[kind] = _Repeated(fact.last_at, now_s, now_s + FIRST_S)
            self._queue(fact)
        else:
            repeated.fact = repeated.fact or fact
            repeated.count += 1
            repeated.last_at, repeated.last_s = fact.last_at, now_s
        self._repeated.move_to_end(kind)
        if len(self._repeated) > MOST_KINDS:
            self._write(self._repeated.popitem(last=False)[1])

    async def flush(self, everything: bool = False) -> None:
        """Write what is due, or everything. Kept for the next time when the database is gone."""
        now_s = self._monotonic_s()
        for repeated in self._repeated.values():
            if repeated.fact is not None and (everything or repeated.due_s <= now_s):
                self._write(repeated)
                repeated.interval_s = min(2 * repeated.interval_s, LONGEST_S)
                repeated.due_s = now_s + repeated.interval_s
        while self._repeated and now_s - next(iter(self._repeated.values())).last_s > LONGEST_S:
            self._write(self._repeated.popitem(last=False)[1])
        waiting, self._waiting = self._waiting, []
        try:
            while waiting:
                batch, waiting = waiting[:BATCH], waiting[BATCH:]
                try:
                    await self._directory.record_logins(batch)
                except DirectoryUnavailable:
                    waiting = batch + waiting
                    return
        finally:
            # Those that came meanwhile stand behind. Cancelled: a thread writes the batch under way.
            self._waiting = (waiting + self._waiting)[:MOST_WAITING]
        if self._dropped:
            log.warning("logins were not recorded, too many at once", rows=self._dropped)
            self._dropped = 0

    def _is_one_of_few(self, mailbox_id: int | None, network: str, now_s: float) -> bool:
        key = b"" if mailbox_id is None else str(mailbox_id).encode()
        sources = self._sources.get(key)
        if sources is None or now_s - sources.since_s > LONGEST_S:
            sources = _Sources(now_s, set())
            self._sources.put(key, sources)
        if network not in sources.networks and len(sources.networks) < MOST_SOURCES:
            sources.networks.add(network)
        return network in sources.networks

    def _write(self, repeated: _Repeated | None) -> None:
        if repeated is not None and repeated.fact is not None:
            self._queue(replace(repeated.fact, last_at=repeated.last_at, count=repeated.count))
            repeated.fact, repeated.count = None, 0

    def _queue(self, fact: LoginFact) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._dropped += 1  # the first ones of an attack tell more than the last
            return
        self._waiting.append(fact)
