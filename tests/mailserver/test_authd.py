"""Logins: what is right, what is refused, and who waits for whom. On both databases, over the real socket."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import threading
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from mailserver import authd, authenticator, directory, hashing, lua_protocol, usage
from mailserver.authd import AuthClient
from mailserver.authenticator import Answer, Authenticator
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.directory import following, logins
from panel.environment import dovecot_key
from panel.mailboxes import foreign, passwords
from panel.mailboxes.models import Address, Credential, LoginEvent, Mailbox, MailboxUsage
from panel.mailboxes.services import set_password
from panel.operations import services as operations
from panel.rules.lockout import MOST_GUESSES, Lock
from panel.rules.status import Status
from panel.tenants.models import Tenant
from panel.tenants.sign_in import second_factor
from tests.support import dovecot_dict, world
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
from tests.support.authenticator import code_of
from tests.support.database import database_gone
from tests.support.postgres import Postgres
from tests.support.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

# Right and wrong


async def test_main_password_is_right(house: House, demo: Mailbox):
    main = demo.credentials.get(kind="main")
    assert await house.ask() == Answer("ok", main.pk, "shop@demo.test", passwords.fingerprint(main.secret))
    assert (await house.ask("Shop@DEMO.test")).verdict == "ok"
    assert (await house.ask(protocol="imap")).verdict == "ok"


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("shop@demo.test", "wrong"),
        ("shop@demo.test", ""),
        ("shop@demo.test", "lone \udcff surrogate"),
        ("nobody@demo.test", world.PASSWORD),
        ("shop@elsewhere.test", world.PASSWORD),
        ("no address\r\n", world.PASSWORD),
        ("", ""),
        ("shop@demo.test", passwords.new_app_secret()),
        ("nobody@demo.test", passwords.new_app_secret()),
        ("shop@demo.test", "x" * 20_000),
    ],
)
async def test_wrong_is_wrong(house: House, login: str, password: str):
    answer = await house.ask(login, password)
    assert (answer.verdict, answer.credential_id) == ("wrong", None)


async def test_unknown_login_costs_a_hash_like_a_wrong_password(config: Config, hasher: Hasher):
    hasher.opened.set()
    async with running(config) as house:
        await house.ask("nobody@demo.test", "one")
        await house.ask("shop@demo.test", "two")
    assert hasher.asked == ["one", "two"]


async def test_app_password_needs_no_hash(config: Config, hasher: Hasher, demo: Mailbox):
    app, secret = world.app_password(demo)
    async with running(config) as house:
        right = Answer("ok", app.pk, "shop@demo.test", passwords.fingerprint(app.secret))
        assert await house.ask(password=secret) == right
    assert hasher.asked == []


async def test_app_password_of_another_mailbox_is_wrong(house: House):
    _, secret = world.app_password(world.mailbox("office@demo.test"))
    assert (await house.ask(password=secret)).verdict == "wrong"


# Right, and refused


async def test_frozen_is_wrong(house: House):
    Credential.objects.update(frozen_at=timezone.now())
    assert (await house.ask()).verdict == "wrong"


async def test_expired_is_wrong(house: House, demo: Mailbox):
    _, secret = world.app_password(demo, expires_at=timezone.now() - timedelta(seconds=1))
    assert (await house.ask(password=secret)).verdict == "wrong"


async def test_scope_is_told(house: House, demo: Mailbox):
    _, secret = world.app_password(demo, scopes=("imap",))
    assert (await house.ask(password=secret)).verdict == "scope"
    assert (await house.ask(password=secret, protocol="imap")).verdict == "ok"


async def test_network_holds(house: House, demo: Mailbox):
    _, secret = world.app_password(demo, networks=["192.0.2.0/29"])
    assert (await house.ask(password=secret, ip="192.0.2.7")).verdict == "ok"
    assert (await house.ask(password=secret, ip="192.0.2.8")).verdict == "wrong"


async def test_suspended_is_told_to_whom_the_password_is_known_only(house: House, demo: Mailbox):
    Mailbox.objects.update(status=Status.SUSPENDED)
    assert (await house.ask()).verdict == "suspended"
    assert (await house.ask(password="wrong")).verdict == "wrong"


async def test_no_sending_may_log_in(house: House, demo: Mailbox):
    Mailbox.objects.update(status=Status.NO_SENDING)
    assert (await house.ask()).verdict == "ok"


async def test_app_password_opens_what_all_of_its_bounds_allow_and_nothing_else(house: House):
    protocols = ("submission", "imap", "pop3", "sieve")
    now = timezone.now()
    for number, (away, expired, frozen) in enumerate(product((False, True), repeat=3)):
        mailbox = world.mailbox(f"person{number}@demo.test")
        fields = {
            "networks": ["198.51.100.0/24", "192.0.2.9"] if away else ["192.0.2.0/24"],
            "expires_at": now + timedelta(days=-1 if expired else 1),
            "frozen_at": now if frozen else None,
        }
        for scopes in (*((each,) for each in protocols), protocols):
            _, secret = world.app_password(mailbox, "-".join(scopes), scopes, **fields)
            for protocol in protocols:
                ip = f"192.0.2.{1 + number}"  # of each its own: nobody is to be locked
                verdict = (await house.ask(str(mailbox), secret, ip, protocol=protocol)).verdict
                # What a thief could learn from is told like a wrong one.
                expected = "wrong" if away or expired or frozen else "ok" if protocol in scopes else "scope"
                assert verdict == expected, (away, expired, frozen, scopes, protocol)


@pytest.mark.parametrize("level", ["mailbox", "domain", "tenant", "parent"])
async def test_suspended_or_closed_at_any_level_is_refused_within_a_second(house: House, demo: Mailbox, level: str):
    tenant = demo.address.tenant
    Tenant.objects.filter(pk=tenant.pk).update(parent=world.tenant("Reseller"))
    tenant.refresh_from_db()
    subject = {
        "mailbox": demo, "domain": demo.address.domain, "tenant": tenant, "parent": tenant.parent,
    }[level]
    for act, status in ((operations.suspend, Status.SUSPENDED), (operations.close, Status.CLOSED)):
        type(subject).objects.filter(pk=subject.pk).update(status=Status.ACTIVE)
        world.changed()

        async def verdict(wanted: str) -> bool:
            return (await house.ask(protocol="imap")).verdict == wanted

        await until(partial(verdict, "ok"))
        await asyncio.to_thread(partial(act, subject, reason="found in a leak", actor=None))
        took = await until(partial(verdict, "suspended"))
        print(f"{level} {status.name.lower()}: refused after {took:.3f} s (promise: 1 s)")


@pytest.mark.parametrize(
    ("stored", "typed"),
    [("caf\u00e9 au lait", "cafe\u0301 au lait"), ("cafe\u0301 au lait", "caf\u00e9 au lait"),
     ("good old pass", "good\u00a0old\u00a0pass")],
)
async def test_password_is_right_however_its_letters_are_composed(house: House, demo: Mailbox, stored: str, typed: str):
    """A phone composes what a Mac sends in parts (RFC 8265 §4.2.2)."""
    demo.credentials.update(secret=passwords.hash_main(stored))
    for password in (stored, typed):
        assert (await house.ask(password=password)).verdict == "ok"
    assert (await house.ask(password=typed.upper())).verdict == "wrong"


# What is remembered, and for how long


@pytest.mark.parametrize("text", [
    "{BLF-CRYPT}$2y$05$N3x3iEH7R6zvQh7WaUpdYuJL7OePYOYveHCgydscqgd8q8V9yRCze",
    "{PBKDF2}$1$Y55hkinwtWCBl0uv$5000$aafde15b0a8e4540d51f92149599cd7db78471ea",
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$Dv6O+eONoocYfdJ8STZrvA$YyBe/7Bf3nclBoSTJSMFp7TIvNvqWtGQQe2XUxulKKI",
])
async def test_a_hash_made_elsewhere_is_replaced_at_the_first_right_login(house: House, demo: Mailbox, text: str):
    password, stored = "pässword horse", foreign.read(text)
    main = demo.credentials.get(kind="main")
    Credential.objects.filter(pk=main.pk).update(secret=stored)
    assert (await house.ask(password="wrong")).verdict == "wrong"
    right = Answer("ok", main.pk, "shop@demo.test", passwords.fingerprint(stored))
    assert await house.ask(password=password) == right
    await until(lambda: passwords.is_ours(Credential.objects.get(pk=main.pk).secret), within_s=20)
    assert passwords.verify_main(password, Credential.objects.get(pk=main.pk).secret)
    # It is the same password: what began with it goes on, and so do new logins.
    world.changed("demo.test")
    assert await house.ask(password=password) == right
    login = await house.directory.login(main.pk)
    assert login is not None and login.fingerprint == right.fingerprint


async def test_a_password_set_meanwhile_is_not_replaced_by_the_old_one(house: House, demo: Mailbox):
    main = demo.credentials.get(kind="main")
    assert not await house.directory.replace_hash(main.pk, "bcrypt$old", passwords.hash_main("the old one"))
    assert Credential.objects.get(pk=main.pk).secret == main.secret
    Credential.objects.filter(pk=main.pk).update(secret="bcrypt$old")
    assert await house.directory.replace_hash(main.pk, "bcrypt$old", main.secret)
    again = Credential.objects.get(pk=main.pk)
    assert (again.secret, again.began_as) == (main.secret, passwords.fingerprint("bcrypt$old"))
    set_password(demo, "another unusual one", actor=None)
    assert Credential.objects.get(pk=main.pk).began_as == ""


async def test_right_password_is_hashed_once(config: Config, hasher: Hasher):
    async with running(config) as house:
        for _ in range(3):
            assert (await house.ask()).verdict == "ok"
        assert hasher.asked == [world.PASSWORD]


async def test_change_in_the_domain_makes_nobody_hash_again(config: Config, hasher: Hasher):
    """In a large domain something changes all the time: its logins must stay remembered."""
    async with running(config) as house:
        assert (await house.ask()).verdict == "ok"
        version = house.directory.version
        world.mailbox("office@demo.test")
        world.changed("demo.test")
        await until(lambda: house.directory.version > version)
        for _ in range(2):
            assert (await house.ask()).verdict == "ok"
        assert hasher.asked == [world.PASSWORD]


async def test_connections_at_once_share_one_hash(config: Config, hasher: Hasher):
    hasher.opened.set()
    async with running(config) as house:
        answers = await asyncio.gather(*(house.ask(password="wrong") for _ in range(10)))
    assert {answer.verdict for answer in answers} == {"wrong"}
    assert hasher.asked == ["wrong"]


async def test_changed_password_counts_at_once_and_the_old_one_no_longer(house: House, demo: Mailbox):
    assert (await house.ask()).verdict == "ok"
    assert (await house.ask(password="another good one")).verdict == "wrong"
    version = house.directory.version
    demo.credentials.update(secret=passwords.hash_main("another good one"))
    # Before the change is noticed: a right password is never called wrong.
    assert (await house.ask(password="another good one")).verdict == "ok"
    world.changed("demo.test")
    await until(lambda: house.directory.version > version)
    assert (await house.ask()).verdict == "wrong"
    assert (await house.ask(password="another good one")).verdict == "ok"


async def test_remembered_login_is_refused_within_a_second_of_its_suspension(house: House, demo: Mailbox):
    assert (await house.ask()).verdict == "ok"
    Mailbox.objects.update(status=Status.SUSPENDED)
    world.changed("demo.test")

    async def refused() -> bool:
        return (await house.ask()).verdict == "suspended"

    print(f"refused after {await until(refused):.3f} s (promise: 1 s)")


async def test_last_use_is_written(config: Config, demo: Mailbox):
    async with running(config) as house:
        await house.ask()
    main = demo.credentials.get(kind="main")
    assert main.last_used_ip == IP
    assert timezone.now() - main.last_used_at < timedelta(minutes=1)


@pytest.mark.parametrize("ip", ["fe80::1%eth0", "nowhere", ""])
async def test_last_use_from_a_client_without_a_plain_address_is_written(config: Config, demo: Mailbox, ip: str):
    """A client on the same link has an address with a zone (RFC 4007 §11)."""
    async with running(config) as house:
        assert (await house.ask(ip=ip)).verdict == "ok"
    main = demo.credentials.get(kind="main")
    assert main.last_used_at is not None
    assert main.last_used_ip == ("fe80::1" if "fe80" in ip else None)


# Who waits for whom


async def test_remembered_login_does_not_wait_behind_wrong_ones(config: Config, hasher: Hasher):
    async with running(config) as house:
        assert (await house.ask()).verdict == "ok"
        attacker = house.client()
        wrong = [asyncio.create_task(attacker.ask(f"x{n}@demo.test", f"wrong {n}", IP)) for n in range(30)]
        await until(lambda: len(hasher.asked) == 1 + hashing.AT_ONCE)
        assert (await attacker.ask("shop@demo.test", world.PASSWORD, IP)).verdict == "ok"
        assert not any(task.done() for task in wrong), "a wrong one was answered first"
        hasher.opened.set()
        assert {answer.verdict for answer in await asyncio.gather(*wrong)} == {"wrong"}


async def test_attacked_account_does_not_make_the_others_wait(
    config: Config, hasher: Hasher, monkeypatch: pytest.MonkeyPatch
):
    queued: list[str] = []
    queue = hashing.Hashing.verify

    def noted(self: hashing.Hashing, question: hashing.Question, *, known: bool) -> Awaitable[bool]:
        queued.append(question.name)
        return queue(self, question, known=known)

    monkeypatch.setattr(hashing.Hashing, "verify", noted)
    async with running(config) as house:
        attacker = house.client()
        answers: list[str] = []

        async def attack(number: int) -> None:
            answers.append((await attacker.ask("office@demo.test", f"wrong {number}", IP)).verdict)

        attacks = [asyncio.create_task(attack(number)) for number in range(30)]
        waiting = hashing.AT_ONCE + hashing.MOST_WAITING_OF_ONE
        # What is more than a few of one login name is told to come again, and never that it is wrong.
        await until(lambda: len(answers) == 30 - waiting)
        assert set(answers) == {"unavailable"}
        good = asyncio.create_task(attacker.ask("shop@demo.test", world.PASSWORD, IP))
        await until(lambda: "shop@demo.test" in queued)
        hasher.opened.set()
        assert (await good).verdict == "ok"
        await asyncio.gather(*attacks)
        assert hasher.asked.index(world.PASSWORD) <= hashing.AT_ONCE + 1, "it waited for its turn only"


async def test_login_from_its_usual_network_does_not_wait_behind_guesses_from_everywhere(
    config: Config, hasher: Hasher, demo: Mailbox
):
    """Right after a restart: nothing is remembered, and a botnet guesses at many names at once."""
    demo.credentials.update(last_used_at=timezone.now(), last_used_ip=IP)
    async with running(config) as house:
        attacker = house.client()
        wrong = [
            asyncio.create_task(attacker.ask(f"x{n}@demo.test", f"wrong {n}", f"198.51.100.{n}")) for n in range(100)
        ]
        await until(lambda: sum(task.done() for task in wrong) == 100 - hashing.AT_ONCE - hashing.MOST_NEW)
        assert (await house.ask()).verdict == "ok"
        hasher.opened.set()
        verdicts = [(await task).verdict for task in wrong]
        assert verdicts.count("wrong") == hashing.AT_ONCE + hashing.MOST_NEW
        assert verdicts.count("unavailable") == 100 - hashing.AT_ONCE - hashing.MOST_NEW, "never that it is wrong"


async def test_login_from_a_new_network_overtakes_the_flood_of_another_one(config: Config, hasher: Hasher):
    async with running(config) as house:
        attacker = house.client()
        wrong = [
            asyncio.create_task(attacker.ask(f"x{n}@demo.test", f"wrong {n}", "203.0.113.66")) for n in range(100)
        ]
        await until(lambda: sum(task.done() for task in wrong) == 100 - hashing.AT_ONCE - hashing.MOST_NEW)
        good = asyncio.create_task(house.ask())
        # The queue is full: the latest of the flood makes room.
        await until(lambda: sum(task.done() for task in wrong) == 100 - hashing.AT_ONCE - hashing.MOST_NEW + 1)
        hasher.opened.set()
        assert (await good).verdict == "ok"
        await asyncio.gather(*wrong)
        assert hasher.asked.index(world.PASSWORD) <= 2 * hashing.AT_ONCE, "behind those only whose turn it was already"


# Faults


async def test_lost_database_is_unavailable_and_never_wrong(
    house: House, cluster: Postgres | None, monkeypatch: pytest.MonkeyPatch
):
    with database_gone(cluster, monkeypatch):
        assert (await house.ask()).verdict == "unavailable"
        assert (await house.ask(password="wrong")).verdict == "unavailable"
    assert (await house.ask()).verdict == "ok"


async def test_stuck_database_piles_up_no_questions(house: House, monkeypatch: pytest.MonkeyPatch):
    assert (await house.ask()).verdict == "ok"
    answers = threading.Event()

    def stuck(address: object) -> None:
        answers.wait(30)

    monkeypatch.setattr(logins, "candidates", stuck)
    monkeypatch.setattr(directory, "DEADLINE_S", 0.05)
    monkeypatch.setattr(directory, "MOST_LOOK_UPS", 10, raising=False)
    try:
        client = house.client()
        for _ in range(5):
            asked = await asyncio.gather(*(client.ask(f"x{n}@demo.test", "?", IP) for n in range(20)))
            assert {answer.verdict for answer in asked} == {"unavailable"}
        assert (await house.ask()).verdict == "ok", "who was right before needs no database"
        assert house.directory._executor._work_queue.qsize() <= 10
    finally:
        answers.set()


async def test_fault_of_ours_is_unavailable(house: House, monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("text that nobody sees")

    monkeypatch.setattr(authenticator.policy, "login_refused", broken)
    assert await house.ask() == Answer("unavailable", None, "shop@demo.test")


async def test_unreachable_authd_is_unavailable(config: Config):
    assert (
        await AuthClient(authd.socket_path(config)).ask("shop@demo.test", "x", IP)
    ).verdict == "unavailable"


async def test_late_authd_is_unavailable(config: Config, hasher: Hasher):
    async with running(config) as house:
        assert (await house.client(deadline_s=0.1).ask("shop@demo.test", "held", IP)).verdict == "unavailable"
        hasher.opened.set()


async def test_client_connects_again_after_a_restart(config: Config):
    client = AuthClient(authd.socket_path(config))
    for _ in range(2):
        async with running(config):
            assert (await client.ask("shop@demo.test", world.PASSWORD, IP)).verdict == "ok"
    assert (await client.ask("shop@demo.test", world.PASSWORD, IP)).verdict == "unavailable"


@pytest.mark.parametrize(
    "sent", [b"no json\n", b"{}\n", b'{"id":"x"}\n', b"[]\n", b"x" * 40_000, b"\xff\xfe\n"]
)
async def test_asker_that_talks_nonsense_is_cut_off_alone(house: House, sent: bytes):
    reader, writer = await asyncio.open_unix_connection(str(authd.socket_path(house.config)))
    writer.write(sent)
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    assert (await house.ask()).verdict == "ok"


# The socket and the process


async def test_socket_is_this_user_s_alone_and_goes_with_the_process(config: Config):
    path = authd.socket_path(config)
    async with running(config):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_long_path_moves_to_a_private_folder(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = replace(config, data=tmp_path / ("x" * 90))
    path = authd.socket_path(config)
    assert path == authd.socket_path(config)
    async with running(config) as house:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert (await house.ask()).verdict == "ok"


async def test_socket_left_behind_is_replaced_and_a_living_one_is_not(config: Config):
    path = authd.socket_path(config)
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    async with running(config) as house:
        with pytest.raises(authd.AlreadyRunning):
            async with running(config):
                pass
        assert (await house.ask()).verdict == "ok"


def test_process_serves_until_sigterm(config: Config):
    """A fork as the parent makes it."""
    connection.close()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            authd.run(config)
            status = 0
        finally:
            os._exit(status)

    async def ask() -> Answer:
        client = AuthClient(authd.socket_path(config))
        answers: list[Answer] = []

        async def answered() -> bool:
            answers.append(await client.ask("shop@demo.test", world.PASSWORD, IP))
            return answers[-1].verdict == "ok"

        await until(answered, within_s=15.0)
        client.close()
        return answers[-1]

    try:
        assert asyncio.run(ask()).login == "shop@demo.test"
    finally:
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert Credential.objects.get(kind="main").last_used_ip == IP


# Dovecot's socket


class Dovecot:
    """One connection of Dovecot's auth processes."""

    def __init__(self, house: House) -> None:
        self._config = house.config
        self.key = bytes.fromhex(dovecot_key(settings.SECRET_KEY))

    async def send(self, *lines: bytes) -> list[bytes]:
        """Send hello and the lines at once; a line of answer for each."""
        reader, writer = await asyncio.open_unix_connection(str(self._config.dovecot_socket))
        try:
            writer.write(dovecot_dict.HELLO + b"".join(line + b"\n" for line in lines))
            async with asyncio.timeout(10):
                return [await reader.readline() for _ in lines]
        finally:
            writer.close()

    async def login(self, login: str = "shop@demo.test", password: str = world.PASSWORD, **more: str) -> bytes:
        [answer] = await self.send(dovecot_dict.passdb(login, password, self.key, **more))
        return answer

    async def place(self, login: str) -> dict[str, str] | None:
        [answer] = await self.send(dovecot_dict.userdb(login))
        return json.loads(answer[1:]) if answer[:1] == b"O" else None


