"""A mailserver takes over from a running one: see take_over, which also runs longer by hand.

All on one installation; each test leaves it with a mailserver that serves.
"""

import os
import signal
import smtplib
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mailserver import handover
from mailserver.config import Config
from mailserver.handover import Predecessor
from panel import environment
from tests.faults import take_over
from tests.support import dovecot_dict
from tests.support.installation import PASSWORD, Installation, Template, message, until
from tests.support.postgres import free_port

TIMES, SENDERS = 6, 20
SHOP, OFFICE = "shop@demo.test", "office@demo.test"
# What the two log when it begins; a later line says that somebody "was taking over".
HANDING_OVER, TAKING_OVER = 'what="handing over"', 'what="taking over"'


@pytest.fixture(scope="module")
def made(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = take_over.prepare(template, tmp_path_factory.mktemp("take-over") / "data")
    yield installation
    installation.kill()


@pytest.fixture
def server(made: Installation) -> Iterator[Installation]:
    if made.server is None:
        made.start()
    yield made
    if made.server is not None and made.server.poll() is not None:
        made.kill()


def door(server: Installation) -> Path:
    return handover.door(replace(Config.of(environment.read({})), data=server.data))


def refusal(server: Installation, **settings: object) -> str:
    """What a take-over that can't be says."""
    new = server.begin_take_over(**settings)
    assert new.wait(60) == 1
    return next(line for line in reversed(server.log.read_text().splitlines()) if line.startswith("posthouse: "))


def processes(server: Installation) -> list[int]:
    assert server.server is not None
    assert server.server.poll() is None
    return [server.server.pid, *server.workers()]


def send(client: smtplib.SMTP, subject: str) -> None:
    client.sendmail(SHOP, [OFFICE], message(SHOP, OFFICE, subject))


@pytest.mark.once("postgresql")
def test_take_overs_under_load_refuse_and_reset_no_connection(server):
    result = take_over.run(server, times=TIMES, senders=SENDERS)
    print(f"\n{result}")
    assert result.is_right, result
    assert result.answered > TIMES * SENDERS
    assert result.elsewhere
    assert all(old.wait(30) == 0 for old in server.finishing)


@pytest.mark.once("sqlite")
def test_sessions_of_the_one_before_go_on_until_their_time_is_over(server):
    server.take_over(finish_s=3)
    idle = smtplib.SMTP("127.0.0.1", server.mx, timeout=30)
    idle.ehlo()
    with server.client(SHOP) as client:
        client.mail(SHOP)
        server.take_over()
        old = server.finishing[-1]
        assert idle.noop()[0] == 250
        # A login as well, and a second one that asks authd anew: the old one's or the new one's.
        client.rcpt(OFFICE)
        assert client.data(message(SHOP, OFFICE, "across"))[0] == 250
        send(client, "the session's second")
        assert old.poll() is None
    assert idle.getreply()[0] == 421
    idle.close()
    assert old.wait(30) == 0
    assert set(server.inbox(OFFICE).subjects()) >= {"across", "the session's second"}


@pytest.mark.once("sqlite")
def test_who_logs_in_on_a_session_of_the_one_before_is_answered(server):
    with server.client() as client:
        server.take_over()
        client.login(SHOP, PASSWORD)
        send(client, "late login")
    assert "late login" in server.inbox(OFFICE).subjects()


@pytest.mark.once("sqlite")
def test_dovecots_connection_and_a_new_one_are_answered(server):
    path = str(server.data / "run" / "dovecot-auth.sock")

    def asked(connection: socket.socket) -> bytes:
        connection.sendall(dovecot_dict.userdb(SHOP) + b"\n")
        return connection.recv(4096)

    with socket.socket(socket.AF_UNIX) as old, server.client(SHOP):  # whose session keeps the old one alive
        old.settimeout(30)
        old.connect(path)
        old.sendall(dovecot_dict.HELLO)
        assert asked(old).startswith(b"O{")
        server.take_over()
        assert asked(old).startswith(b"O{")
        with socket.socket(socket.AF_UNIX) as new:
            new.settimeout(30)
            new.connect(path)
            new.sendall(dovecot_dict.HELLO)
            assert asked(new).startswith(b"O{")
    until(lambda: server.finishing[-1].poll() is not None, what="the old one's end")
    assert Path(path).is_socket()


@pytest.mark.once("sqlite")
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tls_cert": "/nonexistent/cert.pem", "tls_key": "/nonexistent/key.pem"}, "there is no certificate in"),
        ({"workers": "none"}, "POSTHOUSE_WORKERS='none' can't be used"),
        ({"submissions": "192.0.2.1:2465"}, "this machine doesn't have that address. Set POSTHOUSE_SUBMISSIONS"),
    ],
)
def test_one_that_cannot_start_says_why_and_leaves_the_running_one_untouched(server, settings, sentence):
    before = processes(server)
    with server.client(SHOP) as client:
        assert sentence in refusal(server, **settings)
        send(client, "still here")
    server.send(SHOP, OFFICE, subject="still answering")
    assert processes(server) == before


