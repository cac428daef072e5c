"""Carries pulled messages into the mailbox's Maildir: each once, whole, and readable by Dovecot.

mbsync's own files would not do there: mode 0600, LF for CRLF, a header field X-TUID of its
own. So each is written anew as the far server gave it (CRLF, byte for byte), with the size
in its name and the far side's arrival time, in four steps that a crash may cut anywhere:

    1  written to ready/ under a name that follows from the pulled file's, and synced
    2  the pulled file is removed, and that is synced
    3  renamed from ready/ into the Maildir's cur/, and that is synced
    4  what a crash left in ready/ without its pulled file goes on at 3

Between 1 and 2 both exist: step 1 is done again. After 3 nothing is left to do again.
"""

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from panel.operations.moving import mbsync

BATCH = 200  # messages a sync of each folder
LOCK_WITHIN_S = 10.0
LOCK_STALE_S = 120.0  # Dovecot's own bound for a dotlock of subscriptions
MOST_NAME = 200  # bytes of a folder's name; a file system's bound is 255
INBOX = "INBOX"
_BASE = re.compile(r"[^:]*")
# Surrogates: bytes that are no UTF-8. Dovecot shows a folder of such a name to nobody.
_UNFIT = re.compile(r"[.\x00-\x1f\x7f\ud800-\udfff]")
_MBSYNC_UID = re.compile(r",U=\d+")
_TUID = re.compile(rb"^X-TUID: [^\r\n]*\n", re.MULTILINE | re.IGNORECASE)


@dataclass(slots=True)
class Published:
    """What came into the Maildir. `renamed`: folders whose name can't be kept, far name → name here."""

    messages: int = 0
    size_bytes: int = 0
    folders: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Owner:
    """Who owns the Maildir: its files must be theirs, and reachable by their group."""

    uid: int
    gid: int


def publish(folder: Path, maildir: Path, found: Published) -> None:
    """Publish all that was pulled into `folder`; `found` is added to, so that it is right after an error too.

    Raises OSError (disk full …): what is left is published by the next run.
    """
    owner = _make_maildir(maildir)
    names = [INBOX]
    for _, name in mbsync.pulled_folders(folder):
        box = _box(name, found)
        if box != INBOX:
            _make_folder(maildir, box, owner)
            names.append(box)
    _subscribe(maildir, names, owner)
    waiting: list[tuple[str, Path]] = []
    for name, path in mbsync.pulled_files(folder):
        waiting.append((_box(name, found), path))
        if len(waiting) == BATCH:
            _publish_batch(folder, maildir, waiting, owner)
            _rename_all(folder, maildir, found)
            waiting = []
    _publish_batch(folder, maildir, waiting, owner)
    _rename_all(folder, maildir, found)


def _box(name: str, found: Published) -> str:
    """The folder's name here, its levels parted by dots as in Maildir++ (so no level may hold one)."""
    if name == INBOX:
        return INBOX
    here = ".".join(_UNFIT.sub("_", level) or "_" for level in name.split("/"))
    if len(os.fsencode(here)) > MOST_NAME:
        here = os.fsencode(here)[:MOST_NAME].decode(errors="ignore").rstrip(".")
    if here != name.replace("/", "."):
        found.renamed[name] = here.replace(".", "/")
    return here


# Files


def _publish_batch(folder: Path, maildir: Path, pulled: Sequence[tuple[str, Path]], owner: _Owner) -> None:
    """Steps 1 and 2."""
    ready = folder / "ready"
    for box, path in pulled:
        _write_ready(ready / _name(box), path, owner)
    for box in {box for box, _ in pulled}:
        _sync(ready / _name(box))
    _sync(ready)
    for _, path in pulled:
        path.unlink()
    for parent in {path.parent for _, path in pulled}:
        _sync(parent)


def _name(box: str) -> str:
    """The folder's name in ready/, and in the Maildir, where INBOX is the Maildir itself."""
    return f".{box}"


def _write_ready(target: Path, path: Path, owner: _Owner) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    content = as_it_came(path.read_bytes())
    before = path.stat()
    base = _MBSYNC_UID.sub("", _BASE.match(path.name)[0])  # type: ignore[index]
    # S is the file's size, W the size with CRLF: the same, as in our own deliveries.
    name = f"{base},S={len(content)},W={len(content)}:2,{mbsync.flags_of(path.name)}"
    with (target / name).open("wb") as file:
        file.write(content)
        _hand_over(file.fileno(), owner, 0o640)
        file.flush()
        # Dovecot takes a message's arrival (INTERNALDATE) from its file's time.
        os.utime(file.fileno(), ns=(before.st_mtime_ns, before.st_mtime_ns))
        os.fsync(file.fileno())


