"""The queue from claim to settlement: real spool, directory, DNS, Maildir and peers. On both databases."""

import asyncio
import dataclasses
import email
import email.policy
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from unittest.mock import AsyncMock

import pytest
from django.db import connections

from mailserver import backoff, spool, trace
from mailserver import runner as module
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.content import ContentStore
from mailserver.directory import Directory, DirectoryUnavailable
from mailserver.envelope import Accepted, Claimed, ClaimedMessage, Hold, Incoming
from mailserver.lanes import RUNNING_A_HOP, RUNNING_A_TENANT, Held, Lanes
from mailserver.resolver import Resolver
from mailserver.runner import Runner
from mailserver.transports import maildir
from panel import environment
from panel.mailboxes.models import Credential, Mailbox
from panel.rules import reply
from panel.rules.addresses import parse_address
from panel.rules.status import Status
from panel.sending import models
from panel.sending.models import Attempt, Content, Message, OutboundRoute, Recipient
from panel.tenants.models import Plan
from tests.support import letters, world
from tests.support.dns import dns_server
from tests.support.house import StandInUsage
from tests.support.peer import peer

database = pytest.mark.django_db(transaction=True)
THREADS = 4


async def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        await asyncio.sleep(0.01)


class ShiftedClock(Clock):
    """A clock that can be set forward."""

    shift_s = 0.0

    def time_s(self) -> float:
        return super().time_s() + self.shift_s


@pytest.fixture(scope="module")
def dns():
    with dns_server(
        far_test="@ MX 10 mx\nmx A 127.0.0.1\nslow MX 10 mx\nnull MX 0 .\nother MX 10 mx\nbetween MX 10 mx\n"
    ) as server:
        yield server


class House:
    """Tenant Demo with shop and office at demo.test, a queue, and one worker's runner."""

    def __init__(self, config: Config, executor: ThreadPoolExecutor) -> None:
        self.config = config
        self.clock = ShiftedClock()
        self.directory = Directory("+", "", config.hostname, executor)
        self.content = ContentStore(config)
        maildir.prepare(config)
        self.executor = executor
        self.demo = world.tenant("Demo")
        world.domain("demo.test", self.demo)
        self.shop = world.mailbox("shop@demo.test")
        self.office = world.mailbox("office@demo.test")

    def runner(self, **options) -> Runner:
        return Runner(
            self.config, self.directory, letters.IDS, self.clock, self.content, Resolver.of(self.config),
            self.executor, name="1-1", **options,
        )

    async def queue(self, *to: str, sender: str = "shop@demo.test", notify: str = "", **fields) -> Incoming:
        """A message from a mailbox here to `to`, none of it delivered yet."""
        login = None
        if fields.setdefault("direction", "submission") == "submission":
            credential = Credential.objects.get(kind="main", mailbox__address__local_part="shop")
            login = await self.directory.login(credential.pk)
        recipients = []
        for text in to:
            resolution = await self.directory.resolve(parse_address(text))
            one = letters.remote(text)
            if resolution.deliveries:
                one = dataclasses.replace(one, deliveries=resolution.deliveries, tenant_id=resolution.tenant_id)
            recipients.append(dataclasses.replace(one, notify=notify))
        reverse_path = parse_address(sender) if sender else None
        message = letters.incoming(*recipients, login=login, reverse_path=reverse_path, **fields)
        rows = spool.recipients_of(message, letters.IDS.next, staged=False)
        (answer,) = spool.accept([spool.Entry(message, rows, keep_content=True)], now=self.clock.now())
        assert isinstance(answer, Accepted), answer
        return message

    def new(self, mailbox: Mailbox) -> list[bytes]:
        folder = self.config.maildir(mailbox.opaque_id) / "new"
        return [path.read_bytes() for path in sorted(folder.glob("*"))]


@pytest.fixture
async def house(transactional_db, dns, tmp_path, monkeypatch):
    # The world is built on the test's own thread; look-ups and settlements have theirs.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    Plan.objects.get_or_create(
        name="Standard",
        defaults={"mailbox_hour": 200, "mailbox_day": 1000, "tenant_hour": 2000, "tenant_day": 10000},
    )
    config = Config.of(environment.read({
        "POSTHOUSE_DATA": str(tmp_path), "POSTHOUSE_HOSTNAME": "mx1.here.test", "POSTHOUSE_DNS": str(dns.listen),
        "POSTHOUSE_OUTWARD_PRIVATE": "127.0.0.0/8",
    }))
    with ThreadPoolExecutor(THREADS) as executor:
        yield House(config, executor)
        barrier = threading.Barrier(THREADS)

        def close() -> None:
            barrier.wait(5)
            connections.close_all()

        for future in [executor.submit(close) for _ in range(THREADS)]:
            future.result()
        connections.close_all()  # within a running loop the test has a connection apart


