"""What authd knows of mailboxes: asked by workers, told by Dovecot, written behind, counted. On both databases."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from mailserver import authd, counting, usage
from mailserver.clock import Clock
from mailserver.directory import Crossing, DirectoryUnavailable, Uncounted, UsageFact
from mailserver.directory import usage as rows
from mailserver.usage import UsageBook, UsageClient
from panel.domains.models import Domain
from panel.mailboxes.models import Address, Mailbox, MailboxUsage
from panel.operations.notices import room
from panel.rules.quota import Fit, Wanted
from panel.rules.status import Status
from panel.sending.models import Content, Message, Recipient
from tests.support import dovecot_dict, world
from tests.support.authd import (  # noqa: F401 (fixtures)
    House,
    demo_mailbox,
    own_config,
    running,
    running_house,
    task_connection,
)
from tests.support.waiting import until

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


class Database:
    """The directory's part that a book asks, on the test's own connection; it can be gone."""

    def __init__(self) -> None:
        self.gone = False
        self.reads: list[list[int]] = []
        self.batches: list[list[rows.UsageChange]] = []

    async def usage(self, mailbox_ids):
        self._check()
        self.reads.append(list(mailbox_ids))
        return rows.read(mailbox_ids)

    async def record_usage(self, changes):
        self._check()
        self.batches.append(list(changes))
        return rows.record(changes, NOW)

    def _check(self) -> None:
        if self.gone:
            raise DirectoryUnavailable("gone")


class Time:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def database(demo) -> Database:
    return Database()


@pytest.fixture(autouse=True)
def counted(demo) -> MailboxUsage:
    """It has just been counted, and no count comes between; those tests that want one say so."""
    return MailboxUsage.objects.create(mailbox=demo, counted_at=timezone.now())


def used(box: Mailbox) -> tuple[int, int]:
    row = MailboxUsage.objects.get(mailbox=box)
    return row.used_bytes, row.messages


# What is known, and who may put how much where


async def test_what_fits_is_taken_and_written_in_one_batch(demo, database):
    book = UsageBook(database)
    assert await book.ask([Wanted(demo.pk, 1000, 600)], take=True) == [(Fit.FITS, 200)]
    assert await book.ask([Wanted(demo.pk, 1000, 600)], take=True) == [(Fit.FULL, 0)]
    assert await book.ask([Wanted(demo.pk, 1000, 1001)], take=True) == [(Fit.NEVER, 0)]
    assert await book.ask([Wanted(demo.pk, 1000, 400)], take=False) == [(Fit.FITS, 200)]
    for _ in range(50):
        book.add(demo.pk, 1, 1)
    await book.flush()
    assert used(demo) == (650, 51)
    assert len(database.batches) == 1 and len(database.reads) == 1
    await book.flush()
    assert len(database.batches) == 1, "nothing is written twice"


async def test_the_room_that_a_worker_may_fill_by_itself_is_its_share(demo, database):
    book = UsageBook(database)
    book.askers |= {1, 2, 3, 4}
    assert await book.ask([Wanted(demo.pk, 8000, 0)], take=False) == [(Fit.FITS, 1000)]


async def test_what_one_worker_may_fill_by_itself_is_kept_from_the_others_for_a_while(demo, database):
    time = Time()
    book = UsageBook(database, monotonic_s=time)
    assert await book.ask([Wanted(demo.pk, 1000, 200)], take=True, asker="one") == [(Fit.FITS, 400)]
    assert await book.ask([Wanted(demo.pk, 1000, 401)], take=False, asker="two") == [(Fit.FULL, 0)]
    book.told([[demo.pk, 300, 1]], "one")
    assert await book.ask([Wanted(demo.pk, 1000, 400)], take=False, asker="two") == [(Fit.FITS, 200)]
    assert (await book.ask([Wanted(demo.pk, 1000, 401)], take=False, asker="two"))[0][0] is Fit.FULL
    time.now_s += 6
    assert (await book.ask([Wanted(demo.pk, 1000, 500)], take=False, asker="two"))[0][0] is Fit.FITS


async def test_what_was_added_is_told_once_however_many_tell_at_once(demo, house, client):
    client.add(demo.pk, 700)
    await asyncio.gather(client.flush(), client.flush(), client.take([Wanted(demo.pk, 10_000, 100)]), client.flush())
    await until(lambda: MailboxUsage.objects.filter(mailbox=demo, used_bytes=800, messages=2).exists())


async def test_another_nodes_mail_is_seen_within_a_second_where_room_is_short(demo, database):
    time = Time()
    here, there = UsageBook(database, monotonic_s=time), UsageBook(database, monotonic_s=time)
    assert await here.ask([Wanted(demo.pk, 1000, 800)], take=True) == [(Fit.FITS, 0)]
    await here.flush()
    await there.ask([Wanted(demo.pk, 1000, 200)], take=True)
    await there.flush()
    assert used(demo) == (1000, 2)
    assert (await here.ask([Wanted(demo.pk, 1000, 200)], take=False))[0][0] is Fit.FITS, "known just now"
    time.now_s += 1.1
    assert (await here.ask([Wanted(demo.pk, 1000, 200)], take=False))[0][0] is Fit.FULL


async def test_what_dovecot_tells_holds_over_what_was_added(demo, database):
    book = UsageBook(database)
    book.add(demo.pk, 5000, 3)
    book.tell(demo.pk, UsageFact(700, 2))
    book.add(demo.pk, 100, 1)
    assert await book.ask([Wanted(demo.pk, 1000, 200)], take=False) == [(Fit.FITS, 0)]
    await book.flush()
    assert used(demo) == (800, 3)


async def test_room_for_what_dovecot_stores_is_kept_free_until_it_tells_or_for_a_while(demo, database):
    time = Time()
    book = UsageBook(database, monotonic_s=time)
    wanted = [Wanted(demo.pk, 1000, 600, told=True)]
    assert (await book.ask(wanted, take=True))[0][0] is Fit.FITS
    assert (await book.ask(wanted, take=True))[0][0] is Fit.FULL
    time.now_s += 60
    assert (await book.ask(wanted, take=True))[0][0] is Fit.FITS
    book.tell(demo.pk, UsageFact(100, 1))
    assert (await book.ask(wanted, take=True))[0][0] is Fit.FITS
    await book.flush()
    assert used(demo) == (100, 1), "it is never written"


async def test_nothing_is_said_against_mail_while_the_database_is_gone(demo, database):
    book = UsageBook(database)
    database.gone = True
    for _ in range(2):
        assert await book.ask([Wanted(demo.pk, 10, 5)], take=True) == [(Fit.FITS, 0)]
    await book.flush()
    database.gone = False
    await book.flush()
    assert used(demo) == (10, 2)


async def test_changes_of_mailboxes_that_are_gone_stop_nobody_elses(demo, database):
    book = UsageBook(database)
    book.add(10**9, 5, 1)
    book.add(demo.pk, 5, 1)
    book.add(demo.pk, -50, -3)
    await book.flush()
    assert used(demo) == (0, 0), "never less than nothing"
    assert not MailboxUsage.objects.filter(pk=10**9).exists()


async def test_a_mailbox_forgotten_while_the_database_went_away_stops_no_other(demo, database, monkeypatch):
    book = UsageBook(database)

    async def goes_away(changes):
        book.add(10**9, 5, 1)  # one that is used meanwhile, and takes its place
        raise DirectoryUnavailable("gone")

    monkeypatch.setattr(usage, "MOST_KNOWN", 1)
    with monkeypatch.context() as away:
        away.setattr(database, "record_usage", goes_away)
        book.add(demo.pk, 5, 1)
        await book.flush()
    monkeypatch.setattr(usage, "MOST_KNOWN", 100)
    await book.flush()
    book.add(demo.pk, 7, 1)
    await book.flush()
    assert used(demo) == (7, 1), "the count finds the rest"


async def test_what_is_written_costs_few_queries_however_many_mailboxes(demo, database):
    many = [world.mailbox(f"box{number}@demo.test", password="x" * 12) for number in range(3)]

    async def queries(boxes) -> int:
        book = UsageBook(database)
        for box in boxes:
            book.add(box.pk, 5, 1)
        with CaptureQueriesContext(connection) as captured:
            await book.flush()
        return len([each for each in captured if "UPDATE" not in each["sql"]])

    assert await queries(many[:1]) == await queries(many)


# Warning


async def test_owner_is_warned_once_a_threshold_and_again_after_it_fell(demo, database):
    Mailbox.objects.filter(pk=demo.pk).update(quota_bytes=100)
    warned: list[int] = []

    async def warn(crossing: Crossing) -> bool:
        warned.append(crossing.percent)
        return True

    book = UsageBook(database, warn)
    for added in (79, 1, 1, 14, 1, -10, 10, -40, 40):
        book.add(demo.pk, added, 1)
        await book.flush()
    assert warned == [80, 95, 95, 95]


async def test_a_warning_that_fails_costs_nobody_else_theirs(demo, database):
    other = world.mailbox("other@demo.test", password="x" * 12, quota_bytes=100)
    Mailbox.objects.filter(pk=demo.pk).update(quota_bytes=100)
    warned: list[int] = []

    async def warn(crossing: Crossing) -> bool:
        warned.append(crossing.mailbox_id)
        if len(warned) == 1:
            raise RuntimeError("it can't be made")
        return True

    book = UsageBook(database, warn)
    for box in (demo, other):
        book.add(box.pk, 90, 1)
    await book.flush()
    assert sorted(warned) == sorted([demo.pk, other.pk])


async def test_warning_that_cannot_be_sent_is_sent_later(demo, database):
    Mailbox.objects.filter(pk=demo.pk).update(quota_bytes=100)
    answers = [False, True]

    async def warn(crossing: Crossing) -> bool:
        return answers.pop(0)

    book = UsageBook(database, warn)
    book.add(demo.pk, 90, 1)
    await book.flush()
    await book.flush()
    await book.flush()
    assert answers == []


# The wire


@pytest.fixture
async def client(house: House) -> AsyncIterator[UsageClient]:
    made = UsageClient(authd.socket_path(house.config))
    yield made
    made.close()


async def test_workers_ask_and_tell_over_the_socket(demo, house, client):
    assert await client.take([Wanted(demo.pk, 1000, 900)]) == {demo.pk: Fit.FITS}
    assert await client.take([Wanted(demo.pk, 1000, 900)]) == {demo.pk: Fit.FULL}
    assert await client.take([Wanted(demo.pk, None, 50)]) == {demo.pk: Fit.FITS}
    await client.flush()
    await until(lambda: MailboxUsage.objects.filter(mailbox=demo, used_bytes=950, messages=2).exists())


async def test_ample_room_is_asked_for_once(demo, house, client, monkeypatch):
    asked: list[object] = []
    ask = client._asker.ask

    async def counted(question):
        asked.append(question)
        return await ask(question)

    monkeypatch.setattr(client._asker, "ask", counted)
    for _ in range(20):
        assert await client.fits([Wanted(demo.pk, 10**6, 1000)]) == {demo.pk: Fit.FITS}
        assert await client.take([Wanted(demo.pk, 10**6, 1000)]) == {demo.pk: Fit.FITS}
    assert len(asked) == 1
    await client.flush()
    await until(lambda: MailboxUsage.objects.filter(mailbox=demo, used_bytes=20_000, messages=20).exists())


async def test_nobody_is_refused_for_room_that_another_worker_only_may_fill(demo, house, client):
    """It is waited for: what is lent is back, or used, within a second or so."""
    other = UsageClient(authd.socket_path(house.config))
    try:
        assert await client.take([Wanted(demo.pk, 10_000, 100)]) == {demo.pk: Fit.FITS}  # and may fill more
        assert await other.fits([Wanted(demo.pk, 10_000, 9_900)]) == {demo.pk: Fit.FITS}
        assert await other.take([Wanted(demo.pk, 10_000, 9_900)]) == {demo.pk: Fit.FITS}
        assert await client.take([Wanted(demo.pk, 10_000, 1)]) == {demo.pk: Fit.FULL}
    finally:
        other.close()


async def test_two_workers_together_never_fill_a_mailbox_beyond_its_quota(demo, house, client):
    other = UsageClient(authd.socket_path(house.config))
    one_more = [Wanted(demo.pk, 100_000, 1000)]
    try:
        await asyncio.gather(client.fits(one_more), other.fits(one_more))
        taken = 0
        for each in (client, other, client):
            while await each.take(one_more) == {demo.pk: Fit.FITS}:
                taken += 1
                assert taken <= 100
        await client.flush()
        await other.flush()
    finally:
        other.close()
    await until(lambda: MailboxUsage.objects.filter(mailbox=demo, used_bytes=taken * 1000).exists())
    assert taken >= 90, "and leave hardly any room"


async def test_mail_is_taken_while_authd_is_away_and_told_later(demo, config):
    client = UsageClient(authd.socket_path(config))
    assert await client.take([Wanted(demo.pk, 10, 700)]) == {demo.pk: Fit.FITS}
    await client.flush()
    async with running(config):
        await client.flush()
        await until(lambda: MailboxUsage.objects.filter(mailbox=demo, used_bytes=700).exists())
    client.close()


async def test_dovecot_tells_what_a_mailbox_holds(demo, house, client):
    reader, writer = await asyncio.open_unix_connection(house.config.dovecot_socket)
    writer.write(dovecot_dict.QUOTA_HELLO)
    for login, used_bytes, messages in (("shop@demo.test", 5000, 7), ("nobody@elsewhere.test", 1, 1)):
        writer.write(dovecot_dict.told(login, used_bytes, messages))
        assert await asyncio.wait_for(reader.readline(), 5) == b"O1\n"
    assert await client.take([Wanted(demo.pk, 5000, 1)]) == {demo.pk: Fit.FULL}
    await until(lambda: MailboxUsage.objects.filter(mailbox=demo, used_bytes=5000, messages=7).exists())
    # A look-up has no place on this connection.
    writer.write(dovecot_dict.userdb("shop@demo.test") + b"\n")
    assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_dovecot_tells_of_a_quoted_mailbox_by_the_name_that_it_uses(demo, house):
    Address.objects.filter(pk=demo.address.pk).update(local_part="a b")
    reader, writer = await asyncio.open_unix_connection(house.config.dovecot_socket)
    writer.write(dovecot_dict.QUOTA_HELLO + dovecot_dict.told("a b@demo.test", 5000, 7))
    assert await asyncio.wait_for(reader.readline(), 5) == b"O1\n"
    await until(lambda: MailboxUsage.objects.filter(mailbox=demo, used_bytes=5000, messages=7).exists())
    writer.close()


@pytest.mark.parametrize(
    "line", [b'{"added":7}', b'{"added":[[1,2]]}', b'{"id":1,"take":true,"usage":[[1]]}', b'{"id":1,"usage":[]}', b"[]"]
)
async def test_what_no_worker_sends_ends_the_connection(house, line):
    reader, writer = await asyncio.open_unix_connection(authd.socket_path(house.config))
    writer.write(line + b"\n")
    assert await asyncio.wait_for(reader.read(), 5) == b""


# The count


def letter(folder: Path, name: str, content: bytes = b"x") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


@pytest.fixture
def maildir(tmp_path) -> Path:
    made = tmp_path / "Maildir"
    letter(made / "new", "1.R1.mx,S=100,W=100")
    letter(made / "cur", "2.M1P1.mx,S=90,W=93:2,S")
    letter(made / "cur", "3.M1P1.mx,S=80:2,")
    letter(made / "cur", "4.M1P1.mx:2,", b"seven b")
    letter(made / ".Junk" / "new", "5.R2.mx,S=1000,W=1000")
    letter(made / ".Junk" / "tmp", "6.R2.mx,S=5,W=5")
    letter(made, "dovecot.index.log", b"x" * 500)
    letter(made / "cur", ".nfs0001")
    return made


def test_sizes_are_those_that_dovecot_counts(maildir):
    assert sorted(filter(None, counting.sizes(maildir))) == [7, 80, 93, 100, 1000]


async def test_count_puts_right_what_was_missed(demo, counted, config, database, maildir, monkeypatch):
    counted.delete()
    monkeypatch.setattr(counting, "STEP", 2)
    monkeypatch.setattr(counting, "REST_S", 0)
    place = config.maildir(demo.opaque_id)
    place.parent.mkdir(parents=True)
    maildir.rename(place)
    book = UsageBook(database)
    book.add(demo.pk, 10**6, 900)
    await book.flush()
    [due] = rows.next_uncounted(NOW, 10)
    assert due == Uncounted(demo.pk, demo.opaque_id, "")
    with ThreadPoolExecutor(1) as thread:
        fact = await counting.Counting(config, database, book, Clock()).count(due, thread)
    book.tell(demo.pk, fact, is_counted=True)
    await book.flush()
    assert used(demo) == (1280, 5)
    assert rows.next_uncounted(NOW, 10) == []
    assert rows.was_counted(demo.pk, NOW)


async def test_mailbox_without_a_folder_is_empty_unless_dovecot_has_it_elsewhere(demo, config, database):
    with ThreadPoolExecutor(1) as thread:
        count = counting.Counting(config, database, UsageBook(database), Clock()).count
        assert await count(Uncounted(demo.pk, demo.opaque_id, ""), thread) == UsageFact(0, 0)
        assert await count(Uncounted(demo.pk, demo.opaque_id, "lmtp"), thread) is None


async def test_authd_counts_by_itself(demo, counted, config, maildir):
    counted.delete()
    place = config.maildir(demo.opaque_id)
    place.parent.mkdir(parents=True)
    maildir.rename(place)
    async with running(config):
        await until(lambda: MailboxUsage.objects.filter(mailbox=demo, used_bytes=1280, messages=5).exists())


async def test_room_in_a_full_mailbox_is_seen_though_nobody_tells(demo, counted, config):
    """A mail program that keeps the folder open: Dovecot tells only when it closes it."""
    folder = config.maildir(demo.opaque_id) / "cur"
    letter(folder, "1.R1.mx,S=900,W=900:2,S")
    MailboxUsage.objects.update(used_bytes=900, messages=1)
    async with running(config):
        client = UsageClient(authd.socket_path(config))
        assert await client.fits([Wanted(demo.pk, 1000, 500)]) == {demo.pk: Fit.FULL}
        (folder / "1.R1.mx,S=900,W=900:2,S").unlink()

        async def fits() -> bool:
            return await client.fits([Wanted(demo.pk, 1000, 500)]) == {demo.pk: Fit.FITS}

        await until(fits, within_s=10)
        client.close()


def test_a_maildir_whose_mail_changes_has_another_stamp(maildir):
    before = counting.stamp(maildir)
    assert counting.stamp(maildir) == before
    (maildir / ".Junk" / "new" / "5.R2.mx,S=1000,W=1000").unlink()
    assert counting.stamp(maildir) != before
    assert counting.stamp(maildir / "none") is None


async def test_warning_goes_into_the_queue_as_a_letter_in_the_persons_language(demo, config, settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, postmaster="postmaster@demo.test")
    Mailbox.objects.filter(pk=demo.pk).update(quota_bytes=1000, language="ja")
    async with running(config, warns=True):
        client = UsageClient(authd.socket_path(config))
        await client.take([Wanted(demo.pk, 1000, 850)])
        await until(Message.objects.filter(direction="internal").exists)
        client.close()
    message = Message.objects.get()
    with translation.override("ja"):
        subject = translation.gettext("Your mailbox is {percent} full").format(percent="85 %")
    assert (message.reverse_path, message.subject) == ("", subject)
    row = Recipient.objects.get(message=message)
    assert (row.resolved, row.state) == ("shop@demo.test", "waiting")
    raw = bytes(Content.objects.get(message=message).body)
    found = message_from_bytes(raw, policy=policy.default)
    assert raw.isascii()
    assert (found["Reply-To"], found["Auto-Submitted"]) == ("postmaster@demo.test", "auto-generated")
    assert (found["Content-Language"], found.get_content_type()) == ("ja", "multipart/alternative")
    said = found.get_body(("plain",)).get_content()
    assert "850 bytes" in said and "1.0 KB" in said and "150 bytes" in said
    for gone in (0, 10**9):
        assert room.tell(gone, 1, 1, message.accepted_at) is None
    Domain.objects.update(proof="pending")
    assert room.tell(demo.pk, 1, 1, message.accepted_at) is None, "mail to it goes to whose address it is"
    Domain.objects.update(proof="proved")
    Mailbox.objects.filter(pk=demo.pk).update(status=Status.CLOSED)
    assert room.tell(demo.pk, 1, 1, message.accepted_at) is None
