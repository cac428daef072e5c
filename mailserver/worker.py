"""One worker: an event loop with its share of the sessions and of the queue.

Puts the parts together and keeps house: reads a changed certificate, says that the
node is alive, finishes what a crash left staged. SIGTERM stops accepting and lets every
session finish its message, and the queue its deliveries under way.
"""

import asyncio
import fcntl
import gc
import signal
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import uvloop

from mailserver import authd, log, spool, tls
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.content import ContentStore
from mailserver.directory import Directory
from mailserver.envelope import Listener
from mailserver.intake import Intake
from mailserver.numbers import number_for_ids
from mailserver.resolver import Resolver
from mailserver.runner import Runner
from mailserver.session import Services, Session
from mailserver.usage import UsageClient
from panel.database.ids import WORKERS, IdMaker

HANDSHAKE_TIMEOUT_S = 30.0
HOUSEKEEPING_S = 5.0
SWEEP_S = 60.0
SUSPENDED_S = 900.0  # after which it is asked again whether what is held may go
TAKE_OVER_S = 1.0  # between two tries to take over what dead workers left
CLOCK_JUMP_S = 30.0
_EXECUTOR_THREADS = 8  # each with a database connection of its own


def run(
    config: Config,
    context: ssl.SSLContext,
    clock: Clock,
    *,
    node: int,
    number: int,
    sockets: list[tuple[Listener, socket.socket]],
) -> None:
    """The body of a worker process; returns when it was told to stop and has finished.

    `clock` is the parent's: a worker that is started again goes on with the others' time.
    """
    uvloop.install()
    # What was made before the fork lives as long as the process: not looked at again.
    gc.freeze()
    of_ids = number_for_ids(config.run)
    asyncio.run(Worker(config, context, clock, node=node, number=number, of_ids=of_ids).serve(sockets))


class Worker:
    def __init__(
        self, config: Config, context: ssl.SSLContext, clock: Clock, *, node: int, number: int, of_ids: int
    ) -> None:
        """`of_ids` is the number within the ids that it makes, and the name of its leases."""
        self.config = config
        self.context = context
        self.node = node
        self.number = number
        self.of_ids = of_ids
        self.clock = clock
        self.executor = ThreadPoolExecutor(_EXECUTOR_THREADS, thread_name_prefix="database")
        self.directory = Directory(
            separator=config.separator, postmaster=config.postmaster, hostname=config.hostname, executor=self.executor,
            store=config.store.default,
        )
        self.ids = IdMaker(node, of_ids, self.clock.time_s)
        self.content = ContentStore(config)
        self.usage = UsageClient(authd.socket_path(config))
        self.runner = Runner(
            config=config, directory=self.directory, ids=self.ids, clock=self.clock, content=self.content,
            resolver=Resolver.of(config), executor=self.executor, name=f"{node}-{of_ids}", node=node,
            usage=self.usage,
        )
        self.intake = Intake(
            config, self.ids, self.clock, self.content, on_queued=self.runner.wake, deliverer=self.runner
        )
        self.services = Services(
            config=config, directory=self.directory, auth=authd.AuthClient(authd.socket_path(config)),
            intake=self.intake, ids=self.ids, clock=self.clock, tls=context, content=self.content,
            usage=self.usage,
        )

    async def serve(self, sockets: list[tuple[Listener, socket.socket]]) -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload_certificate)
        self.intake.start(loop)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self.directory.follow()),
                group.create_task(self.runner.run()),
                group.create_task(self.usage.run()),
                group.create_task(self.every(HOUSEKEEPING_S, self.keep_house)),
                group.create_task(self.take_over()),
            ]
            if self.number == 0:
                background.append(group.create_task(self.every(SWEEP_S, self.sweep)))
            servers = [await self.listen(kind, each) for kind, each in sockets]
            await stopping.wait()
            for server in servers:
                server.close()
            # At the same time: each may take its whole time.
            await asyncio.gather(self.drain(), self.runner.stop())
            for task in background:
                task.cancel()
        await loop.run_in_executor(None, self.intake.stop)
        await self.usage.flush()
        self.executor.shutdown(wait=False, cancel_futures=True)

    async def listen(self, kind: Listener, sock: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        secure = kind is Listener.SUBMISSIONS
        return await loop.create_server(
            lambda: Session(self.services, kind),
            sock=sock,
            ssl=self.context if secure else None,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if secure else None,
        )

    async def drain(self) -> None:
        """Every session ends after the message that it is at, within the bound."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.config.stop_s
        told: set[Session] = set()
        while self.services.sessions and loop.time() < deadline:
            # Again and again: a TLS handshake that was under way ends in one more session.
            for session in self.services.sessions - told:
                session.drain()
                told.add(session)
            await asyncio.sleep(0.02)
        for session in tuple(self.services.sessions):
            session.abort()

    async def every(self, seconds: float, what: Callable[[], None]) -> None:
        """Call `what` in a thread now and each so many seconds; its failure is logged, never the end."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self.executor, what)
            except spool.SpoolUnavailable as error:
                log.warning("the database can't be reached", error=error.__cause__ or error)
            except Exception:
                log.fault("housekeeping failed")
            await asyncio.sleep(seconds)

    async def take_over(self) -> None:
        """Go on with what dead workers of this node left; tried again while the database is gone."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self.executor, self.take_back)
                await loop.run_in_executor(self.executor, self.sweep)
                return
            except spool.SpoolUnavailable as error:
                log.warning("the database can't be reached", error=error.__cause__ or error)
            except Exception:
                log.fault("what was left can't be taken over")
            await asyncio.sleep(TAKE_OVER_S)

    def take_back(self) -> None:
        """The leases of those who are surely dead: nobody else holds their number."""
        self.runner.take_back(f"{self.node}-{self.of_ids}")
        for number in range(WORKERS):
            path = self.config.run / f"ids-{number}.lock"
            if number == self.of_ids or not path.exists():
                continue
            # Held meanwhile, or a new worker could take the number, and leases with it.
            with path.open("rb+") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # it lives, if only to finish what it has in hand
                self.runner.take_back(f"{self.node}-{number}")

    def keep_house(self) -> None:
        self.reload_certificate()
        jump_s = self.clock.jump_s()
        if abs(jump_s) > CLOCK_JUMP_S and self.number == 0 and not self._warned_of_jump:
            self._warned_of_jump = True
            log.warning("the clock jumped; times go on as before until the next start", seconds=round(jump_s))
        if self.number == 0:
            spool.seen(self.node, self.clock.now())

    _warned_of_jump = False

    def sweep(self) -> None:
        self.intake.sweep()
        now = self.clock.now()
        spool.try_suspended(now, held_before=now - timedelta(seconds=SUSPENDED_S))
        self.runner.wake()

    def reload_certificate(self) -> None:
        with suppress(OSError, ssl.SSLError):
            tls.reload_if_changed(self.context, self.config.tls_cert, self.config.tls_key)