@pytest.fixture
def server(house):
    with peer() as made:
        house.config = dataclasses.replace(house.config, outward_port=made.listen.port)
        yield made


@asynccontextmanager
async def running(house, **options):
    made = house.runner(**options)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        async with asyncio.timeout(20):
            await made.stop()
            await task


def states() -> list[str]:
    return list(Recipient.objects.order_by("id").values_list("state", flat=True))


def settled(message: Incoming) -> bool:
    """Each of the message's recipients was settled once: it is not leased, and tried, held or done."""
    rows = Recipient.objects.filter(message_id=message.id)
    return all(not row.lease_by and (row.tries or row.holds or row.state != "waiting") for row in rows)


async def go(house, message: Incoming, **options) -> list[Recipient]:
    """Run the queue until the message is settled."""
    async with running(house, **options):
        await until(lambda: settled(message))
    return list(Recipient.objects.filter(message_id=message.id).order_by("id"))


def report(mail: bytes):
    parsed = email.message_from_bytes(mail, policy=email.policy.SMTP)
    assert parsed.get_content_type() == "multipart/report"
    return [dict(block.items()) for block in list(parsed.iter_parts())[1].get_payload()]


@database
class TestOutward:
    async def test_a_message_goes_to_the_domains_mail_server(self, house, server):
        message = await house.queue("ann@far.test")
        (row,) = await go(house, message)
        assert (row.state, row.tries, row.last_reply) == ("delivered", 1, "250 2.0.0 taken")
        assert server.received[0].content == message.prefix + message.body.data
        attempt = Attempt.objects.get()
        assert (attempt.outcome, attempt.host, attempt.address) == ("delivered", "mx.far.test", "127.0.0.1")
        assert not Content.objects.exists()

    async def test_a_refusal_brings_a_report_into_the_senders_mailbox(self, house, server):
        server.behaviour.rcpt = {"ann@far.test": "550 5.1.1 no such user"}
        message = await house.queue("ann@far.test", "bob@far.test")
        async with running(house):
            await until(lambda: house.new(house.shop))
        assert [row.state for row in Recipient.objects.filter(message_id=message.id).order_by("id")] == [
            "failed", "delivered",
        ]
        (mail,) = house.new(house.shop)
        assert mail.startswith(b"Return-Path: <>\r\n")
        about = report(mail)[1]
        assert (about["Final-Recipient"], about["Status"]) == ("rfc822; ann@far.test", "5.1.1")
        assert Message.objects.exclude(id=message.id).get().direction == "internal"

    async def test_only_what_is_forwarded_says_so(self, house, server):
        """Neither others on the same message nor the sender, by a report, learn that somebody here forwards."""
        server.behaviour.rcpt = {"bad@far.test": "550 5.1.1 no such user"}
        mark = f"{trace.FORWARDED}: 0 abc\r\n".encode()
        world.rules(house.office, forward_to=["away@far.test"])
        message = await house.queue(
            "office@demo.test", "ann@far.test", "bad@far.test", prefix=mark + b"Received: by mx1\r\n",
        )
        async with running(house):
            await until(lambda: house.new(house.shop) and len(server.received) == 2)
        unmarked = message.prefix.removeprefix(mark) + message.body.data
        contents = {tuple(each.rcpts): each.content for each in server.received}
        assert contents == {("TO:<away@far.test>",): mark + unmarked, ("TO:<ann@far.test>",): unmarked}
        (copy,) = house.new(house.office)
        assert copy == maildir.head_of("shop@demo.test", "office@demo.test") + unmarked
        (returned,) = house.new(house.shop)
        assert trace.FORWARDED.encode() not in returned and b"Received: by mx1" in returned

    async def test_a_temporary_refusal_is_tried_again_later(self, house, server):
        server.behaviour.rcpt = {"ann@far.test": "451 4.7.1 greylisted"}
        message = await house.queue("ann@far.test")
        (row,) = await go(house, message)
        assert (row.state, row.tries, row.last_reply) == ("waiting", 1, "451 4.7.1 greylisted")
        assert timedelta(seconds=30) < row.due_at - house.clock.now() < timedelta(seconds=90)
        server.behaviour.rcpt = {}
        house.clock.shift_s = 100.0
        async with running(house):
            await until(lambda: states() == ["delivered"])
        assert Attempt.objects.count() == 2
        assert house.new(house.shop) == []

    async def test_after_its_life_it_fails_with_the_last_reply(self, house, server):
        server.behaviour.rcpt = {"ann@far.test": "451 4.7.1 greylisted"}
        message = await house.queue("ann@far.test")
        house.clock.shift_s = 5 * 86400.0 + 1
        async with running(house):
            await until(lambda: house.new(house.shop))
        row = Recipient.objects.get(message_id=message.id)
        assert (row.state, row.last_reply.split()[1]) == ("failed", "5.4.7")
        about = report(house.new(house.shop)[0])[1]
        assert (about["Action"], about["Status"]) == ("failed", "5.4.7")
        assert "greylisted" in about["Diagnostic-Code"]

    async def test_a_delay_is_told_once(self, house, server):
        server.behaviour.rcpt = {"ann@far.test": "451 4.7.1 later"}
        message = await house.queue("ann@far.test")
        for hours in (5, 10):
            house.clock.shift_s = hours * 3600.0
            Recipient.objects.filter(message_id=message.id).update(tries=0)
            await go(house, message)
        async with running(house):
            await until(lambda: house.new(house.shop))
        assert len(house.new(house.shop)) == 1
        assert report(house.new(house.shop)[0])[1]["Action"] == "delayed"

    async def test_success_is_told_only_where_it_was_asked_for_and_nobody_else_will(self, house, server):
        server.behaviour.without = {"DSN"}
        await house.queue("ann@far.test", notify="SUCCESS")
        await house.queue("bob@far.test")
        async with running(house):
            await until(lambda: house.new(house.shop) and set(states()) == {"delivered"})
        (mail,) = house.new(house.shop)
        assert report(mail)[1]["Action"] == "relayed"

    async def test_notify_never_is_silent(self, house, server):
        server.behaviour.rcpt = {"ann@far.test": "550 5.1.1 no"}
        message = await house.queue("ann@far.test", notify="NEVER")
        (row,) = await go(house, message)
        assert row.state == "failed"
        assert Message.objects.count() == 1

    async def test_a_report_lives_as_long_as_the_installation_says(self, house, server):
        house.config = dataclasses.replace(house.config, queue_days=2.0)
        server.behaviour.rcpt = {"ann@far.test": "550 5.1.1 no"}
        message = await house.queue("ann@far.test")
        await go(house, message)
        life = Recipient.objects.exclude(message_id=message.id).get().expires_at - house.clock.now()
        assert timedelta(days=1.9) < life < timedelta(days=2.1)

    async def test_a_route_takes_the_place_of_the_mx(self, house, server):
        with peer() as smarthost:
            OutboundRoute.objects.create(domain="null.far.test", host="127.0.0.1", port=smarthost.listen.port)
            message = await house.queue("ann@null.far.test")
            (row,) = await go(house, message)
            assert row.state == "delivered"
            assert len(smarthost.received) == 1

    async def test_a_domain_that_takes_no_mail_fails_at_once(self, house, server):
        message = await house.queue("ann@null.far.test")
        (row,) = await go(house, message)
        assert (row.state, row.last_reply.split()[:2]) == ("failed", ["556", "5.1.10"])

    async def test_where_an_alias_leads_is_not_told(self, house, server):
        server.behaviour.rcpt = {"secret@far.test": "550 5.1.1 secret@far.test unknown"}
        world.alias("sales@demo.test", "secret@far.test")
        await house.queue("sales@demo.test")
        async with running(house):
            await until(lambda: house.new(house.shop))
        (mail,) = house.new(house.shop)
        assert b"sales@demo.test" in mail
        assert b"secret" not in mail and b"far.test" not in mail


    async def test_where_an_address_leads_that_became_an_alias_is_not_told(self, house, server):
        server.behaviour.rcpt = {"secret@far.test": "550 5.1.1 secret@far.test unknown"}
        await house.queue("office@demo.test")
        address = house.office.address
        house.office.delete()
        address.delete()
        world.alias("office@demo.test", "secret@far.test")
        async with running(house):
            await until(lambda: house.new(house.shop))
        (mail,) = house.new(house.shop)
        assert b"office@demo.test" in mail
        assert b"secret" not in mail and b"far.test" not in mail


