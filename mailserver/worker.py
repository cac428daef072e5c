"""One worker: an event loop with its share of the sessions and of the queue.

Puts the parts together and keeps house: reads a changed certificate, says that the
node is alive, finishes what a crash left staged. SIGTERM stops accepting and lets every
session finish its message, and the queue its deliveries under way. SIGUSR1, when another
mailserver has taken over, stops accepting and claiming and lets every session go on.
"""

import asyncio
import fcntl
import gc
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial

import uvloop

from mailserver import authd, log, spool, tls
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.content import ContentStore
from mailserver.directory import Directory
from mailserver.envelope import Listener
from mailserver.gate import Gate
from mailserver.intake import Intake
from mailserver.listeners import BACKLOG, Sockets
from mailserver.numbers import number_for_ids
from mailserver.resolver import Resolver
from mailserver.runner import Runner
from mailserver.session import Services, Session
from mailserver.usage import UsageClient
from panel.database.ids import WORKERS, IdMaker

HANDSHAKE_TIMEOUT_S = 30.0
HOUSEKEEPING_S = 5.0
SWEEP_S = 60.0
GRACE_S = 60.0  # between two steps for what was closed
RECHECK_S = 60.0  # between two looks at which domains' DNS is due
TELL_S = 60.0  # between two looks at what people are to be told by letter
ROUNDS = 10  # of ten domains then, so 144,000 a day
SUSPENDED_S = 900.0  # after which it is asked again whether what is held may go
RECOVER_S = 1.0  # between two tries to go on with what dead workers left
CLOCK_JUMP_S = 30.0
_EXECUTOR_THREADS = 8  # each with a database connection of its own


