"""A worker's start and stop, and the parent's: clock, ids, sockets."""

import asyncio
import errno
import fcntl
import os
import signal
import socket
import ssl
import sys
from types import SimpleNamespace

import pytest

from mailserver import __main__ as parent
from mailserver import worker as module
from mailserver.clock import Clock
from mailserver.config import CannotStart
from mailserver.envelope import Listener
from mailserver.gate import Gate
from mailserver.listeners import bound
from mailserver.numbers import number_for_ids
from mailserver.worker import Worker
from panel.environment import Listen
from tests.support import letters

FOREVER_S = 3600.0


@pytest.fixture
def config(tmp_path):
    made = letters.config(tmp_path)
    made.run.mkdir(parents=True)
    return made


async def forever() -> None:
    await asyncio.sleep(FOREVER_S)


async def nothing() -> None:
    pass


def test_worker_goes_on_with_the_parents_clock(config, monkeypatch):
    """Also one that is started again: a clock that jumped would take others' leases for lapsed."""
    clocks = []
    monkeypatch.setattr(module, "run", lambda config, context, clock, **_: clocks.append(clock))
    made = parent.Parent(config)
    for number in (0, 0, 1):
        made.worker_body(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), 1, number, Gate())
    assert clocks == [made.clock] * 3
    assert Worker(config, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), made.clock, node=1, number=0, of_ids=5).clock is (
        made.clock
    )


def test_two_live_workers_never_make_ids_with_one_number(config):
    """The workers of a parent that was killed finish what they are at, while the next one's begin."""
    reader, writer = os.pipe()
    ended, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, bytes([number_for_ids(config.run)]))
        os.close(end)
        os.read(ended, 1)
        os._exit(0)
    assert os.read(reader, 1)[0] == 0
    assert number_for_ids(config.run) == 1
    os.close(end)
    os.waitpid(child, 0)
    assert number_for_ids(config.run) == 0
    for descriptor in (reader, writer, ended):
        os.close(descriptor)


def test_number_that_is_not_left_is_a_sentence(config, monkeypatch):
    monkeypatch.setattr(sys.modules[number_for_ids.__module__], "WORKERS", 0)
    with pytest.raises(CannotStart, match="processes of this node are running"):
        number_for_ids(config.run)


def test_leases_are_taken_back_from_who_died_since_the_last_look_and_from_nobody_else(config, monkeypatch):
    made = Worker(config, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Clock(), node=0, number=0, of_ids=5)
    taken: list[str] = []
    monkeypatch.setattr(made.runner, "take_back", taken.append)
    (config.run / "ids-1.lock").touch()  # died before we began
    with (config.run / "ids-2.lock").open("w") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        made.take_back()
        assert taken == ["0-1"]
        made.take_back()
        assert taken == ["0-1"]
    made.take_back()
    made.take_back()
    assert taken == ["0-1", "0-2"]


def test_number_is_within_the_ids_that_a_worker_makes(config):
    made = Worker(config, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Clock(), node=3, number=0, of_ids=5)
    assert made.ids.next() >> 10 & 0xFFF == 3 << 6 | 5


@pytest.fixture
def handlers():
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_queue_stops_while_sessions_still_end(config, monkeypatch, handlers):
    """One after the other they could take twice as long as the parent waits before it kills."""
    made = Worker(config, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Clock(), node=1, number=1, of_ids=1)
    stopped = asyncio.Event()

    async def stop() -> None:
        stopped.set()

    async def life() -> None:
        serving = asyncio.create_task(made.serve([]))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(10):
            await serving

    monkeypatch.setattr(made, "intake", SimpleNamespace(start=lambda loop: None, stop=lambda: None))
    monkeypatch.setattr(made, "runner", SimpleNamespace(run=nothing, stop=stop))
    monkeypatch.setattr(made, "directory", SimpleNamespace(follow=forever))
    monkeypatch.setattr(made, "keep_house", lambda: None)
    monkeypatch.setattr(made, "drain", stopped.wait)
    asyncio.run(life())


async def test_session_that_begins_during_the_stop_ends_as_well(config):
    made = Worker(config, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Clock(), node=1, number=1, of_ids=1)
    sessions = made.services.sessions

    class Ending:
        def drain(self) -> None:
            sessions.discard(self)

    class Handing(Ending):
        def drain(self) -> None:
            super().drain()
            sessions.add(Ending())

    sessions.add(Handing())
    async with asyncio.timeout(10):
        await made.drain()


def test_who_connects_during_the_stop_is_refused_at_once(config, monkeypatch):
    """The parent's sockets would let it wait for a greeting until the last session ends."""
    made = parent.Parent(config)
    free = bound(Listen("127.0.0.1", 0), "POSTHOUSE_MX", shared=True)
    port = free.getsockname()[1]
    made.listeners.of_worker = [[(Listener.MX, free)]]
    made.listeners.listen()
    made.children = [parent.Child("authd", lambda gate: None)]
    answers = []

    def end(children, within_s) -> None:
        with socket.socket() as client:
            client.settimeout(30)
            answers.append(client.connect_ex(("127.0.0.1", port)))

    monkeypatch.setattr(made, "end", end)
    made.stop()
    assert answers == [errno.ECONNREFUSED] * 2
