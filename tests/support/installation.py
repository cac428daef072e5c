"""A whole Posthouse of a test's own: data folder, database, and the real mailserver as a process."""

import email
import email.message
import json
import os
import shutil
import signal
import smtplib
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from tests.support.postgres import Postgres, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
READY_WITHIN_S = 30.0
STOP_WITHIN_S = 45.0
PASSWORD = "right horse battery"

Found = TypeVar("Found")


def until(look: Callable[[], Found], *, within_s: float = 30.0, what: str = "it") -> Found:
    """What `look` gives as soon as it is true. Fails when it isn't within the deadline."""
    deadline = time.monotonic() + within_s
    pause_s = 0.02
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} didn't come within {within_s} s"
        time.sleep(pause_s)
        # A look is a connection, a log-in, a page: what it takes is taken from those who are waited for.
        pause_s = min(pause_s * 1.3, 0.15)


_DEMO = """
import django
django.setup()
from tests.support import world
demo = world.tenant("Demo")
world.domain("demo.test", demo)
world.mailbox("shop@demo.test")
world.mailbox("office@demo.test")
"""


class Template:
    """A data folder and database that installations are copied from; made once a run.

    In it is the tenant Demo with demo.test, shop@ and office@, their password PASSWORD. `migrated` is a SQLite
    database that has its tables already.
    """

    def __init__(self, folder: Path, cluster: Postgres | None, migrated: Path | None = None) -> None:
        self.folder = folder
        self.cluster = cluster
        self.name = "installation_template"
        self.count = 0
        environment = os.environ | {"POSTHOUSE_DATA": str(folder)}
        if cluster:
            environment["DATABASE_URL"] = cluster.create(self.name)
        elif migrated:
            shutil.copy(migrated, folder / "db.sqlite3")
        environment["DJANGO_SETTINGS_MODULE"] = "panel.settings"
        for command in (["manage.py", "prepare"], ["-c", _DEMO]):
            subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=True, capture_output=True)

    def copy(self, data: Path) -> dict[str, str]:
        """Fill a data folder; the environment that goes with it."""
        shutil.copytree(self.folder, data)
        self.count += 1
        if self.cluster is None:
            return {}
        name = f"installation_{self.count}"
        self.cluster.run(
            "createdb", "-h", "127.0.0.1", "-p", str(self.cluster.port), "-U", "postgres", "-T", self.name, name
        )
        return {"DATABASE_URL": f"postgres://postgres@127.0.0.1:{self.cluster.port}/{name}"}


# Answers go where standard output went; what the code prints goes with its errors.
_LOOP = """
import json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import django
django.setup()
from django.db import connections
NAMES = '''
import sys
from datetime import timedelta
from django.db import transaction
from django.utils import timezone
from tests.support import world
from panel.domains.models import *
from panel.mailboxes.models import *
from panel.sending.models import *
from panel.tenants.models import *
from panel.operations.models import *
answer = None
'''
for line in sys.stdin:
    names = {}
    try:
        exec(NAMES, names)
        exec(json.loads(line), names)
        told = {"answer": names["answer"]}
    except (Exception, SystemExit):
        told = {"error": traceback.format_exc()}
    finally:
        connections.close_all()
    answers.write(json.dumps(told, default=str) + "\\n")
    answers.flush()
"""


# A command as the command line runs it: its exit code, what it prints, and what it says of errors.
_MANAGE = """
import contextlib, io
from django.core.management import execute_from_command_line
code, printed, said, sys.stdin = 0, io.StringIO(), io.StringIO(), io.StringIO({typed!r})
try:
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        execute_from_command_line(["manage.py", *{arguments!r}])
except SystemExit as ended:
    code = ended.code
answer = [code, printed.getvalue(), said.getvalue()]
"""