@database
class TestHere:
    async def test_a_waiting_local_copy_goes_into_the_mailbox_once(self, house):
        message = await house.queue("office@demo.test")
        (row,) = await go(house, message)
        (mail,) = house.new(house.office)
        assert mail.startswith(b"Return-Path: <shop@demo.test>\r\nDelivered-To: office@demo.test\r\n")
        assert mail.endswith(message.prefix + message.body.data)
        assert (row.state, row.staged) == ("delivered", True)
        assert list(house.config.staging.iterdir()) == []

    async def test_a_copy_for_a_full_mailbox_waits_until_there_is_room(self, house):
        Mailbox.objects.filter(pk=house.office.pk).update(quota_bytes=10_000)
        usage = StandInUsage()
        usage.add(house.office.pk, 9900)
        message = await house.queue("office@demo.test", "shop@demo.test")
        waits, delivered = await go(house, message, usage=usage)
        assert (waits.state, waits.tries, waits.staged) == ("waiting", 1, False)
        assert waits.last_reply == "452 4.2.2 the mailbox office@demo.test is full, try again later"
        assert delivered.state == "delivered"
        (mail,) = house.new(house.shop)
        assert usage.used == {house.office.pk: 9900, house.shop.pk: len(mail)}
        usage.used[house.office.pk] = 0
        Recipient.objects.filter(pk=waits.pk).update(due_at=house.clock.now())
        async with running(house, usage=usage):
            await until(lambda: house.new(house.office))

    async def test_room_is_given_back_while_the_database_is_gone(self, house, monkeypatch):
        """Else each try would add the message once more, and the mailbox would seem full."""
        Mailbox.objects.filter(pk=house.office.pk).update(quota_bytes=10_000)
        usage, lost = StandInUsage(), []

        def gone(*args, **options):
            lost.append(1)
            if len(lost) < 3:
                raise spool.SpoolUnavailable("gone")
            return mark(*args, **options)

        mark = spool.mark_staged
        monkeypatch.setattr(spool, "mark_staged", gone)
        monkeypatch.setattr(backoff, "BACKOFF_S", (0.01, 0.01))
        message = await house.queue("office@demo.test")
        (row,) = await go(house, message, usage=usage)
        assert row.state == "delivered" and len(lost) == 3
        (mail,) = house.new(house.office)
        assert usage.used == {house.office.pk: len(mail)}

    async def test_a_copy_that_never_fits_comes_back_and_the_report_is_stored_all_the_same(self, house):
        Mailbox.objects.filter(pk=house.office.pk).update(quota_bytes=10)
        Mailbox.objects.filter(pk=house.shop.pk).update(quota_bytes=20)
        message = await house.queue("office@demo.test")
        async with running(house, usage=StandInUsage()):
            await until(lambda: house.new(house.shop))
        (row,) = Recipient.objects.filter(message_id=message.id)
        assert (row.state, row.last_reply[:9]) == ("failed", "552 5.2.3")

    async def test_what_was_published_before_a_crash_is_not_delivered_again(self, house):
        message = await house.queue("office@demo.test")
        Recipient.objects.update(staged=True)
        (row,) = await go(house, message)
        assert row.state == "delivered"
        assert house.new(house.office) == []

    async def test_what_was_staged_before_a_crash_is_published(self, house):
        message = await house.queue("office@demo.test")
        row = Recipient.objects.get()
        (to,) = (await house.directory.resolve(parse_address("office@demo.test"))).deliveries
        maildir.stage(house.config, maildir.Letter(
            row.due_at, "", b"", message.body, (maildir.Copy(row.id, to.mailbox, row.resolved),)
        ))
        Recipient.objects.update(staged=True)
        Content.objects.all().delete()
        await go(house, message)
        assert len(house.new(house.office)) == 1

    async def test_what_a_crash_left_for_another_folder_is_not_a_second_copy(self, house):
        """Cut short between the file's name and its row; meanwhile the mailbox sorts no junk any more."""
        message = await house.queue("office@demo.test")
        row = Recipient.objects.get()
        (to,) = (await house.directory.resolve(parse_address("office@demo.test"))).deliveries
        maildir.stage(house.config, maildir.Letter(
            row.due_at, "shop@demo.test", b"", message.body, (maildir.Copy(row.id, to.mailbox, row.resolved, True),)
        ))
        (row,) = await go(house, message)
        assert row.state == "delivered"
        assert list(house.config.staging.iterdir()) == []
        assert len(house.new(house.office)) == 1

    async def test_who_lost_its_lease_leaves_no_second_copy(self, house):
        """A worker that hung between claim and staging: another one has delivered the message meanwhile."""
        message = await house.queue("office@demo.test")
        hung = house.runner()
        (claimed,) = spool.claim(now=house.clock.now(), lease_by=hung._lease_by, lease_s=1, limit=1)
        content = spool.read_content(message.id, folder=house.config.spool)
        house.clock.shift_s = 2.0
        await go(house, message)
        (to,) = (await house.directory.resolve(parse_address("office@demo.test"))).deliveries
        answer = await hung._call(partial(hung._carrier._put, to.mailbox, claimed, claimed.recipients[0], content))
        assert answer == reply.UNAVAILABLE
        assert list(house.config.staging.iterdir()) == []
        assert len(house.new(house.office)) == 1

    async def test_a_domain_that_came_here_since_is_local_now(self, house, server):
        message = await house.queue("ann@moved.test")
        world.domain("moved.test", house.demo)
        ann = world.mailbox("ann@moved.test")
        (row,) = await go(house, message)
        assert row.state == "delivered"
        assert len(house.new(ann)) == 1

    async def test_a_mailbox_that_is_gone_fails(self, house):
        message = await house.queue("office@demo.test")
        Mailbox.objects.filter(pk=house.office.pk).update(status=Status.CLOSED)
        (row,) = await go(house, message)
        assert (row.state, row.last_reply.split()[1]) == ("failed", "5.1.1")

    async def test_a_full_disk_waits(self, house, monkeypatch):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(maildir, "stage", full)
        message = await house.queue("office@demo.test")
        (row,) = await go(house, message)
        assert (row.state, row.last_reply.split()[1]) == ("waiting", "4.3.1")


