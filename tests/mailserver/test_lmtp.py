"""Mail for mailboxes that Dovecot stores, from the session's question to the settled row: intake and runner together.

Real spool, directory and sockets, a scripted store. On both databases.
"""

import asyncio
import dataclasses
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from django.db import connections

from mailserver import intake as intake_module
from mailserver import spool
from mailserver.clock import Clock
from mailserver.content import ContentStore
from mailserver.directory import Directory
from mailserver.envelope import Hold, IncomingRecipient
from mailserver.intake import Intake
from mailserver.resolver import Resolver
from mailserver.runner import Runner
from mailserver.transports.lmtp import LmtpTransport
from mailserver.transports.wire import Deadlines
from panel.domains.models import Domain
from panel.mailboxes.models import Credential
from panel.rules.addresses import parse_address
from panel.sending.models import Attempt, Content, Message, Recipient
from tests.support import letters, world
from tests.support.lmtp import lmtp_peer
from tests.support.waiting import until

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)

THREADS = 3
ANN, BOB, CID = "ann@demo.test", "bob@demo.test", "cid@demo.test"


class House:
    """A worker's intake, runner and directory; demo.test is stored by `store`, other.test in our Maildirs."""

    def __init__(self, data, store, executor) -> None:
        config = letters.config(data)
        self.config = dataclasses.replace(config, store=dataclasses.replace(config.store, lmtp=store.where))
        self.clock = Clock()
        self.executor = executor
        self.content = ContentStore(self.config)
        self.directory = Directory("+", "", config.hostname, executor)
        self.runner = Runner(
            self.config, self.directory, letters.IDS, self.clock, self.content, Resolver.of(self.config), executor,
            name="1-1", lmtp=LmtpTransport(self.config, deadlines=Deadlines(*[5.0] * 8)),
        )
        self.intake = Intake(
            self.config, letters.IDS, self.clock, self.content, on_queued=self.runner.wake, deliverer=self.runner
        )
        demo = world.tenant("Demo")
        world.domain("demo.test", demo, store="lmtp")
        world.domain("other.test", demo)
        self.boxes = {text: world.mailbox(text) for text in (ANN, BOB, CID, "eve@other.test")}
        world.alias("sales@demo.test", ANN)

    async def take(self, *to: str, **fields):
        recipients = []
        for text in to:
            found = await self.directory.resolve(parse_address(text))
            recipients.append(IncomingRecipient(found.asked, found.deliveries, found.tenant_id))
        if fields.get("direction") == "submission":
            fields["login"] = await self.directory.login(Credential.objects.get(mailbox=self.boxes[ANN]).pk)
            fields["reverse_path"] = parse_address(ANN)
        message = letters.incoming(*recipients, **fields)
        return await self.intake.take(message)

    def rows(self) -> dict[str, tuple[str, int, str]]:
        return {row.original: (row.state, row.holds, row.last_reply[:9]) for row in Recipient.objects.all()}

    async def settled(self) -> None:
        await until(lambda: not Recipient.objects.filter(lease_by__gt="").exists(), 10)

    def maildir(self, text: str) -> list:
        return list((self.config.maildir(self.boxes[text].opaque_id) / "new").glob("*"))


@asynccontextmanager
async def running(made: House):
    made.intake.start(asyncio.get_running_loop())
    task = asyncio.create_task(made.runner.run())
    await until(lambda: made.runner._loop is not None)
    try:
        yield made
    finally:
        async with asyncio.timeout(20):
            await made.runner.stop()
            await task
            await asyncio.to_thread(made.intake.stop)


@pytest.fixture
def store():
    with lmtp_peer() as made:
        yield made


@pytest.fixture
async def house(transactional_db, store, tmp_path, monkeypatch):
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    with ThreadPoolExecutor(THREADS) as executor:
        made = House(tmp_path, store, executor)
        async with running(made):
            yield made
        barrier = threading.Barrier(THREADS)

        def close() -> None:
            barrier.wait(5)
            connections.close_all()

        for future in [executor.submit(close) for _ in range(THREADS)]:
            future.result()
        connections.close_all()


async def test_mail_from_elsewhere_is_in_the_store_when_it_is_answered(house, store):
    answer = await house.take(ANN, BOB)
    assert str(answer).startswith("250 2.0.0 queued as ")
    assert [address for address, _ in store.stored] == [ANN, BOB]
    assert store.stored[0][1] == b"Received: from client.example\r\n" + letters.TEXT
    await house.settled()
    assert house.rows() == {ANN: ("delivered", 0, "250 2.0.0"), BOB: ("delivered", 0, "250 2.0.0")}
    assert not Content.objects.exists()
    assert {row.outcome for row in Attempt.objects.all()} == {"delivered"}
    assert house.maildir(ANN) == []