@pytest.fixture
def dovecot(house: House) -> Dovecot:
    return Dovecot(house)


NO = b"N\n"
YES = b'O{"user":"shop@demo.test","nopassword":"y"}\n'


async def test_dovecot_hears_yes_and_no(dovecot: Dovecot):
    assert await dovecot.login() == YES
    assert await dovecot.login("SHOP@Demo.test") == YES
    assert await dovecot.login(password="wrong") == NO
    assert await dovecot.login("nobody@demo.test") == NO
    assert await dovecot.login("no address\t/\n") == NO
    assert await dovecot.login(password="lone \udcff surrogate") == NO


async def test_dovecot_gets_its_answers_in_order_on_one_connection(dovecot: Dovecot):
    right = dovecot_dict.passdb("shop@demo.test", world.PASSWORD, dovecot.key)
    wrong = dovecot_dict.passdb("shop@demo.test", "wrong", dovecot.key)
    assert await dovecot.send(wrong, right, wrong, right) == [NO, YES, NO, YES]


async def test_app_password_opens_what_it_is_for_from_where_it_may(dovecot: Dovecot, demo: Mailbox):
    _, imap = world.app_password(demo, scopes=("imap", "sieve"), networks=["192.0.2.0/29"])
    _, sending = world.app_password(demo, "another")
    assert await dovecot.login(password=imap) == YES
    assert await dovecot.login(password=imap, protocol="sieve") == YES
    assert await dovecot.login(password=imap, protocol="pop3") == NO
    assert await dovecot.login(password=imap, ip="192.0.2.8") == NO
    assert await dovecot.login(password=sending) == NO


