"""How workers and authd talk: a JSON object a line, over a Unix socket. Knows nothing of what is said."""

import asyncio
import json
import os
import socket
import struct
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, cast

FRAME_BYTES = 16 * 1024  # a question: an AUTH line is at most 12288 (RFC 4954 §4)


class Lines(asyncio.Protocol, ABC):
    """Lines of at most FRAME_BYTES; whoever sends a longer one is cut off."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if any(len(line) > FRAME_BYTES for line in (*lines, self._buffer)):
            self.close()
            return
        for line in lines:
            self.line_received(line)

    @abstractmethod
    def line_received(self, line: bytes) -> None:
        """A line came, without its end."""

    def send(self, line: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(line)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


def frame(fact: dict[str, object]) -> bytes:
    return json.dumps(fact, separators=(",", ":")).encode() + b"\n"


class _Client(Lines):
    """The asking end: the questions that wait for an answer, by their number."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    async def ask(self, question: dict[str, object]) -> dict[str, Any]:
        """The answer. Raises ConnectionError when the connection is lost, ValueError when the question is too long."""
        self._count += 1
        number = self._count
        line = frame({"id": number, **question})
        if len(line) > FRAME_BYTES:
            raise ValueError("longer than any question")
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self.send(line)
            return await future
        finally:
            del self._waiting[number]

    def line_received(self, line: bytes) -> None:
        fact = json.loads(line)
        future = self._waiting.get(fact.pop("id"))
        if future is not None and not future.done():
            future.set_result(fact)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError("authd closed the connection"))


class Asker:
    """Asks over one connection that is made when it is needed and again when it is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client: _Client | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, question: dict[str, object]) -> dict[str, Any]:
        """The answer's fields. Raises OSError when nobody answers, ValueError when the question is too long."""
        # Twice: authd may have been restarted since the last question.
        try:
            return await (await self._connected()).ask(question)
        except ConnectionError:
            return await (await self._connected()).ask(question)

    async def tell(self, fact: dict[str, object]) -> None:
        """Send what needs no answer; at most FRAME_BYTES. Raises OSError when nobody listens."""
        (await self._connected()).send(frame(fact))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    async def _connected(self) -> _Client:
        async with self._connecting:
            if self._client is None or not self._client.is_open:
                loop = asyncio.get_running_loop()
                transport, client = await loop.create_unix_connection(_Client, str(self._path))
                if not is_own(transport.get_extra_info("socket")):
                    transport.close()
                    raise PermissionError(f"{self._path} is another user's")
                self._client = client
            return self._client


def is_own(connection: socket.socket) -> bool:
    """Whether the other end is this user's or root's: a folder under the temp folder could be anybody's."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (os.geteuid(), 0)
