"""authd: the process that checks logins, one a node; and the client by which workers ask it.

Decides who may ask, how much at once, and that every answer comes within a bound. What the
answer is, is decided in authenticator.py.

Workers ask over a Unix socket, a JSON object a line, many at once, answers out of order:
{"id", "login", "password", "ip", "protocol"} → {"id", "verdict", "credential_id", "login", "fingerprint"}.
The panel asks there about its own sign-ins (panel/rules/sign_in).
Dovecot asks over another one, 2.3 in its dict protocol (dict_protocol.py), 2.4 by our Lua
script (lua_protocol.py), one look-up at a time on each of its connections.

The node's knowledge of what mailboxes hold lives here as well (usage.py), asked and told over
the same sockets: it must be one for all workers.
"""

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import django
import uvloop
from django.apps import apps
from django.conf import settings

from mailserver import dict_protocol, doveadm, hashing, log, login_events, lua_protocol
from mailserver.authenticator import Answer, Authenticator, canonical
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.counting import Counting
from mailserver.dict_protocol import BadLine, PasswordLookup, UsageTransactions, UserLookup
from mailserver.directory import Directory, DirectoryUnavailable, UsageFact
from mailserver.gate import Gate
from mailserver.lines import Asker, Lines, frame
from mailserver.reading import Sessions
from mailserver.usage import UsageBook
from mailserver.warnings import Warnings
from panel.environment import SOCKET_PATH_BYTES, authd_socket, dovecot_key
from panel.operations.dovecot.place import kick_socket
from panel.rules import sign_in
from panel.rules.addresses import Address, BadAddress, parse_address

ASK_DEADLINE_S = hashing.DEADLINE_S
MOST_QUESTIONS = 1000  # under way at once
# Of Dovecot's, that wait for a hash or the database. Below its auth_worker_max_count (panel/operations/dovecot),
# so that it always has a process with which to ask for a password that was right before.
MOST_HELD = 100
LOOK_UP_THREADS = 4
FLUSH_S = 5.0
LAST_FLUSH_S = 5.0
FORGET_S = 3600.0


class AlreadyRunning(Exception):
    """Another authd answers on the socket; the text is a sentence for the operator."""


def socket_path(config: Config) -> Path:
    """Where authd listens for workers and the panel."""
    return authd_socket(config.data)


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
                self._book.told(question["added"], self)
                return
            if "usage" in question:
                self._book.askers.add(self)
                self._begin(self._answer_usage(question))
                return
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
        if len(self._tasks) >= MOST_QUESTIONS and not self._authenticator.remembers(login, password):
            self._answer(number, Answer("unavailable", None, login))
            return
        self._begin(self._decide(number, login, password, ip, protocol))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_usage(self, question: Mapping[str, Any]) -> None:
        try:
            self.send(frame(await self._book.asked(question, self)))
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


class _Wire(Protocol):
    """How one version of Dovecot is answered."""

    def found(self, facts: Mapping[str, str]) -> bytes: ...
    def failed(self, because: str) -> bytes: ...
    def quota(self, size_bytes: int) -> Mapping[str, str]: ...

    @property
    def JUNK(self) -> Mapping[str, str]: ...


class _Dovecot:
    """What Dovecot asks: the same logins as the workers', and where a mailbox lies."""

    def __init__(
        self, config: Config, authenticator: Authenticator, directory: Directory, book: UsageBook, sessions: Sessions
    ) -> None:
        self._config = config
        self._authenticator = authenticator
        self._book = book
        self._directory = directory
        self._sessions = sessions
        self._key = bytes.fromhex(dovecot_key(settings.SECRET_KEY))
        self.connections: set[asyncio.StreamWriter] = set()
        self._held = 0

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
                answer = await self._answer(line) if told is None else await self._hear(told, line)
                if writer.is_closing():  # uvloop's raises a plain RuntimeError
                    return
                writer.write(answer)
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

    async def _hear(self, told: UsageTransactions, line: bytes) -> bytes:
        """The answer to what Dovecot tells of a mailbox, which is never "failed": the count mends what is missed."""
        answer, usage = told.take(line)
        if usage is not None:
            try:
                async with asyncio.timeout(ASK_DEADLINE_S):
                    box = await self._directory.mailbox(_named(usage.login).canonical)
            except (BadAddress, DirectoryUnavailable, TimeoutError):
                box = None
            if box is not None:
                self._book.tell(box.mailbox_id, UsageFact(usage.used_bytes, usage.messages))
        return answer

    async def _facts(self, lookup: PasswordLookup | UserLookup, wire: _Wire) -> Mapping[str, str]:
        """The fields of the answer; none for no. Raises DirectoryUnavailable."""
        if isinstance(lookup, UserLookup):
            return await self._place(lookup.login, wire)
        version = self._directory.version
        if self._held >= MOST_HELD and not self._authenticator.remembers(lookup.login, lookup.password):
            raise DirectoryUnavailable
        self._held += 1
        try:
            answer = await self._authenticator.check(lookup.login, lookup.password, lookup.ip, lookup.protocol)
        finally:
            self._held -= 1
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
            box = await self._directory.mailbox(_named(login).canonical)
        except BadAddress:
            return {}
        if box is None:
            return {}
        place = {"user": str(box.address), "home": str(self._config.maildir(box.opaque_id).parent)}
        if box.quota_bytes is not None:
            place |= wire.quota(box.quota_bytes)
        if box.rules and box.rules.junk:
            place |= wire.JUNK
        return place


