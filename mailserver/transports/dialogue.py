"""What carrying a message is, whichever protocol: MAIL to the final dot, and connections kept for the next one.

Decides what a remote's answers mean: 5xx is final, 4xx and every failure of the
connection waits. Where a connection leads is smtp's and lmtp's. RFC 5321, RFC 2033
(LMTP's reply for each recipient), RFC 2920 (PIPELINING), RFC 3461 (DSN), RFC 9422 (LIMITS).
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass

from mailserver.envelope import Body, Claimed, ClaimedMessage, Disposition, Outcome
from mailserver.transports.wire import BLOCK_BYTES, Deadlines, Lost, Wire
from panel.rules import reply
from panel.rules.reply import Reply

IDLE_S = 10.0  # that an unused connection is kept
MESSAGES = 100  # a connection carries
AGE_S = 300.0  # after which a connection is not used again, so that a changed MX counts
IDLE_CONNECTIONS = 100  # kept at most, over all hops
RECIPIENTS = 100  # a transaction; what every server must take, RFC 5321 §4.5.3.1.8
PIPELINED = 50  # commands written before their replies are read; both fit the sockets' buffers

_XTEXT = re.compile(r"[\x21-\x7e]+")
_RCPTMAX = re.compile(r"(?:^|\s)RCPTMAX=([1-9][0-9]{0,5})(?:\s|$)", re.IGNORECASE)


@dataclass(slots=True)
class Delivery:
    """One message under way: who is still undecided, and what became of the others."""

    message: ClaimedMessage
    prefix: bytes
    body: Body
    headers_ascii: bool
    pending: dict[int, Claimed]
    outcomes: dict[int, Outcome]
    began_s: float

    @classmethod
    async def of(cls, message: ClaimedMessage, prefix: bytes, body: Body) -> "Delivery":
        """Raises OSError when the body's file can't be read."""
        return cls(
            message, prefix, body, await _headers_ascii(prefix, body),
            {recipient.id: recipient for recipient in message.recipients}, {}, time.monotonic(),
        )

    @property
    def size(self) -> int:
        return len(self.prefix) + self.body.size

    def decide(self, recipient_id: int, answer: Reply, wire: Wire | None = None) -> None:
        """The outcome of one recipient from an answer: 2xx delivered, 5xx failed, all else waits."""
        del self.pending[recipient_id]
        disposition = Disposition.DEFERRED
        if 200 <= answer.code <= 299:
            disposition = Disposition.DELIVERED
        elif answer.is_permanent:
            disposition = Disposition.FAILED
        self.outcomes[recipient_id] = Outcome(
            recipient_id, disposition, answer,
            host=wire.host if wire else "", address=wire.address if wire else "", tls=wire.tls if wire else "",
            duration_ms=int((time.monotonic() - self.began_s) * 1000),
            dsn_passed_on=bool(wire and "dsn" in wire.extensions),
        )

    def decide_rest(self, answer: Reply, wire: Wire | None = None) -> None:
        for recipient_id in list(self.pending):
            self.decide(recipient_id, answer, wire)


class Carrier:
    """What a transport keeps: idle connections by where they lead, and the deadlines of what is under way."""

    def __init__(self, deadlines: Deadlines | None, idle_s: float) -> None:
        self._deadlines = deadlines or Deadlines()
        self._idle_s = idle_s
        self._deadlines_under_way: set[asyncio.Timeout] = set()
        self._idle: dict[Hashable, list[tuple[Wire, asyncio.TimerHandle]]] = {}

    def hurry(self) -> None:
        """End the deliveries under way: who is decided stays so, the others wait for another try."""
        for deadline in self._deadlines_under_way:
            deadline.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """Close what is idle; deliveries under way end by themselves."""
        for kept in self._idle.values():
            for wire, timer in kept:
                timer.cancel()
                wire.close()
        self._idle.clear()

    async def bounded(self, delivery: Delivery, carry: Awaitable[None], within_s: float, host: str) -> list[Outcome]:
        """What `carry` came to in `within_s` seconds: one Outcome for each recipient of the message, in its order."""
        deadline = asyncio.timeout(within_s)
        try:
            async with deadline:
                self._deadlines_under_way.add(deadline)
                await carry
        except TimeoutError:
            delivery.decide_rest(reply.REMOTE_TIMED_OUT.about(host=host))
        finally:
            self._deadlines_under_way.discard(deadline)
        return [delivery.outcomes[recipient.id] for recipient in delivery.message.recipients]

    async def over_kept(self, delivery: Delivery, way: Hashable, refuse: Callable[[Wire, Delivery], None]) -> None:
        """Over a connection that was kept, if there is one; who is still pending then needs a fresh one."""
        wire = self._take(way)
        if wire is None:
            return
        try:
            await self.over(wire, delivery, way, refuse)
        except Lost:
            pass  # It may have been closed while it was idle: not a try, a fresh one follows at once.

    async def over(
        self, wire: Wire, delivery: Delivery, way: Hashable, refuse: Callable[[Wire, Delivery], None]
    ) -> None:
        """All pending recipients over one connection. Raises Lost with those pending that may be tried elsewhere.

        `refuse` decides those first that this server can't take.
        """
        try:
            refuse(wire, delivery)
            while delivery.pending:
                await self._transaction(wire, delivery)
                if delivery.pending and not wire.is_usable:
                    raise Lost(reply.CONNECTION_LOST.about(host=wire.host))
        except BaseException:
            wire.abort()
            raise
        wire.messages += 1
        self._keep(wire, way)

    async def _transaction(self, wire: Wire, delivery: Delivery) -> None:
        """MAIL to the final dot's reply for up to 100 pending recipients, and a decision for each."""
        recipients = list(delivery.pending.values())[: _at_once(wire)]
        mail = _mail(wire, delivery)
        commands = [mail, *(_rcpt(wire, recipient) for recipient in recipients), b"DATA"]
        step = PIPELINED if "pipelining" in wire.extensions else 1
        answers: list[Reply] = []
        accepted: list[Claimed] = []
        for start in range(0, len(commands), step):
            group = commands[start : start + step]
            if (start and not _ok(answers[0])) or (group == [b"DATA"] and not accepted):
                break
            wire.commands(*group)
            for command in group:
                answers.append(await wire.reply(self._within(command)))
                if answers[-1].code == 421:
                    self._closing(wire, delivery, recipients, answers[-1])
                accepted += self._heard(wire, delivery, recipients, answers)
        if not _ok(answers[0]):
            for recipient in recipients:
                delivery.decide(recipient.id, _sane(answers[0], wire), wire)
        data = answers[-1] if len(answers) == len(commands) else None
        await self._finish(wire, delivery, accepted, data, mail_ok=_ok(answers[0]))

    def _closing(self, wire: Wire, delivery: Delivery, recipients: Sequence[Claimed], answer: Reply) -> None:
        """421: this server hangs up (RFC 5321 §3.8); whoever is undecided waits.

        On a connection that had been idle it may only mean that: then nobody is decided.
        """
        if not wire.messages or any(recipient.id not in delivery.pending for recipient in recipients):
            delivery.decide_rest(answer, wire)
        raise Lost(answer)

    def _heard(
        self, wire: Wire, delivery: Delivery, recipients: Sequence[Claimed], answers: Sequence[Reply]
    ) -> list[Claimed]:
        """The newest answer, if it is to a RCPT of an accepted MAIL: the recipient accepted, or a decision."""
        place = len(answers) - 2
        if not 0 <= place < len(recipients) or not _ok(answers[0]):
            return []
        if _ok(answers[-1]):
            return [recipients[place]]
        delivery.decide(recipients[place].id, _sane(_too_many(answers[-1]), wire), wire)
        return []

    async def _finish(
        self, wire: Wire, delivery: Delivery, accepted: Sequence[Claimed], data: Reply | None, mail_ok: bool
    ) -> None:
        """The message after 354, or the end of a transaction that came to nothing."""
        if data is not None and data.code == 354:
            if not accepted and (wire.is_lmtp or not mail_ok):
                # 354 without a sender, or (RFC 2033 §4.2) without a recipient: cut.
                raise Lost(reply.REMOTE_NO_SENSE.about(host=wire.host))
            if wire.is_lmtp:
                await self._each(wire, delivery, accepted)
                return
            if not accepted:
                # RFC 2920 §3.1: DATA was pipelined and answered 354 without a recipient: an empty message ends it.
                await wire.content(_nothing(), self._deadlines)
                return
            try:
                answer = await wire.content(_blocks(delivery), self._deadlines)
            except Lost as lost:
                if not lost.after_dot:
                    raise
                # Perhaps it was taken: waits, for if it was, another try at once would only double it.
                answer = lost.reply
            for recipient in accepted:
                delivery.decide(recipient.id, _sane(answer, wire), wire)
            if answer.code == 421:
                delivery.decide_rest(answer, wire)
            return
        refused = data if data is not None and data.code >= 400 else reply.REMOTE_NO_SENSE.about(host=wire.host)
        for recipient in accepted:
            delivery.decide(recipient.id, refused, wire)
        wire.commands(b"RSET")
        if not _ok(await wire.reply(self._deadlines.greeting)):
            # Another command's answer, perhaps 354: what is said next would be taken for a message.
            raise Lost(reply.REMOTE_NO_SENSE.about(host=wire.host))

    async def _each(self, wire: Wire, delivery: Delivery, accepted: Sequence[Claimed]) -> None:
        """The message to an LMTP server: a reply for each accepted recipient, in their order (RFC 2033 §4.2).

        Where the replies end, those who had theirs keep it, and the others wait: perhaps they were served.
        """
        gone: Reply | None = None
        try:
            await wire.send(_blocks(delivery), self._deadlines)
        except Lost as lost:
            if not lost.after_dot:
                raise
            gone = lost.reply
        for recipient in accepted:
            answer = gone
            if answer is None:
                try:
                    answer = _sane(await wire.reply(self._deadlines.dot), wire)
                except Lost as lost:
                    answer = gone = lost.reply
            delivery.decide(recipient.id, answer, wire)

    def _within(self, command: bytes) -> float:
        verb = command[:4]
        return {b"MAIL": self._deadlines.mail, b"RCPT": self._deadlines.rcpt}.get(verb, self._deadlines.data)

    def _take(self, way: Hashable) -> Wire | None:
        kept = self._idle.get(way, [])
        while kept:
            wire, timer = kept.pop()
            timer.cancel()
            if not kept:
                self._idle.pop(way, None)
            if wire.is_usable:
                return wire
            wire.close()
        return None

    def _keep(self, wire: Wire, way: Hashable) -> None:
        loop = asyncio.get_running_loop()
        too_old = wire.messages >= MESSAGES or loop.time() - wire.opened_at_s > AGE_S
        if too_old or not wire.is_usable or sum(map(len, self._idle.values())) >= IDLE_CONNECTIONS:
            wire.close()
            return
        timer = loop.call_later(self._idle_s, self._drop, wire, way)
        self._idle.setdefault(way, []).append((wire, timer))

    def _drop(self, wire: Wire, way: Hashable) -> None:
        kept = [entry for entry in self._idle.pop(way, []) if entry[0] is not wire]
        if kept:
            self._idle[way] = kept
        wire.close()


