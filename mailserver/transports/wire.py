"""One connection to another mail server: opened, greeted, in TLS if it may; then commands and replies.

aiosmtplib connects, says EHLO and STARTTLS; after that the connection is read and
written here, because it waits for each reply before the next command and holds a whole
message in memory. It knows no LMTP: such a connection is read here from the greeting on.
Decides nothing of recipients. RFC 5321 §4.5.3.2 (deadlines), RFC 2033 (LMTP), RFC 2920
(pipelining), RFC 3207 (STARTTLS).
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiosmtplib

from panel.environment import Listen
from panel.rules import reply
from panel.rules.reply import Reply

REPLY_LINES = 100
REPLY_LINE_BYTES = 4096  # RFC 5321 §4.5.3.1.5 says 512; some overrun it
REPLY_CHARACTERS = 560  # of text that is kept: with its codes it fits Recipient.last_reply
BLOCK_BYTES = 64 * 1024

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?: |$)")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
# STANDARDS §3.5: nothing that could end a command goes into one, whatever was let in before. NEL, U+2028, U+2029.
_FORBIDDEN = re.compile(rb"[\x00-\x1f\x7f]|\xc2\x85|\xe2\x80[\xa8\xa9]")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long each stage may take, in seconds (RFC 5321 §4.5.3.2)."""

    connect: float = 30.0  # no RFC; the network answers or doesn't
    greeting: float = 300.0  # §4.5.3.2.1; EHLO, STARTTLS, RSET alike
    handshake: float = 60.0  # no RFC
    mail: float = 300.0  # §4.5.3.2.2
    rcpt: float = 300.0  # §4.5.3.2.3
    data: float = 120.0  # §4.5.3.2.4
    block: float = 180.0  # §4.5.3.2.5
    dot: float = 600.0  # §4.5.3.2.6


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """For TLS outward: `unchecked` when it is used as offered, `checked` where a route requires it."""

    unchecked: ssl.SSLContext
    checked: ssl.SSLContext

    @classmethod
    def default(cls) -> "TlsContexts":
        """With the system's authorities, which takes 40 ms to read."""
        unchecked = ssl.create_default_context()
        unchecked.check_hostname = False
        unchecked.verify_mode = ssl.CERT_NONE  # opportunistic: better than none (RFC 7435)
        return cls(unchecked, ssl.create_default_context())


class Lost(Exception):
    """The connection is of no more use; `reply` is temporary and says why.

    `after_dot`: the whole message had been sent, and may have been taken.
    """

    def __init__(self, why: Reply, after_dot: bool = False) -> None:
        super().__init__(str(why))
        self.reply = why
        self.after_dot = after_dot


class _TlsFailed(Exception):
    pass


class _Reader(asyncio.StreamReader):
    """Ends where the connection ends, also by a reset: a reply that came before is still read."""

    def set_exception(self, exc: Exception) -> None:
        self.feed_eof()

    @property
    def holds_unread(self) -> bool:
        return bool(self._buffer)  # type: ignore[attr-defined]


def remote_reply(code: int, lines: Iterable[bytes]) -> Reply:
    """A remote server's reply, fit for the log, the panel and a DSN: printable ASCII, at most 600 characters.

    Without an enhanced code of the reply's class it gets x.0.0 (RFC 3463 §3.1: undefined).
    """
    enhanced = f"{code // 100}.0.0"
    texts = []
    for line in lines:
        text = _UNPRINTABLE.sub("?", line[:REPLY_LINE_BYTES].decode("ascii", "replace")).strip()
        match = _ENHANCED.match(text)
        if match and match[1] == str(code)[0]:
            enhanced, text = match[0].strip(), text[match.end():]
        texts.append(text)
    return Reply(code, enhanced, " ".join(filter(None, texts))[:REPLY_CHARACTERS])