async def test_dovecot_refuses_the_frozen_the_expired_and_the_suspended(dovecot: Dovecot, demo: Mailbox):
    _, expired = world.app_password(demo, scopes=("imap",), expires_at=timezone.now() - timedelta(seconds=1))
    assert await dovecot.login(password=expired) == NO
    assert await dovecot.login() == YES
    Mailbox.objects.update(status=Status.SUSPENDED)
    world.changed("demo.test")

    async def refused() -> bool:
        return await dovecot.login() == NO

    print(f"suspended after {await until(refused):.3f} s (promise: 1 s)")
    Mailbox.objects.update(status=Status.ACTIVE)
    Credential.objects.update(frozen_at=timezone.now())
    world.changed("demo.test")
    await until(refused)


async def test_a_main_password_beside_a_second_factor_is_wrong_everywhere_at_once_and_app_passwords_go_on(
    house: House, dovecot: Dovecot, demo: Mailbox
):
    every = ("submission", "imap", "pop3", "sieve")
    _, secret = world.app_password(demo, scopes=every)
    assert {(await house.ask(protocol=each)).verdict for each in every} == {"ok"}
    key = second_factor.new_secret()
    second_factor.add(demo.person, key, code_of(key))

    async def refused() -> bool:
        return (await house.ask()).verdict == "wrong"

    await until(refused)
    assert {(await house.ask(protocol=each)).verdict for each in every} == {"wrong"}
    assert await house.ask() == await house.ask(password="wrong"), "nothing tells that it is the right one"
    assert await dovecot.login() == NO
    assert {(await house.ask(password=secret, protocol=each)).verdict for each in every} == {"ok"}
    assert await dovecot.login(password=secret) == YES
    main = await house.directory.login(demo.credentials.get(kind="main").pk)
    assert (main.usable, main.has_factor) == (False, True)
    tried = (world.PASSWORD, *(f"guess {number}" for number in range(MOST_GUESSES[Lock.ACCOUNT_FROM_NETWORK])))
    verdicts = {(await house.ask(password=each, ip="203.0.113.66")).verdict for each in tried}
    assert verdicts == {"wrong"}, "it is no guess: many programs that still have theirs lock nobody out"
    second = Authenticator(house.directory, Clock())
    await second.check("shop@demo.test", world.PASSWORD, IP, "imap")
    await second.flush()
    second.close()
    event = LoginEvent.objects.get(outcome="factor", protocol="imap")
    assert (event.mailbox, event.credential_text, event.ip) == (demo, "main password", IP)
    second_factor.remove(demo.person, actor=None)

    async def opens() -> bool:
        return (await house.ask()).verdict == "ok"

    await until(opens)


