"""The inbox of a mailbox as its files are, for the person whose it is. Read only: no flag is changed.

The Maildirs are open to us as the mailserver's user (system_users). Dovecot's user may write there, so no
link is followed: each folder and file is opened from the one above it.
"""

import heapq
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from panel.mailboxes.models import Mailbox

MOST_NAMES = 50_000  # that are looked through
MOST_BYTES = 30 * 1024 * 1024  # of one message; what is behind them isn't shown
HEADER_BYTES = 32 * 1024  # that are read of each in a list
MOST_S = 2.0  # for a list: what isn't read by then isn't in it
_FOLDERS = ("new", "cur")
_NAME = re.compile(r"(\d{9,11})\.[A-Za-z0-9.,=_%+~-]{1,200}")


class Unreadable(Exception):
    """This machine's console may not read the Maildir."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A message in the inbox. `base` names it, whatever its flags become."""

    base: str
    name: str  # of its file now
    folder: str
    at_s: int  # when it came, seconds since 1970
    is_seen: bool
    size: int
    data: bytes  # as much as was asked for


@dataclass(frozen=True, slots=True)
class Listing:
    """The newest, the newest first. `has_more`: older ones, or more than was looked through."""

    kept: list[Kept]
    has_more: bool


def newest(data: Path, mailbox: Mailbox, most: int) -> Listing:
    """The newest messages with the beginning of each. Empty where there is no Maildir. Raises Unreadable."""
    ends = time.monotonic() + MOST_S
    found: list[tuple[int, str, str]] = []
    names = 0
    kept: list[Kept] = []
    with _maildir(data, mailbox) as maildir:
        if maildir is None:
            return Listing([], False)
        for folder, name, at_s in _names(maildir):
            names += 1
            heapq.heappush(found, (at_s, name, folder))
            if len(found) > most + 1:
                heapq.heappop(found)
        for at_s, name, folder in sorted(found, reverse=True)[:most]:
            if time.monotonic() > ends:
                return Listing(kept, True)
            one = _open(maildir, folder, name, at_s, HEADER_BYTES)
            if one:
                kept.append(one)
    return Listing(kept, names > most)


def find(data: Path, mailbox: Mailbox, base: str) -> Kept | None:
    """The message of this name, as much of it as MOST_BYTES. None: it isn't in the inbox. Raises Unreadable."""
    if not _NAME.fullmatch(base):
        return None
    with _maildir(data, mailbox) as maildir:
        if maildir is None:
            return None
        for folder, name, at_s in _names(maildir):
            if name.partition(":")[0] == base:
                return _open(maildir, folder, name, at_s, MOST_BYTES)
    return None


@contextmanager
def _maildir(data: Path, mailbox: Mailbox) -> Iterator[int | None]:
    """Its folder's descriptor; None where there is none (any more)."""
    opened: list[int] = []
    try:
        try:
            opened.append(os.open(data / "mail", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            for part in (mailbox.opaque_id[:2], mailbox.opaque_id, "Maildir"):
                opened.append(_enter(opened[-1], part))
        except PermissionError:
            raise Unreadable from None
        except OSError:
            # Not there, or a link.
            yield None
            return
        yield opened[-1]
    finally:
        for each in opened:
            os.close(each)


def _enter(above: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)


def _names(maildir: int) -> Iterator[tuple[str, str, int]]:
    """Folder, name and time of its messages, at most MOST_NAMES. Raises Unreadable."""
    left = MOST_NAMES
    for folder in _FOLDERS:
        try:
            inside = _enter(maildir, folder)
        except PermissionError:
            raise Unreadable from None
        except OSError:
            continue
        try:
            with os.scandir(inside) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        return
                    named = _NAME.fullmatch(entry.name.partition(":")[0])
                    if named:
                        yield folder, entry.name, int(named[1])
        finally:
            os.close(inside)


def _open(maildir: int, folder: str, name: str, at_s: int, most: int) -> Kept | None:
    """None for what was moved meanwhile, or is no message's file. Raises Unreadable."""
    try:
        inside = _enter(maildir, folder)
        try:
            # Not blocking: a FIFO would wait for a writer.
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inside)
        finally:
            os.close(inside)
    except PermissionError:
        raise Unreadable from None
    except OSError:
        return None
    about = os.fstat(file)
    if not stat.S_ISREG(about.st_mode):
        os.close(file)
        return None
    with open(file, "rb") as opened:
        data = opened.read(most)
    base, _colon, flags = name.partition(":2,")
    return Kept(base, name, folder, at_s, folder == "cur" and "S" in flags, about.st_size, data)