class _Stream(asyncio.StreamReaderProtocol):
    """What the loop feeds, and Wire reads."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.reader = _Reader(REPLY_LINE_BYTES, loop)
        super().__init__(self.reader, loop=loop)


class Wire:
    """An open connection, after EHLO or LHLO. Every wait has a deadline; every failure is Lost."""

    def __init__(
        self,
        transport: asyncio.Transport,
        host: str,
        address: str,
        tls: str,
        extensions: Mapping[str, str],
        *,
        is_lmtp: bool = False,
        stream: _Stream | None = None,
    ) -> None:
        """`stream` is the transport's protocol already; without one, it becomes that."""
        loop = asyncio.get_running_loop()
        self.host, self.address, self.tls = host, address, tls
        self.extensions = extensions  # keyword in lower case, parameters
        self.is_lmtp = is_lmtp  # after the dot comes a reply for each accepted recipient (RFC 2033 §4.2)
        self.messages = 0
        self.opened_at_s = loop.time()
        if stream is None:
            stream = _Stream()
            transport.set_protocol(stream)
            stream.connection_made(transport)
        self._reader = stream.reader
        self._writer = asyncio.StreamWriter(transport, stream, self._reader, loop)
        self._said_goodbye = False  # the remote, by 421

    @property
    def is_usable(self) -> bool:
        """Whether another transaction may be begun: open, and nothing said unasked."""
        ended = self._said_goodbye or self._reader.at_eof() or self._writer.is_closing()
        return not (ended or self._reader.holds_unread)

    def number(self, keyword: str) -> int | None:
        """The number that an extension's keyword declares (SIZE); None without one, or for 0 (RFC 1870 §4)."""
        text = self.extensions.get(keyword, "").strip()
        return int(text) or None if text.isascii() and text.isdigit() and len(text) < 18 else None

    def commands(self, *lines: bytes) -> None:
        """Write commands, in one piece; `reply` reads what becomes of each.

        A failure shows at `reply`, after what the remote said before it. Raises ValueError for a control character.
        """
        if any(_FORBIDDEN.search(line) for line in lines):
            raise ValueError("a command holds a control character")
        self._writer.write(b"\r\n".join(lines) + b"\r\n")

    async def reply(self, within_s: float) -> Reply:
        """The next reply. Raises Lost, also for what is not SMTP: nobody knows then what comes next."""
        return remote_reply(*await self._answer(within_s))

    async def greet(self, hostname: str, within_s: float) -> None:
        """The greeting and LHLO, each `within_s` seconds. Raises Lost, for a refusal as well."""
        for command in (b"", f"LHLO {hostname}".encode()):
            if command:
                self.commands(command)
            code, lines = await self._answer(within_s)
            if not 200 <= code <= 299:
                answer = remote_reply(code, lines)
                self.close()
                # No verdict on a message: temporary.
                raise Lost(reply.TURNED_AWAY.about(host=self.host, answer=answer))
        words = (line.decode("ascii", "replace").strip().partition(" ") for line in lines[1:])
        self.extensions = {keyword.lower(): parameters for keyword, _, parameters in words}

    async def _answer(self, within_s: float) -> tuple[int, list[bytes]]:
        """The next reply's code and its lines. Raises Lost."""
        lines: list[bytes] = []
        try:
            async with asyncio.timeout(within_s):
                for _ in range(REPLY_LINES):
                    match = _LINE.fullmatch((await self._reader.readuntil(b"\n")).rstrip(b"\r\n"))
                    if match is None:
                        break
                    lines.append(match[3] or b"")
                    if match[2] != b"-":
                        self._said_goodbye = self._said_goodbye or match[1] == b"421"
                        return int(match[1]), lines
        except TimeoutError:
            raise self._lost(reply.REMOTE_TIMED_OUT) from None
        except (OSError, asyncio.IncompleteReadError):
            raise self._lost(reply.CONNECTION_LOST) from None
        except asyncio.LimitOverrunError:
            pass
        raise self._lost(reply.REMOTE_NO_SENSE)

    async def _flush(self, within_s: float) -> None:
        """Wait until the remote takes more. Raises Lost."""
        try:
            async with asyncio.timeout(within_s):
                await self._writer.drain()
        except TimeoutError:
            raise self._lost(reply.REMOTE_TIMED_OUT) from None
        except OSError:
            raise self._lost(reply.CONNECTION_LOST) from None

    async def content(self, blocks: AsyncIterator[bytes], deadlines: Deadlines) -> Reply:
        """Send a message after 354 and read the reply. Raises Lost, and what `blocks` raises."""
        await self.send(blocks, deadlines)
        try:
            return await self.reply(deadlines.dot)
        except Lost as lost:
            raise Lost(lost.reply, after_dot=True) from None

    async def send(self, blocks: AsyncIterator[bytes], deadlines: Deadlines) -> None:
        """Send a message after 354, dots stuffed, with its final dot; its replies are still to be read.

        Raises Lost. If `blocks` raises, the connection is cut, so that half a message is never taken as whole.
        """
        line_end = b"\r\n"  # the two bytes before; a message begins as if after a line
        try:
            async for block in blocks:
                stuffed = (line_end + block).replace(b"\r\n.", b"\r\n..")  # RFC 5321 §4.5.2
                self._writer.write(stuffed[2:])
                line_end = (line_end + block)[-2:]
                await self._flush(deadlines.block)
        except BaseException:
            self.abort()
            raise
        self._writer.write(b".\r\n" if line_end == b"\r\n" else b"\r\n.\r\n")
        try:
            await self._flush(deadlines.block)
        except Lost as lost:
            raise Lost(lost.reply, after_dot=True) from None

    def close(self) -> None:
        """Say QUIT, and don't wait for its answer."""
        if not self._writer.is_closing():
            self._writer.write(b"QUIT\r\n")
            self._writer.close()

    def abort(self) -> None:
        """Cut the connection; what is still unsent stays so."""
        self._writer.transport.abort()

    def _lost(self, why: Reply) -> Lost:
        self.abort()
        return Lost(why.about(host=self.host))


