"""A mailserver's sessions on real sockets, with small stand-ins for what they ask.

The directory, authd and intake have tests of their own, and the integration tests put
everything together; here they answer as told, and say what they were asked.
"""

import asyncio
import base64
import dataclasses
import hashlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from mailserver import tls
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.directory import DirectoryUnavailable
from mailserver.envelope import Body, Incoming, Listener
from mailserver.session import Services, Session
from panel.database import ids
from panel.rules import reply
from panel.rules.addresses import Address, parse_address
from panel.rules.facts import Delivery, LocalMailbox, Login, Proof, Resolution, SenderRights, Verdict
from panel.rules.quota import Fit, Wanted, fit
from panel.rules.reply import Reply
from panel.rules.status import Status
from tests.support.dialogue import Wire, run

PASSWORD = "right horse battery"
OPEN = Config(
    hostname="mx.posthouse.test", node_name="one", data=Path("/nonexistent"), mx=(), submission=(), submissions=(),
    tls_cert=Path(), tls_key=Path(), dns=None, outward_port=25, outward_private=(), workers=1,
    message_size=1024 * 1024, separator="+", postmaster="",
)


def login_of(text: str, number: int) -> Login:
    address = parse_address(text)
    return Login(
        credential_id=number, credential="main password", mailbox_id=number, address=address, tenant_id=7,
        domain=address.domain, status=Status.ACTIVE, suspended="", proof=Proof.PROVED, usable=True,
        scopes=frozenset({"submission"}), networks=(), limits=(),
        may_send_as=SenderRights(address.local_part, frozenset({address.domain}), frozenset()),
    )


class StandInDirectory:
    """demo.test with shop and office."""

    def __init__(self) -> None:
        self.version = 1
        self.logins = {1: login_of("shop@demo.test", 1), 2: login_of("office@demo.test", 2)}
        self.gone = False
        self.broken = False
        self.asked: list[Address] = []
        self.quotas: dict[int, int] = {}
        self.aliases: dict[str, tuple[int, ...]] = {}

    async def login(self, credential_id: int, fingerprint: str = "") -> Login | None:
        self._check()
        return self.logins.get(credential_id)

    async def resolve(self, address: Address) -> Resolution:
        self._check()
        self.asked.append(address)
        if address.domain not in ("demo.test", ""):
            return Resolution(address, Verdict.ELSEWHERE)
        for number, login in self.logins.items():
            if login.address == address.canonical.without_subaddress("+") and login.status.may_receive:
                return Resolution(address, Verdict.HERE, 7, (self._delivery(number),))
        if address.local_part in self.aliases:
            targets = tuple(map(self._delivery, self.aliases[address.local_part]))
            return Resolution(address, Verdict.HERE, 7, targets)
        if address.local_part == "postmaster":
            mailbox = LocalMailbox(2, "opaque2", 7, self.logins[2].address, None)
            return Resolution(address, Verdict.HERE, 7, (Delivery(mailbox.address, mailbox),))
        return Resolution(address, Verdict.UNKNOWN, 7)

    def _delivery(self, number: int) -> Delivery:
        address = self.logins[number].address
        return Delivery(address, LocalMailbox(number, f"opaque{number}", 7, address, self.quotas.get(number)))

    def change(self, text: str, status: Status) -> None:
        """Suspend or resume, as a click in the panel does."""
        for number, login in self.logins.items():
            if str(login.address) == text:
                suspended = "" if status is Status.ACTIVE else text
                self.logins[number] = dataclasses.replace(login, status=status, suspended=suspended)
        self.version += 1

    def _check(self) -> None:
        if self.gone:
            raise DirectoryUnavailable("the database is gone")
        if self.broken:
            raise RuntimeError("a secret of the inside")


@dataclass(frozen=True)
class Answer:
    verdict: str
    credential_id: int | None
    login: str
    fingerprint: str = ""


class StandInAuth:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.verdict = ""  # said in place of the truth
        self.gone = False

    async def ask(self, login: str, password: str, ip: str, protocol: str = "submission") -> Answer:
        self.asked.append((login, password))
        if self.gone:
            raise ConnectionRefusedError("no authd")
        known = {"shop@demo.test": 1, "office@demo.test": 2}.get(login.lower())
        right = known is not None and password == PASSWORD
        verdict = self.verdict or ("ok" if right else "wrong")
        return Answer(verdict, known if verdict == "ok" else None, login)


class StandInIntake:
    def __init__(self) -> None:
        self.taken: list[Incoming] = []
        self.answer: Reply | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0

    async def take(self, incoming: Incoming) -> Reply:
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        self.taken.append(incoming)
        return self.answer or reply.QUEUED.about(queue_id=ids.to_text(incoming.id))


class StandInUsage:
    """Everything fits but where a test says otherwise, by mailbox."""

    def __init__(self) -> None:
        self.used: dict[int, int] = {}
        self.asked: list[Wanted] = []

    async def fits(self, wanted: Sequence[Wanted]) -> dict[int, Fit]:
        self.asked += wanted
        return {each.mailbox_id: fit(self.used.get(each.mailbox_id, 0), each.size, each.quota_bytes)
                for each in wanted}

    async def take(self, wanted: Sequence[Wanted]) -> dict[int, Fit]:
        found = await self.fits(wanted)
        for each in wanted:
            if found[each.mailbox_id] is Fit.FITS:
                self.add(each.mailbox_id, each.size)
        return found

    def add(self, mailbox_id: int, used_bytes: int, messages: int = 1) -> None:
        self.used[mailbox_id] = self.used.get(mailbox_id, 0) + used_bytes


