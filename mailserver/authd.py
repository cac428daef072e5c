"""authd: the process that checks logins, one a node; and the client by which workers ask it.

Decides who may ask, how much at once, and that every answer comes within a bound. What the
answer is, is decided in authenticator.py.

Workers ask over a Unix socket, a JSON object a line, many at once, answers out of order:
{"id", "login", "password", "ip", "protocol"} → {"id", "verdict", "credential_id", "login", "fingerprint"}.
The panel asks there about its own sign-ins (panel/rules/sign_in).
Dovecot asks over another one, 2.3 in its dict protocol (dict_protocol.py), 2.4 by our Lua
script (lua_protocol.py), one look-up at a time on each of its connections.
"""

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import django
import uvloop
from django.apps import apps
from django.conf import settings

from mailserver import dict_protocol, doveadm, hashing, log, lua_protocol
from mailserver.authenticator import Answer, Authenticator, canonical
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.dict_protocol import BadLine, PasswordLookup, UserLookup
from mailserver.directory import Directory, DirectoryUnavailable
from mailserver.lines import Asker, Lines, frame
from mailserver.reading import Sessions
from panel.environment import SOCKET_PATH_BYTES, authd_socket, dovecot_key
from panel.operations.dovecot.place import kick_socket
from panel.rules import sign_in
from panel.rules.addresses import BadAddress, parse_address

ASK_DEADLINE_S = hashing.DEADLINE_S
MOST_QUESTIONS = 1000  # under way at once
LOOK_UP_THREADS = 4
FLUSH_S = 5.0


class AlreadyRunning(Exception):
    """Another authd answers on the socket; the text is a sentence for the operator."""


def socket_path(config: Config) -> Path:
    """Where authd listens for workers and the panel."""
    return authd_socket(config.data)


# The wire, both sides


class _Server(Lines):
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
            if question["protocol"] == sign_in.PROTOCOL:
                asked = sign_in.Question.of(question)
                answer = self._authenticator.panel.answer(replace(asked, login=canonical(asked.login)))
                self.send(frame({"id": number, **answer.fact()}))
                return
            login, password, ip, protocol = (
                str(question[key]) for key in ("login", "password", "ip", "protocol")
            )
        except (ValueError, TypeError, KeyError):
            self.close()
            return
        if len(self._tasks) >= MOST_QUESTIONS:
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


class _Wire(Protocol):
    """How one version of Dovecot is answered."""

    def found(self, facts: Mapping[str, str]) -> bytes: ...
    def failed(self, because: str) -> bytes: ...
    def quota(self, size_bytes: int) -> Mapping[str, str]: ...


class _Dovecot:
    """What Dovecot asks: the same logins as the workers', and where a mailbox lies."""

    def __init__(
        self, config: Config, authenticator: Authenticator, directory: Directory, sessions: Sessions
    ) -> None:
        self._config = config
        self._authenticator = authenticator
        self._directory = directory
        self._sessions = sessions
        self._key = bytes.fromhex(dovecot_key(settings.SECRET_KEY))
        self.connections: set[asyncio.StreamWriter] = set()

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
        by_lua = line.startswith(lua_protocol.QUESTIONS)
        lookup = lua_protocol.parse(line) if by_lua else dict_protocol.parse(line, self._key)
        wire: _Wire = lua_protocol if by_lua else dict_protocol
        try:
            async with asyncio.timeout(ASK_DEADLINE_S):
                facts = await self._facts(lookup, wire)
        except (DirectoryUnavailable, TimeoutError):
            return wire.failed("can't be checked just now")
        except Exception:
            log.fault("a login could not be checked", login=lookup.login)
            return wire.failed("internal error")
        return wire.found(facts) if facts else dict_protocol.NOT_FOUND

    async def _facts(self, lookup: PasswordLookup | UserLookup, wire: _Wire) -> Mapping[str, str]:
        """The fields of the answer; none for no. Raises DirectoryUnavailable."""
        if isinstance(lookup, UserLookup):
            return await self._place(lookup.login, wire)
        version = self._directory.version
        answer = await self._authenticator.check(lookup.login, lookup.password, lookup.ip, lookup.protocol)
        if answer.verdict in ("unavailable", "locked"):
            raise DirectoryUnavailable
        if answer.credential_id is None:
            return {}
        known = await self._directory.login(answer.credential_id, answer.fingerprint)
        if known is None:
            return {}
        self._sessions.opened(known, answer.fingerprint, protocol=lookup.protocol, ip=lookup.ip, version=version)
        # "nopassword": the password has been compared here, and Dovecot need not know what with.
        return {"user": answer.login, "nopassword": "y"}

    async def _place(self, login: str, wire: _Wire) -> Mapping[str, str]:
        try:
            box = await self._directory.mailbox(parse_address(login).canonical)
        except BadAddress:
            return {}
        if box is None:
            return {}
        place = {"user": str(box.address), "home": str(self._config.maildir(box.opaque_id).parent)}
        if box.quota_bytes is not None:
            place |= wire.quota(box.quota_bytes)
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
    sessions = Sessions(directory, Clock(), lambda logins: doveadm.kick(kick_socket(config.data), logins))
    dovecot = _Dovecot(config, authenticator, directory, sessions)
    if for_dovecot is not None:
        limit = dict_protocol.LINE_BYTES
        servers.append(await asyncio.start_unix_server(dovecot.converse, sock=for_dovecot, limit=limit))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(directory.follow())
            group.create_task(sessions.follow())
            group.create_task(_flush(authenticator))
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


async def _flush(authenticator: Authenticator) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        await authenticator.flush()


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
