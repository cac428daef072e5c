"""Hashes made elsewhere, replaced without holding up logins."""

import asyncio
from concurrent.futures import Executor, Future
from typing import Any, cast

from mailserver import rehash
from mailserver.directory import Directory
from mailserver.rehash import Rehash


class Waiting(Executor):
    """Threads that are all taken."""

    def __init__(self) -> None:
        self.waiting: list[Future[Any]] = []

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        self.waiting.append(Future())
        return self.waiting[-1]


async def test_only_a_few_wait_for_the_threads_that_logins_wait_for():
    threads = Waiting()
    made = Rehash(cast(Directory, None), threads)
    for credential_id in range(100):
        made.was_right(credential_id, "right", "{SSHA}x")
    assert len(threads.waiting) == rehash.MOST_HASHING
    threads.waiting[0].set_result("hashed")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # The next one that is right has its place.
    made.was_right(100, "right", "{SSHA}x")
    assert len(threads.waiting) == rehash.MOST_HASHING + 1
