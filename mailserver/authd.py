"""authd: the process that checks logins, one a node; and the client by which workers ask it.

Decides whether a password is right and what may wait for whom: a login that was right
before is answered at once, never behind the hashing of wrong ones. Whether a right
password may be used (status, scope, network, expiry) is decided in panel/rules/policy.
RFC 4954 §6: a backend that is down is "unavailable" (454), never "wrong" (535). So is what
is "locked": after too many wrong ones nothing is looked at (mailserver/lockout).

Workers ask over a Unix socket, a JSON object a line, many at once, answers out of order:
{"id", "login", "password", "ip", "protocol"} → {"id", "verdict", "credential_id", "login", "fingerprint"}.
Dovecot asks over another one, in its dict protocol (dict_protocol.py), one look-up at a
time on each of its connections.

The node's knowledge of what mailboxes hold lives here as well (usage.py), asked and told over
the same sockets: it must be one for all workers.
"""

import asyncio
import hashlib
import json
import os
import secrets
import signal
import socket
import stat
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import django
import uvloop
from django.apps import apps
from django.conf import settings

from mailserver import dict_protocol, log
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.counting import Counting
from mailserver.dict_protocol import BadLine, PasswordLookup, UsageTransactions, UserLookup
from mailserver.directory import Candidates, Directory, DirectoryUnavailable, LoginFact, UsageFact, Use
from mailserver.lines import Asker, Lines, frame
from mailserver.lockout import Lockout
from mailserver.login_events import LoginEvents
from mailserver.numbers import number_for_ids
from mailserver.recent import Recent
from mailserver.usage import UsageBook
from mailserver.warnings import Warnings
from panel.database.ids import IdMaker
from panel.environment import SOCKET_PATH_BYTES, dovecot_key
from panel.mailboxes import passwords
from panel.rules import policy, reply
from panel.rules.addresses import BadAddress, parse_address
from panel.rules.facts import Login

ASK_DEADLINE_S = 5.0
MOST_QUESTIONS = 1000  # under way at once
MOST_REMEMBERED = 50_000
MOST_WRONG = 10_000
WRONG_S = 60.0
HASHES_AT_ONCE = 2  # argon2 lets other threads run; 37 a second on two cores (DESIGN §7)
MOST_WAITING = 128  # 3.5 s of hashing on two cores, inside the asker's deadline
MOST_WAITING_OF_ONE = 4  # of one login name: an attacked account doesn't block the others
LOOK_UP_THREADS = 4
FLUSH_S = 5.0
MOST_NAME = 320  # characters of a login name that are kept; an address has at most 254 octets

