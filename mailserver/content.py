"""The content store: message bodies larger than 64 KiB, as files in the spool folder.

DATA is written to a temporary file as it comes, not synced. Only if the queue needs the
body is it synced and given its message's id as its name, the key in the Content row.
Stored a second at 1 MB: file 340–460, PostgreSQL 35–151 (measured). Does not know the
database: whoever sweeps says which keys are in use.
"""

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mailserver.config import Config
from mailserver.envelope import Body, StoredContent
from panel.database import ids

_TEMPORARY = "tmp."
ABANDONED_S = 86400.0
HEADER_BYTES = 1024 * 1024


class Spill:
    """A body that is being received into a file. Ends with `finish` or `discard`. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, block: bytes) -> None:
        self._sha256.update(block)
        view = memoryview(block)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.size += len(block)

    def finish(self) -> Body:
        """The whole body, in its temporary file."""
        self._close()
        return Body(size=self.size, sha256=self._sha256.hexdigest(), data=None, path=self._path)

    def discard(self) -> None:
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class ContentStore:
    """Bodies in `config.spool`. Any thread may call."""

    def __init__(self, config: Config) -> None:
        self.folder = config.spool
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new_spill(self) -> Spill:
        """Where to receive a body. Raises OSError when there is no room."""
        return Spill(self.folder / f"{_TEMPORARY}{os.getpid()}.{secrets.token_hex(8)}")

    def path(self, key: str) -> Path:
        """The file behind a key of a Content row."""
        ids.from_text(key)  # a key is an id as text: never a path
        return self.folder / key

    def keep(self, bodies: Sequence[tuple[int, Body]]) -> list[str | OSError]:
        """Make the spilled bodies of these messages durable under keys: one, or what went wrong, for each."""
        results: list[str | OSError] = []
        for message_id, body in bodies:
            assert body.path is not None
            key = ids.to_text(message_id)
            try:
                _sync(body.path)
                if (self.folder / key).exists():
                    # Two messages with one id, by a clock that was set back before a start: the first one's stays.
                    raise FileExistsError(errno.EEXIST, "another message's body has this key", key)
                os.rename(body.path, self.folder / key)
                results.append(key)
            except OSError as error:
                results.append(error)
        if any(isinstance(result, str) for result in results):
            try:
                _sync(self.folder)  # once for all of them
            except OSError as error:
                self.unlink(result for result in results if isinstance(result, str))
                return [error] * len(bodies)
        return results

    def discard(self, body: Body) -> None:
        """Forget a received body that nobody keeps; one in memory has nothing to forget."""
        if body.path is not None:
            body.path.unlink(missing_ok=True)

    def unlink(self, keys: Iterable[str]) -> None:
        """Delete bodies that no Content row names any more."""
        for key in keys:
            self.path(key).unlink(missing_ok=True)

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        """Delete what was left behind a day ago and no row names; how many files that were."""
        old = [
            entry.name
            for entry in os.scandir(self.folder)
            if entry.is_file(follow_symlinks=False)
            and entry.stat(follow_symlinks=False).st_mtime < time.time() - ABANDONED_S
        ]
        temporary = [name for name in old if name.startswith(_TEMPORARY)]
        keys = [name for name in old if _is_key(name)]
        for start in range(0, len(keys), 500):
            some = keys[start : start + 500]
            temporary += set(some) - in_use(some)
        for name in temporary:
            (self.folder / name).unlink(missing_ok=True)
        return len(temporary)


def header_block(content: StoredContent) -> bytes:
    """Prefix and header block, up to the blank line; at most 1 MiB of a body in a file is read."""
    return content.prefix + _beginning(content.body).partition(b"\r\n\r\n")[0] + b"\r\n"


def _beginning(body: Body) -> bytes:
    if body.data is not None:
        return body.data
    if body.path is None:
        return b""
    try:
        with body.path.open("rb") as file:
            return file.read(HEADER_BYTES)
    except OSError:
        return b""


def _is_key(name: str) -> bool:
    try:
        ids.from_text(name)
    except ValueError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