def test_one_with_another_database_leaves_the_running_one_untouched(server, tmp_path):
    before = processes(server)
    new = subprocess.run(
        [*server.server.args, "--take-over"], cwd=Path.cwd(), capture_output=True, text=True, timeout=60, check=False,
        env=server.environment | {"DATABASE_URL": f"sqlite:///{tmp_path / 'other.sqlite3'}"},
    )
    assert new.returncode == 1
    assert new.stderr.splitlines()[-1].startswith("posthouse: the database")
    server.send(SHOP, OFFICE)
    assert processes(server) == before


@pytest.mark.once("sqlite")
def test_more_and_fewer_workers_and_other_addresses(server):
    before = server.mx
    other = free_port()
    both = {"mx": f"127.0.0.1:{before},127.0.0.1:{other}"}
    server.take_over(workers=3, **both)
    assert len(server.workers()) == 4
    for port in (before, other):
        for _ in range(12):  # each socket has somebody who accepts
            with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
                assert client.noop()[0] == 250
    server.take_over(workers=1, mx=f"0.0.0.0:{before}")  # covers the one before, and leaves the other
    for _ in range(12):
        with smtplib.SMTP("127.0.0.1", before, timeout=30) as client:
            assert client.noop()[0] == 250
    with smtplib.SMTP("127.0.0.2", before, timeout=30) as client:
        assert client.noop()[0] == 250

    def is_closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", other)) != 0

    until(is_closed, what="the end of an address that is no longer set")
    server.take_over()
    for _ in range(12):
        with smtplib.SMTP("127.0.0.1", before, timeout=30) as client:
            assert client.noop()[0] == 250


@pytest.mark.once("sqlite")
def test_the_socket_for_it_is_its_users_alone(server):
    path = door(server)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_ISSOCK(path.stat().st_mode)


@pytest.mark.once("sqlite")
def test_who_ends_before_it_is_ready_leaves_the_running_one_and_the_next_may_try(server):
    before = processes(server)
    first = Predecessor.find(door(server))
    assert first
    handed = first.receive()
    assert handed.pid == before[0]
    assert f"process {os.getpid()} is taking over already" in refusal(server)
    handed.close()
    first.close()
    until(lambda: "who was taking over has ended" in server.log.read_text(), what="the running one's notice")
    server.send(SHOP, OFFICE, subject="as before")
    assert processes(server) == before
    assert (server.data / "run" / "mailserver.lock").read_text() == f"{before[0]}\n"
    server.take_over()


@pytest.mark.once("sqlite")
def test_what_is_killed_at_any_moment_of_its_start_leaves_the_running_one(server):
    before = processes(server)
    for marks in (HANDING_OVER, HANDING_OVER, TAKING_OVER):
        seen = server.log.read_text().count(marks)
        new = server.begin_take_over()
        until(lambda marks=marks, seen=seen: server.log.read_text().count(marks) > seen, what=marks)
        os.kill(new.pid, signal.SIGKILL)
        new.wait(10)
        server.send(SHOP, OFFICE)
    assert processes(server) == before


