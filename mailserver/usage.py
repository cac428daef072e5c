"""What mailboxes hold: known in authd for the whole node, asked by its workers at RCPT and at the end of DATA.

Decides how fresh that knowledge is, and who may put how much where without asking again.
Whether a message fits is decided in panel/rules/quota; the rows are the directory's. Three
sources: our own deliveries, added when they are taken; Dovecot, which tells a mailbox's
whole use whenever it changes there (quota_clone); and the slow count of the files
(counting.py), which mends what the two missed.

Nothing is written a message: what changed is gathered for a second and written in one
transaction. What other nodes wrote is seen within a second where room is short, and some
seconds else. Who can't be asked says nothing against a message: a quota is no reason to
hold up mail, and the count finds what came meanwhile.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mailserver import log
from mailserver.directory import Crossing, Directory, DirectoryUnavailable, Recorded, UsageChange, UsageFact
from mailserver.lines import Asker
from panel.rules import quota
from panel.rules.quota import Fit, Wanted

FLUSH_S = 1.0
SHORT_S, AMPLE_S = 1.0, 15.0  # how long a row that was read serves: with less than a quarter free, with more
MOST_KNOWN = 100_000  # mailboxes, about 0.5 KB each
GONE_S = 2.0  # a database that is gone isn't asked again
BATCH = 500
MOST_OWED = 1000  # warnings that wait for the database
# A worker may fill half of its share of the free room by itself. That much is kept from the others meanwhile, so
# that all of them together never overfill it; where room is short nothing is given away and all are asked for.
GRANT_S = 1.0
KEPT_S = 30.0  # that room is kept free for what goes to Dovecot
MOST_GRANTS = 20_000
TELL_S = 0.1
LENT_S = GRANT_S + 3 * TELL_S  # after which a worker has told what it used of a grant
MOST_TOLD = 100  # mailboxes in a line
MOST_ASKED = 100
MOST_FULL, FULL_S = 200, 600.0
MOST_UNDER_WAY = 200  # questions; logins have authd's own bound, which these must not use up
MOST_UNTOLD = 50_000  # mailboxes, while authd is away
DEADLINE_S = 2.0
SILENT_S = 60.0  # between two warnings of the same thing


@dataclass(slots=True)
class _Grant:
    left: int
    until_s: float


@dataclass(slots=True)
class _Known:
    """One mailbox: what its row said, and what came since; `whole` in place of the row if all was told."""

    saved: UsageFact | None = None
    saved_s: float = 0.0
    whole: UsageFact | None = None
    is_counted: bool = False
    used_bytes: int = 0
    messages: int = 0
    tellings: int = 0  # of `whole`: what was on its way when another came isn't subtracted from it
    changes: int = 0
    # On its way to Dovecot, which will tell: never written, and forgotten when nothing is told.
    kept_free: int = 0
    kept_until_s: float = 0.0
    grants: dict[object, _Grant] = field(default_factory=dict)  # by asker: not known to be used yet
    claimed_until_s: float = 0.0  # somebody waits for what is granted: nothing more is, until then

    def used(self, now_s: float) -> int:
        base = self.whole or self.saved
        kept_free = self.kept_free if now_s < self.kept_until_s else 0
        return max(0, (base.used_bytes if base else 0) + self.used_bytes) + kept_free

    def granted(self, asker: object, now_s: float) -> int:
        """What others than the asker may still put there by themselves."""
        for each in [each for each, grant in self.grants.items() if grant.until_s < now_s]:
            del self.grants[each]
        return sum(grant.left for each, grant in self.grants.items() if each is not asker)


class UsageBook:
    """authd's knowledge. Everything but the constructor runs on one event loop.

    `warn` tells the owner of a mailbox that has reached a threshold; False or
    DirectoryUnavailable: not yet, again later.
    """

    def __init__(
        self,
        directory: Directory,
        warn: Callable[[Crossing], Awaitable[bool]] | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._warn = warn
        self._monotonic_s = monotonic_s
        self._known: OrderedDict[int, _Known] = OrderedDict()  # the least recently used first
        self._dirty: dict[int, None] = {}
        self._to_read: set[int] = set()
        # Of the database: a row that is read while it is being written would count twice or not at all.
        self._turn = asyncio.Lock()
        self._owed: list[Crossing] = []
        self._gone_until_s = 0.0
        self._under_way = 0
        self._full: OrderedDict[int, float] = OrderedDict()  # when it was last found full
        self.askers: set[object] = set()  # the workers that share the room

    # Questions

    async def ask(self, wanted: Sequence[Wanted], *, take: bool, asker: object = None) -> list[tuple[Fit, int]]:
        """For each whether it fits, and how much more the asker may put there by itself for GRANT_S.

        `take`: what fits is counted as there from now on.
        """
        await self._look(wanted)
        return [self._answer(each, take, asker) for each in wanted]

    def _answer(self, wanted: Wanted, take: bool, asker: object) -> tuple[Fit, int]:
        known = self._entry(wanted.mailbox_id)
        now_s = self._monotonic_s()
        is_known = wanted.quota_bytes is not None and bool(known.saved or known.whole)
        others = known.granted(asker, now_s)
        fits = quota.fit(known.used(now_s) + others, wanted.size, wanted.quota_bytes) if is_known else Fit.FITS
        known.grants.pop(asker, None)
        if fits is not Fit.FITS:
            if fits is Fit.FULL:
                self._note_full(wanted.mailbox_id, now_s)
            return fits, 0
        if take and wanted.told:
            known.kept_free = wanted.size + (known.kept_free if now_s < known.kept_until_s else 0)
            known.kept_until_s = now_s + KEPT_S
        elif take:
            self.add(wanted.mailbox_id, wanted.size, 1)
        if not is_known or wanted.quota_bytes is None:
            return fits, 0
        left = wanted.quota_bytes - known.used(now_s) - others
        if left * 4 < wanted.quota_bytes or now_s < known.claimed_until_s:
            return fits, 0
        grant = max(0, left) // (2 * max(1, len(self.askers)))
        known.grants[asker] = _Grant(grant, now_s + LENT_S)
        return fits, grant

    def _claim(self, wanted: Wanted, asker: object) -> bool:
        """Whether it would fit but for what others may put there by themselves; no more is granted to them then."""
        known, now_s = self._entry(wanted.mailbox_id), self._monotonic_s()
        fits = quota.fit(known.used(now_s), wanted.size, wanted.quota_bytes)
        if fits is not Fit.FITS or not known.granted(asker, now_s):
            return False
        known.claimed_until_s = now_s + LENT_S
        return True

    def _note_full(self, mailbox_id: int, now_s: float) -> None:
        self._full[mailbox_id] = now_s
        self._full.move_to_end(mailbox_id)
        if len(self._full) > MOST_FULL:
            self._full.popitem(last=False)

    def full(self) -> list[int]:
        """The mailboxes that mail was refused for lately: whether there is room again matters."""
        oldest_s = self._monotonic_s() - FULL_S
        while self._full and next(iter(self._full.values())) < oldest_s:
            self._full.popitem(last=False)
        return list(self._full)

    # News

    def add(self, mailbox_id: int, used_bytes: int, messages: int, asker: object = None) -> None:
        """So much came, by the asker's own decision if there is one, or (negative) was given back."""
        known = self._entry(mailbox_id)
        if grant := known.grants.get(asker):
            grant.left = max(0, grant.left - max(0, used_bytes))
        known.used_bytes += used_bytes
        known.messages += messages
        known.changes += 1
        self._dirty[mailbox_id] = None

    def tell(self, mailbox_id: int, fact: UsageFact | None, *, is_counted: bool = False) -> None:
        """This is all that it holds. None: nobody knows, but it has been its turn."""
        known = self._entry(mailbox_id)
        if fact is not None:
            known.whole, known.used_bytes, known.messages, known.kept_free = fact, 0, 0, 0
            known.tellings += 1
            known.changes += 1
        known.is_counted |= is_counted
        self._dirty[mailbox_id] = None

    def changes(self, mailbox_id: int) -> int:
        """Rises with all news of the mailbox, as long as it is remembered."""
        known = self._known.get(mailbox_id)
        return known.changes if known else 0

    def _entry(self, mailbox_id: int) -> _Known:
        known = self._known.get(mailbox_id)
        if known is None:
            known = self._known[mailbox_id] = _Known()
            if len(self._known) > MOST_KNOWN:
                oldest, _ = self._known.popitem(last=False)
                self._dirty.pop(oldest, None)  # the count will find it
        else:
            self._known.move_to_end(mailbox_id)
        return known

    # The database

    async def _look(self, wanted: Sequence[Wanted]) -> None:
        """Read what isn't known, or not any more. All that wait for the same turn are read at once."""
        if self._monotonic_s() < self._gone_until_s:
            return
        stale = [each.mailbox_id for each in wanted if each.quota_bytes is not None and self._is_stale(each)]
        self._to_read.update(stale)
        while any(number in self._to_read for number in stale):
            async with self._turn:
                reading = list(self._to_read)[:BATCH]
                self._to_read.difference_update(reading)
                if not reading:
                    return  # read by who had the turn before
                try:
                    facts = await self._directory.usage(reading)
                except DirectoryUnavailable:
                    # Those that wait now, and come soon, don't wait for it each.
                    self._to_read.clear()
                    self._gone_until_s = self._monotonic_s() + GONE_S
                    return
                for number, fact in facts.items():
                    known = self._entry(number)
                    known.saved, known.saved_s = fact, self._monotonic_s()

    def _is_stale(self, wanted: Wanted) -> bool:
        known = self._known.get(wanted.mailbox_id)
        if known is None or known.saved is None:
            return known is None or known.whole is None
        now_s = self._monotonic_s()
        is_short = known.used(now_s) * 4 >= (wanted.quota_bytes or 0) * 3
        return now_s - known.saved_s > (SHORT_S if is_short else AMPLE_S)

    async def flush(self) -> None:
        """Write what changed, and warn. Kept for the next time when the database is gone."""
        while batch := list(self._dirty)[:BATCH]:
            async with self._turn:
                if not await self._write(batch):
                    return
        owed, self._owed = self._owed, []
        for position, crossing in enumerate(owed):
            try:
                told = self._warn is None or await self._warn(crossing)
            except DirectoryUnavailable:
                told = False
            except Exception:
                log.fault("a warning can't be sent", mailbox=str(crossing.address))
                continue
            if not told:
                self._owed = (owed[position:] + self._owed)[:MOST_OWED]
                return

    async def _write(self, batch: Sequence[int]) -> bool:
        sent = {number: self._known[number] for number in batch}
        changes = [
            UsageChange(number, known.used_bytes, known.messages, known.whole, known.is_counted)
            for number, known in sent.items()
        ]
        tellings = {number: known.tellings for number, known in sent.items()}
        for number in batch:
            del self._dirty[number]
        try:
            recorded: Recorded = await self._directory.record_usage(changes)
        except DirectoryUnavailable:
            self._dirty |= dict.fromkeys(number for number in batch if number in self._known)
            return False
        now_s = self._monotonic_s()
        for change in changes:
            known = sent[change.mailbox_id]
            known.is_counted &= not change.is_counted
            if known.tellings == tellings[change.mailbox_id]:
                known.whole = None
                known.used_bytes -= change.used_bytes
                known.messages -= change.messages
            known.saved, known.saved_s = recorded.facts.get(change.mailbox_id, UsageFact(0, 0)), now_s
        self._owed = (self._owed + list(recorded.crossings))[:MOST_OWED]
        for crossing in recorded.crossings:
            log.mailbox_filling(
                str(crossing.address), percent=crossing.percent, used=crossing.used_bytes, quota=crossing.quota_bytes
            )
        return True

    async def run(self) -> None:
        """Flush again and again, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except Exception:
                log.fault("what mailboxes hold could not be written")

    # The wire

    def told(self, facts: Iterable[Sequence[int]], asker: object = None) -> None:
        """A worker's `added`. Raises TypeError and ValueError for anything else."""
        for mailbox_id, used_bytes, messages in [[int(number) for number in fact] for fact in facts]:
            self.add(mailbox_id, used_bytes, messages, asker)

    async def asked(self, question: Mapping[str, Any], asker: object = None) -> dict[str, object]:
        """A worker's `usage` and its answer. Raises KeyError, TypeError and ValueError for anything else."""
        wanted = [Wanted(int(number), None if most is None else int(most), int(size), told is True)
                  for number, most, size, told in question["usage"]]
        number, take = int(question["id"]), question["take"] is True
        if self._under_way >= MOST_UNDER_WAY:
            return {"id": number, "usage": []}  # nothing is known just now
        self._under_way += 1
        try:
            answers = await self.ask(wanted, take=take, asker=asker)
            claims = [n for n, (fits, _) in enumerate(answers) if fits is Fit.FULL and self._claim(wanted[n], asker)]
            if claims:
                # Nobody is refused for what another worker perhaps won't use: soon that is known.
                await asyncio.sleep(LENT_S + TELL_S)  # a timer may be a little early
                again = await self.ask([wanted[n] for n in claims], take=take, asker=asker)
                for n, answer in zip(claims, again, strict=True):
                    answers[n] = answer
        finally:
            self._under_way -= 1
        return {"id": number, "usage": [[fits.value, grant] for fits, grant in answers]}


