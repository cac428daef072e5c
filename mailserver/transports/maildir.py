"""Local copies into Maildirs: stage (durable, not yet seen), then publish (rename).

The staged file is the truth: a second try renames it; if it is no longer in staging/ it
was published, wherever the person has since moved it. Its name carries its Recipient's
id: `T.R<id>.host,S=<size>,W=<size>`, and behind that whether it goes into the folder Junk.
staging/ stands on the Maildirs' own file system and is none of their tmp/, which Dovecot
sweeps.

Files hold CRLF, as the message came: byte for byte what the sender signed, and a body on
disk is copied by the kernel. Dovecot reads either; W, the size that LF counted as CRLF
gives, is then S itself (the session refuses bare LF). Who else gets a copy, and whether
rows are written before or after, is intake's and the runner's. DESIGN §5.
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mailserver.config import Config
from mailserver.envelope import Body, Staged
from panel.database import ids
from panel.rules import headers
from panel.rules.addresses import Address
from panel.rules.facts import LocalMailbox
from panel.rules.filtering import JUNK_FOLDER

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
_APART = "try-"
# At the end of a staged copy's name: into the folder Junk. Not in a row: the file is the truth.
_JUNK = ",J"
_NAME = re.compile(r"\d+\.R([0-9A-Z]{13})\.")
_NO_COPY_FILE_RANGE = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
_BLOCK = 1024 * 1024
OPEN_MOST = 128  # files at a time, of however many copies: descriptors are sessions' as well


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy for one recipient."""

    recipient_id: int
    mailbox: LocalMailbox
    resolved: str
    junk: bool = False  # into the folder Junk


@dataclass(frozen=True, slots=True)
class Letter:
    """A message and the local copies that it needs. `reverse_path` is empty for the null path."""

    received_at: datetime
    reverse_path: str
    prefix: bytes
    body: Body
    copies: tuple[Copy, ...]


@dataclass(slots=True)
class _File:
    """A copy that is being written; its descriptor is -1 once it is closed."""

    staged: Staged
    descriptor: int

    def close(self) -> None:
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


def prepare(config: Config) -> None:
    """Make the folders that all Maildirs share."""
    config.staging.mkdir(mode=0o770, parents=True, exist_ok=True)


def stage_all(
    config: Config, letters: Sequence[Letter], *, apart: bool = False
) -> list[tuple[Staged, ...] | OSError]:
    """Write every copy durably into staging/: for each letter its copies, or why it can't have them.

    A letter that fails leaves nothing behind, and the others go on. Files are written, up to
    a bound, before the first is synced, and the folder is synced once for all.
    """
    results: list[tuple[Staged, ...] | OSError] = []
    for some in _in_groups(letters):
        written = [_written(config, letter, apart) for letter in some]
        results += [files if isinstance(files, OSError) else _synced(files) for files in written]
    if any(isinstance(result, tuple) and result for result in results):
        try:
            sync_folder(config.staging)
        except OSError as error:
            for result in results:
                if not isinstance(result, OSError):
                    unstage(result)
            return [error] * len(letters)
    return results


def publish_all(config: Config, staged: Sequence[Staged]) -> list[OSError | None]:
    """Rename each into its Maildir's new/, durably; for each None, or what went wrong.

    A file that is no longer staged was published before. One that went wrong may be staged
    still, or renamed but not surely durable: either way another try settles it.
    """
    results: list[OSError | None] = []
    folders: dict[Path, OSError | None] = {}
    for each in staged:
        new = _new_of(config, each)
        try:
            _rename(config, each, new)
            folders[new] = None
            results.append(None)
        except OSError as error:
            results.append(error)
    for new in folders:
        try:
            sync_folder(new)
        except OSError as error:
            folders[new] = error
    return [
        result or folders.get(_new_of(config, each))
        for each, result in zip(staged, results, strict=True)
    ]