AuthVerdict = Literal["ok", "wrong", "suspended", "scope", "locked", "unavailable"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one login. `login` is the mailbox's address when it is known, else as it was given.

    `fingerprint` is that of the password which was right: the session ends with it.
    """

    verdict: AuthVerdict
    credential_id: int | None
    login: str
    fingerprint: str = ""


class AlreadyRunning(Exception):
    """Another authd answers on the socket; the text is a sentence for the operator."""


def socket_path(config: Config) -> Path:
    """Where authd listens: in the run folder, or a private one when that path is too long for a socket."""
    path = config.run / "authd.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    name = hashlib.blake2b(os.fsencode(config.data), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"posthouse-{os.geteuid()}-{name}" / "authd.sock"


# Hashing


class _Busy(Exception):
    """Too much waits to be hashed."""


class _Hashing:
    """Passwords waiting to be hashed: login names in turn, few of each, and a bound on all."""

    def __init__(self, verify: Callable[[str, str], bool]) -> None:
        self._verify = verify
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="hash")
        self._waiting: OrderedDict[str, deque[tuple[str, str, float, asyncio.Future[bool]]]] = OrderedDict()
        self._count = 0
        self._running = 0

    async def verify(self, name: str, password: str, stored: str) -> bool:
        """Whether the password is the one that `stored` was made of. Raises _Busy."""
        queue = self._waiting.get(name)
        if self._count >= MOST_WAITING or (queue is not None and len(queue) >= MOST_WAITING_OF_ONE):
            raise _Busy
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(
            (password, stored, time.monotonic() + ASK_DEADLINE_S, future)
        )
        self._count += 1
        self._next()
        return await future

    def _next(self) -> None:
        while self._running < HASHES_AT_ONCE and self._waiting:
            name, queue = self._waiting.popitem(last=False)
            password, stored, deadline_s, future = queue.popleft()
            if queue:
                self._waiting[name] = queue  # to the end: the other names first
            self._count -= 1
            if future.done():
                continue
            if time.monotonic() > deadline_s:
                future.set_exception(_Busy())  # nobody waits for it any more
                continue
            self._running += 1
            hashed = asyncio.get_running_loop().run_in_executor(self._threads, self._verify, password, stored)
            hashed.add_done_callback(partial(self._hashed, future))

    def _hashed(self, future: "asyncio.Future[bool]", hashed: "asyncio.Future[bool]") -> None:
        self._running -= 1
        if hashed.cancelled():
            return  # closed
        if not future.done():
            error = hashed.exception()
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(hashed.result())
        self._next()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


# Deciding


@dataclass(frozen=True, slots=True)
class _Right:
    """A password that was right, as long as these domains did not change since `version`."""

    credential_id: int
    fingerprint: str
    version: int
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Wrong:
    """A password that was compared with `stored` and is not the one."""

    stored: str
    until_s: float  # monotonic


class Authenticator:
    """Checks logins. Passwords are remembered only as BLAKE2 digests under a key that this process made."""

    def __init__(
        self, directory: Directory, clock: Clock, verify: Callable[[str, str], bool] = passwords.verify_main
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._right: Recent[_Right] = Recent(MOST_REMEMBERED)
        self._wrong: Recent[_Wrong] = Recent(MOST_WRONG)
        self._hashing = _Hashing(verify)
        # Verified in place of an unknown login's: it must take as long as a wrong password.
        self._nobodys = passwords.hash_main(secrets.token_urlsafe(16))
        self._under_way: dict[bytes, asyncio.Future[_Right | None]] = {}
        self._used: dict[int, Use] = {}
        # Mailbox and tenant by login name: whose a refused login is.
        self._owners: Recent[tuple[int, int]] = Recent(MOST_REMEMBERED)
        self._lockout = Lockout(directory, clock, self._digest)
        self._events = LoginEvents(directory)

    async def check(self, login: str, password: str, ip: str, protocol: str) -> Answer:
        """Whether this password opens this login for `protocol` from `ip`. Never raises for bad input."""
        name = _canonical(login)
        try:
            if await self._lockout.holds(name, ip):
                self._note("locked", name, ip, protocol)
                return Answer("locked", None, login)
            right = await self._right_one(login, password)
            if right is None:
                log.login_failed(login, ip, "unknown login or wrong password")
                self._lockout.failed(name, password, ip)
                self._note("wrong", name, ip, protocol)
                return Answer("wrong", None, login)
            known = await self._directory.login(right.credential_id)
        except (DirectoryUnavailable, _Busy) as error:
            log.login_failed(login, ip, "too much to hash" if isinstance(error, _Busy) else "database gone")
            return Answer("unavailable", None, login)
        if known is None:
            log.login_failed(login, ip, "credential gone")
            return Answer("wrong", None, login)
        refused = policy.login_refused(known, scope=protocol, ip=ip, now=self._clock.now())
        if refused is not None:
            log.login_failed(known.name, ip, f"{known.credential}: {refused.text}")
            verdict = _verdict(refused)
            if verdict == "wrong":
                self._lockout.failed(name, password, ip)  # what reads like a wrong one counts like one
            self._note("refused" if verdict == "wrong" else verdict, name, ip, protocol, known)
            return Answer(verdict, None, known.name)
        self._used[right.credential_id] = Use(right.credential_id, self._clock.now(), ip)
        self._lockout.succeeded(name, ip)
        self._note("ok", name, ip, protocol, known)
        return Answer("ok", right.credential_id, known.name, right.fingerprint)

    def _note(self, outcome: str, name: str, ip: str, protocol: str, known: Login | None = None) -> None:
        """Keep a login for its LoginEvent; `known` is whose password was right."""
        now = self._clock.now()
        owner = (known.mailbox_id, known.tenant_id) if known else self._owners.get(self._digest(name, ""))
        self._events.add(
            LoginFact(
                at=now,
                last_at=now,
                count=1,
                login=name[:MOST_NAME],
                protocol=protocol,
                outcome=outcome,
                ip=ip,
                mailbox_id=owner[0] if owner else None,
                tenant_id=owner[1] if owner else None,
                credential_id=known.credential_id if known else None,
                credential=known.credential if known else "",
            )
        )

    async def flush(self, everything: bool = False) -> None:
        """Write last uses and logins, `everything` at the end; kept for the next time without a database."""
        await self._events.flush(everything)
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._directory.record_use(list(used.values()))
        except DirectoryUnavailable:
            self._used = used | self._used

    def close(self) -> None:
        self._hashing.close()

    async def _right_one(self, login: str, password: str) -> _Right | None:
        """The credential that this password opens, or None. Raises DirectoryUnavailable and _Busy."""
        name = _canonical(login)
        digest = self._digest(name, password)
        right = self._right.get(digest)
        if right is not None:
            if self._directory.is_current(right.version, right.domains):
                return right
            self._right.remove(digest)
        # A mail client opens several connections at once: one look-up and one hash for all.
        under_way = self._under_way.get(digest)
        if under_way is None:
            under_way = asyncio.ensure_future(self._compare(name, password, digest))
            self._under_way[digest] = under_way
            under_way.add_done_callback(partial(self._compared, digest))
        return await asyncio.shield(under_way)

    def _compared(self, digest: bytes, task: "asyncio.Future[_Right | None]") -> None:
        del self._under_way[digest]
        if not task.cancelled():
            task.exception()  # seen, also when all who asked have gone

    async def _compare(self, name: str, password: str, digest: bytes) -> _Right | None:
        version = self._directory.version
        found = await self._directory.candidates(name)
        if found is None:
            self._owners.remove(self._digest(name, ""))
        else:
            self._owners.put(self._digest(name, ""), (found.mailbox_id, found.tenant_id))
        matching = await self._match(found, name, password, digest)
        if matching is None or found is None:
            return None
        credential_id, stored = matching
        domains = (found.address.domain, name.rpartition("@")[2])
        right = _Right(credential_id, passwords.fingerprint(stored), version, domains)
        self._right.put(digest, right)
        return right

    async def _match(
        self, found: Candidates | None, name: str, password: str, digest: bytes
    ) -> tuple[int, str] | None:
        """The candidate, with its stored form, that this is the password of."""
        if not _is_text(password):
            return None
        if password.startswith(passwords.APP_PREFIX):
            # 128 random bits need no slow hash, known login or not.
            hashed = passwords.hash_app(password)
            apps = found.apps if found else ()
            return next((each for each in apps if secrets.compare_digest(each[1], hashed)), None)
        stored = found.main[1] if found and found.main else self._nobodys
        wrong = self._wrong.get(digest)
        if wrong is not None and wrong.stored == stored and time.monotonic() < wrong.until_s:
            return None
        if await self._hashing.verify(name, password, stored) and found and found.main:
            return found.main
        self._wrong.put(digest, _Wrong(stored, time.monotonic() + WRONG_S))
        return None

    def _digest(self, name: str, password: str) -> bytes:
        # The name's length parts the two: no other pair gives the same bytes.
        text = f"{len(name)}:{name}{password}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()


def _verdict(refused: reply.Reply) -> AuthVerdict:
    if refused.enhanced == reply.AUTH_SUSPENDED.enhanced:
        return "suspended"
    return "scope" if refused.text == reply.AUTH_NOT_FOR_SENDING.text else "wrong"


def _canonical(login: str) -> str:
    """The login name as it is compared; what is no address stays as it is, and is nobody's."""
    try:
        return str(parse_address(login).canonical)
    except BadAddress:
        return login


def _is_text(password: str) -> bool:
    """Whether it can be encoded: a lone surrogate, from bytes that are no UTF-8, can't."""
    try:
        password.encode()
    except UnicodeEncodeError:
        return False
    return True


# The wire, both sides


class _Server(Lines):
    """One asker's connection."""

    def __init__(
        self, authenticator: Authenticator, book: UsageBook, connections: "set[_Server]",
        tasks: set[asyncio.Task[None]],
    ):
        super().__init__()
        self._authenticator = authenticator
        self._book = book
        self._connections = connections
        self._tasks = tasks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._book.askers.discard(self)

    def line_received(self, line: bytes) -> None:
        try:
            question = json.loads(line)
            if "added" in question:
                self._book.told(question["added"])
                return
            if "usage" in question:
                self._book.askers.add(self)
                self._begin(self._answer_usage(question))
                return
            number = int(question["id"])
            login, password, ip, protocol = (
                str(question[key]) for key in ("login", "password", "ip", "protocol")
            )
        except (ValueError, TypeError, KeyError):
            self.close()
            return
        if len(self._tasks) >= MOST_QUESTIONS:
            self._answer(number, Answer("unavailable", None, login))
            return
        self._begin(self._decide(number, login, password, ip, protocol))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_usage(self, question: Mapping[str, Any]) -> None:
        try:
            self.send(frame(await self._book.asked(question)))
        except (ValueError, TypeError, KeyError):
            self.close()

    async def _decide(self, number: int, login: str, password: str, ip: str, protocol: str) -> None:
        try:
            answer = await self._authenticator.check(login, password, ip, protocol)
        except Exception:
            log.fault("a login could not be checked", login=login, ip=ip)
            answer = Answer("unavailable", None, login)
        self._answer(number, answer)

    def _answer(self, number: int, answer: Answer) -> None:
        self.send(
            frame(
                {
                    "id": number,
                    "verdict": answer.verdict,
                    "credential_id": answer.credential_id,
                    "login": answer.login,
                    "fingerprint": answer.fingerprint,
                }
            )
        )


class _Dovecot:
    """What Dovecot asks: the same logins as the workers', and where a mailbox lies."""

    def __init__(self, config: Config, authenticator: Authenticator, directory: Directory, book: UsageBook) -> None:
        self._config = config
        self._authenticator = authenticator
        self._book = book
        self._directory = directory
        self._key = bytes.fromhex(dovecot_key(settings.SECRET_KEY))
        self.connections: set[asyncio.StreamWriter] = set()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection in order, until it ends or sends what Dovecot doesn't send."""
        if len(self.connections) >= MOST_QUESTIONS:
            writer.close()
            return
        self.connections.add(writer)
        told: UsageTransactions | None = None
        try:
            while line := await reader.readline():
                line = line.removesuffix(b"\n")
                if line.startswith(dict_protocol.HELLO):
                    told = UsageTransactions() if dict_protocol.dict_name(line) == dict_protocol.QUOTA else None
                    continue
                writer.write(await self._answer(line) if told is None else await self._hear(told, line))
                await writer.drain()
        except BadLine as error:
            log.warning("Dovecot asks what is not understood; is its configuration ours?", because=error)
        except (ConnectionError, ValueError):
            pass  # gone, or a line without end
        finally:
            self.connections.discard(writer)
            writer.close()

    async def _answer(self, line: bytes) -> bytes:
        """The answer, within the deadline: one that comes late blocks a process of Dovecot's. Raises BadLine."""
        lookup = dict_protocol.parse(line, self._key)
        try:
            async with asyncio.timeout(ASK_DEADLINE_S):
                facts = await self._facts(lookup)
        except (DirectoryUnavailable, TimeoutError):
            return dict_protocol.failed("can't be checked just now")
        except Exception:
            log.fault("a login could not be checked", login=lookup.login)
            return dict_protocol.failed("internal error")
        return dict_protocol.found(facts) if facts else dict_protocol.NOT_FOUND

    async def _hear(self, told: UsageTransactions, line: bytes) -> bytes:
        """The answer to what Dovecot tells of a mailbox, which is never "failed": the count mends what is missed."""
        answer, usage = told.take(line)
        if usage is not None:
            try:
                async with asyncio.timeout(ASK_DEADLINE_S):
                    box = await self._directory.mailbox(parse_address(usage.login).canonical)
            except (BadAddress, DirectoryUnavailable, TimeoutError):
                box = None
            if box is not None:
                self._book.tell(box.mailbox_id, UsageFact(usage.used_bytes, usage.messages))
        return answer

    async def _facts(self, lookup: PasswordLookup | UserLookup) -> Mapping[str, str]:
        """The fields of the answer; none for no. Raises DirectoryUnavailable."""
        if isinstance(lookup, UserLookup):
            return await self._place(lookup.login)
        answer = await self._authenticator.check(lookup.login, lookup.password, lookup.ip, lookup.protocol)
        if answer.verdict in ("unavailable", "locked"):
            raise DirectoryUnavailable
        # "nopassword": the password has been compared here, and Dovecot need not know what with.
        return {"user": answer.login, "nopassword": "y"} if answer.verdict == "ok" else {}

    async def _place(self, login: str) -> Mapping[str, str]:
        try:
            box = await self._directory.mailbox(parse_address(login).canonical)
        except BadAddress:
            return {}
        if box is None:
            return {}
        place = {"user": str(box.address), "home": str(self._config.maildir(box.opaque_id).parent)}
        if box.quota_bytes is not None:
            place["quota_rule"] = f"*:bytes={box.quota_bytes}"
        return place


class AuthClient:
    """Asks authd about logins."""

    def __init__(self, path: Path, deadline_s: float = ASK_DEADLINE_S) -> None:
        self._asker = Asker(path)
        self._deadline_s = deadline_s

    async def ask(self, login: str, password: str, ip: str, protocol: str = "submission") -> Answer:
        """Whether this password opens this login. "unavailable" when authd is out of reach or late."""
        question: dict[str, object] = {"login": login, "password": password, "ip": ip, "protocol": protocol}
        try:
            async with asyncio.timeout(self._deadline_s):
                return Answer(**await self._asker.ask(question))
        except ValueError:
            return Answer("wrong", None, login)
        except (OSError, TimeoutError):
            return Answer("unavailable", None, login)

    def close(self) -> None:
        self._asker.close()


# The process


def _listen(path: Path, mode: int = 0o600) -> socket.socket:
    """A listening socket, of this user only unless `mode` says more. Raises AlreadyRunning, OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = path.parent.lstat()
    if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != os.geteuid():
        raise PermissionError(f"{path.parent} is not a folder of this user; remove it")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)  # left behind by a kill
        else:
            raise AlreadyRunning(f"another authd answers on {path}; stop it first.")
    listening = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o777 & ~mode)
    try:
        listening.bind(str(path))
        listening.listen(128)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(mask)
    return listening


def _listen_to_dovecot(config: Config) -> socket.socket | None:
    """The socket for Dovecot; None where its path is too long for one (the configuration is refused as well).

    Under root the run folder belongs to the group of Dovecot's auth processes and hands it on
    (setgid, panel/system_users.py). Raises AlreadyRunning, OSError.
    """
    path = config.dovecot_socket
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        return None
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    is_shared = path.parent.stat().st_mode & stat.S_ISGID
    return _listen(path, 0o660 if is_shared else 0o600)


async def serve(
    config: Config, directory: Directory, ready: Callable[[], None] | None = None, ids: IdMaker | None = None
) -> None:
    """Answer on both sockets until cancelled; then give up what is under way, and write what is known.

    `ready` is called when the sockets listen; `ids` numbers the warnings that mailboxes fill
    up, without it none are sent. Raises AlreadyRunning, OSError.
    """
    path = socket_path(config)
    listening = _listen(path)
    for_dovecot = _listen_to_dovecot(config)
    clock = Clock()
    authenticator = Authenticator(directory, clock)
    book = UsageBook(directory, Warnings(config, directory, ids, clock).send if ids else None)
    counting = Counting(config, directory, book, clock)
    connections: set[_Server] = set()
    tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: _Server(authenticator, book, connections, tasks), sock=listening)
    servers = [server]
    dovecot = _Dovecot(config, authenticator, directory, book)
    if for_dovecot is not None:
        limit = dict_protocol.LINE_BYTES
        servers.append(await asyncio.start_unix_server(dovecot.converse, sock=for_dovecot, limit=limit))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(directory.follow())
            group.create_task(_flush(authenticator))
            group.create_task(book.run())
            group.create_task(counting.run())
            group.create_task(counting.watch())
            if ready is not None:
                ready()
    finally:
        for each in servers:
            each.close()
        path.unlink(missing_ok=True)
        if for_dovecot is not None:
            config.dovecot_socket.unlink(missing_ok=True)
        for writer in list(dovecot.connections):
            writer.close()
        for connection in list(connections):
            connection.close()
        for task in tasks:
            task.cancel()
        authenticator.close()
        await authenticator.flush(everything=True)
        await book.flush()


async def _flush(authenticator: Authenticator) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        await authenticator.flush()


def run(config: Config, node: int) -> None:
    """The process's body, after the fork, until SIGTERM. SIGINT and SIGHUP are for the others."""
    if not apps.ready:
        django.setup()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(config, node))


async def _main(config: Config, node: int) -> None:
    loop = asyncio.get_running_loop()
    # Threads, and with them the database connections, are made here: none is shared with the parent.
    executor = ThreadPoolExecutor(LOOK_UP_THREADS, thread_name_prefix="directory")
    directory = Directory(
        config.separator, config.postmaster, config.hostname, executor, store=config.store.default
    )
    config.run.mkdir(mode=0o750, parents=True, exist_ok=True)
    ids = IdMaker(node, number_for_ids(config.run, from_above=True))
    serving = asyncio.ensure_future(serve(config, directory, lambda: log.started("authd", pid=os.getpid()), ids))
    loop.add_signal_handler(signal.SIGTERM, serving.cancel)
    for number in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    try:
        await serving
    except asyncio.CancelledError:
        log.stopped("authd", pid=os.getpid())
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
