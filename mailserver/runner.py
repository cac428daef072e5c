"""The queue's engine: claim → dispatch → settle.

Decides which claimed messages are under way, and what becomes of their leases. What becomes of
one message is dispatch.py's, how that is written settler.py's, rows are the spool's. DESIGN §5, "Queue".
"""

import asyncio
import random
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from mailserver import log, spool
from mailserver.backoff import BackOff
from mailserver.carrier import Carrier, outcomes_alike
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.content import ContentStore
from mailserver.directory import Directory, DirectoryUnavailable
from mailserver.dispatch import LOST_LEASES, Dispatcher
from mailserver.envelope import ClaimedMessage, Disposition, Lease
from mailserver.judge import Judge, waits
from mailserver.lanes import Held, Lanes
from mailserver.resolver import Resolver
from mailserver.settler import Settler
from mailserver.transports.lmtp import LmtpTransport
from mailserver.transports.smtp import SmtpTransport
from mailserver.usage import UsageClient
from panel.database.ids import IdMaker
from panel.rules import reply
from panel.rules.reply import Reply

PARKED = 400  # claimed messages that wait for their turn; an envelope each, no content
CLAIM = 100  # recipients at a time
MAKE_ROOM_S = 5.0  # between two times that a crowded lane is put back
PUT_BACK_S = (20.0, 40.0)  # for how long
LONGEST_SLEEP_S = 5.0
HURRY_S = 5.0  # that deliveries have to settle at a stop once they were cut short
LEASE_REST_S = 60.0  # of a lease is left for settling
LEASE_START = 1 / 3  # of a lease: a message that waited longer for its turn is given back
# What crashed workers had in hand twice comes back at different moments: one of it may crash the next
# worker, too, and must not have the same others beside it.
SPREAD_FROM = 2
SPREAD_S = (5.0, 120.0)
# After that, leases that ran out meanwhile are left alone: others first write what they have delivered.
LEASES_REST_S = 30.0

T = TypeVar("T")

WAITS_TURN = "waits: many messages go to the same place"
WAITS_CRASH = "waits: its delivery was cut short by a crash"