def stage(config: Config, letter: Letter, *, apart: bool = False) -> tuple[Staged, ...]:
    """One letter's copies in staging/. Raises OSError, nothing left behind.

    `apart`: under names of this try alone, which nobody takes for a staged copy until `take_name`.
    """
    [result] = stage_all(config, [letter], apart=apart)
    if isinstance(result, OSError):
        raise result
    return result


def take_name(config: Config, staged: Staged) -> Staged:
    """A copy that was staged apart becomes its recipient's only one, durably. Raises OSError; may be called again.

    What a try left that a crash cut short goes: its name differs where size or folder have changed since.
    """
    named = replace(staged, path=staged.path.with_name(staged.path.name.removeprefix(_APART).partition(".")[2]))
    try:
        os.rename(staged.path, named.path)
    except FileNotFoundError:
        if not named.path.exists():
            raise
    for found, path in staged_files(config):
        if found == staged.recipient_id and path != named.path:
            path.unlink(missing_ok=True)
    sync_folder(config.staging)
    return named


def publish(config: Config, staged: Staged) -> None:
    """One copy into its Maildir. Raises OSError; it may be tried again."""
    [error] = publish_all(config, [staged])
    if error:
        raise error


def unstage(staged: Iterable[Staged]) -> None:
    """Remove copies of a message that was not taken."""
    for each in staged:
        each.path.unlink(missing_ok=True)


def staged_files(config: Config) -> Iterator[tuple[int, Path]]:
    """What lies in staging/: each file with its recipient's id."""
    for entry in os.scandir(config.staging):
        if match := _NAME.match(entry.name):
            yield ids.from_text(match[1]), Path(entry.path)


def tries_left(config: Config) -> Iterator[Path]:
    """What was staged apart and may have been left behind."""
    for entry in os.scandir(config.staging):
        if entry.name.startswith(_APART):
            yield Path(entry.path)


def staged_copy(config: Config, recipient_id: int, mailbox: LocalMailbox) -> Staged | None:
    """The recipient's staged file; None if it was published, or never staged."""
    for found, path in staged_files(config):
        if found == recipient_id:
            try:
                return Staged(recipient_id, mailbox, path, path.stat().st_size)
            except FileNotFoundError:
                return None
    return None


def was_delivered_to(block: bytes, resolved: Address) -> bool:
    """Whether the header block says that this message has been in that mailbox: then it goes round in circles.

    Such a recipient fails with 5.4.6 (RFC 5321 §6.3 leaves the means to the server).
    """
    wanted = str(resolved.canonical).encode()
    for field in headers.split(block):
        if field.name.lower() == b"delivered-to":
            value = field.raw.partition(b":")[2].strip()
            if value.lower() in (wanted, str(resolved).lower().encode()):
                return True
    return False


def head_of(reverse_path: str, resolved: str) -> bytes:
    """What stands above a message in its copy for one mailbox (RFC 5321 §4.4)."""
    return f"Return-Path: <{reverse_path}>\r\nDelivered-To: {resolved}\r\n".encode()


def file_name(config: Config, recipient_id: int, at: datetime, size: int) -> str:
    """The name of a copy, in staging/ and in the Maildir."""
    return f"{int(at.timestamp())}.R{ids.to_text(recipient_id)}.{config.hostname},S={size},W={size}"


