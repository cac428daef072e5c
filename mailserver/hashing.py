"""Passwords that wait to be hashed, and who of them comes first.

Decides how many are hashed at once, how many may wait, and in whose turn. What they are
compared with, and what is remembered so that nothing need be hashed, is decided in
authenticator.py.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

HASHES_AT_ONCE = 2  # argon2 lets other threads run; 37 a second on two cores (DESIGN §7)
MOST_WAITING = 128  # 3.5 s of hashing on two cores, inside the asker's deadline
MOST_WAITING_OF_ONE = 4  # of one login name: an attacked account doesn't block the others
DEADLINE_S = 5.0  # an asker's, after which nobody waits for the answer


class Busy(Exception):
    """Too much waits to be hashed."""


class Hashing:
    """Passwords waiting to be hashed: login names in turn, few of each, and a bound on all."""

    def __init__(self, verify: Callable[[str, str], bool]) -> None:
        self._verify = verify
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="hash")
        self._waiting: OrderedDict[str, deque[tuple[str, str, float, asyncio.Future[bool]]]] = OrderedDict()
        self._count = 0
        self._running = 0

    async def verify(self, name: str, password: str, stored: str) -> bool:
        """Whether the password is the one that `stored` was made of. Raises Busy."""
        queue = self._waiting.get(name)
        if self._count >= MOST_WAITING or (queue is not None and len(queue) >= MOST_WAITING_OF_ONE):
            raise Busy
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(
            (password, stored, time.monotonic() + DEADLINE_S, future)
        )
        self._count += 1
        self._next()
        return await future

    def _next(self) -> None:
        while self._running < HASHES_AT_ONCE and self._waiting:
            name, queue = self._waiting.popitem(last=False)
            password, stored, deadline_s, future = queue.popleft()
            if queue:
                self._waiting[name] = queue  # to the end: the other names first
            self._count -= 1
            if future.done():
                continue
            if time.monotonic() > deadline_s:
                future.set_exception(Busy())  # nobody waits for it any more
                continue
            self._running += 1
            hashed = asyncio.get_running_loop().run_in_executor(self._threads, self._verify, password, stored)
            hashed.add_done_callback(partial(self._hashed, future))

    def _hashed(self, future: "asyncio.Future[bool]", hashed: "asyncio.Future[bool]") -> None:
        self._running -= 1
        if hashed.cancelled():
            return  # closed
        if not future.done():
            error = hashed.exception()
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(hashed.result())
        self._next()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
