"""The connection under an SMTP session: bytes in, replies out, deadlines, and how it ends.

Decides when the peer is waited for, when it is not read from, and when it took too long; not
what a command means (session). The class and life cycle are aiosmtpd's, a task a connection; its
streams are not: input is a buffer of bytes from which lines are taken without suspending, and
replies are joined and written when the input runs out (RFC 2920).
"""

import asyncio
import ipaddress
from abc import ABC, abstractmethod
from typing import cast

from aiosmtpd.smtp import SMTP, Envelope
from aiosmtpd.smtp import Session as Peer

from mailserver import log
from panel.rules import reply
from panel.rules.reply import Reply

INPUT_BYTES = 64 * 1024  # input that waits; above it the peer is not read from (one more read may come)
WRITE_S = 60.0  # for a peer that doesn't read its replies
REPLY_BYTES = 500  # of a reply's line; 512 with the code and CRLF, RFC 5321 §4.5.3.1.5


class Closing(Exception):
    """The session ends with this reply."""

    def __init__(self, last: Reply) -> None:
        self.reply = last


class Gone(Exception):
    """The peer has gone, or said all that it wanted to say."""


class Refused(Exception):
    """A verb's reply, raised where returning it would be roundabout."""

    def __init__(self, because: Reply) -> None:
        self.reply = because


