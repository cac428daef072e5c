"""deploy/run: from nothing to `ready`, its sentences when it can't, and its end."""

import http.client
import os
import pwd
import shutil
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from panel import environment
from panel.operations import dovecot
from tests.support.installation import ROOT, message, until
from tests.support.postgres import free_port

pytestmark = pytest.mark.once("sqlite")  # which deploy/run makes
READY_WITHIN_S = 90.0


class Run:
    """One `deploy/run` and what it prints."""

    def __init__(self, environment: dict[str, str], output: Path, *, command: tuple[str, ...] = ("deploy/run",)):
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                # As from a terminal, also where the tests themselves run under nohup.
                ["env", "--default-signal=HUP", *command], cwd=ROOT, env=environment, stdout=file,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )

    def lines(self) -> list[str]:
        return self.output.read_text().splitlines()

    def wait_until_ready(self) -> list[str]:
        def ready() -> bool:
            assert self.process.poll() is None, self.output.read_text()
            return any(line.startswith("ready") for line in self.lines())

        until(ready, within_s=READY_WITHIN_S, what="ready")
        return self.lines()

    def interrupt(self, number: int = signal.SIGINT) -> int:
        """Ctrl-C, or another signal; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


def settings_for(data: Path) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items()
        if not name.startswith(("POSTHOUSE_", "DATABASE_URL", "DJANGO_SETTINGS_MODULE"))
    }
    return inherited | {
        "POSTHOUSE_DATA": str(data),
        "POSTHOUSE_HTTP": f"127.0.0.1:{free_port()}",
        "POSTHOUSE_MX": f"127.0.0.1:{free_port()}",
        "POSTHOUSE_SUBMISSION": f"127.0.0.1:{free_port()}",
        "POSTHOUSE_SUBMISSIONS": f"127.0.0.1:{free_port()}",
        "POSTHOUSE_IMAPS": f"127.0.0.1:{free_port()}",
        "POSTHOUSE_POP3S": f"127.0.0.1:{free_port()}",
        "POSTHOUSE_SIEVE": f"127.0.0.1:{free_port()}",
    }


@dataclass(frozen=True)
class First:
    """What the first start left and said; the others begin with a copy of it, since it takes the longest."""

    data: Path
    settings: dict[str, str]
    lines: list[str]
    exit_code: int


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[First]:
    # A folder that every user can enter, with a short path.
    folder = Path(tempfile.mkdtemp(prefix="ph-"))
    folder.chmod(0o755)
    settings = settings_for(folder / "data")
    run = Run(settings, tmp_path_factory.mktemp("first") / "output")
    try:
        lines = run.wait_until_ready()
        logins = logins_of(folder / "data")
        with smtplib.SMTP("127.0.0.1", port_of(settings, "POSTHOUSE_SUBMISSION")) as client:
            client.starttls(context=ssl._create_unverified_context())
            client.login("shop@demo.test", logins["shop@demo.test"])
            client.sendmail("shop@demo.test", ["postmaster@demo.test"], message("shop@demo.test", "office@demo.test"))
        yield First(folder / "data", settings, lines, run.interrupt())
    finally:
        if run.process.poll() is None:
            run.interrupt()
        shutil.rmtree(folder, ignore_errors=True)


def logins_of(data: Path) -> dict[str, str]:
    return dict(line.split(" ") for line in (data / "demo.txt").read_text().splitlines())


@pytest.fixture
def settings(open_folder: Path) -> dict[str, str]:
    return settings_for(open_folder / "data")


@pytest.fixture
def begun(first: First, settings: dict[str, str]) -> None:
    """The settings' data folder is there, as the first start left it."""
    subprocess.run(["cp", "-a", first.data, settings["POSTHOUSE_DATA"]], check=True)


@pytest.fixture
def start(settings: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Run]]:
    started: list[Run] = []

    def start(**more: str) -> Run:
        started.append(Run(settings | more, tmp_path / f"output-{len(started)}"))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.interrupt()


def port_of(settings: dict[str, str], name: str) -> int:
    return int(settings[name].rpartition(":")[2])