def run(
    config: Config,
    context: ssl.SSLContext,
    clock: Clock,
    *,
    node: int,
    number: int,
    sockets: Sockets,
    gate: Gate | None = None,
) -> None:
    """The body of a worker process; returns when it was told to stop and has finished.

    `clock` is the parent's: a worker that is started again goes on with the others' time.
    With `gate` it begins when that is opened.
    """
    uvloop.install()
    # What was made before the fork lives as long as the process: not looked at again.
    gc.freeze()
    of_ids = number_for_ids(config.run)
    asyncio.run(Worker(config, context, clock, node=node, number=number, of_ids=of_ids).serve(sockets, gate))


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
        # Numbers in ids of live processes, and, before the first look, of any: what they leave is taken back.
        self._alive = set(range(WORKERS)) - {of_ids}
        self.content = ContentStore(config)
        self.usage = UsageClient(authd.socket_path(config))
        self.runner = Runner(
            config=config, directory=self.directory, ids=self.ids, clock=self.clock, content=self.content,
            resolver=Resolver.of(config), executor=self.executor, name=f"{node}-{of_ids}", node=node,
            usage=self.usage,
        )
        self.notices = spool.Notices()
        self.intake = Intake(
            config, self.ids, self.clock, self.content, on_queued=self.runner.wake, deliverer=self.runner
        )
        self.services = Services(
            config=config, directory=self.directory, auth=authd.AuthClient(authd.socket_path(config)),
            intake=self.intake, ids=self.ids, clock=self.clock, tls=context, content=self.content,
            usage=self.usage,
        )

    async def serve(self, sockets: Sockets, gate: Gate | None = None) -> None:
        loop = asyncio.get_running_loop()
        stopping, handed_over = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGUSR1, handed_over.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload_certificate)
        if gate is not None and not await _passed(gate, stopping):
            return
        self.intake.start(loop)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self.directory.follow()),
                group.create_task(self.runner.run()),
                group.create_task(self.usage.run()),
                group.create_task(self.every(HOUSEKEEPING_S, self.keep_house)),
            ]
            recovering = [group.create_task(self.recover())]
            if self.number == 0:
                recovering.append(group.create_task(self.every(SWEEP_S, self.sweep)))
                background.append(group.create_task(self.every(GRACE_S, self.end_grace)))
                background.append(group.create_task(self.every(RECHECK_S, self.recheck_domains)))
                background.append(group.create_task(self.every(TELL_S, self.tell_people)))
            servers = [await self.listen(kind, each) for kind, each in sockets]
            # Before they are closed, or uvloop's doesn't wait. Unlike `sessions` it knows of a TLS handshake under way.
            connections = [group.create_task(server.wait_closed()) for server in servers]
            await _either(stopping, handed_over)
            self._leaving = True
            for server in servers:
                server.close()
            # At the same time as the sessions: each may take its whole time.
            queue_stops = group.create_task(self.runner.stop())
            if not stopping.is_set():
                for task in recovering:
                    task.cancel()  # another one's from now on
                await self.finish(connections, stopping)
            await asyncio.gather(self.drain(), queue_stops)
            for task in (*background, *recovering, *connections):
                task.cancel()
        await loop.run_in_executor(None, self.intake.stop)
        await self.usage.flush()
        self.executor.shutdown(wait=False, cancel_futures=True)

    async def finish(self, connections: Sequence[asyncio.Task[None]], stopping: asyncio.Event) -> None:
        """Until the last session has ended by itself, or the parent says that it was long enough."""
        while not (stopping.is_set() or all(task.done() for task in connections)):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await stopping.wait()

    async def listen(self, kind: Listener, sock: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        secure = kind is Listener.SUBMISSIONS
        return await loop.create_server(
            lambda: Session(self.services, kind),
            sock=sock,
            backlog=BACKLOG,
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

    async def recover(self) -> None:
        """Go on with what dead workers of this node left; tried again while the database is gone."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self.executor, partial(self.runner.take_back, f"{self.node}-{self.of_ids}"))
                await loop.run_in_executor(self.executor, self.sweep)
                return
            except spool.SpoolUnavailable as error:
                log.warning("the database can't be reached", error=error.__cause__ or error)
            except Exception:
                log.fault("what dead workers left can't be recovered")
            await asyncio.sleep(RECOVER_S)

    def take_back(self) -> None:
        """The leases of those who have died since the last look: nobody else holds their number."""
        for number in sorted(self._alive):
            path = self.config.run / f"ids-{number}.lock"
            if not path.exists():
                self._alive.discard(number)
                continue
            # Held meanwhile, or a new worker could take the number, and leases with it.
            with path.open("rb+") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # it lives, if only to finish what it has in hand
                self.runner.take_back(f"{self.node}-{number}")
                self._alive.discard(number)

    def keep_house(self) -> None:
        self.reload_certificate()
        jump_s = self.clock.jump_s()
        if abs(jump_s) > CLOCK_JUMP_S and self.number == 0 and not self._warned_of_jump:
            self._warned_of_jump = True
            log.warning("the clock jumped; times go on as before until the next start", seconds=round(jump_s))
        if self.number == 0:
            spool.seen(self.node, self.clock.now())

    _warned_of_jump = False
    _leaving = False

    def sweep(self) -> None:
        self.take_back()
        self.intake.sweep(frozenset(self._alive))
        now = self.clock.now()
        spool.forget(now)
        spool.try_suspended(now, held_before=now - timedelta(seconds=SUSPENDED_S))
        self.runner.wake()

    def end_grace(self) -> None:
        """Apart from the sweep: removing a large mailbox takes its time."""
        if spool.end_grace(self.clock.now(), self.config.data / "mail"):
            self.runner.wake()

    def recheck_domains(self) -> None:
        """Apart from all else: it waits for other people's name servers. A stop waits for one round at most."""
        for _ in range(ROUNDS):
            if self._leaving or not spool.recheck_domains(self.clock.now()):
                return

    def tell_people(self) -> None:
        if not self._leaving and self.notices.tell(self.clock.now(), lambda: self._leaving):
            self.runner.wake()

    def reload_certificate(self) -> None:
        with suppress(OSError, ssl.SSLError):
            tls.reload_if_changed(self.context, self.config.tls_cert, self.config.tls_key)


async def _passed(gate: Gate, stopping: asyncio.Event) -> bool:
    """Whether the gate opened before the stop."""
    passed = asyncio.ensure_future(gate.passed())
    stopped = asyncio.ensure_future(stopping.wait())
    done, pending = await asyncio.wait({passed, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return passed in done and passed.result()


async def _either(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
