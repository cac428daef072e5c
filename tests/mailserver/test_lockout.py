"""Lockouts and login events, through authd's real socket and on both databases: who is stopped, who isn't."""

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count

import pytest
from django.utils import timezone

from mailserver import directory, hashing, lockout, login_events
from mailserver.authenticator import Authenticator
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.directory import DirectoryUnavailable, LoginFact, login_history
from mailserver.login_events import LoginEvents
from panel.mailboxes.models import LoginEvent, Mailbox
from panel.rules.lockout import MOST_GUESSES, Lock
from panel.rules.status import Status
from panel.tenants.models import Tenant
from tests.support import world
from tests.support.authd import (  # noqa: F401 (fixtures)
    IP,
    Hasher,
    House,
    demo_mailbox,
    held_hasher,
    own_config,
    running,
    running_house,
    task_connection,
)
from tests.support.database import database_gone
from tests.support.postgres import Postgres
from tests.support.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

ATTACKER = "203.0.113.66"
SHOP = "shop@demo.test"
EACH = MOST_GUESSES[Lock.ACCOUNT_FROM_NETWORK]
_numbers = count()


@pytest.fixture
async def quick(config: Config, hasher: Hasher) -> AsyncIterator[House]:
    """authd with a hasher that tells what it was asked."""
    hasher.opened.set()
    async with running(config) as made:
        yield made


async def guess(house: House, login: str = SHOP, ip: str = ATTACKER, times: int = 1) -> list[str]:
    """The verdicts on so many different wrong passwords, one after the other."""
    client = house.clients[0] if house.clients else house.client()
    return [(await client.ask(login, f"guess {next(_numbers)}", ip)).verdict for _ in range(times)]


def written() -> list[LoginEvent]:
    return list(LoginEvent.objects.order_by("pk"))


def logged_in_before(mailbox: Mailbox, ip: str, **fields: object) -> LoginEvent:
    now = timezone.now()
    return world.login_event(mailbox, ip=ip, **{"at": now, "last_at": now, **fields})


# Who is stopped


async def test_account_is_locked_for_the_network_that_guesses_and_nothing_is_hashed(quick: House, hasher: Hasher):
    assert await guess(quick, times=EACH) == ["wrong"] * EACH
    hashed = list(hasher.asked)
    assert await guess(quick, times=3) == ["locked"] * 3
    assert (await quick.ask(password=world.PASSWORD, ip=ATTACKER)).verdict == "locked", "the right one is locked too"
    assert hasher.asked == hashed
    assert (await quick.ask(ip=IP)).verdict == "ok"


async def test_unknown_account_is_locked_like_a_known_one(quick: House):
    assert await guess(quick, "nobody@demo.test", times=EACH + 1) == ["wrong"] * EACH + ["locked"]
    assert await guess(quick, "no address", times=EACH + 1) == ["wrong"] * EACH + ["locked"]


async def test_lockout_is_one_for_all_protocols(quick: House):
    await guess(quick, times=EACH)
    for protocol in ("submission", "imap", "pop3", "sieve"):
        assert (await quick.ask(ip=ATTACKER, protocol=protocol)).verdict == "locked"


async def test_same_wrong_password_again_is_no_guess(quick: House):
    for _ in range(3 * EACH):
        assert (await quick.ask(password="the old one", ip=ATTACKER)).verdict == "wrong"
    assert (await quick.ask(ip=ATTACKER)).verdict == "ok"


async def test_frozen_password_counts_like_a_wrong_one(quick: House, demo: Mailbox):
    _, secret = world.app_password(demo, frozen_at=timezone.now())
    assert (await quick.ask(password=secret, ip=ATTACKER)).verdict == "wrong"
    assert await guess(quick, times=EACH) == ["wrong"] * (EACH - 1) + ["locked"]


async def test_right_password_that_is_told_its_reason_does_not_count(quick: House, demo: Mailbox):
    secrets = [world.app_password(demo, f"app {n}", scopes=("imap",))[1] for n in range(EACH + 1)]
    assert {(await quick.ask(password=secret)).verdict for secret in secrets} == {"scope"}


async def spray(house: House, ip: str = ATTACKER) -> None:
    """Wrong passwords for many accounts, until the network is locked."""
    for number in range(MOST_GUESSES[Lock.NETWORK]):
        assert await guess(house, f"x{number}@demo.test", ip) == ["wrong"]


async def distribute(house: House) -> None:
    """Wrong passwords for one account from many networks, until the account is locked."""
    for number in range(MOST_GUESSES[Lock.ACCOUNT]):
        assert await guess(house, ip=f"198.51.100.{number}") == ["wrong"]


async def test_network_that_tries_many_accounts_is_locked_for_all(quick: House):
    await spray(quick)
    assert await guess(quick, "office@demo.test") == ["locked"]
    assert (await quick.ask(ip=ATTACKER)).verdict == "locked"
    assert (await quick.ask(ip=IP)).verdict == "ok"


