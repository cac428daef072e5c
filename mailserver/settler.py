"""Writes what became of recipients, many in one transaction, until it is written.

What that is, is the judge's; rows are the spool's.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import timedelta
from functools import partial
from typing import TypeVar

from mailserver import log, spool
from mailserver.backoff import BackOff
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.content import ContentStore
from mailserver.envelope import Settlement
from panel.database.ids import IdMaker

MOST_AT_ONCE = 100  # in a transaction

T = TypeVar("T")


class Settler:
    """One worker's; everything runs on its event loop."""

    def __init__(
        self,
        config: Config,
        ids: IdMaker,
        clock: Clock,
        content: ContentStore,
        executor: Executor,
        backoff: BackOff,
        *,
        lease_by: str,
        on_report: Callable[[], None],
    ) -> None:
        """`lease_by` is whose leases end with a settlement; `on_report` hears of each DSN that was queued with one."""
        self._config = config
        self._ids = ids
        self._clock = clock
        self._content = content
        self._executor = executor
        self._backoff = backoff
        self._lease_by = lease_by
        self._on_report = on_report
        self._unsettled: list[tuple[Settlement, asyncio.Future[None]]] = []
        self._to_settle = asyncio.Event()

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Until they are written, however long the database is gone: what was sent must not be sent again."""
        if not settlements:
            return
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in settlements]
        self._unsettled += zip(settlements, futures, strict=True)
        self._to_settle.set()
        await asyncio.wait(futures)

    async def run(self) -> None:
        """Write what waits, in one transaction, again and again."""
        while True:
            await self._to_settle.wait()
            self._to_settle.clear()
            while not await self.flush():  # noqa: ASYNC110 a back-off, nothing to wait for
                await asyncio.sleep(self._backoff.longer(None))

    async def flush(self) -> bool:
        """Write what waits; False when the database is gone."""
        while batch := self._unsettled[:MOST_AT_ONCE]:
            # Taken off only when written: the runner may cancel whoever waits for them.
            try:
                settled = await self._call(partial(
                    spool.settle, [settlement for settlement, _ in batch], now=self._clock.now(),
                    lease_by=self._lease_by, next_id=self._ids.next, life=timedelta(days=self._config.queue_days),
                ))
            except spool.SpoolUnavailable as error:
                self._backoff.longer(error)
                return False
            except Exception:
                log.fault("settlements can't be written", recipients=len(batch))
                settled = None
            written = {id(settlement) for settlement, _ in batch}
            self._unsettled = [entry for entry in self._unsettled if id(entry[0]) not in written]
            for _, future in batch:
                if not future.done():
                    future.set_result(None)
            if any(settlement.dsn for settlement, _ in batch):
                self._on_report()  # it is due at once
            if settled and settled.unlink:
                try:
                    await self._call(partial(self._content.unlink, settled.unlink))
                except OSError as error:
                    log.warning("a body can't be deleted, the sweep will try again", error=error)
        return True

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