def test_first_start_reaches_ready_and_ends_without_a_trace(first):
    demo = first.data / "demo.txt"
    assert stat.S_IMODE(demo.stat().st_mode) == 0o600
    logins = logins_of(first.data)
    assert list(logins) == ["admin@localhost", "shop@demo.test", "office@demo.test"]
    printed = "\n".join(first.lines)
    for login, password in logins.items():
        assert login in printed
        assert password in printed
    (landed,) = [line for line in first.lines if "first message" in line]
    assert Path(landed.rpartition(" ")[2]).is_file()
    if Path("/usr/sbin/dovecot").exists():
        assert "was read back over IMAP" in landed
        assert any("IMAP" in line and str(port_of(first.settings, "POSTHOUSE_IMAPS")) in line for line in first.lines)
    else:
        assert any("without reading" in line and "apt-get install" in line for line in first.lines)
    assert any(line.strip().startswith("swaks ") for line in first.lines)
    assert any("curl --url smtps://" in line for line in first.lines)
    assert any("/sign-in/ as shop@demo.test" in line for line in first.lines)
    assert first.exit_code == 0
    for name in first.settings:
        if not name.startswith("POSTHOUSE_") or name == "POSTHOUSE_DATA":
            continue
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port_of(first.settings, name))) != 0, f"{name} is still open"


@pytest.mark.usefixtures("begun")
def test_second_start_keeps_the_data(start, settings, first):
    data = Path(settings["POSTHOUSE_DATA"])
    again = start()
    began = time.monotonic()
    lines = again.wait_until_ready()
    print(f"second start: {time.monotonic() - began:.1f} s")
    assert logins_of(data) == logins_of(first.data)
    assert not any("passwords" in line for line in lines), "printed once"
    assert len(list(data.glob("mail/*/*/Maildir/new/*"))) == 2
    assert "already running" in refusal(settings)
    assert again.interrupt() == 0


@pytest.mark.usefixtures("begun")
def test_a_script_that_starts_it_in_the_background_can_interrupt_it(settings, tmp_path):
    # A shell without job control makes what it starts with "&" ignore SIGINT.
    run = Run(settings, tmp_path / "output", command=("bash", "-c", "trap '' INT; exec deploy/run"))
    run.wait_until_ready()
    assert run.interrupt() == 0
    assert run.lines()[-1] == "posthouse: stopped"


@pytest.mark.usefixtures("begun")
def test_closing_the_terminal_leaves_nothing_behind(start, settings):
    run = start()
    run.wait_until_ready()
    assert run.interrupt(signal.SIGHUP) == 0
    for name in ("POSTHOUSE_HTTP", "POSTHOUSE_SUBMISSION"):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port_of(settings, name))) != 0, f"{name} is still open"


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def named(run: Run, *words: str) -> int:
    """The program of deploy/run whose command line holds the words."""
    for pid in children_of(run.process.pid):
        if all(word in Path(f"/proc/{pid}/cmdline").read_text().split("\0") for word in words):
            return pid
    raise AssertionError(f"no program {words}")


