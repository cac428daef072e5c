"""authd: the process that checks logins, one a node; and the client by which workers ask it.

Decides who may ask, how much at once, and that every answer comes within a bound. What the
answer is, is decided in authenticator.py.

Workers ask over a Unix socket, a JSON object a line, many at once, answers out of order:
{"id", "login", "password", "ip", "protocol"} → {"id", "verdict", "credential_id", "login", "fingerprint"}.
Dovecot asks over another one, in its dict protocol (dict_protocol.py), one look-up at a
time on each of its connections.
"""

import asyncio
import hashlib
import json
import os
import signal
import socket
import stat
import struct
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import django
import uvloop
from django.apps import apps
from django.conf import settings

from mailserver import dict_protocol, hashing, log, login_events
from mailserver.authenticator import Answer, Authenticator
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.dict_protocol import BadLine, PasswordLookup, UserLookup
from mailserver.directory import Directory, DirectoryUnavailable
from panel.environment import SOCKET_PATH_BYTES, dovecot_key
from panel.rules.addresses import BadAddress, parse_address

FRAME_BYTES = 16 * 1024  # a question: an AUTH line is at most 12288 (RFC 4954 §4)
ASK_DEADLINE_S = hashing.DEADLINE_S
MOST_QUESTIONS = 1000  # under way at once
# Of Dovecot's, that wait for a hash or the database. Below its auth_worker_max_count (panel/operations/dovecot.py),
# so that it always has a process with which to ask for a password that was right before.
MOST_HELD = 100
LOOK_UP_THREADS = 4
FLUSH_S = 5.0
LAST_FLUSH_S = 5.0
FORGET_S = 3600.0


class AlreadyRunning(Exception):
    """Another authd answers on the socket; the text is a sentence for the operator."""


def socket_path(config: Config) -> Path:
    """Where authd listens: in the run folder, or a private one when that path is too long for a socket."""
    path = config.run / "authd.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    name = hashlib.blake2b(os.fsencode(config.data), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"posthouse-{os.geteuid()}-{name}" / "authd.sock"


# The wire, both sides


