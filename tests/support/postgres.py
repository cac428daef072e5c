"""A PostgreSQL of the tests' own: made in a temporary folder, on a free port of loopback, thrown away."""

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path

START_WITHIN_S = 120.0  # recovery after a kill, on a busy machine
STOP_WITHIN_S = 30.0
TEMPLATE = "migrated"  # the database that has the tables already, where a cluster is copied


def programs() -> Path | None:
    """The folder of the newest initdb and postgres, or None. Debian keeps them off PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda folder: [int(part) for part in folder.parent.name.split(".")], default=None)


_RANDOM = random.SystemRandom()
_claims: deque[socket.socket] = deque(maxlen=300)


def free_port() -> int:
    """A port of loopback that nobody else takes before its program has it.

    It is below those that the kernel gives to connections, and claimed by a name that other processes of
    the tests can't have meanwhile: of these the latest 300 are kept.
    """
    above = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = _RANDOM.randrange(10_000, above)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0posthouse-test-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port


class Postgres:
    """One cluster. `fsync` on for tests of durability; `kill`, `start` for tests of its loss.

    `copied` is the data folder of another one, with the database TEMPLATE: its databases have the tables when they
    are made. Discarded at the end of this process at the latest, however far it came.
    """

    def __init__(self, *, fsync: bool = False, copied: Path | None = None) -> None:
        found = programs()
        if found is None:
            raise RuntimeError("PostgreSQL isn't installed: apt-get install postgresql")
        self.bin = found
        self.fsync = fsync
        self.copied = copied
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        # The server refuses to run as root.
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        # Short: a Unix socket's path is limited to 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="ph-pg-"))
        self.owner = os.getpid()
        atexit.register(self.discard)
        if self.user:
            shutil.chown(self.folder, "postgres", "postgres")
        if copied:
            subprocess.run(["cp", "-a", copied, self.folder / "data"], check=True)
            return
        self.run("initdb", "-D", str(self.folder / "data"), "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8",
                 "--locale=C.UTF-8")

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end. Raises RuntimeError with what it said."""
        done = subprocess.run(
            [self.bin / program, *arguments], cwd=self.folder, check=False, capture_output=True, text=True,
            timeout=60, **self.user,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.strip()}")

    def start(self) -> None:
        command = [
            self.bin / "postgres", "-D", self.folder / "data", "-h", "127.0.0.1", "-p", str(self.port),
            "-k", self.folder, "-c", f"fsync={'on' if self.fsync else 'off'}", "-c", "max_connections=200",
        ]
        with (self.folder / "log").open("ab") as log:
            # A session of its own: Ctrl-C reaches the tests alone, and they stop it when they are done.
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                start_new_session=True, **self.user,
            )
        deadline = time.monotonic() + START_WITHIN_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    def answers(self) -> bool:
        ready = subprocess.run(
            [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], timeout=10, check=False
        )
        return ready.returncode == 0

    def stop(self) -> None:
        """Stop in order, so that its files are whole (SIGINT is PostgreSQL's fast shutdown)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Stop at once, as a crash of the database would (SIGQUIT is PostgreSQL's immediate shutdown)."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(timeout=STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def url(self, name: str) -> str:
        """The DATABASE_URL of a database, whether or not it exists already."""
        return f"postgres://postgres@127.0.0.1:{self.port}/{name}"

    def create(self, name: str) -> str:
        """A new database; its URL."""
        like = ("-T", TEMPLATE) if self.copied else ()
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", *like, name)
        return self.url(name)

    def discard(self) -> None:
        # A fork of the tests that ends must not take their database with it.
        if os.getpid() == self.owner:
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)