class Spill:
    """A body in a file, as the content store's."""

    def __init__(self, folder: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=folder)
        self.path = Path(name)
        self.file = os.fdopen(descriptor, "wb")

    def write(self, block: bytes) -> None:
        self.file.write(block)

    def finish(self) -> Body:
        self.file.close()
        data = self.path.read_bytes()
        return Body(len(data), hashlib.sha256(data).hexdigest(), None, self.path)

    def discard(self) -> None:
        self.file.close()
        self.path.unlink()


class StandInContent:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new_spill(self) -> Spill:
        return Spill(self.folder)

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())


@dataclass
class House:
    """Sessions of all three kinds, listening on free ports."""

    services: Services
    directory: StandInDirectory
    auth: StandInAuth
    intake: StandInIntake
    content: StandInContent
    usage: StandInUsage
    client_tls: ssl.SSLContext
    ports: dict[Listener, int] = field(default_factory=dict)

    async def mx(self) -> Wire:
        """A greeted connection to the MX port."""
        wire = await Wire.open(self.ports[Listener.MX])
        assert (await wire.reply())[0].startswith("220 ")
        assert (await wire.say("EHLO peer.example")).startswith("250 ")
        return wire

    async def submission(self, login: str = "shop@demo.test") -> Wire:
        """A connection to 465, greeted and logged in."""
        wire = await Wire.open(self.ports[Listener.SUBMISSIONS], self.client_tls)
        assert (await wire.reply())[0].startswith("220 ")
        assert (await wire.say("EHLO [127.0.0.1]")).startswith("250 ")
        assert (await wire.say(f"AUTH PLAIN {plain(login)}")).startswith("235 ")
        return wire

    async def connect(self, name: str) -> Wire:
        """For a dialogue: `mx…` to 25, `tls…` to 465, everybody else to 587."""
        if name.startswith("mx"):
            return await Wire.open(self.ports[Listener.MX])
        if name.startswith("tls"):
            return await Wire.open(self.ports[Listener.SUBMISSIONS], self.client_tls)
        return await Wire.open(self.ports[Listener.SUBMISSION])

    async def talk(self, script: str) -> None:
        """Run a dialogue, with the words and actions that the tests of sessions use."""
        actions = {
            "suspend": lambda text: self.directory.change(text, Status.SUSPENDED),
            "resume": lambda text: self.directory.change(text, Status.ACTIVE),
            "close": lambda text: self.directory.change(text, Status.CLOSED),
            "database": lambda state: setattr(self.directory, "gone", state == "gone"),
            "directory": lambda state: setattr(self.directory, "broken", state == "broken"),
            "authd": lambda state: setattr(self.auth, "gone", state == "gone"),
        }
        await run(script, self.connect, words=_word, actions=actions, tls=self.client_tls)

    async def until(self, condition) -> None:
        """Wait until it holds, five seconds at most."""
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.002)


def plain(login: str, password: str = PASSWORD, authzid: str = "") -> str:
    return base64.b64encode(f"{authzid}\0{login}\0{password}".encode()).decode()


def _word(text: str) -> str:
    """{plain shop}, {plain shop wrong}, {base64 some text}, {password}."""
    kind, _, rest = text.partition(" ")
    if kind == "plain":
        name, _, password = rest.partition(" ")
        return plain(f"{name}@demo.test", password or PASSWORD)
    if kind == "base64":
        return base64.b64encode(rest.encode().decode("unicode_escape").encode()).decode()
    assert kind == "password", text
    return base64.b64encode(PASSWORD.encode()).decode()


AUTHORITY = trustme.CA(key_type=trustme.KeyType.ECDSA)


def certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A fresh chain and key in `folder`."""
    issued = AUTHORITY.issue_cert(name, key_type=trustme.KeyType.ECDSA)
    chain, key = folder / "cert.pem", folder / "key.pem"
    issued.cert_chain_pems[0].write_to_path(chain)
    issued.private_key_pem.write_to_path(key)
    return chain, key


def trusting() -> ssl.SSLContext:
    # Of this authority alone: to read all those that the machine trusts takes longer than most tests of a session.
    return ssl.create_default_context(cadata=AUTHORITY.cert_pem.bytes().decode())


@asynccontextmanager
async def house(folder: Path, **settings: object) -> AsyncIterator[House]:
    """Listen on three ports; `settings` change the config."""
    (folder / "spool").mkdir()
    config = dataclasses.replace(OPEN, data=folder, **settings)
    context = tls.server_context(*certificate(folder))
    directory, auth, intake = StandInDirectory(), StandInAuth(), StandInIntake()
    content, usage = StandInContent(folder / "spool"), StandInUsage()
    services = Services(
        config=config, directory=directory, auth=auth, intake=intake, ids=ids.IdMaker(1, 1), clock=Clock(),
        tls=context, content=content, usage=usage,
    )
    made = House(services, directory, auth, intake, content, usage, trusting())
    loop = asyncio.get_running_loop()
    servers = []
    for kind in Listener:
        server = await loop.create_server(
            lambda kind=kind: Session(services, kind), "127.0.0.1", 0,
            ssl=context if kind is Listener.SUBMISSIONS else None,
        )
        servers.append(server)
        made.ports[kind] = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        for server in servers:
            server.close()
        for session in tuple(services.sessions):
            session.abort()
        intake.gate.set()
        await made.until(lambda: not services.sessions)