def _ok(answer: Reply) -> bool:
    return 200 <= answer.code <= 299


def _sane(answer: Reply, wire: Wire) -> Reply:
    """An answer that decides; 3xx where none belongs makes no sense."""
    return reply.REMOTE_NO_SENSE.about(host=wire.host) if 300 <= answer.code <= 399 else answer


def _too_many(answer: Reply) -> Reply:
    """552 at RCPT once meant "too many recipients": to be tried again (RFC 5321 §4.5.3.1.10)."""
    if answer.code == 552 and answer.enhanced in ("5.0.0", "5.5.3"):
        return Reply(452, "4.5.3", answer.text)
    return answer


def _at_once(wire: Wire) -> int:
    declared = _RCPTMAX.search(wire.extensions.get("limits", ""))
    return min(RECIPIENTS, int(declared[1])) if declared else RECIPIENTS


def _mail(wire: Wire, delivery: Delivery) -> bytes:
    message = delivery.message
    words = [f"MAIL FROM:<{message.reverse_path}>"]
    if "size" in wire.extensions:
        words.append(f"SIZE={delivery.size}")
    if "8bitmime" in wire.extensions and message.body_type != "7BIT":
        words.append("BODY=8BITMIME")
    outside_ascii = not (
        delivery.headers_ascii and message.reverse_path.isascii()
        and all(recipient.resolved.isascii() for recipient in message.recipients)
    )
    if "smtputf8" in wire.extensions and (message.smtputf8 or outside_ascii):
        words.append("SMTPUTF8")
    if "dsn" in wire.extensions:
        words += [f"RET={message.ret}"] if message.ret in ("FULL", "HDRS") else []
        words += [f"ENVID={message.envid}"] if _XTEXT.fullmatch(message.envid) else []
    return " ".join(words).encode()