class Connection(SMTP, ABC):
    """It lives as one task, from connection_made until the session has said its last.

    Holds at most INPUT_BYTES and one read of the transport (256 KiB) of input.
    """

    transport: asyncio.Transport | None
    envelope: Envelope | None
    session: Peer

    def __init__(self) -> None:
        # Not the stock one: it costs 163 µs a connection, and makes streams that we don't read from.
        self.loop = self._loop = asyncio.get_running_loop()
        self.transport = None
        self.envelope = None
        self._handler_coroutine: asyncio.Task[None] | None = None
        self._tls = ""
        self._ip, self._port = "", 0
        self._buffer = bytearray()
        self._replies: list[bytes] = []
        self._replies_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._swallowing: Reply | None = None  # a line over its limit, with what is answered at its end
        self._eof = self._lost = False
        self._reading_paused = self._writing_paused = False

    # What the session adds

    @abstractmethod
    async def converse(self) -> None:
        """The whole session; ends by raising Closing or Gone."""

    @abstractmethod
    def last_word(self, answer: Reply) -> None:
        """Say what Closing brings, counted and logged as any reply."""

    @abstractmethod
    def ended(self) -> None:
        """The task is over and the transport gone."""

    # Its life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._begin()
        self._handler_coroutine = self.loop.create_task(self._handle_client())

    def _begin(self) -> None:
        """A new state, at the start and after STARTTLS (RFC 3207 §4.2)."""
        assert self.transport is not None
        self.envelope = None
        self.session = self._create_session()
        peer = self.transport.get_extra_info("peername")
        self.session.peer = peer
        if peer:
            self._ip, self._port = plain_ip(peer[0]), peer[1]
        secured = self.transport.get_extra_info("ssl_object")
        if secured is not None:
            self._tls = f"{secured.version()} {secured.cipher()[0]}"

    def connection_lost(self, error: Exception | None) -> None:
        """The task is not cancelled: a message past its final dot is taken all the same."""
        self._lost = True
        self._wake()
        if self._handler_coroutine is None or self._handler_coroutine.done():
            self.ended()

    def eof_received(self) -> bool:
        """A peer may shut its side and still read; not under TLS, where both sides end at once."""
        self._eof = True
        self._wake()
        return not self._tls

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > INPUT_BYTES and not self._reading_paused and self.transport is not None:
            self._reading_paused = True
            self.transport.pause_reading()
        self._wake()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._wake()

    def abort(self) -> None:
        """End now. A message past its final dot is still taken, but its reply is not heard."""
        if self.transport is not None:
            self.transport.abort()

    async def _handle_client(self) -> None:
        try:
            await self.converse()
        except Closing as closing:
            self.last_word(closing.reply)
        except Gone:
            pass
        except asyncio.CancelledError:
            # Nobody but the loop's end does that; still no peer is left without a word (RFC 5321 §3.8).
            log.warning("a session was cancelled", ip=self._ip)
            self._say(reply.SHUTTING_DOWN)
            raise
        except Exception:
            log.fault("a session failed", ip=self._ip)
            self._say(reply.Reply(421, reply.INTERNAL_ERROR.enhanced, reply.INTERNAL_ERROR.text))
        finally:
            self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._lost:
            self.ended()
        elif self._writing_paused:
            self.abort()
        elif self.transport is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self._replies))
            unread = self.transport.get_write_buffer_size()
            self.transport.close()
            if unread:
                self.loop.call_later(WRITE_S, self.transport.abort)
        self._buffer.clear()

    # Waiting, reading, writing

    async def _sleep(self, deadline: float) -> None:
        """Until something happens: input, its end, room for output, a stop. Raises Gone; Closing when late.

        One timer a session: it is set anew only when it has run out before the deadline.
        """
        if self._lost:
            raise Gone
        if self._reading_paused and len(self._buffer) <= INPUT_BYTES and self.transport is not None:
            self._reading_paused = False
            self.transport.resume_reading()
        self._deadline = deadline
        if self._timer is None or self._timer.when() > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_at(deadline, self._tick)
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._lost:
            raise Gone

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _tick(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self.loop.time() >= self._deadline:
            self._waiter.set_exception(Closing(reply.TOO_SLOW))
        else:
            self._timer = self.loop.call_at(self._deadline, self._tick)

    def _say(self, answer: Reply) -> None:
        data = encoded(answer, utf8=self.envelope is not None and self.envelope.smtp_utf8)
        self._replies.append(data)
        self._replies_bytes += len(data)

    async def _flush(self) -> None:
        """Write the replies that wait, joined; wait for a peer that doesn't read them."""
        if self._lost or self.transport is None:
            raise Gone
        if self._replies:
            self.transport.write(b"".join(self._replies))
            self._replies.clear()
            self._replies_bytes = 0
        deadline = self.loop.time() + WRITE_S
        while self._writing_paused:
            await self._sleep(deadline)

    def _take_line(self, limit: int, too_long: Reply) -> bytes | None:
        """The next line without its CRLF; None until it is whole. Raises Refused(too_long) over the limit.

        Only CR LF ends it, and only behind that is the next command looked for.
        """
        buffer = self._buffer
        end = buffer.find(b"\r\n")
        if self._swallowing is None and (end if end >= 0 else len(buffer) - 1) > limit:
            self._swallowing = too_long
        if end < 0:
            if self._swallowing is not None:
                del buffer[: len(buffer) - buffer.endswith(b"\r")]
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        if self._swallowing is not None:
            swallowed, self._swallowing = self._swallowing, None
            raise Refused(swallowed)
        return line


def plain_ip(text: str) -> str:
    """The address as one writes it; an IPv4 client of a dual socket as IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def encoded(answer: Reply, *, utf8: bool) -> bytes:
    """The reply's lines. No control character passes, whatever they quote; UTF-8 only to who takes it."""
    code, enhanced = answer.code, f"{answer.enhanced} " if answer.enhanced else ""
    text = answer.text
    if text.isascii() and text.isprintable() and len(text) < REPLY_BYTES:
        return f"{code} {enhanced}{text}\r\n".encode("ascii")
    lines = text.split("\n")
    last = len(lines) - 1
    encoded = []
    for number, line in enumerate(lines):
        clean = "".join(each if each.isprintable() else "?" for each in line)
        data = clean.encode("utf-8" if utf8 else "ascii", "replace")[:REPLY_BYTES]
        data = data.decode("utf-8", "ignore").encode()
        encoded.append(f"{code}{'-' if number < last else ' '}{enhanced}".encode("ascii") + data + b"\r\n")
    return b"".join(encoded)