def as_it_came(content: bytes) -> bytes:
    """The message as the far server gave it: without the X-TUID that mbsync adds, its lines ended by CRLF."""
    head, blank, body = content.partition(b"\n\n")
    marks = list(_TUID.finditer(head + b"\n"))
    if marks:
        # mbsync puts its own behind all other fields.
        head = (head + b"\n")[: marks[-1].start()] + (head + b"\n")[marks[-1].end() :]
        head = head.removesuffix(b"\n")
    whole = (head + blank if head else blank.removeprefix(b"\n")) + body
    return whole.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _rename_all(folder: Path, maildir: Path, found: Published) -> None:
    """Steps 3 and 4."""
    for target in sorted(folder.glob("ready/.*")):
        box = target.name.removeprefix(".")
        cur = (maildir if box == INBOX else maildir / target.name) / "cur"
        sizes = []
        for path in sorted(target.iterdir()):
            sizes.append(path.stat().st_size)
            os.rename(path, cur / path.name)
        if sizes:
            _sync(cur)
            found.messages += len(sizes)
            found.size_bytes += sum(sizes)
            found.folders.add(box)


# Folders


def _make_maildir(maildir: Path) -> _Owner:
    """The mailbox's Maildir, with its folders, as the mailserver would make it. Whose it is."""
    root = maildir.parents[2].stat()
    owner = _Owner(root.st_uid, root.st_gid)
    for each in (maildir.parents[1], maildir.parent, maildir, *(maildir / name for name in ("cur", "new", "tmp"))):
        _make(each, owner)
    found = maildir.stat()
    return _Owner(found.st_uid, found.st_gid)


def _make_folder(maildir: Path, box: str, owner: _Owner) -> None:
    folder = maildir / _name(box)
    for each in (folder, *(folder / name for name in ("cur", "new", "tmp"))):
        _make(each, owner)
    mark = folder / "maildirfolder"  # Maildir++: it is a folder, and no Maildir by itself
    if not mark.exists():
        with mark.open("xb") as file:
            _hand_over(file.fileno(), owner, 0o640)
        _sync(folder)


def _make(folder: Path, owner: _Owner) -> None:
    try:
        folder.mkdir(mode=0o770)
    except FileExistsError:
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Whatever the umask: Dovecot's user comes in by the group. A setgid bit stays.
        _hand_over(descriptor, owner, stat.S_IMODE(os.fstat(descriptor).st_mode) | 0o770)
    finally:
        os.close(descriptor)
    _sync(folder.parent)


def _hand_over(descriptor: int, owner: _Owner, mode: int) -> None:
    """Make it the Maildir's owner's and group's, as far as this user may, and of this mode."""
    now = os.fstat(descriptor)
    if os.geteuid() == 0 or now.st_gid != owner.gid:
        # A group that this user isn't in stays as it was made: a setgid folder above has set it.
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, owner.uid if os.geteuid() == 0 else -1, owner.gid)
    os.fchmod(descriptor, mode)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Subscriptions


def _subscribe(maildir: Path, boxes: Iterable[str], owner: _Owner) -> None:
    """Add the folders to Dovecot's list: most clients show only what stands there. Raises OSError.

    Written as Dovecot does: into `subscriptions.lock`, which is then renamed. Version 2 of
    the file parts a name's levels by tabs; an older file has one name a line, with dots.
    """
    path = maildir / "subscriptions"
    with _locked(maildir / "subscriptions.lock", owner) as (descriptor, lock):
        text = path.read_text(errors="surrogateescape") if path.exists() else "V\t2\n\n"
        newer = text.startswith("V\t2\n")
        there = set(text.split("\n"))
        wanted = [box.replace(".", "\t") if newer else box for box in boxes]
        missing = [name for name in dict.fromkeys(wanted) if name not in there]
        if not missing:
            lock.unlink()
            return
        if not text.endswith("\n"):
            text += "\n"
        whole = text + "".join(f"{name}\n" for name in missing)
        os.write(descriptor, whole.encode(errors="surrogateescape"))
        os.fsync(descriptor)
        os.rename(lock, path)
        _sync(maildir)


@contextlib.contextmanager
def _locked(lock: Path, owner: _Owner) -> Iterator[tuple[int, Path]]:
    """Dovecot's dotlock, open for writing. It is gone or renamed at the end. Raises TimeoutError."""
    deadline = time.monotonic() + LOCK_WITHIN_S
    while True:
        try:
            descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - lock.stat().st_mtime > LOCK_STALE_S:
                    lock.unlink()
            if time.monotonic() > deadline:
                raise TimeoutError(0, "another program holds it", str(lock)) from None
            time.sleep(0.05)
    try:
        _hand_over(descriptor, owner, 0o640)
        yield descriptor, lock
    except BaseException:
        lock.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