def _rcpt(wire: Wire, recipient: Claimed) -> bytes:
    words = [f"RCPT TO:<{recipient.resolved}>"]
    if "dsn" in wire.extensions:
        words += [f"NOTIFY={recipient.notify}"] if _XTEXT.fullmatch(recipient.notify) else []
        words += [f"ORCPT={recipient.orcpt}"] if _XTEXT.fullmatch(recipient.orcpt) else []
    return " ".join(words).encode()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _blocks(delivery: Delivery) -> AsyncIterator[bytes]:
    """Prefix and body in blocks of 64 KiB. Raises OSError when the file is gone or shorter than it was."""
    if delivery.prefix:
        yield delivery.prefix
    body = delivery.body
    if body.data is not None:
        for start in range(0, len(body.data), BLOCK_BYTES):
            yield body.data[start : start + BLOCK_BYTES]
        return
    if body.path is None:
        raise FileNotFoundError("the message's body is gone")
    left = body.size
    with await asyncio.to_thread(body.path.open, "rb") as file:
        while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
            left -= len(block)
            yield block
    if left:
        raise OSError(f"the message's body in {body.path.name} is not {body.size} bytes long")


async def _headers_ascii(prefix: bytes, body: Body) -> bool:
    """Whether prefix and header block are ASCII (RFC 6531 §3.2 asks, of a message that may need SMTPUTF8)."""
    if not prefix.isascii():
        return False
    if body.data is not None:
        return body.data.partition(b"\r\n\r\n")[0].isascii()
    if body.path is None:
        raise FileNotFoundError("the message's body is gone")
    end = b""
    with await asyncio.to_thread(body.path.open, "rb") as file:
        while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
            block = end + block
            header, blank, _ = block.partition(b"\r\n\r\n")
            if blank or not header.isascii():
                return header.isascii()
            end = block[-3:]
    return True
