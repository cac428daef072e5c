"""The queue's engine: claim → where to → transport → settle.

Decides where a claimed recipient goes now, what an outcome means for it (delivered, tried
again, failed, held), and who is told. How a message is carried is the transports', times
are rules/schedule's, rows are the spool's. DESIGN §5, "Queue".

A recipient that fails for good and can't be returned to a sender who authenticated here
(inbound mail that was forwarded, a DSN itself) is held as undeliverable, never dropped.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from mailserver import dsn, log, room, spool, trace
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.content import ContentStore
from mailserver.directory import Directory, DirectoryUnavailable
from mailserver.envelope import (
    Attempt,
    Body,
    Claimed,
    ClaimedMessage,
    Disposition,
    Hold,
    Incoming,
    Lease,
    Outcome,
    Settlement,
    StoredContent,
)
from mailserver.lanes import LMTP, OURS, Held, Lanes
from mailserver.resolver import Resolver
from mailserver.transports import maildir
from mailserver.transports.lmtp import LmtpTransport
from mailserver.transports.smtp import SmtpTransport
from mailserver.usage import UsageClient
from panel.database.ids import IdMaker
from panel.rules import filtering, headers, reply, schedule
from panel.rules.addresses import Address, BadAddress, parse_address
from panel.rules.facts import Delivery, LocalMailbox, Resolution, Route, Verdict
from panel.rules.headers import BadHeader
from panel.rules.reply import Reply

PARKED = 400  # claimed messages that wait for their turn; an envelope each, no content
CLAIM = 100  # recipients at a time
MAKE_ROOM_S = 5.0  # between two times that a crowded lane is put back
PUT_BACK_S = (20.0, 40.0)  # for how long
LONGEST_SLEEP_S = 5.0
HURRY_S = 5.0  # that deliveries have to settle at a stop once they were cut short
LEASE_REST_S = 60.0  # of a lease is left for settling
LEASE_START = 1 / 3  # of a lease: a message that waited longer for its turn is given back
LOST_LEASES = 3  # a recipient that so many crashed workers had in hand is not touched again
# What crashed workers had in hand twice comes back at different moments: one of it may crash the next
# worker, too, and must not have the same others beside it.
SPREAD_FROM = 2
SPREAD_S = (5.0, 120.0)
BACKOFF_S = (0.5, 10.0)  # while the database is gone
# After that, leases that ran out meanwhile are left alone: others first write what they have delivered.
LEASES_REST_S = 30.0
HEADER_BYTES = 1024 * 1024

T = TypeVar("T")

ANSWER = "answer"  # the direction of what a mailbox answers by itself

WAITS_SUSPENDED = "waits: its sender is suspended"
WAITS_TURN = "waits: many messages go to the same place"
WAITS_CRASH = "waits: its delivery was cut short by a crash"
WAITS_POISON = "held: its delivery crashed again and again"


@dataclass(frozen=True, slots=True)
class _Remote:
    """Where a recipient goes by SMTP; `resolved` is its address there."""

    hop: str
    route: Route | None
    resolved: str


_Place = LocalMailbox | _Remote | Reply


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
        self._directory = directory
        self._ids = ids
        self._clock = clock
        self._content = content
        self._executor = executor
        self._node = node
        self._transport = transport or SmtpTransport(config, resolver)
        self._lmtp = lmtp or LmtpTransport(config)
        self._usage = usage
        self._chance = chance or random.Random()  # noqa: S311 jitter, no secret
        # A predecessor of the same name may still be settling: leases are told apart.
        self._lease_by = f"{name[:40]}-{secrets.token_hex(8)}"
        self._lanes = Lanes()
        self._tasks: dict[asyncio.Task[None], ClaimedMessage] = {}
        self._returning: set[asyncio.Task[None]] = set()
        self._sessions: dict[int, asyncio.Future[Reply | None]] = {}  # that wait for a message's first try
        self._unsettled: list[tuple[Settlement, asyncio.Future[None]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = asyncio.Event()
        self._to_settle = asyncio.Event()
        self._stopping = False
        self._finished = asyncio.Event()
        self._made_room_at: datetime | None = None
        self._backoff_s = 0.0
        self._leases_rest_until: datetime | None = None
        self._claim_in_doubt = False  # the database was lost while it committed one
        self._full = False  # the last claim took all that there was room for: there may be more

    # Its life

    async def run(self) -> None:
        """Work until `stop` or cancellation. Never raises for what goes wrong with a message or the database."""
        self._loop = asyncio.get_running_loop()
        settler = asyncio.create_task(self._settle_all())
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
            self._recovered()
        except spool.SpoolUnavailable as error:
            self._claim_in_doubt |= error.in_doubt
            wait_s = self._back_off(error)
        except Exception:
            log.fault("the queue can't be claimed")
            wait_s = self._back_off(None)
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
        if self._backoff_s:
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
            self._waits(message, recipient, WAITS_CRASH, now + timedelta(seconds=self._chance.uniform(*SPREAD_S)))
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
        await self._flush()
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
            self._waits(held.message, recipient, WAITS_TURN, now + timedelta(seconds=self._chance.uniform(*PUT_BACK_S)))
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
            settlements = await self._settlements(
                message, held.claimed_at + timedelta(seconds=max(1.0, self._config.lease_s - LEASE_REST_S))
            )
        except (DirectoryUnavailable, spool.SpoolUnavailable) as error:
            # Keeps its place meanwhile: what is given back is due at once, and would come again at once.
            await asyncio.sleep(self._back_off(error))
            # Until it is done: else it would wait for its lease to run out, long after the database is back.
            while not await self._gave_back([message]) and not self._stopping:  # noqa: ASYNC110 a back-off
                await asyncio.sleep(self._back_off(None))
            return
        except Exception:
            log.fault("a delivery failed", message=message.id)
            outcomes = _all(message.recipients, Disposition.DEFERRED, reply.INTERNAL_ERROR)
            settlements = self._settled(message, outcomes, lambda *_: None, returnable=False)
        await self._settle(settlements)

    async def _settlements(self, message: ClaimedMessage, until: datetime) -> list[Settlement]:
        """What becomes of each recipient, by `until`.

        Raises DirectoryUnavailable and SpoolUnavailable: then nothing was sent yet, and what
        was put into a mailbox is known there by its staged file.
        """
        settlements, going, over = await self._holds(message)
        if over:
            settlements += await self._bounce(replace(message, recipients=tuple(over)))
        if not going:
            return settlements
        sender = await self._returns_to(message)
        content = await self._call(partial(spool.read_content, message.id, folder=self._content.folder))
        places = {recipient.id: await self._where(recipient) for recipient in going}
        # With the addresses that they have there now: what is told of an outcome depends on them.
        message = replace(message, recipients=tuple(_aimed(recipient, places[recipient.id]) for recipient in going))
        outcomes = await self._outcomes(message, places, content, until)
        refused = not settlements and all(outcome.disposition is Disposition.FAILED for outcome in outcomes)
        # A session that still waits refuses the message itself: then nothing of it is left to be returned or held.
        told = self._tell_session(message, outcomes[0].reply if refused else None) and refused
        tell = partial(self._told, message, sender, *await self._returned(content))
        return settlements + self._settled(
            message, outcomes, tell, returnable=sender is not None, refused=told
        )

    async def _holds(self, message: ClaimedMessage) -> tuple[list[Settlement], list[Claimed], list[Claimed]]:
        """Those that may not go, settled as held; those that may; those that never will."""
        held: list[Settlement] = []
        going: list[Claimed] = []
        over: list[Claimed] = []
        now = self._clock.now()
        for recipient in message.recipients:
            if recipient.lost_leases >= LOST_LEASES:
                log.held(message.id, recipient=recipient.original, because="poison")
                held.append(self._waits(message, recipient, WAITS_POISON, now, Hold.POISON))
            elif await self._may_go(message, recipient):
                going.append(recipient)
            elif await self._directory.is_over(
                recipient.tenant_id, _address(message.reverse_path), message.credential_id
            ):
                over.append(recipient)
            else:
                log.held(message.id, recipient=recipient.original, because="suspended")
                held.append(self._waits(message, recipient, WAITS_SUSPENDED, now, Hold.SUSPENDED))
        return held, going, over

    async def _bounce(self, message: ClaimedMessage) -> list[Settlement]:
        """Fail what a closed sender left when its grace period is over; told to who still receives there, if anybody.

        Never held as undeliverable: with the sender nobody is left to whom it could matter.
        """
        sender = await self._returns_to(message)
        content = await self._call(partial(spool.read_content, message.id, folder=self._content.folder))
        outcomes = _all(message.recipients, Disposition.FAILED, reply.SENDER_REMOVED)
        tell = partial(self._told, message, sender, *await self._returned(content))
        return self._settled(message, outcomes, tell, returnable=sender is not None, refused=True)

    async def _returned(self, content: StoredContent | None) -> tuple[StoredContent | None, bytes]:
        """What a DSN may show of a message, and its header block: not that somebody here forwards."""
        content = _unmarked(content)
        return content, await self._call(partial(_header_block, content)) if content else b""

    async def _may_go(self, message: ClaimedMessage, recipient: Claimed) -> bool:
        """Whether its tenant and sender may send. What comes in for a mailbox here always may: it is received."""
        if message.direction == "submission":
            sender = _address(message.reverse_path) if message.reverse_path else None
            return await self._directory.may_go(recipient.tenant_id, sender, message.credential_id)
        if message.direction in ("inbound", ANSWER) and recipient.next_hop not in OURS:
            return await self._directory.may_go(recipient.tenant_id, None)
        return True

    async def _returns_to(self, message: ClaimedMessage) -> Resolution | None:
        """Where a DSN would go; None: nowhere. Only to who authenticated here, never for the null path."""
        if message.direction != "submission" or not message.reverse_path:
            return None
        sender = _address(message.reverse_path)
        found = await self._directory.resolve(sender) if sender else None
        return found if found and found.verdict in (Verdict.HERE, Verdict.ELSEWHERE) else None

    async def _outcomes(
        self, message: ClaimedMessage, places: Mapping[int, _Place], content: StoredContent | None, until: datetime
    ) -> list[Outcome]:
        """One for each recipient: local ones into their mailbox, then the others grouped by where they go."""
        outcomes: list[Outcome] = []
        here: list[tuple[LocalMailbox, Claimed]] = []
        by_lmtp: list[Claimed] = []
        ways: dict[tuple[str, Route | None, bool], list[Claimed]] = {}
        unmarked = _unmarked(content)
        for recipient in message.recipients:
            to = places[recipient.id]
            # A copy that is staged already is the truth, whoever stores the domain's mail by now.
            if isinstance(to, LocalMailbox) and to.store == LMTP and not recipient.staged:
                if unmarked is not None and await self._call(partial(_came_back, unmarked, to)):
                    refusal = reply.ALIAS_LOOPS.about(address=recipient.original)
                    outcomes += _all([recipient], Disposition.FAILED, refusal)
                else:
                    by_lmtp.append(replace(recipient, resolved=str(to.address)))
            elif isinstance(to, LocalMailbox):
                here.append((to, recipient))
            elif isinstance(to, _Remote):
                is_forwarded = unmarked != content and recipient.resolved != recipient.original
                ways.setdefault((to.hop, to.route, is_forwarded), []).append(recipient)
            else:
                kind = Disposition.FAILED if to.is_permanent else Disposition.DEFERRED
                outcomes += _all([recipient], kind, to)
        for mailbox, recipient in here:
            outcomes.append(await self._into(mailbox, message, recipient, unmarked))
        if by_lmtp:
            outcomes += await self._away(
                replace(message, recipients=tuple(by_lmtp)), unmarked, LMTP, self._lmtp.deliver, until
            )
        for (hop, route, is_forwarded), recipients in ways.items():
            outcomes += await self._away(
                replace(message, recipients=tuple(recipients)), content if is_forwarded else unmarked, hop,
                partial(self._transport.deliver, hop=hop, route=route), until,
            )
        return outcomes

    async def _where(self, recipient: Claimed) -> _Place:
        """Asked again at each try: a mailbox may be gone, a domain have come here, a route been set."""
        address = _address(recipient.resolved)
        if address is None:
            return reply.BAD_RECIPIENT_ADDRESS
        resolution = await self._directory.resolve(address)
        if resolution.verdict is Verdict.UNKNOWN:
            return reply.MAILBOX_GONE.about(address=recipient.original)
        if resolution.verdict is Verdict.LOOPS:
            return reply.ALIAS_LOOPS.about(address=recipient.original)
        if resolution.verdict is Verdict.HERE:
            if resolution.steps and resolution.steps[0].mailbox:
                # A mailbox's own copy: whether it is forwarded was decided at intake, and charged there.
                return resolution.steps[0].mailbox
            deliveries = resolution.deliveries
            own = [each for each in deliveries if each.resolved.canonical == address.canonical]
            chosen = own[0] if own else deliveries[0] if len(deliveries) == 1 else None
            if chosen is None:
                # It became an alias of several since: a row is one delivery. Its owner may mend that.
                log.warning("an address in the queue now leads to several", recipient=recipient.id)
                return reply.RECIPIENT_UNAVAILABLE.about(address=recipient.original)
            if chosen.mailbox:
                return chosen.mailbox
            address = chosen.resolved
        route = None if address.domain.startswith("[") else await self._directory.route(address.domain)
        return _Remote(address.domain, route, str(address))

    async def _into(
        self, mailbox: LocalMailbox, message: ClaimedMessage, recipient: Claimed, content: StoredContent | None
    ) -> Outcome:
        """Into a mailbox here: staged if it is not, then published. A published one is never staged again."""
        began_s = self._clock.time_s()
        # A staged copy has had its room.
        taken = await room.take_one(self._usage, mailbox, message, recipient) if not recipient.staged else None
        answer = taken.refused if taken else None
        if answer is None:
            try:
                answer = await self._call(partial(self._put, mailbox, message, recipient, content))
            except OSError as error:
                log.warning("a mailbox can't be written", mailbox=mailbox.opaque_id, error=error)
                answer = reply.DISK_FULL if error.errno in maildir.NO_ROOM else reply.UNAVAILABLE
            finally:
                # Also when the database is gone: each further try takes it again.
                if taken and (answer is None or answer.code != 250):
                    taken.give_back()
        disposition = Disposition.DELIVERED if answer.code == 250 else Disposition.DEFERRED
        if answer.is_permanent:
            disposition = Disposition.FAILED
        return Outcome(recipient.id, disposition, answer, duration_ms=int((self._clock.time_s() - began_s) * 1000))

    def _put(
        self, mailbox: LocalMailbox, message: ClaimedMessage, recipient: Claimed, content: StoredContent | None
    ) -> Reply:
        """In a thread. Raises OSError and SpoolUnavailable."""
        # A file that no row knows of is what a crash left: the one of this try takes its name.
        staged = maildir.staged_copy(self._config, recipient.id, mailbox) if recipient.staged else None
        if staged is None and recipient.staged:
            return reply.DELIVERED_HERE  # No longer staged: it was published.
        if staged is None:
            if content is None:
                raise FileNotFoundError("the message's content is gone")
            if _came_back(content, mailbox):
                return reply.ALIAS_LOOPS.about(address=recipient.original)
            copy = maildir.Copy(recipient.id, mailbox, recipient.resolved, _is_junk(content, mailbox))
            letter = maildir.Letter(
                recipient.accepted_at, message.reverse_path, content.prefix, content.body, (copy,)
            )
            (apart,) = maildir.stage(self._config, letter, apart=True)
            if not spool.mark_staged(
                recipient.id, lease_by=self._lease_by, take_name=partial(maildir.take_name, self._config, apart)
            ):
                # Another one has it by now, and may have delivered it: a second file would be a second copy.
                maildir.unstage([apart])
                return reply.UNAVAILABLE
            staged = maildir.staged_copy(self._config, recipient.id, mailbox)
            if staged is None:
                return reply.DELIVERED_HERE
        maildir.publish(self._config, staged)
        return reply.DELIVERED_HERE

    async def _away(
        self,
        message: ClaimedMessage,
        content: StoredContent | None,
        hop: str,
        deliver: Callable[..., Awaitable[list[Outcome]]],
        until: datetime,
    ) -> Sequence[Outcome]:
        """By SMTP or LMTP. Never raises: what went before, here or to another hop, must be settled."""
        if content is None:
            log.warning("a waiting message has no content", message=message.id)
            return _all(message.recipients, Disposition.DEFERRED, reply.INTERNAL_ERROR)
        within_s = max(1.0, (until - self._clock.now()).total_seconds())
        try:
            return await deliver(message, content.prefix, content.body, within_s=within_s)
        except Exception:
            log.fault("a message can't be sent", message=message.id, hop=hop)
            return _all(message.recipients, Disposition.DEFERRED, reply.INTERNAL_ERROR)

    # What an outcome means

    def _settled(
        self,
        message: ClaimedMessage,
        outcomes: Sequence[Outcome],
        tell: Callable[[dsn.Kind, Sequence[dsn.Told]], Incoming | None],
        *,
        returnable: bool,
        refused: bool = False,
    ) -> list[Settlement]:
        """A Settlement for each outcome, and the DSNs that go with them."""
        now = self._clock.now()
        recipients = {recipient.id: recipient for recipient in message.recipients}
        settlements: dict[int, Settlement] = {}
        reports: dict[dsn.Kind, list[dsn.Told]] = {}
        for outcome in outcomes:
            recipient = recipients[outcome.recipient_id]
            # An automatic answer that nobody takes is gone: it was for a stranger, and nobody misses it.
            may_fail = returnable or refused or message.direction == ANSWER
            outcome, settlement = self._judge(message, recipient, outcome, may_fail, now)
            settlements[recipient.id] = settlement
            kind = _kind(recipient, outcome, now) if returnable else None
            if kind:
                until = recipient.expires_at if kind is dsn.Kind.DELAY else None
                reports.setdefault(kind, []).append(dsn.Told(recipient, outcome, not outcome.host, until))
        for kind, told in reports.items():
            try:
                report = tell(kind, told)
            except Exception:
                # The outcomes stand, whatever is wrong with the report: they must be settled.
                log.fault("a DSN can't be made", message=message.id)
                report = None
            if report is None:
                if kind is dsn.Kind.FAILURE:
                    for each in told:
                        settlements[each.recipient.id] = replace(
                            settlements[each.recipient.id], state="waiting", due_at=now, holds=int(Hold.UNDELIVERABLE)
                        )
                continue
            log.bounced(message.id, kind=kind.value.lower(), as_=report.id, recipients=len(told))
            for number, each in enumerate(told):
                settlement = settlements[each.recipient.id]
                settlements[each.recipient.id] = replace(
                    settlement, dsn=report if not number else None,
                    delay_reported=settlement.delay_reported or kind is dsn.Kind.DELAY,
                )
        return list(settlements.values())

    def _judge(
        self, message: ClaimedMessage, recipient: Claimed, outcome: Outcome, may_fail: bool, now: datetime
    ) -> tuple[Outcome, Settlement]:
        """What one outcome means for its recipient; the outcome again, for time can make it a failure."""
        tries = recipient.tries + 1
        due: datetime | None = None
        facts = {"recipient": recipient.original, "host": outcome.host, "reply": outcome.reply, "tls": outcome.tls}
        if outcome.disposition is Disposition.DEFERRED:
            due = schedule.next_try(now, tries, recipient.expires_at, self._chance.random())
            if due is None:
                expired = reply.EXPIRED.about(days=f"{self._config.queue_days:g}", last=str(outcome.reply))
                outcome = replace(outcome, disposition=Disposition.FAILED, reply=expired)
        settlement = Settlement(
            recipient_id=recipient.id, message_id=message.id, tenant_id=recipient.tenant_id,
            recipient_tenant_id=recipient.recipient_tenant_id, state="delivered", due_at=None, tries=tries, holds=0,
            delay_reported=recipient.delay_reported, reply=str(outcome.reply),
            attempt=Attempt(self._ids.next(), now, outcome),
        )
        if outcome.disposition is Disposition.DELIVERED:
            log.delivered(message.id, **facts)
            return outcome, settlement
        if due is not None:
            log.deferred(message.id, **facts, due=due)
            return outcome, replace(settlement, state="waiting", due_at=due)
        if may_fail:
            log.failed(message.id, **facts)
            return outcome, replace(settlement, state="failed")
        log.held(message.id, **facts, because="undeliverable")
        return outcome, replace(settlement, state="waiting", due_at=now, holds=int(Hold.UNDELIVERABLE))

    def _told(
        self,
        message: ClaimedMessage,
        sender: Resolution | None,
        content: StoredContent | None,
        header: bytes,
        kind: dsn.Kind,
        told: Sequence[dsn.Told],
    ) -> Incoming | None:
        if sender is None:
            return None
        whole = None
        if content and content.body.data is not None:
            whole = content.prefix + content.body.data
        deliveries = sender.deliveries if sender.verdict is Verdict.HERE else (Delivery(sender.asked, None),)
        return dsn.incoming(
            kind, message, told,
            number=self._ids.next(), hostname=self._config.hostname, at=self._clock.now(), sender=sender.asked,
            deliveries=deliveries, tenant_id=sender.tenant_id, header=header, whole=whole,
        )

    def _waits(
        self, message: ClaimedMessage, recipient: Claimed, because: str, due_at: datetime, hold: Hold | None = None
    ) -> Settlement:
        """Not tried now: its tries stay as they were."""
        return Settlement(
            recipient_id=recipient.id, message_id=message.id, tenant_id=recipient.tenant_id,
            recipient_tenant_id=recipient.recipient_tenant_id, state="waiting", due_at=due_at, tries=recipient.tries,
            holds=int(hold or 0), delay_reported=recipient.delay_reported, reply=because, attempt=None,
        )

    # Settling, many at a time

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        """Until they are written, however long the database is gone: what was sent must not be sent again."""
        if not settlements:
            return
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in settlements]
        self._unsettled += zip(settlements, futures, strict=True)
        self._to_settle.set()
        await asyncio.wait(futures)

    async def _settle_all(self) -> None:
        """Write what waits, in one transaction, again and again."""
        while True:
            await self._to_settle.wait()
            self._to_settle.clear()
            while not await self._flush():  # noqa: ASYNC110 a back-off, nothing to wait for
                await asyncio.sleep(self._back_off(None))

    async def _flush(self) -> bool:
        """Write what waits; False when the database is gone."""
        while batch := self._unsettled[:CLAIM]:
            # Taken off only when written: `_finish` may cancel whoever waits for them.
            try:
                settled = await self._call(partial(
                    spool.settle, [settlement for settlement, _ in batch], now=self._clock.now(),
                    lease_by=self._lease_by, next_id=self._ids.next, life=timedelta(days=self._config.queue_days),
                ))
            except spool.SpoolUnavailable as error:
                self._back_off(error)
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
                self._awake.set()  # it is due at once
            if settled and settled.unlink:
                try:
                    await self._call(partial(self._content.unlink, settled.unlink))
                except OSError as error:
                    log.warning("a body can't be deleted, the sweep will try again", error=error)
        return True

    # The database, gone and back

    def _back_off(self, error: Exception | None) -> float:
        """How long to wait, twice as long each time; the first failure is logged."""
        if not self._backoff_s and error is not None:
            log.warning("the queue waits for the database", error=error)
        self._backoff_s = min(max(self._backoff_s * 2, BACKOFF_S[0]), BACKOFF_S[1])
        return self._backoff_s

    def _recovered(self) -> None:
        if self._backoff_s:
            log.warning("the queue goes on")
        self._backoff_s = 0.0

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _aimed(recipient: Claimed, to: _Place) -> Claimed:
    return replace(recipient, resolved=to.resolved) if isinstance(to, _Remote) else recipient


def _all(recipients: Iterable[Claimed], disposition: Disposition, answer: Reply) -> list[Outcome]:
    return [Outcome(recipient.id, disposition, answer) for recipient in recipients]


def _kind(recipient: Claimed, outcome: Outcome, now: datetime) -> dsn.Kind | None:
    """What the sender is to be told of an outcome now, if anything."""
    if outcome.disposition is Disposition.FAILED:
        kind = dsn.Kind.FAILURE
    elif outcome.disposition is Disposition.DELIVERED:
        if outcome.dsn_passed_on:  # RFC 3461 §5.2.3: its success is the next server's to report
            return None
        kind = dsn.Kind.SUCCESS
    elif schedule.delay_warning_due(recipient.accepted_at, now) and not recipient.delay_reported:
        kind = dsn.Kind.DELAY
    else:
        return None
    return kind if dsn.is_wanted(kind, recipient.notify) else None


def _address(text: str) -> Address | None:
    try:
        return parse_address(text)
    except BadAddress:
        return None


def _unmarked(content: StoredContent | None) -> StoredContent | None:
    return content and replace(content, prefix=trace.without_marks(content.prefix))


def _header_block(content: StoredContent) -> bytes:
    """Prefix and header block, up to the blank line; at most 1 MiB of a body in a file is read."""
    return content.prefix + _beginning(content.body).partition(b"\r\n\r\n")[0] + b"\r\n"


def _came_back(content: StoredContent, mailbox: LocalMailbox) -> bool:
    try:
        return maildir.was_delivered_to(_header_block(content), mailbox.address)
    except BadHeader:
        return False  # Nobody can tell; the count of Received fields bounds it.


def _is_junk(content: StoredContent, mailbox: LocalMailbox) -> bool:
    if mailbox.rules is None or not mailbox.rules.junk:
        return False
    return filtering.is_marked_as_junk(headers.legible(_header_block(content)))


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
