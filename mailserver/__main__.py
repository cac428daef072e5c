"""`python -m mailserver`: the parent of one node's mailserver.

It owns the sockets, one SO_REUSEPORT socket per worker and listener, inherited by
that worker and never closed when a worker is started again; it starts authd and the
workers, starts again what dies, and passes on the signals to stop. It opens no
database connection and no event loop of its own: both belong after the fork.
"""

import argparse
import ctypes
import errno
import fcntl
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import ssl
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import django

from mailserver import log, tls
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.envelope import Listener
from panel import environment, system_users
from panel.environment import BadSetting, Listen
from panel.system_users import SystemUsers, UsersMissing

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "panel.settings")

VERSION = "0.1.0"
BACKLOG = 1024
RESTART_PAUSE_S = 1.0  # between two starts of a process that keeps dying
KILL_AFTER_S = 10.0  # beyond stop_s: the queue's last settlements take up to HURRY_S of the runner's
_PR_SET_PDEATHSIG = 1
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


class CannotStart(Exception):
    """Why the mailserver can't start: a sentence that says what to do."""


@dataclass(slots=True)
class Child:
    """A process of ours and how to start it again."""

    name: str
    body: Callable[[], None]
    pid: int = 0
    started_s: float = 0.0


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
    options = parser.parse_args()
    try:
        config = Config.of(environment.read())
        users = None
        if options.drop and os.geteuid() == 0:
            users = work_as_posthouse(config)
        django.setup()
        Parent(config, users).run()
    except (BadSetting, CannotStart, UsersMissing) as error:
        print(f"posthouse: {error}", file=sys.stderr)
        return 1
    return 0


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
    def __init__(self, config: Config, users: SystemUsers | None = None) -> None:
        """`users`: root's process works as posthouse already, and becomes it when it has its ports."""
        self.config = config
        # One for all workers, also those that are started again: after a jump of the wall clock a clock
        # of its own would take others' leases for lapsed, and mail for expired.
        self.clock = Clock()
        self.users = users
        self.sockets: list[list[tuple[Listener, socket.socket]]] = [[] for _ in range(config.workers)]
        self.children: list[Child] = []

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises CannotStart before anything is accepted."""
        raise_open_files()
        prepare_folders(self.config)
        lock = take_lock(self.config)
        if self.users:
            with self.users.as_root():
                self.bind()
            self.users.become()
        else:
            self.bind()
        context = load_context(self.config)
        node = ask_database(self.config)
        log.setup("parent")
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self.children.append(Child("authd", lambda: self.authd_body(lock, node)))
        for number in range(self.config.workers):
            self.children.append(
                Child(f"worker-{number}", lambda number=number: self.worker_body(lock, context, node, number))  # type: ignore[misc]
            )
        for child in self.children:
            self.start(child)
        log.started(
            "mailserver", version=VERSION, pid=os.getpid(), node=node, workers=self.config.workers,
            mx=",".join(map(str, self.config.mx)), submission=",".join(map(str, self.config.submission)),
            submissions=",".join(map(str, self.config.submissions)),
        )
        self.watch()
        self.stop()
        log.stopped("mailserver")

    def bind(self) -> None:
        listeners = [(Listener.MX, listen, "POSTHOUSE_MX") for listen in self.config.mx]
        listeners += [(Listener.SUBMISSION, listen, "POSTHOUSE_SUBMISSION") for listen in self.config.submission]
        listeners += [(Listener.SUBMISSIONS, listen, "POSTHOUSE_SUBMISSIONS") for listen in self.config.submissions]
        for kind, listen, setting in listeners:
            # SO_REUSEPORT would let a second program share the port silently: ask for it alone first.
            _bound(listen, setting, shared=False).close()
            for sockets in self.sockets:
                sockets.append((kind, _bound(listen, setting, shared=True)))

    def start(self, child: Child) -> None:
        child.started_s = time.monotonic()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            child.pid = pid
            return
        status = 1
        try:
            # A parent that was killed must not leave workers behind that hold its ports.
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() == parent:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
                log.setup(child.name)
                child.body()
                status = 0
        except BaseException:
            log.fault(f"{child.name} died")
        finally:
            os._exit(status)

    def authd_body(self, lock: int, node: int) -> None:
        os.close(lock)
        for sockets in self.sockets:
            _close_all(sockets)
        from mailserver import authd

        authd.run(self.config, node)

    def worker_body(self, lock: int, context: ssl.SSLContext, node: int, number: int) -> None:
        os.close(lock)
        for other, sockets in enumerate(self.sockets):
            if other != number:
                _close_all(sockets)
        from mailserver import worker

        worker.run(self.config, context, self.clock, node=node, number=number, sockets=self.sockets[number])

    def watch(self) -> None:
        """Start again what dies; returns when it is time to stop."""
        while True:
            arrived = signal.sigwait(_SIGNALS)
            if arrived in (signal.SIGTERM, signal.SIGINT):
                return
            if arrived == signal.SIGHUP:
                self.signal(signal.SIGHUP)
                continue
            for child in self.reap():
                log.warning("a process died and is started again", process=child.name)
                time.sleep(max(0.0, child.started_s + RESTART_PAUSE_S - time.monotonic()))
                self.start(child)

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

    def stop(self) -> None:
        """Workers first, so that a session can finish with authd still there.

        The sockets before them: nobody accepts any more, and who connects now must be
        refused at once and not wait in a queue for nothing.
        """
        for sockets in self.sockets:
            _close_all(sockets)
        authd, workers = self.children[0], self.children[1:]
        self.end(workers, self.config.stop_s + KILL_AFTER_S)
        self.end([authd], KILL_AFTER_S)

    def end(self, children: list[Child], within_s: float) -> None:
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


def take_lock(config: Config) -> int:
    """The node's lock, held as long as the parent lives. Raises CannotStart when another one has it."""
    descriptor = os.open(config.run / "mailserver.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(descriptor, 20).decode(errors="replace").strip()
        raise CannotStart(
            f"the mailserver is already running on {config.data}, pid {pid}; "
            f"stop it first (kill {pid}), or set POSTHOUSE_DATA to another folder."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


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


def _bound(listen: Listen, setting: str, *, shared: bool) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if ":" in listen.host:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((listen.host, listen.port))
        if shared:
            made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise CannotStart(f"{listen} can't be listened on: {_why(error, setting)}") from None
    made.setblocking(False)
    return made


def _why(error: OSError, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"another program has this port. Stop it, or set {setting} to another address and port."
    if error.errno == errno.EACCES:
        return f"ports below 1024 need root or CAP_NET_BIND_SERVICE. Give it, or set {setting} to a higher port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine doesn't have that address. Set {setting} to one that it has."
    return f"{error.strerror}. Set {setting} to another address and port."


def _close_all(sockets: list[tuple[Listener, socket.socket]]) -> None:
    for _, each in sockets:
        each.close()


if __name__ == "__main__":
    sys.exit(main())