def _named(login: str) -> Address:
    """The address of a mailbox that Dovecot names: it takes the quotes off those that need them. Raises BadAddress."""
    try:
        return parse_address(login)
    except BadAddress:
        local_part, _, domain = login.rpartition("@")
        escaped = local_part.replace("\\", "\\\\").replace('"', '\\"')
        return parse_address(f'"{escaped}"@{domain}')


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


@dataclass(frozen=True, slots=True)
class Listening:
    """The sockets on which the workers and Dovecot ask."""

    workers: socket.socket
    dovecot: socket.socket | None


def listen(config: Config) -> Listening:
    """Raises AlreadyRunning, OSError."""
    return Listening(_listen(socket_path(config)), _listen_to_dovecot(config))


async def serve(
    config: Config,
    directory: Directory,
    ready: Callable[[], None] | None = None,
    listening: Listening | None = None,
    handed_over: asyncio.Event | None = None,
    *,
    warns: bool = True,
) -> None:
    """Answer on both sockets until cancelled; then give up what is under way, and write what is known.

    `ready` is called when the sockets listen; `warns`: of mailboxes that fill up. Sockets that are given
    stay in place at the end, own ones don't. After `handed_over` another authd accepts on them, and
    this one answers who is connected. Raises AlreadyRunning, OSError.
    """
    on = listening or listen(config)
    clock = Clock()
    authenticator = Authenticator(directory, clock)
    book = UsageBook(directory, Warnings(clock).send if warns else None)
    counting = Counting(config, directory, book, clock)
    connections: set[_Server] = set()
    tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: _Server(authenticator, book, connections, tasks), sock=on.workers)
    servers = [server]
    sessions = Sessions(directory, clock, lambda logins: doveadm.kick(kick_socket(config.data), logins))
    dovecot = _Dovecot(config, authenticator, directory, book, sessions)
    if on.dovecot is not None:
        limit = dict_protocol.LINE_BYTES
        servers.append(await asyncio.start_unix_server(dovecot.converse, sock=on.dovecot, limit=limit))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(directory.follow())
            group.create_task(sessions.follow())
            group.create_task(sessions.take_up(config.run))
            group.create_task(_flush(authenticator))
            group.create_task(book.run())
            group.create_task(counting.run())
            group.create_task(counting.watch())
            group.create_task(_forget(directory, config.login_days))
            if ready is not None:
                ready()
            if handed_over is not None:
                await handed_over.wait()
                for each in servers:
                    each.close()
    finally:
        for each in servers:
            each.close()
        if listening is None:
            socket_path(config).unlink(missing_ok=True)
            if on.dovecot is not None:
                config.dovecot_socket.unlink(missing_ok=True)
        for writer in list(dovecot.connections):
            writer.close()
        for connection in list(connections):
            connection.close()
        for task in tasks:
            task.cancel()
        authenticator.close()
        try:
            sessions.leave(config.run)
        except OSError as error:
            log.warning("open sessions are not known to the next authd", because=error)
        try:
            async with asyncio.timeout(LAST_FLUSH_S):
                for flush in (partial(authenticator.flush, everything=True), book.flush):
                    try:
                        await flush()
                    except Exception:
                        log.fault("what is known of logins or usage could not be recorded")
        except TimeoutError:
            log.warning("the last logins and usage were not recorded, the database doesn't answer")


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


def run(config: Config, listening: Listening | None = None, gate: Gate | None = None) -> None:
    """The process's body, after the fork, until SIGTERM; with `gate` it begins when that is opened.

    SIGUSR1 says that another authd answers on the sockets. SIGINT and SIGHUP are for the others.
    """
    if not apps.ready:
        django.setup()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(config, listening, gate))


async def _main(config: Config, listening: Listening | None, gate: Gate | None) -> None:
    loop = asyncio.get_running_loop()
    # Threads, and with them the database connections, are made here: none is shared with the parent.
    executor = ThreadPoolExecutor(LOOK_UP_THREADS, thread_name_prefix="directory")
    directory = Directory(
        config.separator, config.postmaster, config.hostname, executor, store=config.store.default
    )
    config.run.mkdir(mode=0o750, parents=True, exist_ok=True)
    handed_over = asyncio.Event()

    async def life() -> None:
        if gate is None or await gate.passed():
            ready = partial(log.started, "authd", pid=os.getpid())
            await serve(config, directory, ready, listening, handed_over)

    living = asyncio.ensure_future(life())
    loop.add_signal_handler(signal.SIGTERM, living.cancel)
    loop.add_signal_handler(signal.SIGUSR1, handed_over.set)
    for number in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    try:
        await living
    except asyncio.CancelledError:
        log.stopped("authd", pid=os.getpid())
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
