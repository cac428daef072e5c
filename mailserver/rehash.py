"""Main passwords that were hashed elsewhere, hashed as ours once they were right.

Hashed at once, so that no password is kept; written behind, and only over the very hash that
was compared. What is lost on the way is done at the next login that is looked up.
"""

import asyncio
from concurrent.futures import Executor
from functools import partial

from mailserver.directory import Directory, DirectoryUnavailable
from panel.mailboxes import passwords

MOST = 1000  # on the way at once
MOST_HASHING = 8  # half a second: logins wait for the same threads, and no longer than for some of their own
MOST_AT_ONCE = 50  # written at one flush


class Rehash:
    """All on one event loop; `threads` are those that hash."""

    def __init__(self, directory: Directory, threads: Executor) -> None:
        self._directory = directory
        self._threads = threads
        self._hashing: set[int] = set()
        self._ready: dict[int, tuple[str, str]] = {}  # old and new hash, by credential

    def was_right(self, credential_id: int, password: str, stored: str) -> None:
        """This password was right for this hash: replaced soon, if it is none of ours."""
        on_the_way = len(self._hashing) + len(self._ready)
        if passwords.is_ours(stored) or on_the_way >= MOST or credential_id in self._hashing:
            return
        if len(self._hashing) >= MOST_HASHING:
            return
        self._hashing.add(credential_id)
        hashed = asyncio.get_running_loop().run_in_executor(self._threads, passwords.hash_main, password)
        hashed.add_done_callback(partial(self._hashed, credential_id, stored))

    def _hashed(self, credential_id: int, stored: str, hashed: "asyncio.Future[str]") -> None:
        self._hashing.discard(credential_id)
        if not hashed.cancelled() and hashed.exception() is None:
            self._ready[credential_id] = (stored, hashed.result())

    async def flush(self) -> None:
        """Write what is hashed; without a database it is kept for the next time."""
        for credential_id in list(self._ready)[:MOST_AT_ONCE]:
            old, new = self._ready[credential_id]
            try:
                await self._directory.replace_hash(credential_id, old, new)
            except DirectoryUnavailable:
                return
            self._ready.pop(credential_id, None)