@pytest.mark.once("sqlite")
def test_running_one_that_is_killed_meanwhile_is_followed_by_the_new_one(server):
    seen = server.log.read_text().count(TAKING_OVER)
    new = server.begin_take_over()
    until(lambda: server.log.read_text().count(TAKING_OVER) > seen, what="the new one's start")
    os.kill(server.server.pid, signal.SIGKILL)
    server.server.wait(10)
    server.server = new
    until(lambda: server._is_in_charge(new), what="the take-over")
    server.send(SHOP, OFFICE, subject="from the new one")


@pytest.mark.once("sqlite")
def test_running_one_that_is_told_to_stop_meanwhile_stops_and_the_new_one_says_so(server):
    found = Predecessor.find(door(server))
    assert found
    found.receive().close()
    server.server.terminate()
    assert found.is_stopping()
    found.close()
    assert server.server.wait(60) == 0
    server.server = None


@pytest.mark.once("sqlite")
def test_new_one_that_is_told_to_stop_has_the_old_one_stop_too(server):
    client = smtplib.SMTP("127.0.0.1", server.mx, timeout=30)  # the old one would wait for it
    server.take_over()
    old = server.finishing[-1]
    server.server.terminate()
    assert client.getreply()[0] == 421
    client.close()
    assert server.server.wait(60) == 0
    assert old.wait(10) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.mx)) != 0
    assert not door(server).exists()
    server.server = None


@pytest.mark.once("sqlite")
def test_old_one_finishes_also_when_the_new_one_is_killed(server):
    with server.client(SHOP) as client:
        server.take_over()
        old = server.finishing[-1]
        os.killpg(server.server.pid, signal.SIGKILL)
        server.server.wait(10)
        send(client, "nobody else is left")
        server.server = None
        server.start()  # the lock is not the old one's any more
        assert old.poll() is None
    assert old.wait(30) == 0


@pytest.mark.once("sqlite")
def test_without_a_running_one_it_just_starts(server):
    server.stop()
    server.take_over()
    until(lambda: server._greets(server.submission), what="the greeting")
    server.send(SHOP, OFFICE)


@pytest.mark.once("sqlite")
def test_detached_it_returns_when_it_serves_and_tells_the_service_manager(server, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(30)
        manager.bind(str(tmp_path / "notify"))
        done = subprocess.run(
            [*server.server.args, "--take-over", "--detach"], cwd=Path.cwd(), timeout=60, check=False,
            env=server.environment | {"NOTIFY_SOCKET": str(tmp_path / "notify")}, stderr=subprocess.DEVNULL,
        )
        assert done.returncode == 0
        facts = dict(line.split("=") for line in manager.recv(4096).decode().splitlines())
    assert server.server.wait(60) == 0
    server.server = None
    assert facts["READY"] == "1"
    pid = int(facts["MAINPID"])
    assert (server.data / "run" / "mailserver.lock").read_text() == f"{pid}\n"
    server.send(SHOP, OFFICE)
    server.take_over()
    until(lambda: not Path(f"/proc/{pid}").exists(), what="the detached one's end")


@pytest.mark.once("sqlite")
def test_sockets_of_the_service_manager_are_served(server):
    server.stop()
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind(("127.0.0.1", server.mx))
        port.listen(16)
        early = socket.create_connection(("127.0.0.1", server.mx), timeout=30)  # as one that started it by connecting
        script = (
            "import os, sys\nos.dup2(int(sys.argv[1]), 3)\nos.set_inheritable(3, True)\n"
            "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'mailserver'])\n"
        )
        with server.log.open("ab") as log:
            server.server = subprocess.Popen(
                [os.sys.executable, "-c", script, str(port.fileno())], env=server.environment, stdout=log, stderr=log,
                pass_fds=[port.fileno()], start_new_session=True,
            )
        assert early.recv(4) == b"220 "
        early.close()
        for _ in range(12):
            with smtplib.SMTP("127.0.0.1", server.mx, timeout=30) as client:
                assert client.noop()[0] == 250
        server.take_over()
        for _ in range(12):
            with smtplib.SMTP("127.0.0.1", server.mx, timeout=30) as client:
                assert client.noop()[0] == 250
    server.stop()