async def test_each_has_its_own_outcome_and_only_the_deferred_wait(house, store):
    store.script.stored = {BOB: "450 4.2.0 locked", CID: "550 5.7.1 rejected"}
    assert (await house.take(ANN, BOB, CID)).code == 250
    await house.settled()
    assert house.rows() == {
        ANN: ("delivered", 0, "250 2.0.0"), BOB: ("waiting", 0, "450 4.2.0"),
        # Nobody may be told of it: its sender is not ours.
        CID: ("waiting", int(Hold.UNDELIVERABLE), "550 5.7.1"),
    }
    store.script.stored = {}
    Recipient.objects.filter(original=BOB).update(due_at=house.clock.now())
    house.runner.wake()
    await until(lambda: house.rows()[BOB][0] == "delivered", 10)
    assert [address for address, _ in store.stored] == [ANN, BOB]


async def test_what_the_store_refuses_for_all_is_refused_in_the_session(house, store):
    store.script.rcpt = {ANN: "552 5.2.2 <ann@demo.test> mailbox is full"}
    store.script.stored = {BOB: "550 5.7.1 no"}
    assert str(await house.take("sales@demo.test", BOB)) == "552 5.2.2 <sales@demo.test> mailbox is full"
    await house.settled()
    assert house.rows() == {"sales@demo.test": ("failed", 0, "552 5.2.2"), BOB: ("failed", 0, "550 5.7.1")}
    assert not Content.objects.exists()
    assert Message.objects.count() == 1


async def test_a_full_mailbox_waits_when_the_store_says_452(house, store):
    store.script.stored = {ANN: "452 4.2.2 full"}
    assert (await house.take(ANN)).code == 250
    await house.settled()
    assert house.rows() == {ANN: ("waiting", 0, "452 4.2.2")}


async def test_with_the_store_away_mail_is_accepted_and_waits(house, store):
    store.stop()
    assert (await house.take(ANN)).code == 250
    await house.settled()
    assert house.rows() == {ANN: ("waiting", 0, "451 4.4.1")}
    assert Content.objects.count() == 1


async def test_a_session_waits_for_a_silent_store_only_so_long(house, store, monkeypatch):
    monkeypatch.setattr(intake_module, "FIRST_TRY_S", 0.2)
    store.script.hangs_at = "DOT"
    store.script.stored = {ANN: "550 5.7.1 no"}
    assert (await house.take(ANN)).code == 250
    await until(lambda: store.hanging == 1, 10)
    store.script.hangs_at = ""
    house.runner._lmtp.hurry()
    await house.settled()
    assert house.rows() == {ANN: ("waiting", 0, "451 4.4.2")}
    # A refusal that comes too late for the session is never taken for told.
    Recipient.objects.update(due_at=house.clock.now())
    house.runner.wake()
    await until(lambda: house.rows()[ANN] == ("waiting", int(Hold.UNDELIVERABLE), "550 5.7.1"), 10)


async def test_what_was_submitted_is_answered_at_once_and_its_refusal_is_a_report(house, store):
    store.script.stored = {BOB: "550 5.7.1 no"}
    assert (await house.take(BOB, direction="submission")).code == 250
    # The report goes to the sender's mailbox, which Dovecot stores as well.
    await until(lambda: [address for address, _ in store.stored] == [ANN], 10)
    await house.settled()
    assert house.rows() == {BOB: ("failed", 0, "550 5.7.1"), ANN: ("delivered", 0, "250 2.0.0")}
    assert b"multipart/report" in store.stored[0][1]


async def test_a_domain_of_ours_beside_it_is_written_by_us(house, store):
    assert (await house.take(ANN, "eve@other.test")).code == 250
    await house.settled()
    assert len(house.maildir("eve@other.test")) == 1
    assert [address for address, _ in store.stored] == [ANN]


async def test_without_a_database_nothing_is_given_to_the_store(house, store, monkeypatch):
    gone = spool.SpoolUnavailable("gone")

    def refuse(*args, **kwargs):
        raise gone

    monkeypatch.setattr(sys.modules["mailserver.spool.accept"], "commit", refuse)
    assert (await house.take(ANN)).code == 451
    assert (store.stored, store.connections) == ([], 0)


async def test_a_worker_without_room_leaves_it_to_the_queue(house, store, monkeypatch):
    monkeypatch.setattr(house.runner, "offer", lambda: None)
    assert (await house.take(ANN)).code == 250
    await until(lambda: house.rows().get(ANN, ("",))[0] == "delivered", 10)
    assert len(store.stored) == 1


async def test_what_waits_follows_its_domain_to_another_store(house, store):
    store.script.stored = {ANN: "450 4.2.0 locked"}
    await house.take(ANN)
    await house.settled()
    Domain.objects.filter(name="demo.test").update(store="maildir")
    Recipient.objects.update(due_at=house.clock.now())
    house.runner.wake()
    await until(lambda: len(house.maildir(ANN)) == 1, 10)
    await house.settled()
    assert house.rows()[ANN][0] == "delivered"


async def test_many_at_once_share_connections_and_each_comes_once(house, store):
    bodies = [letters.body(b"From: a@b.test\r\nSubject: %d\r\n\r\nHello.\r\n" % number) for number in range(60)]
    answers = await asyncio.gather(*(house.take(ANN, body=body) for body in bodies))
    assert {answer.code for answer in answers} == {250}
    assert sorted(content.partition(b"\r\n")[2] for _, content in store.stored) == sorted(b.data for b in bodies)
    assert store.connections <= 20
    await house.settled()
