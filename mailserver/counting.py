"""The slow count: what a mailbox holds by the names of its files, one mailbox after the other.

Mends what was missed: mail that others moved or removed without telling, a crash between a
delivery and its row, mail that was there before anybody counted. Mailboxes that were never
counted come first, then those counted longest ago, each once a day. A thread reads at most
STEP directory entries at a time and rests in between, whatever the mailbox's size.

A mailbox that was full lately is looked at each second: whether one of its folders changed, and
only then, and the more rarely the longer it takes, it is counted. Dovecot tells what was
deleted only when a client closes the folder, and mail programs leave it open for hours.

Dovecot counts a message with CRLF line ends: W= in the name of its file, which is S= where
it is written so; only a file with neither is asked for its size (Maildir++, "S=" and "W=").
"""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

from mailserver import log
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.directory import Directory, DirectoryUnavailable, Uncounted, UsageFact
from mailserver.usage import UsageBook

EVERY = timedelta(days=1)
BATCH = 100
STEP = 1000  # directory entries: some milliseconds
REST_S = 0.05  # between two steps, and two mailboxes
IDLE_S = 10.0  # when nothing is to be counted, or the database is gone
LOOK_S = 1.0  # between two looks at full mailboxes
SHARE = 20  # a full mailbox's count takes at most one part in so many of the time
TRIES = 3  # of a mailbox that changes while it is counted
LMTP = "lmtp"

_SIZE = re.compile(r",W=(\d{1,18})(?=[,:]|$)")
_SIZE_ON_DISK = re.compile(r",S=(\d{1,18})(?=[,:]|$)")


def sizes(maildir: Path) -> Iterator[int]:
    """The size of each message of all its folders; 0 for a directory entry that is none. Raises OSError."""
    yield from _sizes_in(maildir)
    with os.scandir(maildir) as entries:
        for entry in entries:
            yield 0
            # Maildir++: .Junk, .Archive.2026, each with its cur/ and new/.
            if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from _sizes_in(Path(entry.path))


def _sizes_in(folder: Path) -> Iterator[int]:
    for name in ("cur", "new"):
        try:
            entries = os.scandir(folder / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                yield 0 if entry.name.startswith(".") else _size(entry)


def _size(entry: os.DirEntry[str]) -> int:
    found = _SIZE.search(entry.name) or _SIZE_ON_DISK.search(entry.name)
    if found:
        return int(found[1])
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0  # it has been renamed or removed since


def stamp(maildir: Path) -> int | None:
    """Another one whenever a message came, went or was renamed; None without a Maildir. Raises OSError."""
    try:
        with os.scandir(maildir) as entries:
            folders = [maildir, *(Path(each.path) for each in islice(entries, STEP) if each.name.startswith("."))]
    except FileNotFoundError:
        return None
    times = []
    for folder in folders:
        for name in ("cur", "new"):
            try:
                times.append((str(folder), name, (folder / name).stat().st_mtime_ns))
            except (FileNotFoundError, NotADirectoryError):
                continue
    return hash(tuple(sorted(times)))


@dataclass(slots=True)
class _Watched:
    """A full mailbox: where it lies, how it was when it was last counted, and when it may be again."""

    place: Uncounted
    stamp: int | None = None
    due_s: float = 0.0


class Counting:
    """The count as one node does it. Everything but the constructor runs on one event loop."""

    def __init__(self, config: Config, directory: Directory, book: UsageBook, clock: Clock) -> None:
        self._config = config
        self._directory = directory
        self._book = book
        self._clock = clock
        self._watched: dict[int, _Watched] = {}

    async def run(self) -> None:
        """Count until cancelled."""
        # A thread of its own, so that a slow disk holds up no login.
        with_thread = ThreadPoolExecutor(1, thread_name_prefix="count")
        try:
            while True:
                try:
                    counted = await self._count_some(with_thread)
                except DirectoryUnavailable:
                    counted = 0
                except Exception:
                    log.fault("mailboxes can't be counted")
                    counted = 0
                if not counted:
                    await asyncio.sleep(IDLE_S)
        finally:
            with_thread.shutdown(wait=False, cancel_futures=True)

    async def watch(self) -> None:
        """Look at full mailboxes until cancelled."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="watch")
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                try:
                    await self._look(thread)
                except DirectoryUnavailable:
                    pass
                except Exception:
                    log.fault("full mailboxes can't be counted")
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    async def _look(self, thread: ThreadPoolExecutor) -> None:
        full = self._book.full()
        self._watched = {number: each for number, each in self._watched.items() if number in full}
        unplaced = [number for number in full if number not in self._watched]
        for place in await self._directory.places(unplaced) if unplaced else ():
            self._watched[place.mailbox_id] = _Watched(place)
        loop = asyncio.get_running_loop()
        for each in list(self._watched.values()):
            began_s = time.monotonic()
            if began_s < each.due_s:
                continue
            try:
                now = await loop.run_in_executor(thread, stamp, self._config.maildir(each.place.opaque_id))
                if now is None or now == each.stamp:
                    continue
                fact = await self.count(each.place, thread)
            except OSError as error:
                log.warning("a mailbox can't be counted", mailbox=each.place.opaque_id, because=error)
                continue
            each.stamp, each.due_s = now, began_s + SHARE * (time.monotonic() - began_s)
            self._book.tell(each.place.mailbox_id, fact, is_counted=True)

    async def _count_some(self, thread: ThreadPoolExecutor) -> int:
        since = self._clock.now() - EVERY
        due = await self._directory.uncounted(since, BATCH)
        for box in due:
            if await self._directory.was_counted(box.mailbox_id, since):
                continue
            try:
                fact = await self.count(box, thread)
            except OSError as error:
                log.warning("a mailbox can't be counted", mailbox=box.opaque_id, because=error)
                fact = None
            self._book.tell(box.mailbox_id, fact, is_counted=True)
            await asyncio.sleep(REST_S)
        # Written before the next are asked for, or they would be the same.
        await self._book.flush()
        return len(due)

    async def count(self, box: Uncounted, thread: ThreadPoolExecutor) -> UsageFact | None:
        """What it holds; None where that can't be seen from here. Raises OSError."""
        maildir = self._config.maildir(box.opaque_id)
        fact: UsageFact | None = None
        for _ in range(TRIES):
            before = self._book.changes(box.mailbox_id)
            fact = await self._count_once(maildir, thread)
            if self._book.changes(box.mailbox_id) == before:
                break
        if fact is None and (box.store or self._config.store.default) != LMTP:
            return UsageFact(0, 0)  # its folder is made with its first message
        return fact

    async def _count_once(self, maildir: Path, thread: ThreadPoolExecutor) -> UsageFact | None:
        loop = asyncio.get_running_loop()
        entries = sizes(maildir)
        used_bytes = messages = 0
        while True:
            try:
                some = await loop.run_in_executor(thread, lambda: list(islice(entries, STEP)))
            except FileNotFoundError:
                return None
            used_bytes += sum(some)
            messages += sum(1 for size in some if size)
            if len(some) < STEP:
                return UsageFact(used_bytes, messages)
            await asyncio.sleep(REST_S)