class Visitor(threading.Thread):
    """Asks for the panel's log-in page without a pause, on a connection a request or on one that is kept."""

    def __init__(self, port: int, stop: threading.Event, *, is_kept: bool) -> None:
        super().__init__(daemon=True)
        self.port, self.stop, self.is_kept = port, stop, is_kept
        self.answered = 0
        self.failures: list[str] = []

    def run(self) -> None:
        connection = None
        while not self.stop.is_set():
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.request("GET", "/admin/login/", headers={} if self.is_kept else {"Connection": "close"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200, answer.status
                self.answered += 1
                if answer.will_close:
                    connection = None
            except Exception as error:
                self.failures.append(repr(error))
                connection = None


@pytest.mark.usefixtures("begun")
def test_restart_loses_no_request_and_no_session(start, settings):
    run = start()
    run.wait_until_ready()
    panel, mailserver = named(run, "gunicorn"), named(run, "mailserver")
    workers = children_of(panel)
    stop = threading.Event()
    visitors = [Visitor(port_of(settings, "POSTHOUSE_HTTP"), stop, is_kept=kept) for kept in (True, True, False, False)]
    for visitor in visitors:
        visitor.start()
    with smtplib.SMTP("127.0.0.1", port_of(settings, "POSTHOUSE_SUBMISSION"), timeout=60) as session:
        done = subprocess.run(
            ["deploy/run", "--restart"], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        until(lambda: len(now := children_of(panel)) == 2 and not now & workers, within_s=60, what="the new workers")
        answered = [visitor.answered for visitor in visitors]
        until(
            lambda: all(each.answered > before for each, before in zip(visitors, answered, strict=True)), within_s=60,
            what="an answer of the new workers",
        )
        assert session.noop()[0] == 250
    stop.set()
    for visitor in visitors:
        visitor.join(60)
    assert [visitor.failures for visitor in visitors] == [[]] * 4
    until(lambda: not Path(f"/proc/{mailserver}").exists(), within_s=60, what="the end of the mailserver before")
    assert named(run, "mailserver") != mailserver
    assert run.process.poll() is None
    assert any("restarted" in line for line in run.lines())

    # What can't start replaces nothing; and a kill leaves nothing behind.
    (Path(settings["POSTHOUSE_DATA"]) / "tls" / "key.pem").write_text("no key")
    mailserver = named(run, "mailserver")
    run.process.send_signal(signal.SIGUSR2)
    until(lambda: any("not restarted" in line for line in run.lines()), within_s=60, what="the refusal")
    assert named(run, "mailserver") == mailserver
    programs = children_of(run.process.pid)
    run.process.kill()
    run.process.wait(10)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in programs), within_s=60, what="the programs' end")
    for name in ("POSTHOUSE_HTTP", "POSTHOUSE_SUBMISSION", "POSTHOUSE_IMAPS"):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port_of(settings, name))) != 0, f"{name} is still open"


@pytest.mark.skipif(os.getuid() != 0, reason="only root changes users")
def test_under_root_no_program_but_dovecots_own_stays_root_and_the_state_is_posthouses(start, settings):
    # Stored by Dovecot, which is then vmail, and read back.
    run = start(POSTHOUSE_STORE=f"lmtp:{dovecot.lmtp_socket(environment.read(settings))}")
    lines = run.wait_until_ready()
    assert not Path("/usr/lib/dovecot/lmtp").exists() or any("was read back over IMAP" in line for line in lines)
    owners = {}
    for child in Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        owners["dovecot" if command[1] == b"-F" else command[2].decode()] = status_of(child, "Uid")
    posthouse = str(pwd.getpwnam("posthouse").pw_uid)
    assert owners["mailserver"] == owners["gunicorn"] == [posthouse] * 4
    data = Path(settings["POSTHOUSE_DATA"])
    assert {path.owner() for path in data.iterdir()} == {"posthouse"}
    assert not data.stat().st_mode & 0o066, "nobody else looks in"


def status_of(pid: str, field: str) -> list[str]:
    """The numbers of a line of /proc/PID/status: for Uid the real, effective, saved and file system's."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{field}:")).split()[1:]


def refusal(settings: dict[str, str], **more: str) -> str:
    done = subprocess.run(
        ["deploy/run"], cwd=ROOT, env=settings | more, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def test_a_port_in_use_is_said_with_its_setting(settings):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port_of(settings, "POSTHOUSE_MX")))
        taken.listen()
        sentence = refusal(settings)
    assert settings["POSTHOUSE_MX"] in sentence
    assert "POSTHOUSE_MX=" in sentence


def test_a_bad_setting_is_said(settings):
    assert "POSTHOUSE_WORKERS" in refusal(settings, POSTHOUSE_WORKERS="none")
    assert "DATABASE_URL" in refusal(settings, DATABASE_URL="mysql://x/y")


def test_a_database_that_does_not_answer_is_said(settings):
    sentence = refusal(settings, DATABASE_URL=f"postgres://nobody@127.0.0.1:{free_port()}/none")
    assert "DATABASE_URL" in sentence


def test_a_folder_that_cannot_be_written_is_said(settings, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    sentence = refusal(settings, POSTHOUSE_DATA=str(blocker / "data"))
    assert "POSTHOUSE_DATA" in sentence