@database
class TestHolds:
    async def test_what_was_forwarded_and_fails_is_held_as_undeliverable(self, house, server):
        server.behaviour.rcpt = {"ann@far.test": "550 5.1.1 no"}
        message = await house.queue("ann@far.test", sender="x@between.far.test", direction="inbound")
        (row,) = await go(house, message)
        assert (row.state, row.holds, row.tries) == ("waiting", models.Hold.UNDELIVERABLE, 1)
        assert row.last_reply == "550 5.1.1 no"
        assert Message.objects.count() == 1
        assert Content.objects.exists()

    @pytest.mark.parametrize("sender", ["", "gone@demo.test"])
    async def test_nothing_is_returned_to_the_null_path_or_an_unknown_sender(self, house, server, sender):
        server.behaviour.rcpt = {"ann@far.test": "550 5.1.1 no"}
        message = await house.queue("ann@far.test", sender=sender)
        (row,) = await go(house, message)
        assert (row.state, row.holds) == ("waiting", models.Hold.UNDELIVERABLE)
        assert Message.objects.count() == 1

    async def test_a_suspended_senders_mail_waits_and_goes_when_the_hold_is_lifted(self, house, server):
        message = await house.queue("ann@far.test")
        Mailbox.objects.filter(pk=house.shop.pk).update(status=Status.SUSPENDED)
        (row,) = await go(house, message)
        assert (row.state, row.holds, row.tries) == ("waiting", models.Hold.SUSPENDED, 0)
        assert server.received == []
        Mailbox.objects.filter(pk=house.shop.pk).update(status=Status.ACTIVE)
        Recipient.objects.update(holds=0)
        async with running(house):
            await until(lambda: states() == ["delivered"])

    @pytest.mark.parametrize("closed", ["mailbox", "domain", "tenant"])
    async def test_a_closed_senders_mail_waits_and_bounces_after_its_grace_period(self, house, server, closed):
        message = await house.queue("ann@far.test")
        row = {"mailbox": house.shop, "domain": house.shop.address.domain, "tenant": house.shop.address.tenant}[closed]
        mine = type(row).objects.filter(pk=row.pk)
        mine.update(status=Status.CLOSED, grace_ends_at=house.clock.now() + timedelta(days=30))
        (waiting,) = await go(house, message)
        assert (waiting.state, waiting.holds) == ("waiting", models.Hold.SUSPENDED)
        mine.update(grace_ends_at=house.clock.now() - timedelta(seconds=1))
        Recipient.objects.update(holds=0)
        async with running(house):
            await until(lambda: states() == ["failed"])
        (gone,) = Recipient.objects.all()
        assert gone.last_reply == "550 5.7.1 not sent: its sender was closed"
        # Its own mailbox takes no report, and nobody is kept to look at it.
        assert server.received == [] and Message.objects.count() == 1 and not Content.objects.exists()

    async def test_a_closed_mailboxs_mail_returns_to_the_alias_it_wrote_as(self, house, server):
        world.mailbox("boss@demo.test")
        world.alias("sales@demo.test", "shop@demo.test", "boss@demo.test")
        message = await house.queue("ann@far.test", sender="sales@demo.test")
        Mailbox.objects.filter(pk=house.shop.pk).update(
            status=Status.CLOSED, grace_ends_at=house.clock.now() - timedelta(seconds=1)
        )
        async with running(house):
            await until(lambda: house.new(Mailbox.objects.get(address__local_part="boss")))
        assert Recipient.objects.get(message_id=message.id).state == "failed"
        assert house.new(house.shop) == []

    async def test_a_hold_written_just_after_the_resumption_does_not_stay(self, house, server, monkeypatch):
        message = await house.queue("ann@far.test")
        suspended = AsyncMock(return_value=False)  # what was known before the sender was resumed
        with monkeypatch.context() as before:
            before.setattr(house.directory, "may_go", suspended)
            (row,) = await go(house, message)
        assert row.holds == models.Hold.SUSPENDED
        now = house.clock.now()
        assert spool.try_suspended(now, held_before=now - timedelta(minutes=5)) == 0
        assert spool.try_suspended(now, held_before=now + timedelta(seconds=1)) == 1
        async with running(house):
            await until(lambda: states() == ["delivered"])

    @pytest.mark.parametrize("holds", [models.Hold.UNDELIVERABLE, models.Hold.SUSPENDED | models.Hold.POISON])
    async def test_other_holds_stay(self, house, holds):
        await house.queue("ann@far.test")
        Recipient.objects.update(holds=holds)
        now = house.clock.now()
        assert spool.try_suspended(now, held_before=now + timedelta(hours=1)) == 0

    async def test_mail_for_a_suspended_mailbox_is_still_received(self, house):
        message = await house.queue("office@demo.test", sender="x@far.test", direction="inbound")
        Mailbox.objects.filter(pk=house.office.pk).update(status=Status.SUSPENDED)
        (row,) = await go(house, message)
        assert row.state == "delivered"

    async def test_what_crashed_its_workers_is_not_touched_again(self, house, server, monkeypatch):
        claim = spool.claim

        def crashed(**fields):
            return [
                dataclasses.replace(each, recipients=tuple(
                    dataclasses.replace(recipient, lost_leases=3) for recipient in each.recipients
                )) for each in claim(**fields)
            ]

        monkeypatch.setattr(spool, "claim", crashed)
        first, second = [await house.queue("ann@far.test") for _ in range(2)]
        async with running(house):
            await until(lambda: settled(first) and settled(second))
        assert {row.holds for row in Recipient.objects.all()} == {models.Hold.POISON}
        assert server.received == []

    async def test_what_crashed_with_others_is_not_tried_beside_the_same_again(self, house, server):
        """Else whatever a poison message has beside it would be held with it."""
        for number in range(5):
            await house.queue(f"u{number}@far.test")
        for crash in range(module.SPREAD_FROM):
            house.clock.shift_s = 2.0 * crash
            spool.claim(now=house.clock.now(), lease_by="crashed", lease_s=1, limit=100)
        house.clock.shift_s = 2.0 * module.SPREAD_FROM
        async with running(house):
            await until(lambda: "delivered" in states() and not Recipient.objects.exclude(lease_by="").exists())
        rows = Recipient.objects.filter(state="waiting")
        assert {(row.tries, row.holds) for row in rows} == {(module.SPREAD_FROM, 0)}
        assert len({row.due_at for row in rows}) == rows.count() == 4
        house.clock.shift_s = 200.0
        async with running(house):
            await until(lambda: set(states()) == {"delivered"})
        assert len(server.received) == 5

    def test_the_bits_are_the_panels(self):
        assert {each.name: each.value for each in Hold} == {each.name: each.value for each in models.Hold}


