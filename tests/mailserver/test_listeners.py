"""The parent's ports: which socket is whose, with given ones and without."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from mailserver.config import CannotStart
from mailserver.listeners import Listeners, bound
from panel.environment import Listen
from tests.support import letters
from tests.support.postgres import free_port

pytestmark = pytest.mark.once("sqlite")


@pytest.fixture
def make(tmp_path) -> Iterator[Callable[..., Listeners]]:
    made: list[Listeners] = []

    def listeners(*mx: tuple[str, int], workers: int = 2, given: tuple[socket.socket, ...] = ()) -> Listeners:
        config = replace(
            letters.config(tmp_path), mx=tuple(Listen(*each) for each in mx), submission=(), submissions=(),
            workers=workers,
        )
        made.append(Listeners(config))
        made[-1].bind(given)
        return made[-1]

    yield listeners
    for each in made:
        each.close()


def given_by(listeners: Listeners) -> tuple[socket.socket, ...]:
    """Descriptors of the same sockets, in the order in which they are handed over."""
    return tuple(each.dup() for each in listeners.every())


def inodes(sockets) -> list[str]:
    return [os.readlink(f"/proc/self/fd/{each.fileno()}") for each in sockets]


def test_each_worker_has_a_socket_of_its_own(make):
    port = free_port()
    made = make(("127.0.0.1", port), workers=3)
    assert [len(sockets) for sockets in made.of_worker] == [1, 1, 1]
    assert len(set(inodes(made.every()))) == 3


def test_a_port_that_another_program_has_is_refused_by_its_settings_name(make):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(CannotStart, match=r"another program has this port\. Stop it, or set POSTHOUSE_MX"):
            make(other.getsockname())


def test_given_sockets_are_kept_by_the_same_workers(make):
    address = ("127.0.0.1", free_port())
    before = make(address)
    before.listen()
    after = make(address, given=given_by(before))
    assert inodes(after.every()) == inodes(before.every())


def test_more_workers_get_more_sockets_and_fewer_have_several(make):
    address = ("127.0.0.1", free_port())
    two = make(address)
    two.listen()
    three = make(address, workers=3, given=given_by(two))
    assert inodes(three.every())[:2] == inodes(two.every())
    three.listen()
    one = make(address, workers=1, given=given_by(three))
    assert inodes([each for _, each in one.of_worker[0]]) == inodes(three.every())


def test_what_is_bound_beside_a_running_one_takes_no_connection_before_it_listens(make):
    address = ("127.0.0.1", free_port())
    before = make(address, workers=1)
    before.listen()
    make(address, workers=8, given=given_by(before))
    with socket.socket() as client:
        client.settimeout(10)
        client.connect(address)
        [(_, listening)] = before.of_worker[0]
        listening.settimeout(10)
        listening.accept()[0].close()


def test_a_socket_without_reuse_is_shared_by_all_workers(make):
    with socket.socket() as passed:
        passed.bind(("127.0.0.1", 0))
        passed.listen()
        made = make(passed.getsockname(), given=(passed.dup(),))
        assert inodes(each for sockets in made.of_worker for _, each in sockets) == inodes([passed] * 2)


def test_a_wildcard_goes_on_with_the_sockets_that_it_covers(make):
    port = free_port()
    before = make(("127.0.0.1", port), workers=1)
    before.listen()
    made = make(("0.0.0.0", port), workers=1, given=given_by(before))
    names = [each.getsockname()[0] for _, each in made.of_worker[0]]
    assert names == ["0.0.0.0", "127.0.0.1"]


def test_an_address_that_no_setting_names_is_closed_when_the_new_one_listens(make):
    kept, dropped = free_port(), free_port()
    before = make(("127.0.0.1", kept), ("127.0.0.1", dropped), workers=1)
    before.listen()
    made = make(("127.0.0.1", kept), workers=1, given=given_by(before))
    before.close()
    with socket.create_connection(("127.0.0.1", dropped), timeout=10):
        pass
    made.listen()
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", dropped)) != 0
    assert [each.getsockname()[1] for each in made.every()] == [kept]


def test_bound_sockets_do_not_listen_yet():
    with bound(Listen("127.0.0.1", 0), "POSTHOUSE_MX", shared=True) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0
