"""SMTP as a dialogue: a script that reads as the wire does, run against a real socket.

    # A comment.
    shop  C: EHLO client.example      sent with CRLF; \\r \\n \\0 \\\\ are escapes, {…} is filled in by `words`
    shop  C| a half li                sent as it is, without a CRLF
    shop  S: 250-*                    one whole reply: its first line, or any of its lines, fits the pattern
    shop  TLS                         the client's side of STARTTLS
    shop  closed                      the server has closed the connection
          ! suspend shop@demo.test    an action of the test

The name says whose connection it is; it is opened where it first appears, as `connect` says.
"""

import asyncio
import inspect
import re
import ssl
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase

PATIENCE_S = 5.0  # for each read; a test that needs it has failed

_LINE = re.compile(r"(?P<name>\S+)\s+(?P<what>C:|C\||S:|TLS|closed)(?: (?P<text>.*))?")
_ESCAPES = {"\\r": "\r", "\\n": "\n", "\\0": "\0", "\\\\": "\\", "\\t": "\t"}


class Wire:
    """A client's end of a connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None = None) -> "Wire":
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
        )
        return cls(reader, writer)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            await self.writer.drain()

    async def reply(self) -> list[str]:
        """The lines of one whole reply; empty when the connection was closed."""
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            while not lines or lines[-1][3:4] == "-":
                line = await self.reader.readline()
                if not line:
                    return lines
                assert line.endswith(b"\r\n"), line
                lines.append(line[:-2].decode())
        return lines

    async def say(self, line: str | bytes) -> str:
        """Send a line; the last line of its reply."""
        await self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return (await self.reply())[-1]

    async def is_closed(self) -> bool:
        """Whether the server closes, after nothing more."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    async def start_tls(self, context: ssl.SSLContext) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.writer.start_tls(context, server_hostname="localhost")

    def close(self) -> None:
        self.writer.close()


async def run(
    script: str,
    connect: Callable[[str], Awaitable[Wire]],
    *,
    words: Callable[[str], str] = str,
    actions: dict[str, Callable[..., object]] | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Run a script; raises AssertionError with the line that went otherwise."""
    wires: dict[str, Wire] = {}
    try:
        for number, raw in enumerate(script.splitlines(), 1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            if line.startswith("!"):
                name, *arguments = line[1:].split()
                done = (actions or {})[name](*arguments)
                if inspect.isawaitable(done):
                    await done
                continue
            parts = _LINE.fullmatch(line)
            assert parts, f"line {number} is no dialogue: {raw}"
            if parts["name"] not in wires:
                wires[parts["name"]] = await connect(parts["name"])
            await _step(wires[parts["name"]], parts["what"], parts["text"] or "", words, tls, f"line {number}: {line}")
    finally:
        for wire in wires.values():
            wire.close()


async def _step(
    wire: Wire, what: str, text: str, words: Callable[[str], str], tls: ssl.SSLContext | None, where: str
) -> None:
    match what:
        case "C:" | "C|":
            filled = re.sub(r"\{([^}]*)\}", lambda each: words(each[1]), text)
            sent = re.sub(r"\\[rn0t\\]", lambda each: _ESCAPES[each[0]], filled)
            await wire.send(sent.encode() + (b"\r\n" if what == "C:" else b""))
        case "S:":
            try:
                lines = await wire.reply()
            except TimeoutError:
                raise AssertionError(f"{where}\nno reply came") from None
            assert any(fnmatchcase(line.rstrip(), text.rstrip()) for line in lines), f"{where}\ncame: {lines}"
        case "TLS":
            assert tls is not None
            await wire.start_tls(tls)
        case "closed":
            assert await wire.is_closed(), f"{where}\nit is still open"
