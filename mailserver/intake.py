"""Intake: a received message becomes durable, then it is answered.

stage → commit → publish → reply, for all messages that wait at once: one lane, a thread,
for each worker. Mail from outside that is only for mailboxes here commits nothing before
its reply; its rows follow. What was accepted and refused at RCPT, and the charges, come
with the message. DESIGN §5, contracts 1 and 2.

What Dovecot stores is committed as waiting and handed to the runner at once, which
delivers it by LMTP; transports/lmtp says why in this order.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

from mailserver import log, spool, trace
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.content import ContentStore
from mailserver.envelope import (
    Accepted,
    ClaimedMessage,
    Incoming,
    IncomingRecipient,
    Lease,
    NewRecipient,
    Refused,
    Staged,
)
from mailserver.transports import maildir
from panel.database import ids as id_text
from panel.database.ids import IdMaker
from panel.rules import reply
from panel.rules.facts import LocalMailbox
from panel.rules.reply import Reply

WAITING_MOST = 512  # messages between their final dot and the lane; more are asked to come again
BATCH_MOST = 64
LATER_BATCH = 64
STAGED_ABANDONED_S = 86400.0
STAGED_LATE_S = 60.0
FIRST_TRY_S = 10.0  # that a session waits for the store's verdict; then the queue has the message
_RETRY_S = 1.0


class Deliverer(Protocol):
    """Who delivers what Dovecot stores: the runner, a floor beside this one."""

    def offer(self) -> Lease | None:
        """A lease for a message that is about to be committed; None when there is no room."""

    def deliver_now(self, message: ClaimedMessage, lease: Lease) -> "asyncio.Future[Reply | None]":
        """Deliver what was committed under the lease: the refusal, if the store refuses all of it for good."""


@dataclass(slots=True)
class _Part:
    """A message on its way through the lane."""

    incoming: Incoming
    future: "asyncio.Future[Reply]"
    recipients: tuple[NewRecipient, ...] = ()
    rows_follow: bool = False
    staged: tuple[Staged, ...] = ()
    key: str = ""
    lease: Lease | None = None
    first_try: "asyncio.Future[Reply | None] | None" = None
    unpublished: list[int] = field(default_factory=list)
    answer: Reply | None = None

    @property
    def going(self) -> bool:
        return self.answer is None

    @property
    def needs_queue(self) -> bool:
        return any(recipient.waits for recipient in self.recipients)

    @property
    def needs_claim(self) -> bool:
        """Whether something waits for the queue that nobody has in hand yet."""
        return any(
            recipient.waits and not (self.lease and recipient.next_hop == spool.LMTP)
            for recipient in self.recipients
        ) or (bool(self.incoming.answers) and not self.rows_follow)

    @property
    def may_be_refused(self) -> bool:
        """Whether the store's refusal can still be the session's: nobody else has had the message, or was charged."""
        return self.incoming.direction == "inbound" and all(row.next_hop == spool.LMTP for row in self.recipients)

    @property
    def entry(self) -> spool.Entry:
        return spool.Entry(
            self.incoming, self.recipients, keep_content=self.needs_queue, key=self.key, lease=self.lease
        )


class Intake:
    """The lane. `on_queued` is called on the loop when something is left for the queue."""

    def __init__(
        self,
        config: Config,
        ids: IdMaker,
        clock: Clock,
        content: ContentStore,
        on_queued: Callable[[], None],
        deliverer: Deliverer | None = None,
    ) -> None:
        self._config = config
        self._ids = ids
        self._clock = clock
        self._content = content
        self._on_queued = on_queued
        self._deliverer = deliverer
        self._life = timedelta(days=config.queue_days)
        self._queue: queue.SimpleQueue[_Part | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._gate = threading.Lock()  # nothing enters the queue behind the word that ends it
        self._open = False
        self._later: list[spool.Entry] = []
        self._later_fails = False
        self._began_s = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the lane; replies come through `loop`."""
        maildir.prepare(self._config)
        self._began_s = time.time()
        self._loop = loop
        self._open = True
        self._thread = threading.Thread(target=self._run, name="intake")
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits, write the rows that follow, and end the lane. Blocks: not on the loop's thread."""
        with self._gate:
            was_open, self._open = self._open, False
            if was_open:
                self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    async def take(self, incoming: Incoming) -> Reply:
        """The reply to the end of the message. Whoever is cancelled while waiting cancels nothing here.

        From now on the body is ours: kept, or its temporary file deleted.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        part = _Part(incoming, future)
        if self._deliverer and any(_is_stored_by_lmtp(each) for each in incoming.recipients):
            part.lease = self._deliverer.offer()
        with self._gate:
            taken = self._open and self._queue.qsize() < WAITING_MOST
            if taken:
                self._queue.put(part)
        if not taken:
            with contextlib.suppress(OSError):
                self._content.discard(incoming.body)
            return reply.UNAVAILABLE
        answer = await asyncio.shield(future)
        if part.first_try is not None and part.may_be_refused:
            # One moment decides whose the verdict is: done, it is the session's; else the queue's.
            await asyncio.wait([part.first_try], timeout=FIRST_TRY_S)
            if part.first_try.done():
                return part.first_try.result() or answer
            part.first_try.cancel()
        return answer

    def sweep(self, alive: Collection[int] = ()) -> None:
        """Finish what a crash left: staged files late in publication, and files that belong to nothing.

        `alive`: numbers in ids of other processes that live, as those of a mailserver that was
        taken over from, and publish what they stage. Synchronous; for a worker's start, and
        every minute. Raises SpoolUnavailable, OSError.
        """
        now_s = time.time()
        late = {}
        for recipient_id, path in maildir.staged_files(self._config):
            with contextlib.suppress(FileNotFoundError):
                modified_s = path.stat().st_mtime
                age_s = now_s - modified_s
                # What is older than this process may be a dead one's. A living one that is slow is not
                # disturbed: of two that rename a file, one finds it published.
                is_left = modified_s < self._began_s and id_text.worker_of(recipient_id) not in alive
                if age_s > STAGED_LATE_S or is_left:
                    late[recipient_id] = (path, age_s)
        every = list(late)
        for start in range(0, len(every), 500):
            some = every[start : start + 500]
            states = spool.which_exist(some)
            delivered = [number for number in some if states.get(number) == "delivered"]
            if spool.republish(delivered, self._clock.now()):
                log.recovered(None, staged=len(delivered))
                self._notify()
            for number in some:
                path, age_s = late[number]
                ended = states.get(number) in ("failed", "discarded")
                if ended or (number not in states and age_s > STAGED_ABANDONED_S):
                    path.unlink(missing_ok=True)
        for path in maildir.tries_left(self._config):
            with contextlib.suppress(FileNotFoundError):
                if now_s - path.stat().st_mtime > STAGED_ABANDONED_S:
                    path.unlink()
        self._content.sweep(spool.spool_keys_in_use)

    # The lane

    def _run(self) -> None:
        try:
            stopping = False
            while not stopping:
                batch, stopping = self._next_batch()
                try:
                    self._carry(batch)
                except Exception:
                    # What is staged or committed stays: the sweep tells one from the other.
                    log.fault("intake failed", messages=len(batch))
                    for part in batch:
                        part.answer = part.answer or reply.INTERNAL_ERROR
                    self._answer(batch)
                try:
                    if self._later and (stopping or self._queue.empty() or len(self._later) >= LATER_BATCH):
                        self._write_later()
                except Exception:
                    log.fault("rows lost", messages=len(self._later))
                    self._later = []
        finally:
            spool.close_connection()

    def _next_batch(self) -> tuple[list[_Part], bool]:
        """All that waits, up to a bound; empty when it is time to try the rows that follow again."""
        batch: list[_Part] = []
        try:
            part = self._queue.get(timeout=_RETRY_S if self._later else None)
            while part is not None:
                batch.append(part)
                if len(batch) >= BATCH_MOST:
                    return batch, False
                part = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _carry(self, parts: Sequence[_Part]) -> None:
        if not parts:
            return
        for part in parts:
            self._resolve(part)
        self.stage([part for part in parts if part.going])
        self.keep([part for part in parts if part.going and part.needs_queue])
        self.commit([part for part in parts if part.going and not part.rows_follow])
        self.publish([part for part in parts if part.going])
        for part in parts:
            if part.going:
                part.answer = reply.QUEUED.about(queue_id=id_text.to_text(part.incoming.id))
                if part.rows_follow:
                    # Without the body, which nobody reads again.
                    body = replace(part.incoming.body, data=None, path=None)
                    self._later.append(replace(part.entry, incoming=replace(part.incoming, body=body)))
        self._answer(parts)

    def _resolve(self, part: _Part) -> None:
        try:
            part.recipients = spool.recipients_of(part.incoming, self._ids.next, staged=True)
        except Exception:
            log.fault("recipients not understood", message=part.incoming.id)
            part.answer = reply.INTERNAL_ERROR
            return
        # Without a database for the rows that follow there is no end to what could be lost: then first the commit.
        part.rows_follow = (
            part.incoming.direction == "inbound"
            and not part.incoming.charges
            and not part.needs_queue
            and not self._later_fails
        )

    def stage(self, parts: Sequence[_Part]) -> None:
        """Every local copy durable in staging/."""
        results = maildir.stage_all(self._config, [_letter(part) for part in parts])
        for part, result in zip(parts, results, strict=True):
            if isinstance(result, OSError):
                part.answer = _no_room(result, part.incoming.id)
            else:
                part.staged = result

    def keep(self, parts: Sequence[_Part]) -> None:
        """Spilled bodies that the queue needs become durable."""
        spilled = [part for part in parts if part.incoming.body.path is not None]
        results = self._content.keep([(part.incoming.id, part.incoming.body) for part in spilled])
        for part, result in zip(spilled, results, strict=True):
            if isinstance(result, OSError):
                maildir.unstage(part.staged)
                part.answer = _no_room(result, part.incoming.id)
            else:
                part.key = result

    def commit(self, parts: Sequence[_Part]) -> None:
        """Limits and rows, in one transaction; refused messages leave no file behind."""
        if not parts:
            return
        answers = spool.accept(
            [part.entry for part in parts], now=self._clock.now(), life=self._life, time_s=self._clock.time_s,
            next_id=self._ids.next,
        )
        for part, answer in zip(parts, answers, strict=True):
            part.rows_follow = False
            if isinstance(answer, Accepted):
                continue
            part.answer = answer.reply
            if not answer.in_doubt:
                self._remove(part)

    def publish(self, parts: Sequence[_Part]) -> None:
        """Renames into the Maildirs; what fails is left for the queue, staged and with its row."""
        failed = self._renamed(parts)
        if not failed:
            return
        without_rows = [part for part in failed if part.rows_follow]
        self.commit(without_rows)
        self._requeue([part for part in failed if part.going])

    def _renamed(self, parts: Sequence[_Part]) -> list[_Part]:
        staged = [(part, copy) for part in parts for copy in part.staged]
        errors = maildir.publish_all(self._config, [copy for _, copy in staged])
        for (part, copy), error in zip(staged, errors, strict=True):
            if error is not None:
                log.warning("not published yet", recipient=copy.recipient_id, because=error)
                part.unpublished.append(copy.recipient_id)
        return [part for part in parts if part.unpublished]

    def _requeue(self, parts: Sequence[_Part]) -> None:
        waiting = [number for part in parts for number in part.unpublished]
        try:
            spool.republish(waiting, self._clock.now())
        except spool.SpoolUnavailable as error:
            # Staged and committed: the sweep finds them within a minute.
            log.warning("left for the sweep", recipients=len(waiting), because=error)

    def _remove(self, part: _Part) -> None:
        maildir.unstage(part.staged)
        if part.key:
            self._content.unlink([part.key])

    def _answer(self, parts: Sequence[_Part]) -> None:
        """One call to the loop for all of them."""
        for part in parts:
            if not part.key:
                with contextlib.suppress(OSError):
                    self._content.discard(part.incoming.body)
            _log_taken(part)
        queued = any(
            part.answer is not None and part.answer.code == reply.QUEUED.code
            and (part.needs_claim or part.unpublished)
            for part in parts
        )
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the answer
            self._loop.call_soon_threadsafe(self._resolve_futures, parts, queued)

    def _resolve_futures(self, parts: Iterable[_Part], queued: bool) -> None:
        for part in parts:
            self._hand_over(part)
            if not part.future.done():
                part.future.set_result(part.answer or reply.INTERNAL_ERROR)
        if queued:
            self._on_queued()

    def _hand_over(self, part: _Part) -> None:
        """What was committed under a lease of the deliverer's: nobody else will take it."""
        if self._deliverer and part.lease and part.answer and part.answer.code == reply.QUEUED.code:
            message = spool.leased(part.entry, now=self._clock.now(), life=self._life)
            part.first_try = self._deliverer.deliver_now(message, part.lease)

    def _notify(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the next start finds it
                self._loop.call_soon_threadsafe(self._on_queued)

    def _write_later(self) -> None:
        """The rows of mail that is delivered and answered already: they may be lost, the mail not."""
        answers = spool.accept(
            self._later, now=self._clock.now(), life=self._life, time_s=self._clock.time_s, next_id=self._ids.next
        )
        unwritten = {
            answer.id for answer in answers if isinstance(answer, Refused) and answer.reply == reply.UNAVAILABLE
        }
        self._later_fails = bool(unwritten)
        if any(entry.incoming.answers for entry in self._later):
            self._notify()
        self._later = [entry for entry in self._later if entry.incoming.id in unwritten]


def _letter(part: _Part) -> maildir.Letter:
    here: dict[tuple[str, int | None], tuple[LocalMailbox, bool]] = {}
    for recipient in part.incoming.recipients:
        for delivery in recipient.deliveries:
            if delivery.mailbox is not None:
                here.setdefault((str(delivery.resolved), recipient.tenant_id), (delivery.mailbox, delivery.junk))
    return maildir.Letter(
        received_at=part.incoming.received_at,
        reverse_path=str(part.incoming.reverse_path or ""),
        prefix=trace.without_marks(part.incoming.prefix),
        body=part.incoming.body,
        copies=tuple(
            maildir.Copy(row.id, mailbox, row.resolved, junk)
            for row in part.recipients
            if row.local
            for mailbox, junk in [here[row.resolved, row.recipient_tenant_id]]
        ),
    )


def _is_stored_by_lmtp(recipient: IncomingRecipient) -> bool:
    return any(each.mailbox is not None and each.mailbox.store == spool.LMTP for each in recipient.deliveries)


def _no_room(error: OSError, message_id: int) -> Reply:
    if error.errno in maildir.NO_ROOM:
        log.warning("no room", message=message_id, because=error)
        return reply.DISK_FULL
    log.fault("message can't be kept", message=message_id, because=error)
    return reply.INTERNAL_ERROR


def _log_taken(part: _Part) -> None:
    """What was taken; a refusal is logged by the session that gives it."""
    incoming = part.incoming
    if part.answer is None or part.answer.code != reply.QUEUED.code:
        return
    log.accepted(
        incoming.id,
        direction=incoming.direction,
        login=incoming.login.name if incoming.login else "",
        ip=incoming.client.ip,
        sender=f"<{incoming.reverse_path or ''}>",
        recipients=len(part.recipients),
        size=len(incoming.prefix) + incoming.body.size,
        message_id=incoming.message_id,
    )
    for row in part.recipients:
        if row.refusal:
            log.discarded(incoming.id, recipient=row.original, reply=row.refusal)
        if row.local and row.id not in part.unpublished:
            log.delivered(incoming.id, recipient=row.original, resolved=row.resolved, to="mailbox")