async def test_dovecot_learns_where_a_mailbox_is_and_how_much_fits(dovecot: Dovecot, house: House, demo: Mailbox):
    home = str(house.config.maildir(demo.opaque_id).parent)
    assert await dovecot.place("Shop@demo.test") == {"user": "shop@demo.test", "home": home}
    Mailbox.objects.update(quota_bytes=1_000_000)
    world.rules(demo, junk=True)
    world.domain_alias("demo.example", demo.address.domain)
    world.alias("info@demo.test", "shop@demo.test")
    version = house.directory.version
    world.changed("demo.test")
    await until(lambda: house.directory.version > version)
    full = {"user": "shop@demo.test", "home": home, "quota_rule": "*:bytes=1000000", "sieve_env_junk": "yes"}
    assert await dovecot.place("shop@demo.example") == full
    for nobody in ("info@demo.test", "nobody@demo.test", "shop+tag@demo.test", "@demo.test", "shop", ""):
        assert await dovecot.place(nobody) is None, nobody


async def test_a_quoted_mailbox_is_found_as_dovecot_names_it(dovecot: Dovecot, demo: Mailbox):
    for local_part in ("a b", 'a"b\\c'):
        Address.objects.filter(pk=demo.address.pk).update(local_part=local_part)
        world.changed("demo.test")
        await until(lambda name=local_part: placed(dovecot, f"{name}@demo.test"))


