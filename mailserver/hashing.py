"""Passwords that wait to be hashed, and who of them comes first.

Decides how many are hashed at once, how many may wait, and in whose turn. What they are
compared with, and what is remembered so that nothing need be hashed, is decided in
authenticator.py.

There are two queues, each with threads of its own. "Known": logins from where their
account logged in lately. "New": all others. What is guessed is in the second, unless by
somebody in the account's own network, so a flood holds up nobody who is where he usually
is. In each queue those come first of whose name, then network, the fewest wait, and when it
is full those go of whom the most do.
"""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

# Of each queue; argon2 lets other threads run, and takes 19 MiB each. On two cores one thread does as
# many as two, some 35 a second: what waits is memory.
AT_ONCE = min(max(1, (os.cpu_count() or 1) // 2), 8)
# Two seconds of hashing, and one. Each holds a process of Dovecot's meanwhile (authd.MOST_HELD).
MOST_KNOWN = 64
MOST_NEW = 32
MOST_WAITING_OF_ONE = 4  # of one login name: an attacked account doesn't block the others
DEADLINE_S = 5.0  # an asker's, after which nobody waits for the answer


class Busy(Exception):
    """Too much waits to be hashed."""


class Locked(Exception):
    """It was locked while it waited."""


@dataclass(frozen=True, slots=True)
class Question:
    """A password to be compared, and whose it is said to be.

    `network` is empty for this machine itself, which speaks for many. `is_locked` is asked
    once more when its turn comes: what was wrong meanwhile may have locked it.
    """

    name: str
    network: str
    password: str
    stored: str
    is_locked: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Waiting:
    turn: tuple[int, int, int]  # how many of its name waited when it came, of its network, and in order
    question: Question
    deadline_s: float  # monotonic
    future: "asyncio.Future[bool]"


class Hashing:
    """Takes questions on one event loop; hashes in threads."""

    def __init__(self, verify: Callable[[str, str], bool]) -> None:
        self._known = _Queue(verify, MOST_KNOWN)
        self._new = _Queue(verify, MOST_NEW)

    async def verify(self, question: Question, *, known: bool) -> bool:
        """Whether the password is the one that `stored` was made of. Raises Busy, Locked.

        `known`: its account logged in from there lately.
        """
        return await (self._known if known else self._new).put(question)

    @property
    def threads(self) -> Executor:
        """Those that hash, for what is no question."""
        return self._new.threads

    def close(self) -> None:
        self._known.close()
        self._new.close()


class _Queue:
    def __init__(self, verify: Callable[[str, str], bool], most: int) -> None:
        self._verify = verify
        self.threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hash")
        self._most = most
        self._waiting: list[_Waiting] = []
        self._running = 0
        self._count = 0

    def put(self, question: Question) -> "asyncio.Future[bool]":
        """What comes of it. Raises Busy."""
        of_name = sum(each.question.name == question.name for each in self._waiting)
        if of_name >= MOST_WAITING_OF_ONE:
            raise Busy
        of_network = sum(each.question.network == question.network for each in self._waiting)
        self._count += 1
        turn = (of_name, of_network if question.network else 0, self._count)
        if len(self._waiting) >= self._most:
            last = max(self._waiting, key=_turn)
            if last.turn[:2] <= turn[:2]:
                raise Busy
            self._waiting.remove(last)
            _settle(last.future, Busy())
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(turn, question, time.monotonic() + DEADLINE_S, future))
        self._next()
        return future

    def _next(self) -> None:
        while self._running < AT_ONCE and self._waiting:
            first = min(self._waiting, key=_turn)
            self._waiting.remove(first)
            question, future = first.question, first.future
            if future.done():
                continue
            if time.monotonic() > first.deadline_s:
                future.set_exception(Busy())  # nobody waits for it any more
            elif question.is_locked():
                future.set_exception(Locked())
            else:
                self._running += 1
                loop = asyncio.get_running_loop()
                hashed = loop.run_in_executor(self.threads, self._verify, question.password, question.stored)
                hashed.add_done_callback(partial(self._hashed, future))

    def _hashed(self, future: "asyncio.Future[bool]", hashed: "asyncio.Future[bool]") -> None:
        self._running -= 1
        if hashed.cancelled():
            return  # closed
        _settle(future, hashed.exception() or hashed.result())
        self._next()

    def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)


def _turn(waiting: _Waiting) -> tuple[int, int, int]:
    return waiting.turn


def _settle(future: "asyncio.Future[bool]", result: BaseException | bool) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