async def open_wire(
    host: str, address: str, port: int, *, hostname: str, tls: str, contexts: TlsContexts, deadlines: Deadlines
) -> Wire:
    """A connection to `address`, greeted as `hostname`. Raises Lost.

    `tls`: opportunistic (used when offered, certificate unchecked; after a failed
    handshake in plain on a new connection), required (checked, never plain) or none.
    """
    try:
        return await _open(host, address, port, hostname, tls, contexts, deadlines)
    except _TlsFailed:
        if tls == "required":
            raise Lost(reply.TLS_FAILED.about(host=host)) from None
    return await _open(host, address, port, hostname, "none", contexts, deadlines)


async def open_lmtp(where: Listen | Path, *, host: str, hostname: str, deadlines: Deadlines) -> Wire:
    """A connection to an LMTP server on a TCP port or Unix socket, greeted as `hostname`. Raises Lost.

    `host` is what replies call it. Without a connection the cause is the OSError.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(deadlines.connect):
            if isinstance(where, Path):
                transport, stream = await loop.create_unix_connection(_Stream, str(where))
            else:
                transport, stream = await loop.create_connection(_Stream, where.host, where.port)
    except OSError as error:  # TimeoutError is one
        raise Lost(reply.UNREACHABLE.about(host=host)) from error
    address = where.host if isinstance(where, Listen) else ""
    wire = Wire(transport, host, address, "", {}, is_lmtp=True, stream=stream)
    try:
        await wire.greet(hostname, deadlines.greeting)
    except BaseException:
        wire.abort()
        raise
    return wire


async def _open(
    host: str, address: str, port: int, hostname: str, tls: str, contexts: TlsContexts, deadlines: Deadlines
) -> Wire:
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        async with asyncio.timeout(deadlines.connect):
            await loop.sock_connect(sock, (address, port))
    except OSError:  # TimeoutError is one
        sock.close()
        raise Lost(reply.UNREACHABLE.about(host=host)) from None
    except BaseException:
        sock.close()
        raise
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    smtp = aiosmtplib.SMTP(sock=sock, local_hostname=hostname, start_tls=False, timeout=deadlines.greeting)
    try:
        await smtp.connect()
        await _hello(smtp)
        cipher = await _encrypt(smtp, host, tls, contexts, deadlines)
        if smtp.transport is None or smtp.transport.is_closing():
            raise aiosmtplib.SMTPServerDisconnected("closed after EHLO")
        return Wire(smtp.transport, host, address, cipher, dict(smtp.esmtp_extensions))  # type: ignore[arg-type]
    except aiosmtplib.SMTPResponseException as error:
        smtp.close()
        raise Lost(_turned_away(host, error)) from None
    except (aiosmtplib.SMTPTimeoutError, TimeoutError):
        smtp.close()
        raise Lost(reply.REMOTE_TIMED_OUT.about(host=host)) from None
    except (aiosmtplib.SMTPException, OSError):
        smtp.close()
        raise Lost(reply.CONNECTION_LOST.about(host=host)) from None
    except BaseException:
        smtp.close()
        raise


async def _hello(smtp: aiosmtplib.SMTP) -> None:
    """EHLO; HELO where that is not known (RFC 5321 §3.2)."""
    try:
        await smtp.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if error.code < 500 or not smtp.is_connected:
            raise
        await smtp.helo()


async def _encrypt(
    smtp: aiosmtplib.SMTP, host: str, tls: str, contexts: TlsContexts, deadlines: Deadlines
) -> str:
    """STARTTLS as `tls` says; what was agreed on, empty for plain. Raises _TlsFailed."""
    if tls == "none":
        return ""
    if not smtp.supports_extension("starttls"):
        if tls == "required":
            raise _TlsFailed
        return ""
    try:
        await smtp.starttls(
            server_hostname=host.strip("[]").removeprefix("IPv6:"),
            tls_context=contexts.checked if tls == "required" else contexts.unchecked,
            timeout=deadlines.handshake,
        )
    except (aiosmtplib.SMTPException, OSError, ValueError):  # ssl.SSLError is an OSError
        raise _TlsFailed from None
    # RFC 3207 §4.2: what was offered before TLS counts no more.
    await _hello(smtp)
    name, version, _ = smtp.get_transport_info("cipher")
    return f"{smtp.get_transport_info('ssl_object').version() or version} {name}"


def _turned_away(host: str, error: aiosmtplib.SMTPResponseException) -> Reply:
    """A refusal before MAIL is no verdict on a message: temporary, and the next host may take it."""
    if not 400 <= error.code <= 599:
        return reply.REMOTE_NO_SENSE.about(host=host)
    answer = remote_reply(error.code, [error.message.encode("ascii", "replace")])
    return reply.TURNED_AWAY.about(host=host, answer=answer)