async def test_guesses_sent_at_once_are_no_more_than_guesses_sent_in_turn(config: Config, hasher: Hasher):
    """Those that wait when the lock begins are not looked at any more."""
    async with running(config) as house:
        attacker = house.client()
        burst = [asyncio.create_task(attacker.ask(f"x{n}@demo.test", f"burst {n}", ATTACKER)) for n in range(200)]
        await until(lambda: any(task.done() for task in burst))
        hasher.opened.set()
        assert {(await task).verdict for task in burst} <= {"wrong", "locked", "unavailable"}
        await guess(house, "y@demo.test", times=MOST_GUESSES[Lock.NETWORK])
        assert len(hasher.asked) <= MOST_GUESSES[Lock.NETWORK] + 2 * hashing.AT_ONCE


async def test_account_that_logged_in_from_a_locked_network_still_does(quick: House):
    world.mailbox("office@demo.test")
    assert (await quick.ask(ip=ATTACKER)).verdict == "ok"
    await spray(quick)
    assert (await quick.ask(ip=ATTACKER)).verdict == "ok"
    assert (await quick.ask("office@demo.test", ip=ATTACKER)).verdict == "locked"


async def test_distributed_guessing_locks_the_owner_out_at_new_places_only(quick: House, hasher: Hasher):
    assert (await quick.ask(ip=IP)).verdict == "ok"
    await distribute(quick)
    hashed = len(hasher.asked)
    assert await guess(quick, ip="198.51.100.200") == ["locked"]
    assert (await quick.ask(ip="198.51.100.201")).verdict == "locked"
    assert len(hasher.asked) == hashed
    assert (await quick.ask(ip=IP)).verdict == "ok"
    # A new password from a known network is looked at as well: its owner may have forgotten it.
    assert await guess(quick, ip=IP) == ["wrong"]


@pytest.mark.parametrize("known_by", ["event", "last use"])
async def test_known_networks_are_remembered_over_a_restart(quick: House, demo: Mailbox, known_by: str):
    at = timezone.now() - timedelta(days=10)
    if known_by == "event":
        logged_in_before(demo, "2001:db8:7::1", at=at, last_at=at)
    else:
        demo.credentials.update(last_used_at=at, last_used_ip="2001:db8:7::1")
    logged_in_before(demo, "192.0.2.80", outcome="wrong")
    logged_in_before(demo, "192.0.2.81", at=at - timedelta(days=60), last_at=at - timedelta(days=60))
    await distribute(quick)
    assert (await quick.ask(ip="2001:db8:7::99")).verdict == "ok"
    assert (await quick.ask(ip="2001:db8:8::99")).verdict == "locked"
    assert (await quick.ask(ip="192.0.2.80")).verdict == "locked", "only ever wrong from there"
    assert (await quick.ask(ip="192.0.2.81")).verdict == "locked", "too long ago"


async def test_good_login_overtakes_a_flood_that_is_locked(config: Config, hasher: Hasher):
    """Order, not time: of all that the attacker sends after the lock nothing stands before the good one."""
    async with running(config) as house:
        hasher.opened.set()
        await spray(house)
        hasher.opened.clear()
        attacker = house.client()
        flood = [asyncio.create_task(attacker.ask(f"y{n}@demo.test", f"flood {n}", ATTACKER)) for n in range(300)]
        assert (await attacker.ask(SHOP, world.PASSWORD, IP)).verdict == "ok"
        assert {answer.verdict for answer in await asyncio.gather(*flood)} == {"locked"}
        assert hasher.asked[-1] == world.PASSWORD
        assert not any(password.startswith("flood") for password in hasher.asked)


async def test_flood_of_locked_logins_asks_the_database_one_at_a_time(
    quick: House, monkeypatch: pytest.MonkeyPatch
):
    await spray(quick)
    at_once, most = 0, 0
    asked = quick.directory.candidates

    async def counted(login: str) -> object:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return await asked(login)
        finally:
            at_once -= 1

    monkeypatch.setattr(quick.directory, "candidates", counted)
    client = quick.client()
    verdicts = await asyncio.gather(
        *(client.ask(f"y{n}@demo.test", "x", ATTACKER) for n in range(10 * lockout.MOST_WAITING))
    )
    assert {answer.verdict for answer in verdicts} == {"locked"}
    assert most == 1


async def test_locked_login_without_a_database_is_temporary_too(
    quick: House, cluster: Postgres | None, monkeypatch: pytest.MonkeyPatch
):
    await spray(quick)
    with database_gone(cluster, monkeypatch):
        assert (await quick.ask(ip=ATTACKER)).verdict in ("unavailable", "locked")
        assert (await quick.ask(ip=IP)).verdict == "unavailable"


