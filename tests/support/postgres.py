"""A PostgreSQL of the tests' own: made in a temporary folder, on a free port of loopback, thrown away."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

START_WITHIN_S = 30.0


def programs() -> Path | None:
    """The folder of initdb and postgres, or None."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    return Path(found[-1]) if found else None


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postgres:
    """One cluster. `fsync` on for tests of durability; `kill`, `start` for tests of its loss."""

    def __init__(self, *, fsync: bool = False) -> None:
        found = programs()
        if found is None:
            raise RuntimeError("PostgreSQL isn't installed: apt-get install postgresql")
        self.bin = found
        self.fsync = fsync
        # Short: a Unix socket's path is limited to 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="ph-pg-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        # The server refuses to run as root.
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        if self.user:
            shutil.chown(self.folder, "postgres", "postgres")
        self.run("initdb", "-D", str(self.folder / "data"), "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8",
                 "--locale=C.UTF-8")

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.bin / program, *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60, **self.user
        )

    def start(self) -> None:
        command = [
            self.bin / "postgres", "-D", self.folder / "data", "-h", "127.0.0.1", "-p", str(self.port),
            "-k", self.folder, "-c", f"fsync={'on' if self.fsync else 'off'}", "-c", "max_connections=200",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=log, **self.user
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

    def kill(self) -> None:
        """Stop at once, as a crash of the database would (SIGQUIT is PostgreSQL's immediate shutdown)."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(timeout=30)
            self.process = None

    def create(self, name: str) -> str:
        """A new database; its URL."""
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)
        return f"postgres://postgres@127.0.0.1:{self.port}/{name}"

    def discard(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
