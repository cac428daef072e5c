"""Pulls one remote mailbox with mbsync (package isync) into a private folder.

The folder `mail/migration/OPAQUE-HASH/` belongs to one mailbox here and one account there:

    inbox/, folders/   what was pulled and isn't published yet, Maildirs that mbsync wrote
    state/             mbsync's record of what it has pulled: the far UIDs of each folder
    ready/             messages on their way into the Maildir (see publish)
    lock               held while somebody works on it

mbsync never pulls a far UID twice as long as its state is there, whatever became of the
message here, so an interrupted run is resumed and a later run brings only what is new.
It is told its configuration, and with it the password, by a file in memory that only its
process has: never on the command line, in the environment or on the disk.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from panel.operations.moving.accounts import Account, Host

TIMEOUT_S = 60  # of the connection and of each wait for the far side
PROGRESS_EVERY_S = 10.0
STOP_WITHIN_S = 15.0
STALLED_S = 1800.0  # nothing new for so long; mbsync's own bound starts anew with every byte
# A far side that lists folders, or complains, without end must not take this machine with it.
MOST_MEMORY = 1024**3
MOST_OUTPUT = 4000  # bytes kept of what mbsync says
MOST_LISTED = 256 * 1024  # bytes of far folders' names
_LEFT_OUT = re.compile(r"skipping|ignoring mailbox")
FOLDERS = ("inbox", "folders", "state", "ready")


class PullError(Exception):
    """Why an account can't be pulled: a sentence or mbsync's own words, without the password."""


def program() -> str | None:
    """The path of mbsync, if it is installed."""
    return shutil.which("mbsync")


def folder_of(data: Path, account: Account) -> Path:
    """Where the account's state is, in the file system of the Maildirs."""
    who = hashlib.sha256(f"{account.host}\0{account.user}".encode()).hexdigest()[:16]
    return data / "mail" / "migration" / f"{account.mailbox.opaque_id}-{who}"


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """Make the account's folder and hold its lock; the lock's descriptor. Raises PullError when another holds it."""
    for each in (folder.parent, folder, *(folder / name for name in FOLDERS)):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A setgid bit above would be inherited, with the group that it is for.
        os.chmod(each, 0o700)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise PullError("another `mailbox migrate` works on it; wait for its end.") from None
    try:
        yield lock
    finally:
        os.close(lock)


def pull(
    account: Account, folder: Path, lock: int, *, plain: bool, authority: Path | None, without: Sequence[str],
    progress: Callable[[int], None],
) -> str:
    """Pull what is new. What mbsync complained of, empty when all went well.

    `lock` is `opened`'s: mbsync holds it as well, for it may outlive this process.
    `progress` is told every ten seconds how many messages wait to be published. Raises
    PullError when it never got as far as the messages (no connection, wrong password), or was
    killed: what it had written by then must wait until its next run has found it again.
    """
    config = configuration(account, folder, plain=plain, authority=authority, without=without)
    def look() -> int:
        count = _pulled(folder)
        progress(count)
        return count + sum(entry.stat().st_size for entry in os.scandir(folder / "state"))

    code, said = _run(["-q", "all"], config, account, look, also=[lock])
    if not code and not any(path.suffix == ".journal" for path in (folder / "state").iterdir()):
        # What it leaves out, such as a message whose header has no end, is only a warning to it.
        left = [line for line in said.splitlines() if _LEFT_OUT.search(line)]
        return f"not all came: {' · '.join(left)}" if left else ""
    if not code:
        # With the disk full it ends like that.
        return f"mbsync left its work undone, as when the disk is full: {said}"
    if code < 0:
        raise PullError(f"mbsync was killed by signal {-code}: {said}")
    if not _pulled(folder) and not any((folder / "state").iterdir()):
        raise PullError(said)
    return said


def list_folders(
    account: Account, *, plain: bool, authority: Path | None, without: Sequence[str], scratch: Path
) -> list[str]:
    """The names of the far folders that would be pulled: a log-in that changes nothing. Raises PullError."""
    for name in FOLDERS:
        (scratch / name).mkdir()
    config = configuration(account, scratch, plain=plain, authority=authority, without=without)
    code, said = _run(["-q", "-l", "all"], config, account, lambda: 0, both=True)
    if code:
        raise PullError(said)
    return sorted(said.splitlines())