@database
class TestFaults:
    async def test_a_fault_of_ours_makes_the_message_wait_and_others_go(self, house, server, caplog):
        made = house.runner()
        deliver = made._transport.deliver

        async def broken(message, *args, **fields):
            if message.recipients[0].resolved.startswith("bad"):
                raise RuntimeError("a bug")
            return await deliver(message, *args, **fields)

        made._transport.deliver = broken
        await house.queue("bad@far.test")
        await house.queue("ann@far.test")
        task = asyncio.create_task(made.run())
        await until(lambda: states() == ["waiting", "delivered"])
        await until(lambda: not Recipient.objects.exclude(lease_by="").exists())
        await made.stop()
        await task
        bad = Recipient.objects.get(original="bad@far.test")
        assert (bad.tries, bad.last_reply) == (1, str(reply.INTERNAL_ERROR))
        assert "a bug" in caplog.text

    async def test_what_was_sent_is_settled_once_the_database_is_back(self, house, server, monkeypatch):
        settle, failures = spool.settle, iter([1, 2])

        def gone_twice(*args, **fields):
            if next(failures, None):
                raise spool.SpoolUnavailable("gone")
            return settle(*args, **fields)

        monkeypatch.setattr(spool, "settle", gone_twice)
        monkeypatch.setattr(backoff, "BACKOFF_S", (0.01, 0.02))
        message = await house.queue("ann@far.test")
        (row,) = await go(house, message)
        assert row.state == "delivered"
        assert len(server.received) == 1

    async def test_what_was_sent_before_a_long_outage_is_not_sent_again(self, house, server, monkeypatch):
        """The lease ran out meanwhile, and the queue is claimed before the settlement is written."""
        settle, claim = spool.settle, spool.claim
        gone = True

        def not_settled(*args, **fields):
            if gone:
                raise spool.SpoolUnavailable("gone")
            return settle(*args, **fields)

        def claimed(**fields):
            nonlocal gone
            if server.received and gone and house.clock.shift_s == 0.0:
                house.clock.shift_s = house.config.lease_s + 1
                raise spool.SpoolUnavailable("gone")
            try:
                return claim(**fields)
            finally:
                gone = gone and not server.received

        monkeypatch.setattr(spool, "settle", not_settled)
        monkeypatch.setattr(spool, "claim", claimed)
        monkeypatch.setattr(backoff, "BACKOFF_S", (0.2, 0.2))
        message = await house.queue("ann@far.test")
        async with running(house) as made:
            while not settled(message):
                made.wake()
                await asyncio.sleep(0.01)
        assert states() == ["delivered"]
        assert len(server.received) == 1

    @pytest.mark.parametrize("where", ["claim", "directory"])
    async def test_a_database_that_is_gone_for_a_while_loses_nothing(self, house, server, monkeypatch, where):
        monkeypatch.setattr(backoff, "BACKOFF_S", (0.01, 0.02))
        failures = iter([1, 2, 3])
        if where == "claim":
            claim = spool.claim

            def gone(**fields):
                if next(failures, None):
                    raise spool.SpoolUnavailable("gone")
                return claim(**fields)

            monkeypatch.setattr(spool, "claim", gone)
        else:
            route = house.directory.route

            async def lost(domain):
                if next(failures, None):
                    raise DirectoryUnavailable("gone")
                return await route(domain)

            monkeypatch.setattr(house.directory, "route", lost)
        message = await house.queue("ann@far.test")
        async with running(house) as made:
            while states() != ["delivered"]:
                made.wake()
                await asyncio.sleep(0.01)
        assert settled(message)
        assert len(server.received) == 1

    async def test_a_slow_place_does_not_hold_up_others(self, house, server, monkeypatch):
        with peer(hangs={"CONNECT"}) as slow:
            OutboundRoute.objects.create(domain="slow.far.test", host="127.0.0.1", port=slow.listen.port)
            for number in range(RUNNING_A_HOP + 3):
                await house.queue(f"u{number}@slow.far.test")
            house.config = dataclasses.replace(house.config, stop_s=0.05)
            async with running(house) as made:
                await until(lambda: slow.connections == RUNNING_A_HOP)
                message = await house.queue("ann@far.test")
                made.wake()
                await until(lambda: settled(message))
                assert slow.connections == RUNNING_A_HOP
        assert len(server.received) == 1

    async def test_a_stop_lets_deliveries_finish_and_gives_leases_back(self, house, server):
        server.behaviour.hangs = {"DOT"}
        house.config = dataclasses.replace(house.config, stop_s=0.05)
        for number in range(RUNNING_A_HOP + 2):
            await house.queue(f"u{number}@far.test")
        async with running(house):
            await until(lambda: sum(command == "DATA" for command in server.commands) == RUNNING_A_HOP)
        rows = Recipient.objects.all()
        assert {row.state for row in rows} == {"waiting"}
        assert not any(row.lease_by for row in rows)
        assert sorted(row.tries for row in rows) == [0, 0] + [1] * RUNNING_A_HOP

    async def test_waking_makes_it_look_at_once(self, house, server, monkeypatch):
        monkeypatch.setattr(module, "LONGEST_SLEEP_S", 60.0)
        async with running(house) as made:
            await asyncio.get_running_loop().run_in_executor(None, made.wake)
            await house.queue("ann@far.test")
            made.wake()
            await until(lambda: states() == ["delivered"])

    async def test_many_messages_share_a_few_connections(self, house, server):
        for number in range(40):
            await house.queue(f"u{number}@far.test")
        async with running(house):
            await until(lambda: set(states()) == {"delivered"})
        assert len(server.received) == 40
        assert server.connections <= RUNNING_A_HOP