# What is written


async def test_each_outcome_is_written_with_whose_it_is(config: Config, hasher: Hasher, demo: Mailbox):
    hasher.opened.set()
    app, secret = world.app_password(demo, scopes=("imap",), networks=["192.0.2.0/24"])
    async with running(config) as house:
        await house.ask()
        await house.ask(password=secret)
        await house.ask(password=secret, ip=ATTACKER, protocol="imap")
        await guess(house, ip="2001:db8::7")
        version = house.directory.version
        Mailbox.objects.update(status=Status.SUSPENDED)
        world.changed("demo.test")
        await until(lambda: house.directory.version > version)
        await house.ask()
    main = demo.credentials.get(kind="main")
    rows = written()
    assert [(row.outcome, row.ip, row.protocol, row.credential_id) for row in rows] == [
        ("ok", IP, "submission", main.pk),
        ("scope", IP, "submission", app.pk),
        ("refused", ATTACKER, "imap", app.pk),
        ("wrong", "2001:db8::7", "submission", None),
        ("suspended", IP, "submission", main.pk),
    ]
    tenant = Tenant.objects.get()
    assert {(row.mailbox_id, row.tenant_id, row.login, row.count) for row in rows} == {(demo.pk, tenant.pk, SHOP, 1)}
    assert rows[1].credential_text == 'app password "web shop"'
    assert timezone.now() - rows[0].at < timedelta(minutes=1)


async def test_repeated_logins_are_counted_in_one_row(config: Config, hasher: Hasher, demo: Mailbox):
    hasher.opened.set()
    async with running(config) as house:
        for _ in range(50):
            await house.ask()
        await guess(house, times=EACH + 40)
    rows = written()
    assert sorted((row.outcome, row.count) for row in rows) == [
        ("locked", 1), ("locked", 39), ("ok", 1), ("ok", 49), ("wrong", 1), ("wrong", EACH - 1),
    ]  # fmt: skip
    assert {row.mailbox_id for row in rows} == {demo.pk}
    assert all(row.at <= row.last_at for row in rows)


async def test_unknown_logins_are_counted_and_sampled(config: Config, hasher: Hasher):
    hasher.opened.set()
    networks = login_events.MOST_SOURCES + 10
    async with running(config) as house:
        for number in range(networks):
            await guess(house, f"nobody{number}@demo.test", f"198.51.100.{number}")
            await guess(house, f"nobody{number}@demo.test", f"198.51.100.{number}")
    rows = written()
    assert sum(row.count for row in rows) == 2 * networks
    assert len(rows) == 2 * login_events.MOST_SOURCES + 2
    assert {(row.mailbox_id, row.tenant_id) for row in rows} == {(None, None)}
    assert [row.ip for row in rows].count(None) == 2


async def test_hostile_login_name_is_written_clean(config: Config, hasher: Hasher):
    hasher.opened.set()
    async with running(config) as house:
        await house.ask("a\0b\r\n\udcff" + "x" * 5000, "wrong", ip="nowhere")
    (row,) = written()
    assert row.login == "a?b???" + "x" * 314
    assert row.ip is None


async def test_first_login_of_its_kind_is_written_at_the_next_flush(house: House):
    authenticator = Authenticator(house.directory, Clock())
    try:
        await authenticator.check(SHOP, world.PASSWORD, IP, "submission")
        await authenticator.flush()
        assert [row.outcome for row in written()] == ["ok"]
    finally:
        authenticator.close()


async def test_lost_database_delays_events_and_loses_none(
    house: House, cluster: Postgres | None, monkeypatch: pytest.MonkeyPatch
):
    authenticator = Authenticator(house.directory, Clock())
    try:
        await authenticator.check(SHOP, world.PASSWORD, IP, "submission")
        with database_gone(cluster, monkeypatch):
            await authenticator.flush()
        await authenticator.check(SHOP, world.PASSWORD, "192.0.2.8", "submission")
        await authenticator.flush()
        assert [row.ip for row in written()] == [IP, "192.0.2.8"]
    finally:
        authenticator.close()


