"""Dovecot's doveadm socket, scripted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

GREETING = b"+\n"
DONE = b"1\t\n+\n"


class Doveadm:
    """Dovecot's socket, scripted: each command is kept and answered."""

    def __init__(self) -> None:
        self.greeting, self.answer = GREETING, DONE
        self.asked: list[bytes] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            assert (await reader.readline()) == b"VERSION\tdoveadm-server\t1\t0\n"
            writer.write(self.greeting)
            while line := await reader.readline():
                self.asked.append(line)
                writer.write(self.answer)
        writer.close()

    @property
    def kicked(self) -> set[str]:
        return {line.decode().removeprefix("\t\tkick\t").removesuffix("\n") for line in self.asked}


@contextlib.asynccontextmanager
async def doveadm_on(path: Path) -> AsyncIterator[Doveadm]:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Doveadm()
    server = await asyncio.start_unix_server(made.talk, path)
    try:
        yield made
    finally:
        server.close()
        path.unlink(missing_ok=True)