class TestLanes:
    def message(self, number: int, tenant: int, hop: str) -> Held:
        now = datetime.now(UTC)
        recipient = Claimed(
            number, "a@b.test", "a@b.test", tenant, None, hop, 0, now, now, False, "", "", False
        )
        return Held(
            ClaimedMessage(number, "", "submission", tenant, 1, False, "", "", "", 1, (recipient,)), now
        )

    def drain(self, lanes: Lanes) -> list[int]:
        order = []
        while held := lanes.next():
            order.append(held.message.id)
            lanes.done(held.message)
        return order

    def test_lanes_take_turns(self):
        lanes = Lanes()
        for number in range(4):
            lanes.add(self.message(number, 1, "a.test"))
        lanes.add(self.message(10, 2, "a.test"))
        lanes.add(self.message(20, 1, "b.test"))
        assert self.drain(lanes) == [0, 10, 20, 1, 2, 3]

    def test_a_hop_and_a_tenant_have_only_so_many_at_once(self):
        lanes = Lanes()
        for number in range(200):
            lanes.add(self.message(number, 1, f"hop{number % 20}.test"))
        lanes.add(self.message(999, 2, "hop0.test"))
        started = []
        while held := lanes.next():
            started.append(held.message)
        assert sum(message.tenant_id == 1 for message in started) == RUNNING_A_TENANT
        assert 999 in [message.id for message in started]
        for message in started:
            lanes.done(message)
        assert lanes.running == 0

    def test_room_is_made_from_the_end_of_the_longest_lane(self):
        lanes = Lanes()
        for number in range(10):
            lanes.add(self.message(number, 1, "a.test"))
        lanes.add(self.message(10, 2, "b.test"))
        assert [held.message.id for held in lanes.make_room()] == [9, 8, 7, 6, 5]
        assert lanes.waiting == 6


