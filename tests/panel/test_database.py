"""The SQLite backend's write lock: held for a transaction, and dropped whatever fails."""

import fcntl
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection, transaction
from django.db.backends.sqlite3.base import DatabaseWrapper as DjangosWrapper

from panel.database.sqlite3 import base
from panel.sending.models import Counter

pytestmark = [
    pytest.mark.django_db(transaction=True, serialized_rollback=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's engine"),
]


def is_free() -> bool:
    """Whether another process could take the lock now."""
    descriptor = os.open(f"{connection.settings_dict['NAME']}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


@pytest.fixture(autouse=True)
def clean_connection() -> Iterator[None]:
    yield
    connection.close()


def fail(*args: object) -> None:
    raise OperationalError("disk I/O error")


def test_lock_is_held_for_the_transaction_only():
    with transaction.atomic():
        assert not is_free()
        with transaction.atomic():
            assert not is_free()
        assert not is_free()
    assert is_free()


def test_lock_is_dropped_after_a_rollback():
    with pytest.raises(ZeroDivisionError):
        with transaction.atomic():
            raise ZeroDivisionError
    assert is_free()


def test_reading_and_single_writes_take_no_lock():
    Counter.objects.exists()
    Counter.objects.filter(pk=1).update(subject=2)
    assert is_free()


def test_lock_is_dropped_when_begin_raises(monkeypatch):
    monkeypatch.setattr(DjangosWrapper, "_start_transaction_under_autocommit", fail)
    with pytest.raises(OperationalError):
        with transaction.atomic():
            raise AssertionError("never entered")
    assert is_free()


def test_lock_is_dropped_when_commit_raises(monkeypatch):
    with pytest.raises(OperationalError):
        with transaction.atomic():
            monkeypatch.setattr(DjangosWrapper, "_commit", fail)
    assert is_free()
    monkeypatch.undo()
    with transaction.atomic():
        assert Counter.objects.count() == 0


def test_lock_is_dropped_when_commit_and_rollback_raise(monkeypatch):
    with pytest.raises(OperationalError):
        with transaction.atomic():
            monkeypatch.setattr(DjangosWrapper, "_commit", fail)
            monkeypatch.setattr(DjangosWrapper, "_rollback", fail)
    assert is_free()


def test_lock_is_dropped_when_the_connection_is_closed_inside_a_transaction():
    with transaction.atomic():
        Counter.objects.create(kind=1, subject=1, rings=b"")
        connection.close()
        assert is_free()
    assert is_free()
    assert Counter.objects.count() == 0


def test_lock_is_dropped_when_closing_raises(monkeypatch):
    with transaction.atomic():
        monkeypatch.setattr(DjangosWrapper, "_close", fail)
        with pytest.raises(OperationalError):
            connection.close()
        assert is_free()
        connection.connection.close()  # for real


def test_another_thread_that_closes_the_connection_drops_nothing():
    errors: list[BaseException] = []
    mine = connection._connections[connection._alias]  # the wrapper itself, not this thread's proxy

    def close() -> None:
        try:
            mine.close()
        except BaseException as error:
            errors.append(error)

    with transaction.atomic():
        thread = threading.Thread(target=close)
        thread.start()
        thread.join(10)
        assert errors
        assert not is_free()
    assert is_free()


def test_no_turn_within_the_deadline_is_an_operational_error(monkeypatch):
    monkeypatch.setattr(base, "LOCK_TIMEOUT_S", 0.05)
    held = os.open(f"{connection.settings_dict['NAME']}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OperationalError, match="no turn"):
            with transaction.atomic():
                raise AssertionError("never entered")
    finally:
        os.close(held)
    with transaction.atomic():
        Counter.objects.exists()


def test_child_neither_drops_nor_keeps_its_parents_lock():
    reader, writer = os.pipe()
    with transaction.atomic():
        child = os.fork()
        if child == 0:  # pragma: no cover
            # Stays alive, with whatever it inherited, until the parent closes the pipe.
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
        assert not is_free()
    assert is_free()
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_lock_of_a_parent_that_dies_is_free_though_its_child_lives():
    ready, tell = os.pipe()
    stay, let_go = os.pipe()
    parent = os.fork()
    if parent == 0:  # pragma: no cover
        os.close(let_go)
        connection.connection = None  # the test's own stays the test's
        transaction.atomic().__enter__()
        if os.fork() == 0:
            os.read(stay, 1)
        else:
            os.write(tell, b"x")
        os._exit(0)
    os.read(ready, 1)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 5
    while not is_free():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for descriptor in (ready, tell, stay, let_go):
        os.close(descriptor)


def _raise_counter(turns: int) -> None:
    for _ in range(turns):
        with transaction.atomic():
            counter = Counter.objects.get(kind=1, subject=1)
            counter.rings = str(int(bytes(counter.rings)) + 1).encode()
            counter.save(update_fields=["rings"])


def test_processes_take_turns():
    """Read, compute, write, four at once: none of it is lost, nobody meets SQLITE_BUSY."""
    Counter.objects.create(kind=1, subject=1, rings=b"0")
    connection.close()
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=_raise_counter, args=(50,)) for _ in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0] * 4
    assert bytes(Counter.objects.get().rings) == b"200"
