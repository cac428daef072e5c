"""Another mail server for tests: stock aiosmtpd in a thread, whose behaviour can be switched."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiosmtpd.smtp import SMTP

from panel.environment import Listen


@dataclass
class Received:
    """One message that the peer took."""

    mail: str  # the argument of MAIL
    rcpts: list[str]  # the arguments of the accepted RCPTs
    content: bytes
    tls: bool


@dataclass
class Behaviour:
    """What is unlike a good server. Verbs are CONNECT, EHLO, STARTTLS, MAIL, RCPT, DATA, DOT, RSET."""

    answers: dict[str, str] = field(default_factory=dict)  # a verb's reply: "451 4.3.0 later"; CRLFs allowed
    rcpt: dict[str, str] = field(default_factory=dict)  # a recipient's reply
    drops: set[str] = field(default_factory=set)  # the connection is cut in place of the reply
    hangs: set[str] = field(default_factory=set)  # the reply never comes
    without: set[str] = field(default_factory=set)  # extensions not offered
    offers: tuple[str, ...] = ("PIPELINING", "DSN", "ENHANCEDSTATUSCODES")  # besides aiosmtpd's own
    hang_up_after: int = 0  # messages; then the connection is closed without a word


class Peer:
    """A mail server on a loopback port. `received`, `commands` and `connections` tell what came."""

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.behaviour = Behaviour()
        self.received: list[Received] = []
        self.commands: list[str] = []
        self.connections = 0
        self.listen = Listen(host, 0)
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="peer", daemon=True)
        self._ready = threading.Event()
        self._changed = threading.Condition()

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the peer didn't start")

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def wait_for(self, messages: int, deadline_s: float = 20.0) -> None:
        """Until so many messages have come."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.received) >= messages, deadline_s):
                raise TimeoutError(f"{len(self.received)} of {messages} messages came")

    def take(self, message: Received) -> None:
        with self._changed:
            self.received.append(message)
            self._changed.notify_all()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            self._loop.create_server(self._connection, self.listen.host, self.listen.port)
        )
        self.listen = Listen(self.listen.host, server.sockets[0].getsockname()[1])
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _connection(self) -> SMTP:
        self.connections += 1
        return _Session(self, self._tls, self._loop)


class SlowPeer(Peer):
    """Says nothing to a final dot until `gate` is open; `asked` is set when the first has come."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.asked = threading.Event()

    def take(self, message: Received) -> None:
        self.asked.set()
        self.gate.wait(60)
        super().take(message)

    def stop(self) -> None:
        self.gate.set()
        super().stop()


class _Handler:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        behaviour = self._peer.behaviour
        kept = [line for line in responses[:-1] if line[4:].split()[0] not in behaviour.without]
        kept += [f"250-{keyword}" for keyword in behaviour.offers if keyword not in behaviour.without]
        return [*kept, responses[-1]]

    async def handle_DATA(self, server, session, envelope):
        tls = server.transport.get_extra_info("sslcontext") is not None
        answer = await server.instead("DOT")
        if not answer or answer.startswith("2"):
            self._peer.take(Received(server.mail, list(server.rcpts), envelope.original_content, tls))
        server.messages += 1
        if server.messages == self._peer.behaviour.hang_up_after:
            asyncio.get_running_loop().call_later(0, server.transport.close)
        return answer or "250 2.0.0 taken"


class _Session(SMTP):
    def __init__(self, peer: Peer, tls: ssl.SSLContext | None, loop: asyncio.AbstractEventLoop) -> None:
        self.peer = peer
        self.mail = ""
        self.rcpts: list[str] = []
        self.messages = 0
        super().__init__(
            _Handler(peer), hostname="peer.test", enable_SMTPUTF8="SMTPUTF8" not in peer.behaviour.without,
            tls_context=None if "STARTTLS" in peer.behaviour.without else tls, loop=loop,
        )

    async def instead(self, verb: str) -> str:
        """The reply that the behaviour asks for, if any; or no reply ever."""
        behaviour = self.peer.behaviour
        if verb in behaviour.drops:
            self.transport.abort()
            await asyncio.Event().wait()
        if verb in behaviour.hangs:
            await asyncio.Event().wait()
        return behaviour.answers.get(verb, "")

    async def _answered(self, verb: str, arg: str | None = None) -> bool:
        self.peer.commands.append(f"{verb} {arg}" if arg else verb)
        answer = await self.instead(verb)
        if answer:
            await self.push(answer)
            if answer.startswith("421"):
                self.transport.close()
        return bool(answer)

    async def _handle_client(self):
        answer = await self.instead("CONNECT")
        if answer:
            await self.push(answer)
            self.transport.close()
            return
        await super()._handle_client()

    async def smtp_EHLO(self, hostname):
        if not await self._answered("EHLO", hostname):
            await super().smtp_EHLO(hostname)

    async def smtp_HELO(self, hostname):
        if not await self._answered("HELO", hostname):
            await super().smtp_HELO(hostname)

    async def smtp_STARTTLS(self, arg):
        if not await self._answered("STARTTLS"):
            await super().smtp_STARTTLS(arg)

    async def smtp_RSET(self, arg):
        if not await self._answered("RSET"):
            await super().smtp_RSET(arg)

    async def smtp_MAIL(self, arg):
        if not await self._answered("MAIL", arg):
            self.mail, self.rcpts = arg, []
            await super().smtp_MAIL(_without(arg, "RET=", "ENVID="))

    async def smtp_RCPT(self, arg):
        address = arg.partition("<")[2].partition(">")[0]
        if await self._answered("RCPT", arg):
            return
        if answer := self.peer.behaviour.rcpt.get(address):
            await self.push(answer)
            return
        self.rcpts.append(arg)
        await super().smtp_RCPT(_without(arg, "NOTIFY=", "ORCPT="))

    async def smtp_DATA(self, arg):
        if not await self._answered("DATA"):
            await super().smtp_DATA(arg)


def _without(arg: str, *parameters: str) -> str:
    """The argument without the DSN parameters, which aiosmtpd doesn't know."""
    return " ".join(word for word in arg.split(" ") if not word.upper().startswith(parameters))


@contextmanager
def peer(tls: ssl.SSLContext | None = None, **behaviour) -> Iterator[Peer]:
    """A running peer, with the behaviour given by Behaviour's fields."""
    made = Peer(tls)
    made.behaviour = Behaviour(**behaviour)
    made.start()
    try:
        yield made
    finally:
        made.stop()
