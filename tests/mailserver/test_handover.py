"""What one mailserver hands to the next, over a real socket; and what a service manager passes and is told."""

import os
import select
import signal
import socket
import stat
import threading
from collections.abc import Iterator

import pytest

from mailserver import handover, kernel, systemd
from mailserver.config import CannotStart
from mailserver.handover import Handed, Predecessor, Successor

pytestmark = pytest.mark.once("sqlite")


@pytest.fixture
def door(tmp_path) -> Iterator[socket.socket]:
    with handover.listen(tmp_path / "run" / "take-over.sock") as listening:
        listening.settimeout(10)
        yield listening


@pytest.fixture
def pair(door) -> Iterator[tuple[Successor, Predecessor]]:
    predecessor = Predecessor.find(door.getsockname())
    assert predecessor
    successor = Successor(door.accept()[0])
    yield successor, predecessor
    successor.close()
    predecessor.close()


def test_everything_arrives_also_more_than_one_message_of_the_kernel_carries(pair):
    successor, predecessor = pair
    ports = [socket.socket() for _ in range(300)]
    for each in ports:
        each.bind(("127.0.0.1", 0))
    lock = os.open("/dev/null", os.O_RDONLY)
    unix = socket.socket(socket.AF_UNIX)
    given = Handed(pid=7, version="1.2", clock_offset_s=3.5, lock=lock, ports=ports, doors={"authd.sock": unix})
    # Each message is read as it comes: all of them don't fit into the socket.
    giving = threading.Thread(target=successor.give, args=(given,))
    giving.start()
    handed = predecessor.receive()
    giving.join(10)
    assert (handed.pid, handed.version, handed.clock_offset_s) == (7, "1.2", 3.5)
    assert [each.getsockname() for each in handed.ports] == [each.getsockname() for each in ports]
    assert os.fstat(handed.lock).st_rdev == os.stat("/dev/null").st_rdev
    assert list(handed.doors) == ["authd.sock"]
    assert not any(os.get_inheritable(each.fileno()) for each in handed.ports)
    handed.close()
    given.close()


def test_a_refusal_is_the_sentence(pair):
    successor, predecessor = pair
    successor.refuse("process 5 is taking over already; wait for its end.")
    with pytest.raises(CannotStart, match="can't take over: process 5 is taking over already"):
        predecessor.receive()


def test_an_end_in_the_middle_is_no_hand_over(pair):
    successor, predecessor = pair
    successor.close()
    with pytest.raises(ConnectionError):
        predecessor.receive()


def test_words_are_told_from_the_end(pair):
    successor, predecessor = pair
    predecessor.tell_taken()
    assert successor.said() == "taken"
    predecessor.tell_to_stop()
    assert successor.said() == "stop"
    successor.tell_of_stop()
    assert predecessor.is_stopping()
    successor.close()
    assert not predecessor.is_stopping()
    predecessor.tell_taken()  # to nobody: not an error


def test_another_user_is_refused_on_both_sides(door, monkeypatch):
    own = Predecessor.find(door.getsockname())
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PermissionError):
        Successor(door.accept()[0])
    with pytest.raises(CannotStart, match="another user's"):
        Predecessor.find(door.getsockname())
    own.close()


def test_nobody_there_is_nobody_to_take_over_from(tmp_path):
    assert Predecessor.find(tmp_path / "take-over.sock") is None
    handover.listen(tmp_path / "take-over.sock").close()
    assert Predecessor.find(tmp_path / "take-over.sock") is None


def test_the_socket_is_its_users_alone(door):
    assert stat.S_IMODE(os.stat(door.getsockname()).st_mode) == 0o600


def test_signals_are_read_like_a_file():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signals = kernel.Signals({signal.SIGUSR1, signal.SIGTERM})
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        select.select([signals], [], [], 10)
        os.write(writer, bytes(sorted(signals.take())))
        os._exit(0 if signals.take() == set() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reader, 10) == bytes([10, 15])
    os.close(reader)
    os.close(writer)


def test_sockets_for_another_process_are_not_taken(monkeypatch):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert systemd.sockets() == []
    assert "LISTEN_FDS" not in os.environ


def test_service_manager_is_told_and_its_absence_is_no_error(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify(READY=1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        systemd.notify(MAINPID=5, READY=1)
        assert manager.recv(100) == b"MAINPID=5\nREADY=1"
    systemd.notify(STOPPING=1)  # it has gone