class UsageClient:
    """A worker's end: asks authd where room may be short, and tells it what was put where."""

    def __init__(self, path: Path, deadline_s: float = DEADLINE_S) -> None:
        self._asker = Asker(path)
        self._deadline_s = deadline_s
        self._grants: OrderedDict[int, _Grant] = OrderedDict()
        self._untold: dict[int, list[int]] = {}
        self._warned_s = -SILENT_S

    async def fits(self, wanted: Sequence[Wanted]) -> dict[int, Fit]:
        """Whether each would find room; nothing is taken."""
        return await self._decide(wanted, take=False)

    async def take(self, wanted: Sequence[Wanted]) -> dict[int, Fit]:
        """Whether each finds room; what does is counted as there. `add` gives back what isn't put there after all."""
        return await self._decide(wanted, take=True)

    def add(self, mailbox_id: int, used_bytes: int, messages: int = 1) -> None:
        """So much was put there without asking, or (negative) isn't there after all."""
        untold = self._untold.get(mailbox_id)
        if untold is not None:
            untold[0] += used_bytes
            untold[1] += messages
        elif len(self._untold) < MOST_UNTOLD:
            self._untold[mailbox_id] = [used_bytes, messages]

    async def _decide(self, wanted: Sequence[Wanted], *, take: bool) -> dict[int, Fit]:
        found: dict[int, Fit] = {}
        asking: list[Wanted] = []
        for each in wanted:
            # What another one stores is always asked for: only authd hears how that goes.
            if each.quota_bytes is None or (not each.told and self._is_granted(each, take)):
                found[each.mailbox_id] = Fit.FITS
                if take:
                    self.add(each.mailbox_id, each.size, each.copies)
            else:
                asking.append(each)
        for start in range(0, len(asking), MOST_ASKED):
            found |= await self._asked(asking[start : start + MOST_ASKED], take)
        return found

    def _is_granted(self, wanted: Wanted, take: bool) -> bool:
        grant = self._grants.get(wanted.mailbox_id)
        if grant is None or grant.left <= wanted.size or grant.until_s < time.monotonic():
            return False
        if take:
            grant.left -= wanted.size
        return True

    async def _asked(self, wanted: Sequence[Wanted], take: bool) -> dict[int, Fit]:
        until_s = time.monotonic() + GRANT_S
        question: dict[str, object] = {
            "take": take, "usage": [[each.mailbox_id, each.quota_bytes, each.size, each.told] for each in wanted]
        }
        try:
            async with asyncio.timeout(self._deadline_s):
                if any(each.mailbox_id in self._untold for each in wanted):
                    await self.flush()  # or authd would take it for room that is still free
                answers = (await self._asker.ask(question))["usage"]
        except (OSError, TimeoutError) as error:
            self._unknown(error)
            answers = []
        if len(answers) != len(wanted):
            for each in wanted if take else ():
                if not each.told:
                    self.add(each.mailbox_id, each.size, each.copies)
            return {each.mailbox_id: Fit.FITS for each in wanted}
        found: dict[int, Fit] = {}
        for each, (fits, left) in zip(wanted, answers, strict=True):
            found[each.mailbox_id] = Fit(fits)
            if take and found[each.mailbox_id] is Fit.FITS and not each.told and each.copies > 1:
                self.add(each.mailbox_id, 0, each.copies - 1)  # authd counts each question as one
            self._grants[each.mailbox_id] = _Grant(left, until_s)
            self._grants.move_to_end(each.mailbox_id)
        while len(self._grants) > MOST_GRANTS:
            self._grants.popitem(last=False)
        return found

    def _unknown(self, error: Exception) -> None:
        now_s = time.monotonic()
        if now_s - self._warned_s >= SILENT_S:
            self._warned_s = now_s
            log.warning("authd doesn't say how full mailboxes are; mail is taken", because=error or "too late")

    async def run(self) -> None:
        """Tell authd what was added, again and again, until cancelled."""
        while True:
            await asyncio.sleep(TELL_S)
            await self.flush()

    async def flush(self) -> None:
        """Tell it now. Kept for the next time when authd is away."""
        while self._untold:
            # Taken off first: several may flush at once, and each fact is told once.
            some = [[number, *self._untold.pop(number)] for number in list(self._untold)[:MOST_TOLD]]
            is_told = False
            try:
                async with asyncio.timeout(self._deadline_s):
                    await self._asker.tell({"added": some})
                is_told = True
            except (OSError, TimeoutError) as error:
                self._unknown(error)
                return
            finally:
                for number, used_bytes, messages in [] if is_told else some:
                    self.add(number, used_bytes, messages)

    def close(self) -> None:
        self._asker.close()