async def placed(dovecot: Dovecot, login: str) -> bool:
    return await dovecot.place(login) is not None


async def test_a_suspended_mailbox_has_a_place_and_a_closed_one_has_none(dovecot: Dovecot):
    Mailbox.objects.update(status=Status.SUSPENDED)
    assert await dovecot.place("shop@demo.test"), "mail still comes in"
    world.changed("demo.test")
    Mailbox.objects.update(status=Status.CLOSED)

    async def gone() -> bool:
        return await dovecot.place("shop@demo.test") is None

    world.changed("demo.test")
    await until(gone)


# Dovecot 2.4's questions, on the same socket


async def test_dovecot_2_4_hears_the_same(dovecot: Dovecot, house: House, demo: Mailbox):
    Mailbox.objects.update(quota_bytes=1_000_000)
    world.rules(demo, junk=True)
    _, pop3 = world.app_password(demo, scopes=("pop3",), networks=["192.0.2.0/29"])
    yes = lua_protocol.found({"user": "shop@demo.test", "nopassword": "y"})
    home = str(house.config.maildir(demo.opaque_id).parent)
    facts = {"quota_storage_size": "1000000B", "sieve_environment/junk": "yes"}
    place = lua_protocol.found({"user": "shop@demo.test", "home": home, **facts})
    questions = {
        f"P\timap\t192.0.2.7\tshop@demo.test\t{world.PASSWORD}": yes,
        "P\timap\t192.0.2.7\tshop@demo.test\twrong": NO,
        f"P\tpop3\t192.0.2.7\tshop@demo.test\t{pop3}": yes,
        f"P\timap\t192.0.2.7\tshop@demo.test\t{pop3}": NO,
        f"P\tpop3\t192.0.2.8\tshop@demo.test\t{pop3}": NO,
        "U\tshop@demo.test": place,
        "U\tnobody@demo.test": NO,
    }
    assert await dovecot.send(*(each.encode() for each in questions)) == list(questions.values())


