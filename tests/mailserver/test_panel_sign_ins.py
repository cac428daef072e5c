"""The panel's sign-ins and mail logins count together, over authd's real socket."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from django.db import connections

from mailserver.config import Config
from panel import environment
from panel.mailboxes.models import LoginEvent
from panel.rules.lockout import MOST_GUESSES, WINDOW_S, Lock
from panel.rules.sign_in import Act, Question, Standing
from panel.tenants.models import WrongSignIn
from panel.tenants.sign_in import authd, lockout
from tests.support.authd import (  # noqa: F401 (fixtures)
    House,
    demo_mailbox,
    held_hasher,
    own_config,
    running,
    running_house,
    task_connection,
)

pytestmark = pytest.mark.django_db(transaction=True)

ATTACKER = "203.0.113.66"
OWNER, SHOP = "owner@provider.test", "shop@demo.test"
EACH = MOST_GUESSES[Lock.ACCOUNT_FROM_NETWORK]
_numbers = count()
Result = TypeVar("Result")


@pytest.fixture(autouse=True)
def same_data(settings, config: Config) -> None:
    """The panel and authd look into one data folder."""
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, data=config.data)


async def panel(act: Callable[..., Result], *arguments: object) -> Result:
    """As a thread of the panel does it, while authd has the event loop."""

    def run() -> Result:
        try:
            return act(*arguments)
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)


async def wrong_in_the_panel(times: int, login: str = OWNER, ip: str = ATTACKER) -> None:
    for _ in range(times):
        await panel(lockout.wrong, login, ip, f"guess {next(_numbers)}")


async def wrong_in_mail(house: House, times: int, login: str, ip: str = ATTACKER) -> None:
    for _ in range(times):
        await house.ask(login, f"guess {next(_numbers)}", ip)


async def test_wrong_passwords_of_the_panel_lock_the_network_for_mail(house: House, hasher):
    hasher.opened.set()
    for number in range(3):
        await wrong_in_the_panel(EACH, f"n{number}@provider.test")
    assert (await house.ask(ip=ATTACKER)).verdict == "locked"
    assert (await house.ask()).verdict == "ok", "another network"


async def test_wrong_passwords_of_mail_lock_the_network_for_the_panel(hasher, config: Config):
    hasher.opened.set()
    async with running(config) as house:
        for number in range(3):
            await wrong_in_mail(house, EACH, f"n{number}@demo.test")
        assert 0 < await panel(lockout.wait_s, OWNER, ATTACKER) <= WINDOW_S
        assert await panel(lockout.wait_s, OWNER, "192.0.2.1") == 0


async def test_one_login_name_is_one_account_here_and_there(house: House, hasher):
    hasher.opened.set()
    await wrong_in_the_panel(EACH, " SHOP@demo.test")
    assert (await house.ask(ip=ATTACKER)).verdict == "locked"


async def test_authd_counts_and_the_database_is_not_written(house: House):
    await wrong_in_the_panel(EACH)
    assert await panel(lockout.wait_s, OWNER, ATTACKER) > 0
    assert not await panel(WrongSignIn.objects.exists)


async def test_an_account_that_came_in_from_a_network_is_spared_there(house: House):
    await panel(lockout.right, OWNER, ATTACKER)
    for number in range(3):
        await wrong_in_the_panel(EACH, f"n{number}@provider.test")
    assert await panel(lockout.wait_s, OWNER, ATTACKER) == 0
    answer = await panel(authd.ask, Question(Act.MAY, "other@provider.test", ATTACKER))
    assert answer.standing is Standing.STRANGERS


async def test_wrong_and_locked_sign_ins_are_login_events_that_no_tenant_sees(config: Config):
    async with running(config):
        await wrong_in_the_panel(EACH)
        await panel(lockout.wait_s, OWNER, ATTACKER)
        await panel(lockout.right, OWNER, "192.0.2.1")
    events = await panel(lambda: list(LoginEvent.objects.order_by("pk")))
    assert {(each.outcome, each.protocol, each.login, each.ip) for each in events} == {
        ("wrong", "panel", OWNER, ATTACKER), ("locked", "panel", OWNER, ATTACKER),
    }
    assert sum(each.count for each in events) == EACH + 1
    assert {(each.mailbox_id, each.tenant_id) for each in events} == {(None, None)}


@pytest.mark.parametrize("line", [
    b'{"id":1,"protocol":"panel"}', b'{"id":1,"protocol":"panel","act":"open","login":"a","ip":"","guess":""}',
    b'{"id":1}', b"[]", b"7", b'"id"',
])
async def test_a_question_that_makes_no_sense_ends_the_connection(house: House, line: bytes):
    reader, writer = await asyncio.open_unix_connection(str(environment.authd_socket(house.config.data)))
    writer.write(line + b"\n")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert await panel(authd.ask, Question(Act.MAY, OWNER, ATTACKER)) is not None, "others are answered"


# An authd that isn't one


class Hanging:
    """Listens where authd does, and says `answer` to whoever asks; without one it says nothing."""

    def __init__(self, path: Path, answer: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._answer = answer
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
                connection.sendall(self._answer)
            except OSError:
                return
            self._kept.append(connection)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._kept:
            each.close()


NONSENSE = {"hangs": b"", "odd": b"no json\n", "half": b'{"standing":"open"}\n', "long": b"x" * 10_000}


@pytest.fixture(params=NONSENSE.values(), ids=list(NONSENSE))
def hanging(request, config: Config, monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(authd, "DEADLINE_S", 0.05)
    made = Hanging(environment.authd_socket(config.data), request.param)
    yield
    made.close()


@pytest.mark.usefixtures("hanging")
async def test_an_authd_that_hangs_or_talks_nonsense_is_none_and_the_database_counts():
    assert await panel(lockout.wait_s, OWNER, ATTACKER) == 0
    await wrong_in_the_panel(EACH)
    assert await panel(WrongSignIn.objects.count) == EACH
    assert await panel(lockout.wait_s, OWNER, ATTACKER) > 0
