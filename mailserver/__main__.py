"""`python -m mailserver`: the parent of one node's mailserver.

It owns the sockets, one SO_REUSEPORT socket per worker and listener, inherited by
that worker and never closed when a worker is started again; it starts authd and the
workers, starts again what dies, and passes on the signals to stop. It opens no
database connection and no event loop of its own: both belong after the fork.

With `--take-over` it gets them from the running one (handover), and lets its processes
begin when all are ready; then the other one finishes what it has.
"""

import argparse
import fcntl
import importlib
import json
import os
import pwd
import resource
import selectors
import shutil
import signal
import socket
import ssl
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import django
from django.conf import settings
from django.utils import translation

from mailserver import handover, kernel, log, systemd, tls
from mailserver.clock import Clock
from mailserver.config import CannotStart, Config
from mailserver.gate import Gate
from mailserver.handover import Handed, Predecessor, Successor
from mailserver.listeners import Listeners
from panel import environment, system_users
from panel.environment import BadSetting
from panel.system_users import SystemUsers, UsersMissing

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "panel.settings")

VERSION = "0.1.0"
START_WITHIN_S = 60.0  # until each process is ready
RESTART_PAUSE_S = 1.0  # between two starts of a process that keeps dying
KILL_AFTER_S = 10.0  # beyond stop_s: the queue's last settlements take up to HURRY_S of the runner's
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_TO_STOP = {signal.SIGTERM, signal.SIGINT}
# The Unix sockets that are handed over, by their files' names: for who takes over, for workers, for Dovecot.
_DOOR, _AUTHD, _DOVECOT = "take-over.sock", "authd.sock", "dovecot-auth.sock"

_STOP_FIRST = "stop it first (kill {pid}), take over from it (--take-over), or set POSTHOUSE_DATA to another folder."
_CANT_TAKE_OVER = "it can't be taken over from, it starts or stops just now or is of an earlier version. Try again, " \
    "or stop it first (kill {pid})."

_File = kernel.Signals | Gate | Predecessor | Successor | socket.socket
_One = TypeVar("_One", Predecessor, Successor)


@dataclass(slots=True)
class Child:
    """A process of ours and how to start it again."""

    name: str
    body: Callable[[Gate], None]
    pid: int = 0
    started_s: float = 0.0
    gate: Gate = field(default_factory=Gate)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mailserver",
        description="Posthouse's SMTP server: submission, MX and the queue. Settings come from the environment; "
        "deploy/env.example explains each.",
    )
    parser.add_argument("--version", action="version", version=f"Posthouse {VERSION}")
    parser.add_argument(
        "--drop", action="store_true",
        help=f"started as root: listen, then go on as the user {system_users.SERVICE}, which is made if missing",
    )
    parser.add_argument(
        "--take-over", action="store_true",
        help="take over the ports of the mailserver that runs on the same data, which finishes its sessions and "
        "ends; no connection is refused or reset. Without a running one just start",
    )
    parser.add_argument(
        "--detach", action="store_true", help="return when it serves, and leave it running in the background",
    )
    parser.add_argument(
        "--end-with", type=int, metavar="PID", help="end when the program that started it, PID, has ended",
    )
    options = parser.parse_args()
    tell = detach() if options.detach else lambda: None
    try:
        config = Config.of(environment.read())
        users = None
        if options.drop and os.geteuid() == 0:
            users = work_as_posthouse(config)
        django.setup()
        # What the processes run, before the forks: they begin at once and share it. It needs Django to be ready.
        importlib.import_module("mailserver.authd")
        importlib.import_module("mailserver.worker")
        _read_languages()
        Parent(config, users, take_over=options.take_over, end_with=options.end_with, tell=tell).run()
    except (BadSetting, CannotStart, UsersMissing) as error:
        print(f"posthouse: {error}", file=sys.stderr)
        return 1
    return 0


def detach() -> Callable[[], None]:
    """Go on in a new process; what it calls when it serves, so that this one returns. Here only the new one returns."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        if os.read(reader, 1):
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        os._exit(os.waitstatus_to_exitcode(status) or 1)
    os.close(reader)
    os.setsid()

    def tell() -> None:
        os.write(writer, b".")
        os.close(writer)

    return tell


def _read_languages() -> None:
    """Before the forks as well: else a worker reads a language's texts in its event loop, when it first needs them."""
    for language, _name in settings.LANGUAGES:
        with translation.override(language):
            translation.gettext("")