class Python:
    """A Python with the models at hand, kept for an installation's questions: to start one takes a second."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = dict(environment)
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 read when it has ended
        self.lock = threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LOOP], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            env=self.environment | {"DJANGO_SETTINGS_MODULE": "panel.settings"}, text=True, start_new_session=True,
        )

    def goes_on(self, environment: dict[str, str]) -> bool:
        """Whether it can be asked for an installation with this environment."""
        return self.process.poll() is None and self.environment == environment

    def run(self, code: str) -> Any:
        with self.lock:
            too_long = threading.Timer(120, self.process.kill)
            too_long.start()
            try:
                self.process.stdin.write(json.dumps(code) + "\n")
                self.process.stdin.flush()
                line = self.process.stdout.readline()
            finally:
                too_long.cancel()
        if not line:
            self.errors.seek(0)
            raise AssertionError(f"Python ended: {self.errors.read()}")
        told = json.loads(line)
        assert "error" not in told, told["error"]
        return told["answer"]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()


@dataclass(frozen=True)
class People:
    """A tenant, its domain, and the addresses of its two mailboxes, whose password is PASSWORD."""

    tenant: str
    domain: str
    office: str
    shop: str


class Installation:
    """One data folder with its settings; `start` runs the mailserver on it."""

    def __init__(self, template: Template, data: Path, **settings: object) -> None:
        self.data = data
        self.mx, self.submission, self.submissions, self.http = (free_port() for _ in range(4))
        self.imaps, self.pop3s, self.sieve = (free_port() for _ in range(3))
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("POSTHOUSE_", "DATABASE_URL"))
        }
        self.environment |= template.copy(data) | {
            "POSTHOUSE_DATA": str(data),
            "POSTHOUSE_HOSTNAME": "mx.posthouse.test",
            "POSTHOUSE_MX": f"127.0.0.1:{self.mx}",
            "POSTHOUSE_SUBMISSION": f"127.0.0.1:{self.submission}",
            "POSTHOUSE_SUBMISSIONS": f"127.0.0.1:{self.submissions}",
            "POSTHOUSE_IMAPS": f"127.0.0.1:{self.imaps}",
            "POSTHOUSE_POP3S": f"127.0.0.1:{self.pop3s}",
            "POSTHOUSE_SIEVE": f"127.0.0.1:{self.sieve}",
            "POSTHOUSE_HTTP": f"127.0.0.1:{self.http}",
            "POSTHOUSE_URL": f"http://localhost:{self.http}",  # a name: passkeys are bound to it
            "POSTHOUSE_WORKERS": "2",
            "POSTHOUSE_OUTWARD_PRIVATE": "127.0.0.0/8",
            # Nobody's: a test that asks the DNS brings its own.
            "POSTHOUSE_DNS": "127.0.0.1:9",
        }
        self.environment |= {f"POSTHOUSE_{name.upper()}": str(value) for name, value in settings.items()}
        self.server: subprocess.Popen[bytes] | None = None
        self.finishing: list[subprocess.Popen[bytes]] = []  # that were taken over from
        self.log = data / "mailserver.log"
        self.python: Python | None = None
        self.tenants = 0

    # --- the database ------------------------------------------------------------------

    def run(self, code: str) -> Any:
        """Run Python with the models at hand; what it leaves in `answer`, by way of JSON."""
        if self.python is None or not self.python.goes_on(self.environment):
            self.end_python()
            self.python = Python(self.environment)
        return self.python.run(code)

    def end_python(self) -> None:
        if self.python is not None:
            self.python.end()
            self.python = None

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, asked from here: a start of Python takes half a second."""
        url = self.environment.get("DATABASE_URL")
        if url:
            with psycopg.connect(url.replace("postgres://", "postgresql://"), connect_timeout=5) as connection:
                return connection.execute(sql).fetchall()
        with closing(sqlite3.connect(self.data / "db.sqlite3", timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def manage(self, *arguments: str, typed: str = "") -> str:
        """manage.py with these arguments; what it prints. Run by the kept Python: each start takes a second."""
        code, printed, said = self.run(_MANAGE.format(typed=typed, arguments=arguments))
        assert not code, said
        return printed

    def people(self) -> People:
        """A tenant like Demo for one of several tests that share the installation."""
        self.tenants += 1
        name = f"tenant{self.tenants}"
        made = People(name, f"{name}.test", f"office@{name}.test", f"shop@{name}.test")
        self.run(
            f"world.domain({made.domain!r}, world.tenant({name!r}))\n"
            f"world.mailbox({made.office!r})\nworld.mailbox({made.shop!r})\nworld.changed({made.domain!r})"
        )
        return made

    # --- the mailserver ------------------------------------------------------------------

    def start(self, *, module: str = "mailserver", **settings: object) -> None:
        """Start it and wait until each port greets. `module`: what is run in its place (fault points)."""
        assert self.server is None or self.server.poll() is not None, "it is running already"
        environment = self.environment | {f"POSTHOUSE_{name.upper()}": str(value) for name, value in settings.items()}
        with self.log.open("ab") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", *module.split()], cwd=ROOT, env=environment, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )
        for port in (self.mx, self.submission):
            until(lambda port=port: self._greets(port), within_s=READY_WITHIN_S, what="the mailserver's greeting")

    def begin_take_over(self, **settings: object) -> subprocess.Popen[bytes]:
        """Start another one with --take-over; it isn't waited for."""
        environment = self.environment | {f"POSTHOUSE_{name.upper()}": str(value) for name, value in settings.items()}
        drop = ["--drop"] if self.server is not None and "--drop" in self.server.args else []
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "mailserver", "--take-over", *drop], cwd=ROOT, env=environment, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )

    def take_over(self, **settings: object) -> None:
        """Have another one take over; returns when it serves, while the one before may still finish its sessions."""
        new = self.begin_take_over(**settings)
        until(lambda: self._is_in_charge(new), within_s=READY_WITHIN_S, what="the take-over")
        if self.server:
            self.finishing.append(self.server)
        self.server = new

    def _is_in_charge(self, server: subprocess.Popen[bytes]) -> bool:
        assert server.poll() is None, self.log.read_text()
        return (self.data / "run" / "mailserver.lock").read_text() == f"{server.pid}\n"

    def _greets(self, port: int) -> bool:
        assert self.server is not None
        assert self.server.poll() is None, self.log.read_text()
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=5):
                return True
        except (OSError, smtplib.SMTPException):
            return False

    def stop(self) -> None:
        """As a service manager stops it; waits for its end."""
        if self.server is not None:
            if self.server.poll() is None:
                self.server.terminate()
            self.server.wait(timeout=STOP_WITHIN_S)
            self.server = None
        for server in self.finishing:
            server.wait(timeout=STOP_WITHIN_S)
        self.finishing.clear()

    def kill(self) -> None:
        """kill -9 of the parent and each of its processes at once (they are a group of their own)."""
        self.end_python()
        for server in (*self.finishing, *([self.server] if self.server is not None else [])):
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait(timeout=10)
        self.finishing.clear()
        self.server = None

    def workers(self) -> list[int]:
        """The process ids of authd and the workers."""
        assert self.server is not None
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    # --- mail ----------------------------------------------------------------------------

    @property
    def certificate(self) -> Path:
        return self.data / "tls" / "cert.pem"

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.check_hostname = False
        return context

    @contextmanager
    def client(self, login: str | None = None, password: str = PASSWORD) -> Iterator[smtplib.SMTP]:
        """A mail client on the submission port, after STARTTLS and, with a login, AUTH."""
        with smtplib.SMTP("127.0.0.1", self.submission, timeout=60) as client:
            client.starttls(context=self.context())
            client.ehlo()
            if login:
                client.login(login, password)
            yield client

    def send(
        self, sender: str, *recipients: str, subject: str = "Hello", text: str = "Hello.\r\n", login: str = "",
        password: str = PASSWORD,
    ) -> None:
        with self.client(login or sender, password) as client:
            client.sendmail(sender, recipients, message(sender, recipients[0], subject, text))

    def maildir(self, address: str) -> Path:
        local_part, _, domain = address.replace("'", "''").partition("@")
        [(opaque_id,)] = self.query(
            "SELECT m.opaque_id FROM mailboxes_mailbox m JOIN mailboxes_address a ON a.id = m.address_id "
            f"JOIN domains_domain d ON d.id = a.domain_id WHERE a.local_part = '{local_part}' AND d.name = '{domain}'"
        )
        return self.data / "mail" / opaque_id[:2] / opaque_id / "Maildir"

    def inbox(self, address: str) -> "Inbox":
        return Inbox(self.maildir(address))


class Inbox:
    """A mailbox's messages, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        return sorted([*self.folder.glob("new/*"), *self.folder.glob("cur/*")])

    def count(self, text: str) -> int:
        """How many of its messages hold the text."""
        return sum(text.encode() in path.read_bytes() for path in self.files())

    def messages(self) -> list[email.message.Message]:
        return [email.message_from_bytes(path.read_bytes()) for path in self.files()]

    def subjects(self) -> list[str]:
        return [str(each["Subject"]) for each in self.messages()]

    def wait(self, count: int = 1, *, within_s: float = 30.0) -> list[Path]:
        """Its files, when there are at least `count`."""
        return until(
            lambda: files if len(files := self.files()) >= count else [], within_s=within_s,
            what=f"message {count} in {self.folder}",
        )


def message(sender: str, recipient: str, subject: str = "Hello", text: str = "Hello.\r\n") -> bytes:
    return (
        f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\n"
        f"Message-ID: <{subject.replace(' ', '-')}@client.test>\r\nDate: Tue, 24 Nov 2026 09:00:00 +0000\r\n\r\n{text}"
    ).encode()