class _Lines(asyncio.Protocol):
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

    def line_received(self, line: bytes) -> None:
        raise NotImplementedError

    def send(self, line: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(line)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


def _frame(fact: dict[str, object]) -> bytes:
    return json.dumps(fact, separators=(",", ":")).encode() + b"\n"


class _Server(_Lines):
    """One asker's connection."""

    def __init__(
        self, authenticator: Authenticator, connections: "set[_Server]", tasks: set[asyncio.Task[None]]
    ):
        super().__init__()
        self._authenticator = authenticator
        self._connections = connections
        self._tasks = tasks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def line_received(self, line: bytes) -> None:
        try:
            question = json.loads(line)
            number = int(question["id"])
            login, password, ip, protocol = (
                str(question[key]) for key in ("login", "password", "ip", "protocol")
            )
        except (ValueError, TypeError, KeyError):
            self.close()
            return
        if len(self._tasks) >= MOST_QUESTIONS and not self._authenticator.remembers(login, password):
            self._answer(number, Answer("unavailable", None, login))
            return
        task = asyncio.ensure_future(self._decide(number, login, password, ip, protocol))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide(self, number: int, login: str, password: str, ip: str, protocol: str) -> None:
        try:
            answer = await self._authenticator.check(login, password, ip, protocol)
        except Exception:
            log.fault("a login could not be checked", login=login, ip=ip)
            answer = Answer("unavailable", None, login)
        self._answer(number, answer)

    def _answer(self, number: int, answer: Answer) -> None:
        self.send(
            _frame(
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

    def __init__(self, config: Config, authenticator: Authenticator, directory: Directory) -> None:
        self._config = config
        self._authenticator = authenticator
        self._directory = directory
        self._key = bytes.fromhex(dovecot_key(settings.SECRET_KEY))
        self.connections: set[asyncio.StreamWriter] = set()
        self._held = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's look-ups in order, until it ends or sends what Dovecot doesn't send."""
        if len(self.connections) >= MOST_QUESTIONS:
            writer.close()
            return
        self.connections.add(writer)
        try:
            while line := await reader.readline():
                if not line.startswith(dict_protocol.HELLO):
                    writer.write(await self._answer(line.removesuffix(b"\n")))
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

    async def _facts(self, lookup: PasswordLookup | UserLookup) -> Mapping[str, str]:
        """The fields of the answer; none for no. Raises DirectoryUnavailable."""
        if isinstance(lookup, UserLookup):
            return await self._place(lookup.login)
        if self._held >= MOST_HELD and not self._authenticator.remembers(lookup.login, lookup.password):
            raise DirectoryUnavailable
        self._held += 1
        try:
            answer = await self._authenticator.check(lookup.login, lookup.password, lookup.ip, lookup.protocol)
        finally:
            self._held -= 1
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


class _Client(_Lines):
    """The asking end: the questions that wait for an answer, by their number."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._count = 0

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    async def ask(self, question: dict[str, object]) -> Answer:
        """The answer. Raises ConnectionError when the connection is lost, ValueError when it is too long."""
        self._count += 1
        number = self._count
        line = _frame({"id": number, **question})
        if len(line) > FRAME_BYTES:
            raise ValueError("a login longer than any")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
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
            future.set_result(Answer(**fact))

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError("authd closed the connection"))


class AuthClient:
    """Asks authd, over one connection that is made when it is needed and again when it is lost."""

    def __init__(self, path: Path, deadline_s: float = ASK_DEADLINE_S) -> None:
        self._path = path
        self._deadline_s = deadline_s
        self._client: _Client | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, login: str, password: str, ip: str, protocol: str = "submission") -> Answer:
        """Whether this password opens this login. "unavailable" when authd is out of reach or late."""
        question: dict[str, object] = {"login": login, "password": password, "ip": ip, "protocol": protocol}
        try:
            async with asyncio.timeout(self._deadline_s):
                # Twice: authd may have been restarted since the last question.
                for last in (False, True):
                    client = await self._connected()
                    try:
                        return await client.ask(question)
                    except ConnectionError:
                        if last:
                            raise
        except ValueError:
            return Answer("wrong", None, login)
        except (OSError, TimeoutError):
            pass
        return Answer("unavailable", None, login)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    async def _connected(self) -> _Client:
        async with self._connecting:
            if self._client is None or not self._client.is_open:
                loop = asyncio.get_running_loop()
                transport, client = await loop.create_unix_connection(_Client, str(self._path))
                if not _is_own(transport.get_extra_info("socket")):
                    transport.close()
                    raise PermissionError(f"{self._path} is another user's")
                self._client = client
            return self._client


def _is_own(connection: socket.socket) -> bool:
    """Whether the other end is this user's or root's: a folder under the temp folder could be anybody's."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (os.geteuid(), 0)


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


async def serve(config: Config, directory: Directory, ready: Callable[[], None] | None = None) -> None:
    """Answer on both sockets until cancelled; then give up what is under way, and write the last uses.

    `ready` is called when the sockets listen. Raises AlreadyRunning, OSError.
    """
    path = socket_path(config)
    listening = _listen(path)
    for_dovecot = _listen_to_dovecot(config)
    authenticator = Authenticator(directory, Clock())
    connections: set[_Server] = set()
    tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: _Server(authenticator, connections, tasks), sock=listening)
    servers = [server]
    dovecot = _Dovecot(config, authenticator, directory)
    if for_dovecot is not None:
        limit = dict_protocol.LINE_BYTES
        servers.append(await asyncio.start_unix_server(dovecot.converse, sock=for_dovecot, limit=limit))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(directory.follow())
            group.create_task(_flush(authenticator))
            group.create_task(_forget(directory, config.login_days))
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
        try:
            async with asyncio.timeout(LAST_FLUSH_S):
                await authenticator.flush(everything=True)
        except TimeoutError:
            log.warning("the last logins were not recorded, the database doesn't answer")


async def _flush(authenticator: Authenticator) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        try:
            await authenticator.flush()
        except Exception:
            log.fault("logins could not be recorded")  # who logs in is answered all the same


async def _forget(directory: Directory, days: int) -> None:
    while True:
        try:
            await login_events.forget(directory, days)
        except DirectoryUnavailable:
            pass  # the next time
        except Exception:
            log.fault("old logins could not be deleted")
        await asyncio.sleep(FORGET_S)


def run(config: Config) -> None:
    """The process's body, after the fork, until SIGTERM. SIGINT and SIGHUP are for the others."""
    if not apps.ready:
        django.setup()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(config))


async def _main(config: Config) -> None:
    loop = asyncio.get_running_loop()
    # Threads, and with them the database connections, are made here: none is shared with the parent.
    executor = ThreadPoolExecutor(LOOK_UP_THREADS, thread_name_prefix="directory")
    directory = Directory(config.separator, config.postmaster, config.hostname, executor)
    serving = asyncio.ensure_future(serve(config, directory, lambda: log.started("authd", pid=os.getpid())))
    loop.add_signal_handler(signal.SIGTERM, serving.cancel)
    for number in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    try:
        await serving
    except asyncio.CancelledError:
        log.stopped("authd", pid=os.getpid())
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