def configuration(
    account: Account, folder: Path, *, plain: bool, authority: Path | None, without: Sequence[str]
) -> str:
    """mbsync's configuration, which holds the password. Only new messages come, and nothing changes over there."""
    trust = f"CertificateFile {_quoted(str(authority))}\n" if authority else ""
    patterns = " ".join(["*", "INBOX", *(_quoted(f"!{name}") for name in without)])
    return f"""\
IMAPAccount far
Host {_quoted(account.host.name)}
Port {account.host.port}
Timeout {TIMEOUT_S}
User {_quoted(account.user)}
Pass {_quoted(account.password)}
{_security(account.host, plain)}{trust}
IMAPStore far
Account far

MaildirStore near
Path {_quoted(f"{folder / 'folders'}/")}
Inbox {_quoted(str(folder / "inbox"))}
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns {patterns}
Sync PullNew
Create Near
Remove None
Expunge None
CopyArrivalDate yes
SyncState {_quoted(f"{folder / 'state'}/")}
"""


def _security(host: Host, plain: bool) -> str:
    if plain:
        # LOGIN is named, or mbsync refuses it without TLS.
        return "SSLType None\nAuthMechs PLAIN LOGIN\n"
    return "SSLType STARTTLS\n" if host.port == 143 else "SSLType IMAPS\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _run(
    arguments: list[str], config: str, account: Account, look: Callable[[], int], *, both: bool = False,
    also: Sequence[int] = (),
) -> tuple[int, str]:
    """mbsync's exit code and what it said on standard error (`both`: or on standard output, if it ended well).

    `look` is called now and then; while its answers change, mbsync gets on. Raises PullError when it doesn't.
    `also`: descriptors that it gets.
    """
    path = program()
    if path is None:
        raise PullError("mbsync isn't installed.")
    descriptor = os.memfd_create("mbsync-configuration")
    try:
        os.write(descriptor, config.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        process = subprocess.Popen(  # noqa: S603 (no shell; the arguments are ours)
            [path, "-c", f"/dev/fd/{descriptor}", *arguments], pass_fds=[descriptor, *also], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, umask=0o077,
            env={"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", "LC_ALL": "C"},
        )
    finally:
        os.close(descriptor)
    try:
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            resource.prlimit(process.pid, resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        out, err = _Kept(process.stdout, MOST_LISTED), _Kept(process.stderr, MOST_OUTPUT)
        _wait(process, account, look)
    except BaseException:
        _stop(process)
        raise
    said = out.text() if both and not process.returncode else err.text()
    said = said.replace(account.password, "…").strip()
    return process.returncode, said or f"mbsync ended with {process.returncode}"


class _Kept:
    """Reads a pipe to its end in a thread, and keeps the first bytes."""

    def __init__(self, pipe: IO[bytes] | None, most: int) -> None:
        assert pipe is not None
        self._pipe, self._most, self._kept = pipe, most, b""
        self._thread = threading.Thread(target=self._read, name="mbsync-output", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            while block := os.read(self._pipe.fileno(), 65536):
                self._kept += block[: self._most - len(self._kept)]

    def text(self) -> str:
        """What was kept; the writer must have ended."""
        self._thread.join(STOP_WITHIN_S)
        return self._kept.decode(errors="replace")


def _wait(process: "subprocess.Popen[bytes]", account: Account, look: Callable[[], int]) -> None:
    """Until it ends. Raises PullError when nothing changes any more."""
    last, changed_s = None, time.monotonic()
    while True:
        try:
            process.wait(PROGRESS_EVERY_S)
            return
        except subprocess.TimeoutExpired:
            found, now_s = look(), time.monotonic()
        if found != last:
            last, changed_s = found, now_s
        elif now_s - changed_s > STALLED_S:
            raise PullError(f"nothing new came from {account.host} for {STALLED_S / 60:.0f} minutes.")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Its journal lets the next run take up where this one ended."""
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _pulled(folder: Path) -> int:
    return sum(1 for _ in pulled_files(folder))


def pulled_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """What was pulled and isn't published: the folder's name, with / between its levels, and the file."""
    for maildir, name in pulled_folders(folder):
        for part in ("new", "cur"):
            for entry in sorted(os.scandir(maildir / part), key=lambda entry: entry.name):
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                    yield name, Path(entry.path)


def pulled_folders(folder: Path) -> Iterator[tuple[Path, str]]:
    """The Maildirs that mbsync made, with their names; INBOX's is INBOX."""
    for root, name in ((folder / "inbox", "INBOX"), (folder / "folders", "")):
        yield from _maildirs(root, name)


def _maildirs(root: Path, name: str) -> Iterator[tuple[Path, str]]:
    names = {entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)}
    if name and names >= {"cur", "new", "tmp"}:
        yield root, name
    # Into cur, new and tmp as well: a folder may be called Work/new, and lies within Work's then.
    for each in sorted(names):
        yield from _maildirs(root / each, f"{name}/{each}" if name else each)


def forget(folder: Path) -> None:
    """Remove what is known of the account: a later run would pull everything again."""
    shutil.rmtree(folder)


def flags_of(name: str) -> str:
    """The Maildir flags in a file's name, sorted."""
    found = re.search(r":2,([A-Za-z]*)\Z", name)
    return "".join(sorted(set(found[1]))) if found else ""