def work_as_posthouse(config: Config) -> SystemUsers:
    """Give the data folder to posthouse and work as it, with root at hand. Raises CannotStart, UsersMissing."""
    users = system_users.ensure()
    try:
        system_users.give(config.data, users)
    except OSError as error:
        raise cannot_write(config, error) from None
    users.work_as()
    return users


class Parent:
    def __init__(
        self,
        config: Config,
        users: SystemUsers | None = None,
        *,
        take_over: bool = False,
        end_with: int | None = None,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        """`users`: root's process works as posthouse already, and becomes it when it has its ports.

        `end_with` is the program that started this one and with which it ends; `tell` is called
        when it serves.
        """
        self.config = config
        # One for all workers, also those that are started again: after a jump of the wall clock a clock
        # of its own would take others' leases for lapsed, and mail for expired.
        self.clock = Clock()
        self.users = users
        self.take_over = take_over
        self.end_with = end_with
        self.tell = tell
        self.listeners = Listeners(config)
        self.handed = Handed(pid=os.getpid(), version=VERSION)  # what a successor is given
        self.predecessor: Predecessor | None = None
        self.successor: Successor | None = None
        self.children: list[Child] = []
        self.serves = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until another has taken over. Raises CannotStart while nobody is served."""
        log.setup("parent")
        raise_open_files()
        prepare_folders(self.config)
        given = self.inherit()
        self.open(given)
        if self.end_with and not kernel.end_with(self.end_with):
            raise CannotStart(f"the program that started it, {self.end_with}, has ended.")
        context = load_context(self.config)
        node = ask_database(self.config)
        self.signals = kernel.Signals(_SIGNALS)
        self.children.append(Child("authd", self.authd_body))
        for number in range(self.config.workers):
            body = lambda gate, number=number: self.worker_body(context, node, number, gate)  # noqa: E731
            self.children.append(Child(f"worker-{number}", body))
        try:
            is_ready = self.start_all()
        except BaseException:
            self.end(self.children, KILL_AFTER_S)
            raise
        if is_ready:
            self.begin(node)
            if self.watch():
                self.finish()
                return
        self.stop()
        log.stopped("mailserver")

    # Its start

    def inherit(self) -> Handed:
        """The lock, and what a running mailserver hands over if it is to be taken over from. Raises CannotStart."""
        given = Handed()
        path = handover.door(self.config)
        if self.take_over and (found := Predecessor.find(path)):
            try:
                given = found.receive()
                self.predecessor = found
            except ConnectionError:
                found.close()  # it ended meanwhile
        if self.predecessor:
            log.started("taking over", pid=given.pid, version=given.version)
            self.handed.lock = given.lock
            self.clock = Clock(given.clock_offset_s)
        else:
            self.handed.lock = take_lock(self.config, or_else=_CANT_TAKE_OVER if self.take_over else _STOP_FIRST)
        self.handed.clock_offset_s = self.clock.offset_s
        return given

    def open(self, given: Handed) -> None:
        """Have all sockets, those given and what they lack. Raises CannotStart."""
        passed = systemd.sockets()
        if given.ports:
            for each in passed:
                each.close()  # the very same, or those that were in place before
        if self.users:
            with self.users.as_root():
                self.listeners.bind(given.ports or passed)
            self.users.become()
        else:
            self.listeners.bind(given.ports or passed)
        from mailserver import authd

        try:
            self.handed.doors = doors = {
                name: each for name, each in given.doors.items() if name in (_DOOR, _AUTHD, _DOVECOT)
            }
            for name in given.doors.keys() - doors.keys():
                given.doors[name].close()
            if _DOOR not in doors:
                doors[_DOOR] = handover.listen(handover.door(self.config))
            if _AUTHD not in doors:
                listening = authd.listen(self.config)
                doors[_AUTHD] = listening.workers
                if listening.dovecot:
                    doors[_DOVECOT] = listening.dovecot
        except (OSError, authd.AlreadyRunning) as error:
            raise CannotStart(f"the sockets in {self.config.run} can't be made: {error}") from None

    def start_all(self) -> bool:
        """Start every process and wait until each is ready, then listen; False: told to stop. Raises CannotStart."""
        for child in self.children:
            self.start(child)
        deadline = time.monotonic() + START_WITHIN_S
        waiting = list(self.children)
        while waiting:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise CannotStart(
                    f"{waiting[0].name} isn't ready within {START_WITHIN_S:.0f} s; the lines above may say why."
                )
            gates = {child.gate: child for child in waiting}
            for file in readable([self.signals, *gates, *_each(self.predecessor)], left_s):
                if file is self.signals:
                    if self.signals.take() & _TO_STOP:
                        return False
                elif file is self.predecessor:
                    if self.predecessor.is_stopping():
                        raise CannotStart("the mailserver that was to be taken over from was told to stop.")
                    self.forget_predecessor()  # killed: what it gave is ours
                else:
                    child = gates[file]  # type: ignore[index]
                    if not child.gate.is_ready():
                        raise CannotStart(f"{child.name} ended at its start; the lines above say why.")
                    waiting.remove(child)
        self.listeners.listen()
        return True

    def begin(self, node: int) -> None:
        """All are ready: serve, and have the other one finish."""
        for child in self.children:
            child.gate.open()
        self.serves = True
        self.handed.ports = self.listeners.every()
        write_pid(self.handed.lock)
        # Before the other one ends, or its end would be the service's.
        systemd.notify(MAINPID=os.getpid(), READY=1)
        if self.predecessor:
            self.predecessor.tell_taken()
        self.tell()
        log.started(
            "mailserver", version=VERSION, pid=os.getpid(), node=node, workers=self.config.workers,
            mx=",".join(map(str, self.config.mx)), submission=",".join(map(str, self.config.submission)),
            submissions=",".join(map(str, self.config.submissions)),
        )

    # Its processes

    def start(self, child: Child) -> None:
        child.started_s = time.monotonic()
        child.gate.close()
        child.gate = Gate()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            child.pid = pid
            child.gate.keep_outside()
            return
        status = 1
        try:
            # A parent that was killed must not leave workers behind that hold its ports.
            if kernel.end_with(parent):
                self.signals.close()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
                log.setup(child.name)
                child.gate.keep_inside()
                os.close(self.handed.lock)
                self.forget_neighbours()
                child.body(child.gate)
                status = 0
        except CannotStart as error:
            print(f"posthouse: {error}", file=sys.stderr, flush=True)
        except BaseException:
            log.fault(f"{child.name} died")
        finally:
            os._exit(status)

    def authd_body(self, gate: Gate) -> None:
        from mailserver import authd

        self.listeners.close()
        self.handed.doors[_DOOR].close()
        listening = authd.Listening(self.handed.doors[_AUTHD], self.handed.doors.get(_DOVECOT))
        authd.run(self.config, listening, gate)

    def worker_body(self, context: ssl.SSLContext, node: int, number: int, gate: Gate) -> None:
        from mailserver import worker

        self.listeners.close(but=number)
        for each in self.handed.doors.values():
            each.close()
        sockets = self.listeners.of_worker[number]
        worker.run(self.config, context, self.clock, node=node, number=number, sockets=sockets, gate=gate)

    def watch(self) -> bool:
        """Start again what dies, until another has taken over (True) or it is time to stop (False)."""
        door = self.handed.doors[_DOOR]
        while True:
            for file in readable([self.signals, door, *_each(self.predecessor), *_each(self.successor)]):
                if file is self.signals:
                    arrived = self.signals.take()
                    if arrived & _TO_STOP:
                        return False
                    self.heed(arrived)
                    for child in self.reap():
                        log.warning("a process died and is started again", process=child.name)
                        time.sleep(max(0.0, child.started_s + RESTART_PAUSE_S - time.monotonic()))
                        self.start(child)
                        child.gate.open()
                elif file is door:
                    self.meet()
                elif file is self.predecessor:
                    self.forget_predecessor()
                elif file is self.successor:
                    if self.successor.said() == "taken":
                        return True
                    log.warning("who was taking over has ended; going on", pid=self.successor.pid)
                    self.forget_successor()
                    write_pid(self.handed.lock)

    def heed(self, arrived: set[int]) -> None:
        if signal.SIGHUP in arrived:
            self.signal(signal.SIGHUP)

    def meet(self) -> None:
        """Somebody wants to take over: hand everything over, one at a time. It goes on here as before."""
        try:
            successor = Successor(self.handed.doors[_DOOR].accept()[0])
        except PermissionError as error:
            log.warning("who wants to take over may not", because=error)
            return
        except OSError:
            return  # it has gone
        if self.successor:
            successor.refuse(f"process {self.successor.pid} is taking over already; wait for its end.")
            successor.close()
            return
        log.started("handing over", to=successor.pid)
        try:
            successor.give(self.handed)
        except OSError as error:
            log.warning("who wants to take over has gone", because=error)
            successor.close()
            return
        self.successor = successor

    def forget_neighbours(self) -> None:
        for each in (self.predecessor, self.successor):
            if each:
                each.close()

    def forget_predecessor(self) -> None:
        if self.predecessor:
            log.stopped("the mailserver that was taken over from", pid=self.predecessor.pid)
            self.predecessor.close()
            self.predecessor = None

    def forget_successor(self) -> None:
        if self.successor:
            self.successor.close()
            self.successor = None

    def reap(self) -> list[Child]:
        gone: list[Child] = []
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return gone
            if pid == 0:
                return gone
            for child in self.children:
                if child.pid == pid:
                    child.pid = 0
                    gone.append(child)

    def signal(self, number: int) -> None:
        for child in self.children:
            if child.pid:
                os.kill(child.pid, number)

    # Its end

    def finish(self) -> None:
        """Another has taken over: accept nobody more, let the sessions end, then stop.

        Waits for whom this one has taken over from, too: who is told to stop passes it on.
        """
        assert self.successor
        log.stopped("accepting connections", taken_over_by=self.successor.pid)
        self.signal(signal.SIGUSR1)
        self.listeners.close()
        for each in self.handed.doors.values():
            each.close()
        os.close(self.handed.lock)
        deadline = time.monotonic() + self.config.finish_s
        while any(child.pid for child in self.children[1:]) or self.predecessor:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or self.is_to_stop(left_s):
                break
        if self.predecessor:
            self.predecessor.tell_to_stop()
        self.end_all()
        log.stopped("mailserver", taken_over=True)

    def is_to_stop(self, within_s: float) -> bool:
        """Wait for a signal, or for what is said by those before and after; whether that is a stop."""
        for file in readable([self.signals, *_each(self.predecessor), *_each(self.successor)], within_s):
            if file is self.signals:
                arrived = self.signals.take()
                if arrived & _TO_STOP:
                    return True
                self.heed(arrived)
                self.reap()
            elif file is self.predecessor:
                self.forget_predecessor()
            elif file is self.successor:
                if self.successor.said() == "stop":
                    return True
                self.forget_successor()
        return False

    def stop(self) -> None:
        """The sockets first: nobody accepts any more, and who connects now must be refused at
        once and not wait in a queue for nothing. Before it serves, all of that is another one's.
        """
        self.listeners.close()
        if self.successor:
            self.successor.tell_of_stop()
        elif self.serves or not self.predecessor:
            for name in self.handed.doors:
                unlink_door(self.config, name)
        if self.serves:
            systemd.notify(STOPPING=1)
            if self.predecessor:
                self.predecessor.tell_to_stop()
        self.end_all()

    def end_all(self) -> None:
        """Workers first, so that a session can finish with authd still there; then wait for whom we took over from."""
        authd, workers = self.children[0], self.children[1:]
        within_s = self.config.stop_s + KILL_AFTER_S
        self.end(workers, within_s)
        self.end([authd], KILL_AFTER_S)
        if self.serves and self.predecessor and readable([self.predecessor], within_s):
            self.forget_predecessor()

    def end(self, children: Sequence[Child], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        for child in children:
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)
        while any(child.pid for child in children) and time.monotonic() < deadline:
            self.reap()
            if any(child.pid for child in children):
                signal.sigtimedwait({signal.SIGCHLD}, 0.2)
        for child in children:
            if child.pid:
                log.warning("a process didn't stop in time and is killed", process=child.name)
                os.kill(child.pid, signal.SIGKILL)
        while any(child.pid for child in children):
            self.reap()
            signal.sigtimedwait({signal.SIGCHLD}, 0.2)


def raise_open_files() -> None:
    """As many open files as are allowed: a session is one, and the usual default is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def prepare_folders(config: Config) -> None:
    """Make the data folder's parts and see that spool and mail share a file system."""
    try:
        for folder in (config.data, config.spool, config.data / "mail", config.staging, config.run):
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        probe = config.run / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise cannot_write(config, error) from None
    if os.stat(config.spool).st_dev != os.stat(config.staging).st_dev:
        raise CannotStart(f"{config.spool} and {config.staging} must be on one file system; move one to the other's.")
    if shutil.disk_usage(config.data).free < 64 * 1024 * 1024:
        log.warning("less than 64 MB are free in the data folder", folder=config.data)


def cannot_write(config: Config, error: OSError) -> CannotStart:
    return CannotStart(
        f"the data folder {config.data} can't be written: {error.strerror}. "
        "Give this user the right to it, or set POSTHOUSE_DATA to another folder."
    )


def take_lock(config: Config, or_else: str) -> int:
    """The node's lock, held as long as the parent lives. Raises CannotStart when another one has it: `or_else`."""
    descriptor = os.open(config.run / "mailserver.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(descriptor, 20).decode(errors="replace").strip()
        raise CannotStart(
            f"the mailserver is already running on {config.data}, pid {pid}; {or_else.format(pid=pid)}"
        ) from None
    write_pid(descriptor)
    return descriptor


def write_pid(lock: int) -> None:
    """Name this process in the lock's file: it is the one that serves."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def unlink_door(config: Config, name: str) -> None:
    """Remove a Unix socket from its folder: nobody listens any more."""
    path = config.dovecot_socket if name == _DOVECOT else config.socket(name)
    path.unlink(missing_ok=True)


def load_context(config: Config) -> ssl.SSLContext:
    try:
        return tls.server_context(config.tls_cert, config.tls_key)
    except FileNotFoundError:
        raise CannotStart(
            f"there is no certificate in {config.tls_cert}; run `manage.py prepare` to make one, "
            "or set POSTHOUSE_TLS_CERT and POSTHOUSE_TLS_KEY."
        ) from None
    except (OSError, ssl.SSLError) as error:
        raise CannotStart(
            f"the certificate {config.tls_cert} with the key {config.tls_key} can't be used: {error}. "
            f"Both are PEM files, belong together and must be readable by {_own_name()}; "
            "set POSTHOUSE_TLS_CERT and POSTHOUSE_TLS_KEY."
        ) from None


def _own_name() -> str:
    try:
        return f"the user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return "this user"


def ask_database(config: Config) -> int:
    """This node's number. Asked by a child, so that no connection crosses a fork.

    Raises CannotStart when the database can't be reached or has other tables than ours.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            os.write(writer, json.dumps(_database_answer(config)).encode())
            status = 0
        except BaseException:
            traceback.print_exc()  # the parent's sentence leads to it
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    answer = json.loads(text or b'{"error": "the database can\'t be asked; see the lines above."}')
    if "error" in answer:
        raise CannotStart(answer["error"])
    return int(answer["node"])


def _database_answer(config: Config) -> dict[str, object]:
    from django.db.utils import Error

    from mailserver import spool

    try:
        if spool.has_pending_migrations():
            return {"error": "the database's tables are not up to date; run `manage.py migrate` first."}
        return {"node": spool.register_node(config.node_name, VERSION, Clock().now())}
    except spool.NoFreeNumber as error:
        return {"error": str(error)}
    except (Error, spool.SpoolUnavailable) as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        return {"error": f"the database can't be reached: {cause}. Look at DATABASE_URL."}


def readable(files: Sequence[_File], within_s: float | None = None) -> list[_File]:
    """Those of the files with something to read; none after `within_s`."""
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(within_s)]  # type: ignore[misc]


def _each(one: _One | None) -> list[_One]:
    return [] if one is None else [one]


if __name__ == "__main__":
    sys.exit(main())