@database
async def test_a_crowded_lane_stays_when_it_can_not_go_back(house, monkeypatch):
    def gone(*_, **__):
        raise spool.SpoolUnavailable("gone")

    monkeypatch.setattr(module, "PARKED", 3)
    monkeypatch.setattr(spool, "settle", gone)
    made = house.runner()
    for number in range(3):
        made._lanes.add(TestLanes().message(number, 1, "a.test"))
    with pytest.raises(spool.SpoolUnavailable):
        await made._make_room()
    assert TestLanes().drain(made._lanes) == [0, 1, 2]


@database
async def test_a_crowded_lane_goes_back_so_that_others_are_claimed(house, server, monkeypatch):
    monkeypatch.setattr(module, "PARKED", 8)
    monkeypatch.setattr(module, "CLAIM", 4)
    with peer(hangs={"CONNECT"}) as slow:
        OutboundRoute.objects.create(domain="slow.far.test", host="127.0.0.1", port=slow.listen.port)
        for number in range(30):
            await house.queue(f"u{number}@slow.far.test")
        message = await house.queue("ann@far.test")
        house.config = dataclasses.replace(house.config, stop_s=0.05)
        monkeypatch.setattr(module, "MAKE_ROOM_S", 0.0)
        async with running(house) as made:
            async with asyncio.timeout(20):
                while not settled(message):
                    made.wake()
                    await asyncio.sleep(0.01)
    assert len(server.received) == 1
    assert Recipient.objects.filter(last_reply=module.WAITS_TURN, tries=0).exists()