async def test_dovecot_2_4_hears_of_a_lost_database_as_a_failure(
    dovecot: Dovecot, cluster: Postgres | None, monkeypatch: pytest.MonkeyPatch
):
    with database_gone(cluster, monkeypatch):
        for question in (b"P\timap\t192.0.2.7\tshop@demo.test\tright or wrong", b"U\tshop@demo.test"):
            assert await dovecot.send(question) == [b"F\tcan't be checked just now\n"]


async def test_dovecot_hears_of_a_lost_database_as_a_failure_and_never_as_no(
    dovecot: Dovecot, cluster: Postgres | None, monkeypatch: pytest.MonkeyPatch
):
    with database_gone(cluster, monkeypatch):
        assert (await dovecot.login())[:1] == b"F"
        assert (await dovecot.login(password="wrong"))[:1] == b"F"
        assert (await dovecot.send(dovecot_dict.userdb("shop@demo.test")))[0][:1] == b"F"
    assert await dovecot.login() == YES


async def test_dovecot_hears_of_a_fault_of_ours_as_a_failure(dovecot: Dovecot, monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("text that nobody sees")

    monkeypatch.setattr(authenticator.policy, "login_refused", broken)
    assert await dovecot.login() == b"Finternal error\n"


async def test_dovecot_never_waits_longer_than_the_deadline_and_good_logins_never_behind_wrong_ones(
    config: Config, hasher: Hasher, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(authd, "ASK_DEADLINE_S", 3)  # longer than a good login takes on a busy machine
    async with running(config) as house:
        dovecot = Dovecot(house)
        assert await dovecot.login() == YES
        wrong = [asyncio.create_task(dovecot.login(f"x{n}@demo.test", f"wrong {n}")) for n in range(20)]
        await until(lambda: len(hasher.asked) == 1 + hashing.AT_ONCE)
        assert await dovecot.login() == YES
        assert not any(task.done() for task in wrong)
        assert {answer[:1] for answer in await asyncio.gather(*wrong)} == {b"F"}
        hasher.opened.set()


async def test_dovecot_always_has_a_process_free_for_a_password_that_was_right_before(
    config: Config, hasher: Hasher, monkeypatch: pytest.MonkeyPatch
):
    """Each of its processes asks one question at a time; those that wait here are fewer than it has."""
    monkeypatch.setattr(authd, "MOST_HELD", 3, raising=False)
    async with running(config) as house:
        dovecot = Dovecot(house)
        assert await dovecot.login() == YES
        wrong = [asyncio.create_task(dovecot.login(f"x{n}@demo.test", f"wrong {n}")) for n in range(10)]
        await until(lambda: sum(task.done() for task in wrong) == 7)
        assert {task.result()[:1] for task in wrong if task.done()} == {b"F"}
        assert await dovecot.login() == YES
        hasher.opened.set()
        assert sorted(answer[:1] for answer in await asyncio.gather(*wrong)) == [b"F"] * 7 + [b"N"] * 3


@pytest.mark.parametrize("sent", [b"no look-up\n", b"Lshared/passdb/imap/x\tx\n", b"x" * 200_000, b"L\xff\xfe\n"])
async def test_nonsense_on_dovecots_socket_is_cut_off_alone(dovecot: Dovecot, house: House, sent: bytes):
    reader, writer = await asyncio.open_unix_connection(str(house.config.dovecot_socket))
    writer.write(sent)
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    assert await dovecot.login() == YES


async def test_dovecots_socket_is_its_own_users_alone(config: Config, tmp_path: Path):
    async with running(config):
        assert stat.S_IMODE(config.dovecot_socket.stat().st_mode) == 0o600
    assert not config.dovecot_socket.exists()
    # A run folder that hands on its group is Dovecot's auth processes' (panel/system_users.py).
    config.run.chmod(0o2711)
    async with running(config):
        assert stat.S_IMODE(config.dovecot_socket.stat().st_mode) == 0o660


# What goes wrong by itself


async def test_a_mistake_in_following_the_directory_does_not_end_authd(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    changes, asked = following.changes, []

    def wrong_once(seen):
        asked.append(seen)
        if len(asked) == 1:
            raise RuntimeError("a mistake")
        return changes(seen)

    monkeypatch.setattr(following, "changes", wrong_once)
    await until(lambda: len(asked) > 1)
    assert (await house.ask()).verdict == "ok"
    Mailbox.objects.update(status=Status.SUSPENDED)
    world.changed("demo.test")

    async def suspended() -> bool:
        return (await house.ask()).verdict == "suspended"

    await until(suspended)


async def test_use_is_written_at_the_end_though_logins_cannot_be(
    config: Config, demo: Mailbox, monkeypatch: pytest.MonkeyPatch
):
    async def wrong(self, everything=False):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Authenticator, "flush", wrong)
    monkeypatch.setattr(usage, "FLUSH_S", 3600.0)
    async with running(config) as house:
        reader, writer = await asyncio.open_unix_connection(authd.socket_path(house.config))
        writer.write(b'{"added":[[%d,700,1]]}\n{"id":1,"take":false,"usage":[]}\n' % demo.pk)
        assert await asyncio.wait_for(reader.readline(), 5) == b'{"id":1,"usage":[]}\n'
        writer.close()
    assert MailboxUsage.objects.filter(mailbox=demo, used_bytes=700).exists()
