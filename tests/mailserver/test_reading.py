"""Sessions that Dovecot opened with our yes: whose end. On both databases."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from mailserver import doveadm, lua_protocol, reading
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.directory import EVERY_TENANT, DirectoryUnavailable
from mailserver.reading import Sessions
from panel.mailboxes import passwords
from panel.mailboxes.models import Credential, Mailbox
from panel.operations.dovecot.place import kick_socket
from panel.rules.addresses import parse_address
from panel.rules.status import Status
from panel.tenants.models import SecondFactor, Tenant, User
from tests.support import world
from tests.support.authd import House, demo_mailbox, own_config, running, task_connection  # noqa: F401 (fixtures)
from tests.support.doveadm import DONE, Doveadm, doveadm_on
from tests.support.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

SHOP, OFFICE = "shop@demo.test", "office@demo.test"


@pytest.fixture(name="config")
def config_with_a_short_path(config: Config, open_folder: Path) -> Config:
    return replace(config, data=open_folder)


@pytest.fixture(name="dovecot")
async def scripted_doveadm(config: Config) -> AsyncIterator[Doveadm]:
    async with doveadm_on(kick_socket(config.data)) as made:
        yield made


@pytest.fixture(name="house")
async def quick_house(
    config: Config, dovecot: Doveadm, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    monkeypatch.setattr(Sessions.__init__, "__defaults__", (0.05,))
    async with running(config) as made:
        yield made


async def log_in(house: House, login: str = SHOP, password: str = world.PASSWORD, protocol: str = "imap") -> None:
    reader, writer = await asyncio.open_unix_connection(house.config.dovecot_socket)
    writer.write(f"P\t{protocol}\t192.0.2.7\t{login}\t{password}\n".encode())
    assert (await reader.readline()) == lua_protocol.found({"user": login, "nopassword": "y"})
    writer.close()


ENDINGS = {
    "mailbox suspended": lambda: Mailbox.objects.filter(address__local_part="shop").update(status=Status.SUSPENDED),
    "mailbox closed": lambda: Mailbox.objects.filter(address__local_part="shop").update(status=Status.CLOSED),
    "password changed": lambda: main().update(secret=passwords.hash_main("another one")),
    "credential frozen": lambda: main().update(frozen_at=timezone.now()),
    "second factor": lambda: SecondFactor.objects.create(
        user=User.objects.get(mailbox__address__local_part="shop")
    ),
    "credential gone": lambda: main().delete(),
    "expired": lambda: main().update(expires_at=timezone.now() - timedelta(seconds=1)),
    "from elsewhere": lambda: main().update(networks=["198.51.100.0/24"]),
}


def main():
    return Credential.objects.filter(kind="main", mailbox__address__local_part="shop")


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_session_ends_with_the_right_to_log_in_and_no_other_does(house: House, dovecot: Doveadm, ending: str):
    world.mailbox(OFFICE)
    await log_in(house)
    await log_in(house, OFFICE)
    ENDINGS[ending]()
    world.changed("demo.test")
    taken_s = await until(lambda: len(dovecot.asked) == 2)
    print(f"{ending}: kicked twice, {taken_s:.2f} s after the change (promise: 2 s for the first)")
    assert dovecot.kicked == {SHOP}


async def test_a_suspended_tenants_sessions_end_and_another_tenants_go_on(house: House, dovecot: Doveadm):
    other = world.tenant("Other")
    world.domain("other.test", other)
    world.mailbox("ann@other.test", other)
    world.mailbox(OFFICE)
    for login in (SHOP, OFFICE, "ann@other.test"):
        await log_in(house, login)
    Tenant.objects.filter(name="Demo").update(status=Status.SUSPENDED)
    world.changed()
    await until(lambda: len(dovecot.asked) == 4)
    assert dovecot.kicked == {SHOP, OFFICE}


async def test_a_scope_that_is_taken_away_ends_what_it_opened(house: House, dovecot: Doveadm, demo: Mailbox):
    credential, secret = world.app_password(demo, scopes=("imap", "pop3"))
    await log_in(house, password=secret, protocol="pop3")
    Credential.objects.filter(pk=credential.pk).update(scopes=["imap"])
    world.changed("demo.test")
    await until(lambda: dovecot.kicked == {SHOP})


async def test_a_session_ends_when_its_password_expires_which_nobody_tells(house: House, demo: Mailbox):
    kicked: set[str] = set()

    async def kick(logins) -> None:
        kicked.update(logins)

    credential, _ = world.app_password(demo, scopes=("imap",))
    Credential.objects.filter(pk=credential.pk).update(expires_at=timezone.now() + timedelta(hours=1))
    known = await house.directory.login(credential.pk)
    clock = Clock()
    let_in, taken_up = (Sessions(house.directory, clock, kick, 0.01) for _ in range(2))
    let_in.opened(known, known.fingerprint, protocol="imap", ip="192.0.2.7", version=house.directory.version)
    house.config.run.mkdir(exist_ok=True)
    let_in.leave(house.config.run)
    for left in reading._left_in(house.config.run):
        taken_up._take(left)
    for sessions in (let_in, taken_up):
        kicked.clear()
        following = asyncio.create_task(sessions.follow())
        await until(lambda sessions=sessions: len(sessions._expires) == 1)
        assert not kicked
        later = Clock(clock.offset_s + 3601)
        sessions._clock = later
        await until(lambda: kicked == {SHOP})
        following.cancel()
        await asyncio.wait([following])
        assert len(sessions) == len(sessions._expires) == 0


async def test_a_change_that_forbids_nothing_ends_nothing(house: House, dovecot: Doveadm):
    await log_in(house)
    version = house.directory.version
    world.mailbox(OFFICE)
    await log_in(house, OFFICE)
    world.changed("demo.test")
    await until(lambda: house.directory.version > version)
    # What comes after it shows that it has been looked at.
    Mailbox.objects.filter(address__local_part="office").update(status=Status.SUSPENDED)
    world.changed("demo.test")
    await until(lambda: bool(dovecot.asked))
    assert dovecot.kicked == {OFFICE}


async def test_a_kick_that_failed_is_tried_again(house: House, dovecot: Doveadm):
    await log_in(house)
    dovecot.answer = b"-\n"
    Mailbox.objects.update(status=Status.SUSPENDED)
    world.changed("demo.test")
    await until(lambda: len(dovecot.asked) == 1)
    dovecot.answer = DONE
    await until(lambda: len(dovecot.asked) == 3)


async def test_a_tenant_of_many_is_kicked_in_calls_that_come_to_an_end(house: House, demo: Mailbox):
    calls: list[set[str]] = []
    under_way = [0]

    async def kick(logins) -> None:
        under_way[0] += 1
        assert under_way[0] <= reading.MOST_CALLS
        await asyncio.sleep(0)
        calls.append(set(logins))
        under_way[0] -= 1

    known = await house.directory.login(demo.credentials.get(kind="main").pk)
    sessions = Sessions(house.directory, Clock(), kick, 0.01)
    users = {f"user{number}@demo.test" for number in range(10 * reading.KICKED_AT_ONCE + 1)}
    for user in users:
        other = replace(known, address=parse_address(user))
        sessions.opened(other, known.fingerprint, protocol="imap", ip="192.0.2.7", version=-1)
    Mailbox.objects.update(status=Status.SUSPENDED)
    following = asyncio.create_task(sessions.follow())
    await until(lambda: len(calls) == 22)
    assert set().union(*calls) == users
    assert max(len(call) for call in calls) == reading.KICKED_AT_ONCE
    await until(lambda: not sessions._ending)
    following.cancel()


async def test_a_lost_database_ends_nothing_and_is_asked_again(
    house: House, dovecot: Doveadm, monkeypatch: pytest.MonkeyPatch
):
    asked: list[object] = []
    readers = house.directory.readers

    async def gone_twice(credential_ids):
        asked.append(credential_ids)
        if len(asked) < 3:
            raise DirectoryUnavailable("away")
        assert not dovecot.asked
        return await readers(credential_ids)

    monkeypatch.setattr(house.directory, "readers", gone_twice)
    await log_in(house)
    Mailbox.objects.update(status=Status.SUSPENDED)
    world.changed("demo.test")
    await until(lambda: dovecot.kicked == {SHOP})
    assert len(asked) == 3


async def test_a_login_that_was_decided_on_before_a_change_and_comes_after_it_ends(house: House, demo: Mailbox):
    kicked: set[str] = set()

    async def kick(logins) -> None:
        kicked.update(logins)

    credential = demo.credentials.get(kind="main")
    known = await house.directory.login(credential.pk)
    before = house.directory.version
    Mailbox.objects.update(status=Status.SUSPENDED)
    world.changed("demo.test")
    await until(lambda: house.directory.version > before)
    sessions = Sessions(house.directory, Clock(), kick, 0.01)
    following = asyncio.create_task(sessions.follow())
    await asyncio.sleep(0)  # its first look, at nothing
    sessions.opened(known, known.fingerprint, protocol="imap", ip="192.0.2.7", version=before)
    await until(lambda: kicked == {SHOP})
    assert len(sessions) == 0
    following.cancel()


async def test_what_is_remembered_has_a_bound(house: House, demo: Mailbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "MOST_SESSIONS", 3)
    known = await house.directory.login(demo.credentials.get(kind="main").pk)
    sessions = Sessions(house.directory, Clock(), doveadm.kick)
    for number in range(5):
        for _ in range(2):
            sessions.opened(known, known.fingerprint, protocol="imap", ip=f"192.0.2.{number}", version=1)
    assert [session.ip for session in sessions._open] == ["192.0.2.2", "192.0.2.3", "192.0.2.4"]
    assert sessions._groups.keys() == {("demo.test", known.tenant_id, EVERY_TENANT)}
    [group] = sessions._groups.values()
    assert group.sessions == set(sessions._open)


# From one authd to the next


async def test_what_an_authd_let_in_the_next_one_ends(
    config: Config, dovecot: Doveadm, demo: Mailbox, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Sessions.__init__, "__defaults__", (0.05,))
    world.mailbox(OFFICE)
    async with running(config) as house:
        await log_in(house)
        await log_in(house, OFFICE)
    assert [path.stat().st_mode & 0o777 for path in config.run.glob(reading.LEFT)] == [0o600]
    Mailbox.objects.filter(pk=demo.pk).update(status=Status.SUSPENDED)
    world.changed("demo.test")
    async with running(config):
        await until(lambda: dovecot.kicked == {SHOP})
        assert not list(config.run.glob("sessions-*"))
    async with running(config):
        Mailbox.objects.update(status=Status.SUSPENDED)
        world.changed("demo.test")
        await until(lambda: dovecot.kicked == {SHOP, OFFICE})


async def test_what_another_authd_leaves_while_this_one_runs_is_ended_here(
    house: House, dovecot: Doveadm, demo: Mailbox
):
    known = await house.directory.login(demo.credentials.get(kind="main").pk)
    before = Sessions(house.directory, Clock(), doveadm.kick)
    before.opened(known, known.fingerprint, protocol="imap", ip="192.0.2.7", version=house.directory.version)
    before.leave(house.config.run)
    await until(lambda: not list(house.config.run.glob(reading.LEFT)))
    assert not dovecot.asked
    Mailbox.objects.update(status=Status.SUSPENDED)
    world.changed("demo.test")
    await until(lambda: dovecot.kicked == {SHOP})


async def test_a_kick_that_authds_end_cuts_short_is_the_next_ones(
    config: Config, dovecot: Doveadm, demo: Mailbox, monkeypatch: pytest.MonkeyPatch
):
    async with running(config) as house:
        await log_in(house)
        dovecot.answer = b"-\n"
        Mailbox.objects.update(status=Status.SUSPENDED)
        world.changed("demo.test")
        await until(lambda: len(dovecot.asked) == 1)
    monkeypatch.setattr(Sessions.__init__, "__defaults__", (0.05,))
    dovecot.answer = DONE
    async with running(config):
        await until(lambda: len(dovecot.asked) == 3)


async def test_what_nobody_can_read_is_removed_and_ends_nothing(house: House, dovecot: Doveadm):
    house.config.run.mkdir(exist_ok=True)
    for number, text in enumerate(("", "[[1]]", '{"a": 1}', '[["a", "b", "c", "d", "e"]]')):
        (house.config.run / f"sessions-{number}.json").write_text(text)
    await until(lambda: not list(house.config.run.glob(reading.LEFT)), within_s=20)
    await log_in(house)
    Mailbox.objects.update(status=Status.SUSPENDED)
    world.changed("demo.test")
    await until(lambda: dovecot.kicked == {SHOP})


async def test_what_is_left_makes_nothing_newer_be_forgotten(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "MOST_SESSIONS", 2)
    sessions = Sessions(house.directory, Clock(), doveadm.kick)
    for number in range(4):
        sessions._take(reading._Session(SHOP, ("demo.test", 1, EVERY_TENANT), number, "f", "imap", "192.0.2.7"))
    assert len(sessions) == 2


async def test_a_mistake_in_one_look_does_not_end_authd(
    house: House, dovecot: Doveadm, monkeypatch: pytest.MonkeyPatch
):
    readers, asked = house.directory.readers, []

    async def wrong_once(credential_ids):
        asked.append(credential_ids)
        if len(asked) == 1:
            raise RuntimeError("a mistake")
        return await readers(credential_ids)

    monkeypatch.setattr(house.directory, "readers", wrong_once)
    await log_in(house)
    world.changed("demo.test")
    await until(lambda: len(asked) == 1)
    Mailbox.objects.update(status=Status.SUSPENDED)
    world.changed("demo.test")
    await until(lambda: dovecot.kicked == {SHOP})