# The rules of mailboxes


@database
class TestRules:
    async def test_an_automatic_answer_that_nobody_takes_is_gone(self, house, server):
        server.behaviour.rcpt = {"ann@far.test": "550 5.1.1 nobody"}
        message = await house.queue("ann@far.test", sender="", direction="answer", caused_by=house.demo.pk)
        (row,) = await go(house, message)
        assert (row.state, row.holds, row.tenant_id) == ("failed", 0, house.demo.pk)
        assert Message.objects.count() == 1 and not Content.objects.exists()

    async def test_an_answer_of_a_suspended_tenant_waits(self, house, server):
        house.demo.status = Status.SUSPENDED
        house.demo.save(update_fields=["status"])
        message = await house.queue("ann@far.test", sender="", direction="answer", caused_by=house.demo.pk)
        (row,) = await go(house, message)
        assert row.holds == Hold.SUSPENDED

    async def test_a_copy_in_the_queue_stays_its_mailboxs_whatever_is_forwarded_by_now(self, house, server):
        message = await house.queue("office@demo.test")
        world.rules(house.office, forward_to=["ann@far.test"], forward_keep=False)
        (row,) = await go(house, message)
        assert row.state == "delivered"
        assert len(house.new(house.office)) == 1 and not server.received

    async def test_junk_in_the_queue_goes_into_junk(self, house):
        world.rules(house.office, junk=True)
        message = await house.queue("office@demo.test", body=letters.body(b"X-Spam-Flag: YES\r\n\r\nBuy.\r\n"))
        (row,) = await go(house, message)
        assert row.state == "delivered"
        assert house.new(house.office) == []
        assert list((house.config.maildir(house.office.opaque_id) / ".Junk" / "new").iterdir())
