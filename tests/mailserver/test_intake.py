"""Intake: 250 only for what is durable, refusals that leave nothing, crashes that lose and repeat nothing."""

import asyncio
import errno
import os
import signal
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection

from mailserver import spool, trace
from mailserver.clock import Clock
from mailserver.content import ContentStore
from mailserver.envelope import Refused, VacationAnswer
from mailserver.intake import Intake
from mailserver.transports import maildir
from panel.database import ids
from panel.rules import reply
from panel.rules.limits import Kind, Subject, Window
from panel.sending.models import Content, Message, Recipient
from tests.support import letters, world
from tests.support.letters import IDS, incoming, local, remote

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 20_000
OFFICE = local("office@demo.test", tenant_id=1, number=1)
SHOP = local("shop@demo.test", tenant_id=1, number=2)
THERE = remote("a@remote.test")


class World:
    """An intake on a folder of its own; `take` runs its whole life around the messages."""

    def __init__(self, data) -> None:
        self.config = letters.config(data)
        self.content = ContentStore(self.config)
        self.woken = 0
        self.make()

    def make(self) -> None:
        self.intake = Intake(self.config, IDS, Clock(), self.content, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def take(self, *messages):
        async def life():
            self.intake.start(asyncio.get_running_loop())
            try:
                return await asyncio.gather(*(self.intake.take(message) for message in messages))
            finally:
                await asyncio.to_thread(self.intake.stop)

        replies = asyncio.run(life())
        self.make()
        return replies

    def large(self):
        spill = self.content.new_spill()
        spill.write(LARGE)
        return spill.finish()

    def mail(self, recipient):
        folder = self.config.maildir(recipient.deliveries[0].mailbox.opaque_id) / "new"
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.exists() else []

    def staged(self):
        return sorted(self.config.staging.iterdir())

    def spilled(self):
        return sorted(os.listdir(self.config.spool))

    def age_staged(self, seconds: float) -> None:
        for path in self.staged():
            os.utime(path, (time.time() - seconds,) * 2)


@pytest.fixture
def here(tmp_path) -> World:
    return World(tmp_path)


def full(*args) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_mail_for_here_and_elsewhere_is_delivered_here_and_queued(here):
    message = incoming(OFFICE, THERE)
    [answer] = here.take(message)
    assert str(answer).startswith("250 2.0.0 queued as ")
    assert Message(id=message.id).queue_id in answer.text
    assert len(here.mail(OFFICE)) == 1
    assert here.staged() == []
    assert sorted(Recipient.objects.values_list("resolved", "state")) == [
        ("a@remote.test", "waiting"), ("office@demo.test", "delivered"),
    ]
    assert Content.objects.count() == 1
    assert here.woken == 1


def test_copy_here_does_not_tell_that_somebody_forwards(here):
    mark = f"{trace.FORWARDED}: 0 abc\r\n".encode()
    message = incoming(OFFICE, THERE, prefix=mark + b"Received: from a.test\r\n\tby mx\r\n")
    here.take(message)
    [copy] = here.mail(OFFICE)
    assert copy == maildir.head_of("peer@remote.test", "office@demo.test") + (
        b"Received: from a.test\r\n\tby mx\r\n" + message.body.data
    )
    assert bytes(Content.objects.get().prefix) == message.prefix, "what leaves has it"


def test_copy_for_a_full_mailbox_waits_and_the_others_are_delivered(here):
    office = OFFICE.deliveries[0].mailbox.mailbox_id
    [answer] = here.take(incoming(OFFICE, SHOP, full=frozenset({office})))
    assert answer.code == 250
    assert (len(here.mail(OFFICE)), len(here.mail(SHOP))) == (0, 1)
    assert sorted(Recipient.objects.values_list("resolved", "state", "next_hop")) == [
        ("office@demo.test", "waiting", "local"), ("shop@demo.test", "delivered", "local"),
    ]
    assert Content.objects.count() == 1, "its content is kept for it"
    assert here.woken == 1


def test_inbound_mail_for_mailboxes_here_has_its_rows_after_the_reply(here):
    answers = here.take(incoming(OFFICE, SHOP), incoming(OFFICE))
    assert [answer.code for answer in answers] == [250, 250]
    assert (len(here.mail(OFFICE)), len(here.mail(SHOP))) == (2, 1)
    assert Message.objects.count() == 2
    assert set(Recipient.objects.values_list("state", flat=True)) == {"delivered"}
    assert not Content.objects.exists()
    assert here.woken == 0


def test_inbound_mail_for_mailboxes_here_is_answered_before_its_rows(here, monkeypatch):
    """The database is gone when the rows would be written: the mail was delivered and is answered 250."""
    monkeypatch.setattr(
        spool, "accept", lambda batch, **_: [Refused(entry.incoming.id, reply.UNAVAILABLE) for entry in batch]
    )
    [answer] = here.take(incoming(OFFICE))
    assert answer.code == 250
    assert len(here.mail(OFFICE)) == 1


def test_without_a_database_nothing_is_kept(here, monkeypatch):
    monkeypatch.setattr(
        spool, "accept", lambda batch, **_: [Refused(entry.incoming.id, reply.UNAVAILABLE) for entry in batch]
    )
    answers = here.take(incoming(OFFICE, THERE), incoming(OFFICE, direction="submission"), incoming(
        THERE, body=here.large()))
    assert answers == [reply.UNAVAILABLE] * 3
    assert (here.mail(OFFICE), here.staged(), here.spilled()) == ([], [], [])


def test_over_the_limit_nothing_is_kept(here):
    subject = Subject(Kind.MAILBOX, 7, "shop@demo.test", ((Window.HOUR, 1),))
    message = incoming(OFFICE, THERE, direction="submission", charges=((subject, 2),), body=here.large())
    [answer] = here.take(message)
    assert answer.code == 450
    assert (here.mail(OFFICE), here.staged(), here.spilled(), Message.objects.count()) == ([], [], [], 0)


def test_large_body_is_kept_for_the_queue_and_copied_into_the_mailbox(here):
    message = incoming(OFFICE, THERE, body=here.large())
    here.take(message)
    key = Message(id=message.id).queue_id
    assert here.spilled() == [key]
    assert here.mail(OFFICE)[0].endswith(LARGE)
    stored = spool.read_content(message.id, folder=here.config.spool)
    assert stored.body.path.read_bytes() == LARGE


def test_large_body_is_not_kept_when_every_copy_is_local(here):
    here.take(incoming(OFFICE, body=here.large()), incoming(SHOP, body=here.large(), direction="submission"))
    assert here.spilled() == []
    assert here.mail(OFFICE)[0].endswith(LARGE)


def test_full_disk_is_452_for_that_message_alone(here, monkeypatch):
    whole = os.write

    def write(descriptor, content):
        return full() if b"no room" in bytes(content) else whole(descriptor, content)

    monkeypatch.setattr(os, "write", write)
    bad = incoming(SHOP, OFFICE, THERE, body=letters.body(b"Subject: no room\r\n\r\n"))
    answers = here.take(incoming(OFFICE, THERE), bad, incoming(SHOP, THERE))
    assert [str(answer)[:9] for answer in answers] == ["250 2.0.0", "452 4.3.1", "250 2.0.0"]
    assert (len(here.mail(OFFICE)), len(here.mail(SHOP))) == (1, 1)
    assert here.staged() == []
    assert Message.objects.count() == 2


def test_full_spool_is_452_and_leaves_nothing(here, monkeypatch):
    body = here.large()
    monkeypatch.setattr(os, "rename", full)
    [answer] = here.take(incoming(OFFICE, THERE, body=body))
    assert answer == reply.DISK_FULL
    assert (here.staged(), here.spilled(), Message.objects.count()) == ([], [], 0)


def test_failed_rename_after_the_commit_is_250_and_left_for_the_queue(here, monkeypatch):
    monkeypatch.setattr(maildir, "_rename", full)
    [answer] = here.take(incoming(OFFICE, direction="submission"))
    assert answer.code == 250
    assert len(here.staged()) == 1
    assert here.woken == 1
    [message] = spool.claim(now=letters.now(), lease_by="1/1", lease_s=60, limit=10)
    assert message.recipients[0].staged


def test_failed_rename_of_mail_without_rows_writes_them_first(here, monkeypatch):
    whole = maildir._rename

    def rename(config, staged, new):
        return full() if staged.mailbox.mailbox_id == 1 else whole(config, staged, new)

    monkeypatch.setattr(maildir, "_rename", rename)
    [answer] = here.take(incoming(OFFICE, SHOP))
    assert answer.code == 250
    assert len(here.mail(SHOP)) == len(here.staged()) == 1
    assert sorted(Recipient.objects.values_list("resolved", "state")) == [
        ("office@demo.test", "waiting"), ("shop@demo.test", "delivered"),
    ]


@pytest.mark.parametrize("step", ["stage", "keep", "commit", "publish"])
def test_fault_of_ours_is_451_and_the_lane_goes_on(here, monkeypatch, step):
    whole = getattr(here.intake, step)
    calls = []

    def broken(parts):
        calls.append(parts)
        if len(calls) == 1:
            raise RuntimeError("a fault")
        return whole(parts)

    monkeypatch.setattr(here.intake, step, broken)

    async def life():
        here.intake.start(asyncio.get_running_loop())
        try:
            return [await here.intake.take(incoming(OFFICE, THERE)) for _ in range(2)]
        finally:
            await asyncio.to_thread(here.intake.stop)

    first, second = asyncio.run(life())
    assert first == reply.INTERNAL_ERROR
    assert second.code == 250


def test_crash_between_commit_and_publish_is_finished_once(here):
    """What a kill there leaves: staged, committed, not published. The sweep and a claim finish it."""
    killed_at(here, "publish", incoming(OFFICE, THERE))
    assert here.mail(OFFICE) == []
    [staged] = here.staged()

    here.intake.sweep()
    assert Recipient.objects.get(resolved="office@demo.test").state == "delivered"  # too young to be late
    here.age_staged(61)
    here.intake.sweep()
    here.intake.sweep()

    claimed = spool.claim(now=letters.now(), lease_by="1/1", lease_s=60, limit=10)
    [message] = [one for one in claimed if one.recipients[0].next_hop == "local"]
    mailbox = OFFICE.deliveries[0].mailbox
    copy = maildir.staged_copy(here.config, message.recipients[0].id, mailbox)
    assert copy.path == staged
    maildir.publish(here.config, copy)
    maildir.publish(here.config, copy)
    assert len(here.mail(OFFICE)) == 1
    here.intake.sweep()
    assert spool.claim(now=letters.now(), lease_by="1/1", lease_s=60, limit=10) == []


def test_copy_that_a_living_process_is_about_to_publish_is_left_to_it(here):
    """As one that finishes its sessions after a take-over; a crashed one's is finished at once."""
    killed_at(here, "publish", incoming(OFFICE, THERE))
    here.intake._began_s = time.time() + 1  # a process that began after it was staged
    number = ids.worker_of(Recipient.objects.get(resolved="office@demo.test").id)
    here.intake.sweep(alive={number})
    assert Recipient.objects.get(resolved="office@demo.test").state == "delivered"
    here.intake.sweep(alive={number + 1})
    assert Recipient.objects.get(resolved="office@demo.test").state == "waiting"


def killed_at(here: World, step: str, message) -> None:
    """A process takes the message and is killed (-9) before this step."""
    connection.close()
    child = os.fork()
    if child == 0:  # pragma: no cover
        setattr(here.intake, step, lambda parts: os.kill(os.getpid(), signal.SIGKILL))
        here.take(message)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_crash_before_the_commit_leaves_a_file_that_goes_after_a_day(here):
    killed_at(here, "commit", incoming(OFFICE, THERE))
    here.age_staged(3600)
    here.intake.sweep()
    assert len(here.staged()) == 1
    (here.config.staging / "try-0123456789abcdef.1.R0000000000001.mx.posthouse.test,S=1,W=1").touch()
    here.age_staged(86400 + 60)
    here.intake.sweep()
    assert here.staged() == []
    assert here.mail(OFFICE) == []


def test_copy_of_a_recipient_that_was_given_up_is_swept(here, monkeypatch):
    monkeypatch.setattr(maildir, "_rename", full)
    here.take(incoming(OFFICE, direction="submission"))
    Recipient.objects.update(state="discarded")
    here.age_staged(61)
    here.intake.sweep()
    assert here.staged() == []


def test_lost_commit_in_doubt_keeps_what_the_rows_may_need(here, monkeypatch):
    monkeypatch.setattr(
        spool, "accept",
        lambda batch, **_: [Refused(entry.incoming.id, reply.UNAVAILABLE, in_doubt=True) for entry in batch],
    )
    message = incoming(OFFICE, THERE, body=here.large())
    assert here.take(message) == [reply.UNAVAILABLE]
    assert len(here.staged()) == 1
    assert here.spilled() == [Message(id=message.id).queue_id]


def test_messages_that_wait_are_committed_together(here, monkeypatch):
    sizes = []
    go, entered = threading.Event(), threading.Event()
    whole = here.intake._carry

    def carry(parts):
        sizes.extend([len(parts)] if parts else [])
        entered.set()
        assert go.wait(10)
        whole(parts)

    monkeypatch.setattr(here.intake, "_carry", carry)

    async def life():
        here.intake.start(asyncio.get_running_loop())
        first = asyncio.create_task(here.intake.take(incoming(THERE)))
        await asyncio.to_thread(entered.wait, 10)
        rest = [asyncio.create_task(here.intake.take(incoming(THERE))) for _ in range(9)]
        await asyncio.sleep(0)
        go.set()
        try:
            return await asyncio.gather(first, *rest)
        finally:
            await asyncio.to_thread(here.intake.stop)

    answers = asyncio.run(life())
    assert {answer.code for answer in answers} == {250}
    assert sizes == [1, 9]


def test_session_that_goes_away_does_not_stop_its_message(here, monkeypatch):
    go, entered = threading.Event(), threading.Event()
    whole = here.intake.commit

    def commit(parts):
        entered.set()
        assert go.wait(10)
        whole(parts)

    monkeypatch.setattr(here.intake, "commit", commit)

    async def life():
        here.intake.start(asyncio.get_running_loop())
        task = asyncio.create_task(here.intake.take(incoming(OFFICE, THERE)))
        await asyncio.to_thread(entered.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        await asyncio.to_thread(here.intake.stop)

    asyncio.run(life())
    assert Message.objects.count() == 1
    assert len(here.mail(OFFICE)) == 1


def test_more_than_the_bound_is_asked_to_come_again(here, monkeypatch):
    monkeypatch.setattr("mailserver.intake.WAITING_MOST", 0)
    body = here.large()
    assert here.take(incoming(THERE, body=body)) == [reply.UNAVAILABLE]
    assert here.spilled() == []


def test_after_its_stop_nothing_is_taken(here):
    here.take(incoming(THERE))

    async def late():
        return await here.intake.take(incoming(THERE))

    assert asyncio.run(late()) == reply.UNAVAILABLE


def test_message_that_can_not_be_understood_fails_alone(here):
    answers = here.take(incoming(THERE), incoming(replace(THERE, deliveries=None)), incoming(THERE))
    assert [answer.code for answer in answers] == [250, 451, 250]


# The rules of mailboxes


JUNK = replace(OFFICE, deliveries=(replace(OFFICE.deliveries[0], junk=True),))


def junk_of(here) -> list[bytes]:
    folder = here.config.maildir(OFFICE.deliveries[0].mailbox.opaque_id) / ".Junk"
    assert (folder / "maildirfolder").exists()
    return [path.read_bytes() for path in sorted((folder / "new").iterdir()) if ",J" not in path.name]


def test_junk_lies_in_the_folder_junk(here):
    assert [answer.code for answer in here.take(incoming(JUNK), incoming(OFFICE))] == [250, 250]
    assert (len(junk_of(here)), len(here.mail(OFFICE))) == (1, 1)
    assert here.staged() == []


def test_junk_that_could_not_be_renamed_is_still_for_junk(here, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(maildir, "publish_all", lambda config, staged: [OSError(errno.EIO, "broken") for _ in staged])
        here.take(incoming(JUNK))
    (row,) = Recipient.objects.all()
    assert (row.state, row.staged) == ("waiting", True)
    staged = maildir.staged_copy(here.config, row.pk, OFFICE.deliveries[0].mailbox)
    maildir.publish(here.config, staged)
    assert len(junk_of(here)) == 1


def test_who_blocks_among_others_has_a_row_and_no_mail(here):
    refused = replace(SHOP, deliveries=(), refusal=reply.SENDER_BLOCKED.about(address="shop@demo.test"))
    [answer] = here.take(incoming(OFFICE, refused))
    assert answer.code == 250
    assert sorted(Recipient.objects.values_list("original", "state", "last_reply")) == [
        ("office@demo.test", "delivered", str(reply.DELIVERED_HERE)),
        ("shop@demo.test", "discarded", "550 5.7.1 shop@demo.test takes no mail from this sender"),
    ]
    assert here.woken == 0 and not Content.objects.exists()


@pytest.mark.parametrize("others", [(), (THERE,)], ids=["rows that follow", "rows before the reply"])
def test_an_answer_wakes_the_queue(here, others):
    world.domain("demo.test", world.tenant("Demo"))
    box = world.mailbox("office@demo.test")
    letter = incoming(remote("peer@remote.test"), direction="answer", reverse_path=None)
    answer = VacationAnswer(box.pk, "peer@remote.test", letters.now() + timedelta(days=7), letter)
    here.take(incoming(OFFICE, *others, answers=(answer,)))
    assert Recipient.objects.filter(state="waiting", original="peer@remote.test").count() == 1
    assert here.woken