async def test_old_events_are_deleted_in_batches_and_the_others_kept(
    config: Config, demo: Mailbox, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(login_events, "FORGOTTEN_AT_ONCE", 3)
    monkeypatch.setattr(login_events, "FORGET_PAUSE_S", 0)
    now = timezone.now()
    for days in (*range(91, 101), 89, 1):
        logged_in_before(demo, IP, at=now - timedelta(days=days), last_at=now - timedelta(days=days))
    async with running(config):
        await until(lambda: LoginEvent.objects.count() == 2)
    assert [(now - row.at).days for row in written()] == [89, 1]


async def test_slow_database_gets_each_event_once(house: House, monkeypatch: pytest.MonkeyPatch):
    """A thread that writes can't be cancelled: what is late isn't written a second time."""
    written_at_last = threading.Event()
    write = login_history.record_logins

    def slow(facts: list[LoginFact]) -> None:
        written_at_last.wait(30)
        write(facts)

    monkeypatch.setattr(login_history, "record_logins", slow)
    authenticator = Authenticator(house.directory, Clock())
    try:
        await authenticator.check(SHOP, world.PASSWORD, IP, "submission")
        with monkeypatch.context() as patched:
            patched.setattr(directory, "DEADLINE_S", 0.05)
            flushing = asyncio.ensure_future(authenticator.flush())
            done, _ = await asyncio.wait({flushing}, timeout=0.5)
            if done:  # it gave up: the next one comes
                flushing = asyncio.ensure_future(authenticator.flush())
                await asyncio.wait({flushing}, timeout=0.5)
        written_at_last.set()
        await flushing
        await authenticator.flush(everything=True)
        assert [row.ip for row in written()] == [IP]
    finally:
        written_at_last.set()
        authenticator.close()


# Coalescing, by a clock of the test's


class Recorder:
    """Stands in for the directory: keeps what it is told to record."""

    def __init__(self) -> None:
        self.rows: list[LoginFact] = []
        self.gone = False

    async def record_logins(self, facts: list[LoginFact]) -> None:
        if self.gone:
            raise DirectoryUnavailable("gone")
        self.rows += facts


class Gathering:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.recorder = Recorder()
        self.events = LoginEvents(self.recorder, lambda: self.now_s)  # type: ignore[arg-type]

    def add(self, ip: str = IP, outcome: str = "ok", mailbox_id: int | None = 1, login: str = SHOP) -> None:
        now = timezone.now()
        self.events.add(
            LoginFact(now, now, 1, login, "imap", outcome, ip, mailbox_id, None, 7 if outcome == "ok" else None)
        )

    async def flush_for(self, seconds: float, step_s: float = 5.0) -> int:
        """Flush every few seconds for so long; how many rows that gave."""
        before, end_s = len(self.recorder.rows), self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += step_s
            await self.events.flush()
        return len(self.recorder.rows) - before


@pytest.fixture
def gathering() -> Gathering:
    return Gathering()


async def test_repeat_is_written_within_its_minute(gathering: Gathering):
    gathering.add()
    assert await gathering.flush_for(5) == 1
    gathering.add()
    gathering.add()
    assert await gathering.flush_for(50) == 0
    assert await gathering.flush_for(5) == 1
    assert [row.count for row in gathering.recorder.rows] == [1, 2]
    assert await gathering.flush_for(7200) == 0


async def test_client_that_polls_all_day_costs_a_row_an_hour(gathering: Gathering):
    polls = 0
    for _ in range(24 * 12):
        gathering.add()
        polls += 1
        await gathering.flush_for(300, step_s=60)
    await gathering.events.flush(everything=True)
    assert sum(row.count for row in gathering.recorder.rows) == polls
    assert len(gathering.recorder.rows) <= 24 + 8


async def test_login_after_an_hour_of_quiet_is_written_at_once(gathering: Gathering):
    gathering.add()
    await gathering.flush_for(3700, step_s=100)
    gathering.add()
    await gathering.events.flush()
    assert [row.count for row in gathering.recorder.rows] == [1, 1]


async def test_addresses_of_one_64_are_one_kind_and_successes_of_many_networks_are_not(gathering: Gathering):
    for number in range(30):
        gathering.add(f"2001:db8::{number:x}")
        gathering.add(f"2001:db8:{number:x}::1")
    await gathering.events.flush(everything=True)
    assert len(gathering.recorder.rows) == 30 + 1
    assert sum(row.count for row in gathering.recorder.rows) == 60


async def test_attack_from_everywhere_is_bounded_in_rows_and_memory(
    gathering: Gathering, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(login_events, "MOST_KINDS", 100)
    monkeypatch.setattr(login_events, "MOST_WAITING", 500)
    gathering = Gathering()
    gathering.recorder.gone = True
    for number in range(5000):
        gathering.add(f"10.0.{number // 250}.{number % 250}", "wrong", mailbox_id=number % 400)
        if number % 1000 == 0:
            await gathering.events.flush()
    assert len(gathering.events._repeated) <= 100
    assert len(gathering.events._waiting) <= 500
    gathering.recorder.gone = False
    await gathering.events.flush(everything=True)
    assert len(gathering.recorder.rows) <= 600
    one = Gathering()
    for number in range(20_000):
        one.add(f"10.{number // 62_500}.{number // 250 % 250}.{number % 250}", "wrong", mailbox_id=1)
    await one.events.flush(everything=True)
    assert len(one.recorder.rows) <= login_events.MOST_SOURCES + 2
    assert sum(row.count for row in one.recorder.rows) == 20_000