class Runner:
    """One worker's share of the queue. Everything but `wake` runs on one event loop."""

    def __init__(
        self,
        config: Config,
        directory: Directory,
        ids: IdMaker,
        clock: Clock,
        content: ContentStore,
        resolver: Resolver,
        executor: Executor,
        *,
        name: str,
        node: int | None = None,
        transport: SmtpTransport | None = None,
        lmtp: LmtpTransport | None = None,
        chance: random.Random | None = None,
        usage: UsageClient | None = None,
    ) -> None:
        """`name` is this worker's; `node` its node's number, whose draining it heeds; `usage` knows full mailboxes."""
        self._config = config
        self._ids = ids
        self._clock = clock
        self._executor = executor
        self._node = node
        self._transport = transport or SmtpTransport(config, resolver)
        self._lmtp = lmtp or LmtpTransport(config)
        self._chance = chance or random.Random()  # noqa: S311 jitter, no secret
        # A predecessor of the same name may still be settling: leases are told apart.
        self._lease_by = f"{name[:40]}-{secrets.token_hex(8)}"
        self._lanes = Lanes()
        self._tasks: dict[asyncio.Task[None], ClaimedMessage] = {}
        self._returning: set[asyncio.Task[None]] = set()
        self._sessions: dict[int, asyncio.Future[Reply | None]] = {}  # that wait for a message's first try
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = asyncio.Event()
        self._stopping = False
        self._finished = asyncio.Event()
        self._made_room_at: datetime | None = None
        self._leases_rest_until: datetime | None = None
        self._claim_in_doubt = False  # the database was lost while it committed one
        self._full = False  # the last claim took all that there was room for: there may be more
        self._backoff = BackOff()
        self._judge = Judge(config, ids, clock, self._chance)
        self._carrier = Carrier(
            config, directory, clock, executor, self._transport, self._lmtp, usage, lease_by=self._lease_by
        )
        self._dispatcher = Dispatcher(
            directory, clock, content, executor, self._carrier, self._judge, self._tell_session
        )
        self._settler = Settler(
            config, ids, clock, content, executor, self._backoff, lease_by=self._lease_by, on_report=self._awake.set
        )

    # Its life

    async def run(self) -> None:
        """Work until `stop` or cancellation. Never raises for what goes wrong with a message or the database."""
        self._loop = asyncio.get_running_loop()
        settler = asyncio.create_task(self._settler.run())
        try:
            while not self._stopping:
                await self._round()
        finally:
            try:
                await self._finish()
            finally:
                settler.cancel()
                self._transport.close()
                self._lmtp.close()
                self._finished.set()

    def wake(self) -> None:
        """There is something to do. Any thread may call it, and before `run`."""
        if self._loop is None:
            self._awake.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._awake.set)

    def take_back(self, name: str) -> None:
        """Go on with what workers of this name had in hand; they must be dead. Any thread. Raises SpoolUnavailable."""
        taken = spool.take_back(name, but=self._lease_by, now=self._clock.now())
        if taken:
            log.recovered(None, leased=taken)
            self.wake()

    async def stop(self) -> None:
        """Claim no more, let deliveries under way finish within `stop_s`, cancel the rest, give leases back."""
        self._stopping = True
        self._awake.set()
        if self._loop is not None:
            await self._finished.wait()

    # What intake hands over

    def offer(self) -> Lease | None:
        """A lease for a message that is about to be committed and handed to `deliver_now`; None without room."""
        if self._loop is None or self._stopping or self._lanes.waiting >= PARKED:
            return None
        now = self._clock.now()
        return Lease(self._lease_by, now, now + timedelta(seconds=self._config.lease_s))

    def deliver_now(self, message: ClaimedMessage, lease: Lease) -> "asyncio.Future[Reply | None]":
        """Deliver what was committed under a lease from `offer`, in its turn.

        What its session is to say: a refusal, when all of it failed for good and the future
        is still awaited; then nothing of it is kept. None otherwise, and the queue has it.
        """
        assert self._loop is not None
        future: asyncio.Future[Reply | None] = self._loop.create_future()
        self._sessions[message.id] = future
        future.add_done_callback(lambda _: self._sessions.pop(message.id, None))
        if self._stopping:
            future.set_result(None)
            task = asyncio.create_task(self._give_back([message]))  # or nobody had it until the lease runs out
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)
        else:
            self._lanes.add(Held(message, lease.at))
            self._start()
        return future

    def _tell_session(self, message: ClaimedMessage, refusal: Reply | None) -> bool:
        """The first try's verdict for the session that waits for it; whether one did."""
        future = self._sessions.get(message.id)
        if future is None or future.done():
            return False
        future.set_result(refusal)
        return True

    async def _round(self) -> None:
        """Claim what there is room for, start what may go, then sleep until there may be more."""
        self._awake.clear()
        try:
            await self._make_room()
            wait_s = await self._claim()
            self._backoff.over()
        except spool.SpoolUnavailable as error:
            self._claim_in_doubt |= error.in_doubt
            wait_s = self._backoff.longer(error)
        except Exception:
            log.fault("the queue can't be claimed")
            wait_s = self._backoff.longer(None)
        if self._stopping:
            return
        self._start()
        try:
            async with asyncio.timeout(wait_s):
                await self._awake.wait()
        except TimeoutError:
            pass

    async def _claim(self) -> float:
        """Lease what is due and park it; how long to wait then, 0 when there may be more. Raises SpoolUnavailable."""
        room = min(CLAIM, PARKED - self._lanes.waiting)
        self._full = True
        if room <= 0:
            return LONGEST_SLEEP_S
        if self._claim_in_doubt:
            # Committed perhaps, but never heard of: nobody would have it in hand until its lease runs out.
            mine = [*self._lanes.messages(), *self._tasks.values()]
            numbers = [recipient.id for message in mine for recipient in message.recipients]
            await self._call(partial(spool.release_all_but, numbers, lease_by=self._lease_by))
            self._claim_in_doubt = False
        now = self._clock.now()
        if self._backoff.is_on:
            self._leases_rest_until = now + timedelta(seconds=LEASES_REST_S)
        lapsed = self._leases_rest_until is None or now > self._leases_rest_until
        claimed = await self._call(partial(
            spool.claim, now=now, lease_by=self._lease_by, lease_s=self._config.lease_s, limit=room, node=self._node,
            lapsed=lapsed,
        ))
        for message in await self._spread(claimed, now):
            self._lanes.add(Held(message, now))
        if sum(len(message.recipients) for message in claimed) >= room:
            return 0.0
        self._full = False
        due = await self._call(partial(spool.next_due, now))
        soonest_s = 0.05 if lapsed else 1.0
        return min(LONGEST_SLEEP_S, max(soonest_s, (due - now).total_seconds())) if due else LONGEST_SLEEP_S

    async def _spread(self, claimed: Sequence[ClaimedMessage], now: datetime) -> Sequence[ClaimedMessage]:
        """Those to deliver now: of what two crashed workers had in hand only the first, the others in a while."""
        # Who lost too many is held at once instead.
        suspects = [
            message for message in claimed
            if SPREAD_FROM <= max(each.lost_leases for each in message.recipients) < LOST_LEASES
        ][1:]
        if not suspects:
            return claimed
        settlements = [
            waits(message, recipient, WAITS_CRASH, now + timedelta(seconds=self._chance.uniform(*SPREAD_S)))
            for message in suspects
            for recipient in message.recipients
        ]
        try:
            await self._call(partial(
                spool.settle, settlements, now=now, lease_by=self._lease_by, next_id=self._ids.next,
            ))
        except spool.SpoolUnavailable:
            return claimed
        return [message for message in claimed if message not in suspects]

    def _start(self) -> None:
        too_late = self._clock.now() - timedelta(seconds=self._config.lease_s * LEASE_START)
        while held := self._lanes.next():
            work = self._give_back([held.message]) if held.claimed_at < too_late else self._deliver(held)
            task = asyncio.create_task(work)
            self._tasks[task] = held.message
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        message = self._tasks.pop(task)
        self._lanes.done(message)
        self._tell_session(message, None)
        if self._stopping:
            return
        self._start()
        if self._full and self._lanes.waiting <= PARKED - CLAIM:
            self._awake.set()

    async def _finish(self) -> None:
        """The end of `run`, also when it is cancelled: nobody's lease is kept without need."""
        await self._give_back(held.message for held in self._lanes.clear())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._config.stop_s)
            self._transport.hurry()
            self._lmtp.hurry()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=HURRY_S)
        late = dict(self._tasks)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        await self._settler.flush()
        await self._give_back(late.values())

    async def _give_back(self, messages: Iterable[ClaimedMessage]) -> None:
        """Once: when the database is gone, the leases run out by themselves."""
        await self._gave_back(messages)

    async def _gave_back(self, messages: Iterable[ClaimedMessage]) -> bool:
        numbers = [recipient.id for message in messages for recipient in message.recipients]
        try:
            await self._call(partial(spool.release, numbers, lease_by=self._lease_by))
        except spool.SpoolUnavailable:
            return False
        return True

    async def _make_room(self) -> None:
        """With no room to claim, half of the longest lane goes back, or one crowded place would stop all others."""
        now = self._clock.now()
        lately = self._made_room_at and now - self._made_room_at < timedelta(seconds=MAKE_ROOM_S)
        if self._lanes.waiting < PARKED or lately:
            return
        self._made_room_at = now
        back = self._lanes.make_room()
        for held in back:
            self._tell_session(held.message, None)
        settlements = [
            waits(held.message, recipient, WAITS_TURN, now + timedelta(seconds=self._chance.uniform(*PUT_BACK_S)))
            for held in back
            for recipient in held.message.recipients
        ]
        try:
            await self._call(partial(
                spool.settle, settlements, now=now, lease_by=self._lease_by, next_id=self._ids.next,
            ))
        except spool.SpoolUnavailable:
            for held in reversed(back):
                self._lanes.add(held)
            raise

    # One message

    async def _deliver(self, held: Held) -> None:
        """The top of a message's task: whatever goes wrong, its recipients wait and others go on."""
        message = held.message
        try:
            settlements = await self._dispatcher.settlements(
                message, held.claimed_at + timedelta(seconds=max(1.0, self._config.lease_s - LEASE_REST_S))
            )
        except (DirectoryUnavailable, spool.SpoolUnavailable) as error:
            # Keeps its place meanwhile: what is given back is due at once, and would come again at once.
            await asyncio.sleep(self._backoff.longer(error))
            # Until it is done: else it would wait for its lease to run out, long after the database is back.
            while not await self._gave_back([message]) and not self._stopping:  # noqa: ASYNC110 a back-off
                await asyncio.sleep(self._backoff.longer(None))
            return
        except Exception:
            log.fault("a delivery failed", message=message.id)
            outcomes = outcomes_alike(message.recipients, Disposition.DEFERRED, reply.INTERNAL_ERROR)
            settlements = self._judge.settled(message, outcomes, lambda *_: None, returnable=False)
        await self._settler.settle(settlements)

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
