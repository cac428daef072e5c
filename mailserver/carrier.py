"""Where each recipient of a claimed message goes now, and carrying it there: an outcome for each.

How a message is carried is the transports'; what an outcome means is the judge's. DESIGN §5, "Queue".
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from mailserver import log, room, spool, trace
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.content import header_block
from mailserver.directory import Directory
from mailserver.envelope import Claimed, ClaimedMessage, Disposition, Outcome, StoredContent
from mailserver.lanes import LMTP
from mailserver.transports import maildir
from mailserver.transports.lmtp import LmtpTransport
from mailserver.transports.smtp import SmtpTransport
from mailserver.usage import UsageClient
from panel.rules import filtering, headers, reply
from panel.rules.addresses import Address, BadAddress, parse_address
from panel.rules.facts import LocalMailbox, Route, Verdict
from panel.rules.headers import BadHeader
from panel.rules.reply import Reply

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a recipient goes by SMTP; `resolved` is its address there."""

    hop: str
    route: Route | None
    resolved: str


Place = LocalMailbox | Remote | Reply


class Carrier:
    """Of one worker's queue; everything runs on its event loop, files are written in threads."""

    def __init__(
        self,
        config: Config,
        directory: Directory,
        clock: Clock,
        executor: Executor,
        transport: SmtpTransport,
        lmtp: LmtpTransport,
        usage: UsageClient | None,
        *,
        lease_by: str,
    ) -> None:
        """`lease_by` is who has the messages in hand; `usage` knows full mailboxes."""
        self._config = config
        self._directory = directory
        self._clock = clock
        self._executor = executor
        self._transport = transport
        self._lmtp = lmtp
        self._usage = usage
        self._lease_by = lease_by

    async def where(self, recipient: Claimed) -> Place:
        """Asked again at each try: a mailbox may be gone, a domain have come here, a route been set."""
        address = address_in(recipient.resolved)
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
        return Remote(address.domain, route, str(address))

    async def outcomes(
        self, message: ClaimedMessage, places: Mapping[int, Place], content: StoredContent | None, until: datetime
    ) -> list[Outcome]:
        """One for each recipient: local ones into their mailbox, then the others grouped by where they go."""
        outcomes: list[Outcome] = []
        here: list[tuple[LocalMailbox, Claimed]] = []
        by_lmtp: list[Claimed] = []
        ways: dict[tuple[str, Route | None, bool], list[Claimed]] = {}
        unmarked = without_marks(content)
        for recipient in message.recipients:
            to = places[recipient.id]
            # A copy that is staged already is the truth, whoever stores the domain's mail by now.
            if isinstance(to, LocalMailbox) and to.store == LMTP and not recipient.staged:
                if unmarked is not None and await self._call(partial(_came_back, unmarked, to)):
                    refusal = reply.ALIAS_LOOPS.about(address=recipient.original)
                    outcomes += outcomes_alike([recipient], Disposition.FAILED, refusal)
                else:
                    by_lmtp.append(replace(recipient, resolved=str(to.address)))
            elif isinstance(to, LocalMailbox):
                here.append((to, recipient))
            elif isinstance(to, Remote):
                is_forwarded = unmarked != content and recipient.resolved != recipient.original
                ways.setdefault((to.hop, to.route, is_forwarded), []).append(recipient)
            else:
                kind = Disposition.FAILED if to.is_permanent else Disposition.DEFERRED
                outcomes += outcomes_alike([recipient], kind, to)
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
            return outcomes_alike(message.recipients, Disposition.DEFERRED, reply.INTERNAL_ERROR)
        within_s = max(1.0, (until - self._clock.now()).total_seconds())
        try:
            return await deliver(message, content.prefix, content.body, within_s=within_s)
        except Exception:
            log.fault("a message can't be sent", message=message.id, hop=hop)
            return outcomes_alike(message.recipients, Disposition.DEFERRED, reply.INTERNAL_ERROR)

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def aimed(recipient: Claimed, to: Place) -> Claimed:
    return replace(recipient, resolved=to.resolved) if isinstance(to, Remote) else recipient


def outcomes_alike(recipients: Iterable[Claimed], disposition: Disposition, answer: Reply) -> list[Outcome]:
    return [Outcome(recipient.id, disposition, answer) for recipient in recipients]


def address_in(text: str) -> Address | None:
    try:
        return parse_address(text)
    except BadAddress:
        return None


def without_marks(content: StoredContent | None) -> StoredContent | None:
    return content and replace(content, prefix=trace.without_marks(content.prefix))


def _came_back(content: StoredContent, mailbox: LocalMailbox) -> bool:
    try:
        return maildir.was_delivered_to(header_block(content), mailbox.address)
    except BadHeader:
        return False  # Nobody can tell; the count of Received fields bounds it.


def _is_junk(content: StoredContent, mailbox: LocalMailbox) -> bool:
    if mailbox.rules is None or not mailbox.rules.junk:
        return False
    return filtering.is_marked_as_junk(headers.legible(header_block(content)))