def sync_folder(path: Path) -> None:
    """Make a folder's names durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _in_groups(letters: Sequence[Letter]) -> Iterator[list[Letter]]:
    """Letters whose copies may be open at once; a letter with more copies than that is alone."""
    group: list[Letter] = []
    copies = 0
    for letter in letters:
        if group and copies + len(letter.copies) > OPEN_MOST:
            yield group
            group, copies = [], 0
        group.append(letter)
        copies += len(letter.copies)
    yield group


def _written(config: Config, letter: Letter, apart: bool) -> list[_File] | OSError:
    """Each copy with its file, on its way to the disk and open, or on it and closed."""
    files: list[_File] = []
    try:
        for number, copy in enumerate(letter.copies):
            if number % OPEN_MOST == 0:
                _sync_files(files)
            head = head_of(letter.reverse_path, copy.resolved)
            size = len(head) + len(letter.prefix) + letter.body.size
            name = file_name(config, copy.recipient_id, letter.received_at, size) + (_JUNK if copy.junk else "")
            path = config.staging / (f"{_APART}{secrets.token_hex(8)}.{name}" if apart else name)
            # A file of that name is a try that a crash cut short.
            path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            files.append(_File(Staged(copy.recipient_id, copy.mailbox, path, size), descriptor))
            os.fchmod(descriptor, 0o640)
            _fill(descriptor, head + letter.prefix, letter.body)
            # Starts write-back, so that the syncs that follow wait for all of it at once.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        _abandon(files)
        return error
    except ValueError as error:  # an address that is no text
        _abandon(files)
        return OSError(errno.EINVAL, str(error))
    return files


def _synced(files: Sequence[_File]) -> tuple[Staged, ...] | OSError:
    try:
        _sync_files(files)
    except OSError as error:
        _abandon(files)
        return error
    return tuple(file.staged for file in files)


def _sync_files(files: Sequence[_File]) -> None:
    for file in files:
        if file.descriptor >= 0:
            os.fsync(file.descriptor)
    for file in files:
        file.close()


def _abandon(files: Iterable[_File]) -> None:
    for file in files:
        file.close()
        file.staged.path.unlink(missing_ok=True)


def _fill(descriptor: int, head: bytes, body: Body) -> None:
    if body.data is not None:
        _write_all(descriptor, head + body.data)
        return
    assert body.path is not None
    _write_all(descriptor, head)
    source = os.open(body.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _copy_all(source, descriptor) != body.size:
            raise OSError(errno.EIO, "the received body is not as long as it was", str(body.path))
    finally:
        os.close(source)


def _copy_all(source: int, target: int) -> int:
    """Copy the rest of a file within the kernel, or through memory where the file system can't."""
    copied = 0
    try:
        while count := os.copy_file_range(source, target, _BLOCK * 1024):
            copied += count
        return copied
    except OSError as error:
        if copied or error.errno not in _NO_COPY_FILE_RANGE:
            raise
    while block := os.read(source, _BLOCK):
        _write_all(target, block)
        copied += len(block)
    return copied


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _new_of(config: Config, staged: Staged) -> Path:
    """The new/ that a staged copy goes into."""
    maildir = config.maildir(staged.mailbox.opaque_id)
    return (maildir / f".{JUNK_FOLDER}" if staged.path.name.endswith(_JUNK) else maildir) / "new"


def _rename(config: Config, staged: Staged, new: Path) -> None:
    name = staged.path.name.removesuffix(_JUNK)
    try:
        os.rename(staged.path, new / name)
    except FileNotFoundError:
        maildir = config.maildir(staged.mailbox.opaque_id)
        _make_maildir(config, maildir)
        if new.parent != maildir:
            _make_folder(new.parent)
        if staged.path.exists():
            os.rename(staged.path, new / name)
        # Else it was published before: by the runner, or in a try whose end nobody noted.


def _make_maildir(config: Config, maildir: Path) -> None:
    """A Maildir with the folders above it, each durable in its parent."""
    _make([folder for folder in (maildir.parent.parent, maildir.parent, maildir) if not folder.exists()], maildir)


def _make_folder(folder: Path) -> None:
    """A folder of a Maildir; by its empty file `maildirfolder` delivery programs know it for one."""
    _make([] if folder.exists() else [folder], folder)
    descriptor = os.open(folder / "maildirfolder", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o660)
    os.close(descriptor)
    sync_folder(folder)


def _make(missing: Sequence[Path], last: Path) -> None:
    for folder in [*missing, *(last / name for name in ("cur", "new", "tmp"))]:
        try:
            os.mkdir(folder, 0o770)
        except FileExistsError:
            continue
        # Whatever the umask: Dovecot's user comes in by the group. A setgid bit stays.
        os.chmod(folder, stat.S_IMODE(folder.stat().st_mode) | 0o770)  # noqa: S103
    for folder in dict.fromkeys([*(folder.parent for folder in missing), last]):
        sync_folder(folder)
