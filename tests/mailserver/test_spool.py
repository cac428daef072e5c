"""The spool on the database under test: what it writes, leases and settles, and what it refuses."""

import errno
import json
import multiprocessing
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import OperationalError, connection, transaction
from django.db.migrations.recorder import MigrationRecorder

from mailserver import spool
from mailserver.envelope import Accepted, Attempt, Disposition, Outcome, Refused, Settlement
from mailserver.spool import sql
from panel.database.ids import IdMaker
from panel.operations.models import Node
from panel.rules import reply
from panel.rules.limits import Kind, Rings, Subject, Window
from panel.sending import models
from panel.sending.models import Content, Counter, Hold, Message, Recipient
from tests.support import letters
from tests.support.letters import IDS, address, entry, incoming, local, now, remote

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)

BY = "1/1"


def accept(*entries: spool.Entry) -> list[Accepted | Refused]:
    return spool.accept(entries, now=now())


def claim(**fields) -> list:
    return spool.claim(**({"now": now(), "lease_by": BY, "lease_s": 900.0, "limit": 100} | fields))


def settlement(message, recipient, **fields) -> Settlement:
    values = {
        "recipient_id": recipient.id, "message_id": message.id, "tenant_id": recipient.tenant_id,
        "recipient_tenant_id": recipient.recipient_tenant_id, "state": "delivered", "due_at": None,
        "tries": recipient.tries + 1, "holds": 0, "delay_reported": False, "reply": "250 2.0.0 OK", "attempt": None,
    }
    return Settlement(**(values | fields))


def settle(*batch: Settlement, **fields) -> spool.Settled:
    return spool.settle(batch, **({"now": now(), "lease_by": BY, "next_id": IDS.next} | fields))


def attempt(recipient, reply_=reply.QUEUED, disposition=Disposition.DELIVERED) -> Attempt:
    outcome = Outcome(recipient.id, disposition, reply_, "mx.remote.test", "192.0.2.9", "TLSv1.3", 12)
    return Attempt(IDS.next(), now(), outcome)


def subject(limit: int, number: int = 7) -> Subject:
    return Subject(Kind.MAILBOX, number, "shop@demo.test", ((Window.HOUR, limit),))


# accept


def test_accepted_rows_are_what_the_orm_reads():
    mailbox = local("office@demo.test", tenant_id=4)
    given = entry(
        mailbox, remote("a@remote.test"), smtputf8=True, body_type="8BITMIME", ret="HDRS", envid="QQ314159",
        subject="Grüße, 你好", charges=((subject(100), 2),),
    )
    moment = now()
    [answer] = spool.accept([given], now=moment, life=timedelta(days=5))
    assert answer == Accepted(given.incoming.id)

    message = Message.objects.get()
    sent = given.incoming
    assert (message.id, message.accepted_at, message.direction, message.tenant_id) == (
        sent.id, sent.received_at, "inbound", None,
    )
    assert (message.reverse_path, message.subject, message.message_id, message.header_from) == (
        "peer@remote.test", "Grüße, 你好", "<1@client.example>", "shop@demo.test",
    )
    assert (message.client_ip, message.client_name, message.tls) == (
        "192.0.2.7", "client.example", "TLSv1.3 TLS_AES_256_GCM_SHA384",
    )
    assert (message.size, message.smtputf8, message.body, message.ret, message.envid) == (
        len(sent.prefix) + sent.body.size, True, "8BITMIME", "HDRS", "QQ314159",
    )
    assert message.facts["charged"][0]["used"] == 2
    here, there = Recipient.objects.order_by("id")
    assert (here.original, here.resolved, here.next_hop, here.tenant_id, here.recipient_tenant_id) == (
        "office@demo.test", "office@demo.test", "local", 4, 4,
    )
    assert (here.state, here.staged, here.settled_at, here.lease_until, here.holds) == (
        "delivered", True, moment, None, 0,
    )
    assert (there.state, there.staged, there.settled_at, there.next_hop) == ("waiting", False, None, "remote.test")
    assert (there.due_at, there.expires_at) == (moment, moment + timedelta(days=5))
    content = Content.objects.get()
    assert (bytes(content.prefix), bytes(content.body), content.where, content.size, content.sha256) == (
        sent.prefix, letters.TEXT, "inline", sent.body.size, sent.body.sha256,
    )


def test_column_lists_name_every_column():
    for model, columns in [
        (Message, sql.MESSAGE), (Recipient, sql.RECIPIENT), (Content, sql.CONTENT), (models.Attempt, sql.ATTEMPT),
    ]:
        assert sorted(columns) == sorted(field.attname for field in model._meta.concrete_fields)


def test_rows_written_raw_and_by_the_orm_are_stored_alike():
    accept(entry(remote("a@remote.test")))
    row = Message.objects.get()
    row.pk = IDS.next()
    row.save(force_insert=True)
    columns = ", ".join(f'"{name}"' for name in sql.MESSAGE if name != "id")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM sending_message ORDER BY id")
        raw, orm = cursor.fetchall()
    assert raw == orm


def test_every_byte_of_a_body_comes_back():
    odd = bytes(range(256)) * 40
    given = entry(remote("a@remote.test"), body=letters.body(odd))
    accept(given)
    content = spool.read_content(given.incoming.id, folder=Path("spool"))
    assert content is not None
    assert content.body == given.incoming.body
    assert content.prefix == given.incoming.prefix


def test_hostile_text_is_mended_or_cut():
    given = entry(
        remote("a@remote.test"), subject="a\0b" + "x" * 900, message_id="\udce9\ud800", header_from="é" * 900,
        client=replace(letters.CLIENT, name="n" * 900, ip="not an address"), envid="e" * 900,
    )
    assert accept(given) == [Accepted(given.incoming.id)]
    message = Message.objects.get()
    assert message.subject.startswith("a\ufffdb")
    assert (len(message.subject), len(message.header_from), len(message.client_name)) == (200, 320, 255)
    assert message.client_ip is None


@pytest.mark.parametrize(
    "poison",
    [
        {"reverse_path": letters.address("x" * 400 + "@remote.test")},
        {"reverse_path": letters.address("nul\0@remote.test")},
        {"id": 1 << 63},
    ],
)
def test_poison_message_fails_alone(poison):
    before, bad, after = (entry(remote("a@remote.test"), **fields) for fields in ({}, poison, {}))
    answers = accept(before, bad, after)
    assert [type(answer) for answer in answers] == [Accepted, Refused, Accepted]
    assert answers[1].reply == reply.INTERNAL_ERROR
    assert Message.objects.count() == Recipient.objects.count() == Content.objects.count() == 2


def test_message_that_the_database_refuses_fails_alone():
    taken = entry(remote("a@remote.test"), charges=((subject(100), 1),))
    accept(taken)
    good = [entry(remote("b@remote.test"), charges=((subject(100), 1),)) for _ in range(2)]
    again = entry(remote("c@remote.test"), id=taken.incoming.id, charges=((subject(100), 1),))
    answers = accept(good[0], again, good[1])
    assert [type(answer) for answer in answers] == [Accepted, Refused, Accepted]
    assert Rings.of(bytes(Counter.objects.get().rings)).count(Window.HOUR, now().timestamp()) == 3


def test_one_place_for_one_tenant_is_delivered_once_and_the_first_original_wins():
    office = letters.local("office@demo.test", tenant_id=1)
    alias = replace(office, original=address("sales@demo.test"))
    foreign = replace(office, original=address("team@other.test"), tenant_id=2)
    rows = spool.recipients_of(incoming(office, alias, foreign), IDS.next, staged=True)
    assert [(row.original, row.recipient_tenant_id) for row in rows] == [
        ("office@demo.test", 1), ("team@other.test", 2),
    ]


def test_over_the_limit_nothing_is_charged_or_written():
    first, second, third = (
        entry(remote("a@remote.test"), charges=((subject(5), count), (replace(subject(100), id=8), count)))
        for count in (3, 3, 2)
    )
    answers = accept(first, second, third)
    assert [type(answer) for answer in answers] == [Accepted, Refused, Accepted]
    assert answers[1].reply.code == 450
    assert Message.objects.count() == 2
    counted = {
        counter.subject: Rings.of(bytes(counter.rings)).count(Window.HOUR, now().timestamp())
        for counter in Counter.objects.all()
    }
    assert counted == {7: 5, 8: 5}


def _send_many(processes: int, number: int, threads: int, turns: int, subjects: tuple[Subject, ...]) -> None:
    ids = IdMaker(1, 2 + number)

    def work(thread: int) -> None:
        try:
            for turn in range(turns):
                # Named in both orders: their locks are taken in one all the same.
                charges = tuple((one, 1) for one in (subjects if (thread + turn) % 2 else subjects[::-1]))
                accept(*(entry(remote("a@remote.test"), id=ids.next(), charges=charges) for _ in range(1 + turn % 2)))
        finally:
            spool.close_connection()

    letters.IDS = IdMaker(1, 2 + processes + number)  # of the recipients
    running = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join(60)


def test_charge_is_for_the_minute_in_which_its_turn_came():
    """A batch that waited for the lock is not free again before its hour is over."""
    subject = Subject(Kind.MAILBOX, 7, "shop@demo.test", ((Window.HOUR, 1),))
    begun = now().replace(second=59)
    turn_s = begun.timestamp() + 8

    def time_s() -> float:
        assert connection.in_atomic_block
        return turn_s

    given = entry(remote("a@remote.test"), charges=((subject, 1),))
    [answer] = spool.accept([given], now=begun, time_s=time_s)
    assert isinstance(answer, Accepted)
    rings = Rings.of(Counter.objects.get(kind=Kind.MAILBOX, subject=7).rings)
    assert rings.count(Window.HOUR, turn_s + 3599) == 1


def test_limits_are_exact_with_many_processes_and_threads():
    """Asked for twice as often as the limit allows, by each of 4 × 8 at once."""
    processes, threads, turns, allowed = 4, 8, 4, 96
    subjects = (subject(allowed), replace(subject(10_000), kind=Kind.TENANT, id=1))
    connection.close()
    context = multiprocessing.get_context("fork")
    running = [
        context.Process(target=_send_many, args=(processes, number, threads, turns, subjects))
        for number in range(processes)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0] * processes
    assert Message.objects.count() == Recipient.objects.count() == allowed
    assert {Rings.of(bytes(c.rings)).count(Window.HOUR, now().timestamp()) for c in Counter.objects.all()} == {allowed}


def test_lost_database_refuses_each_for_now(monkeypatch):
    def lost(*args):
        raise OperationalError("gone")

    monkeypatch.setattr(sql, "write", lost)
    answers = accept(entry(remote("a@remote.test")), entry(remote("a@remote.test")))
    assert [answer.reply for answer in answers] == [reply.UNAVAILABLE] * 2
    assert not any(answer.in_doubt for answer in answers)


def test_database_lost_while_it_commits_leaves_the_answer_in_doubt(monkeypatch):
    class Lost:
        def __enter__(self):
            return self

        def __exit__(self, *args):
            raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(transaction, "atomic", Lost)
    monkeypatch.setattr(sys.modules["mailserver.spool.accept"], "_reserve_and_write", lambda *args: {})
    [answer] = accept(entry(remote("a@remote.test")))
    assert answer.reply == reply.UNAVAILABLE
    assert answer.in_doubt


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no connection to lose")
@pytest.mark.parametrize(
    "call", [lambda: accept(entry(remote("a@remote.test")))[0], lambda: claim()[0], spool.count_waiting]
)
def test_call_connects_again_when_its_connection_was_lost(call):
    accept(entry(remote("a@remote.test")))
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [pid] = cursor.fetchone()
    killer = threading.Thread(target=_terminate, args=(pid,))
    killer.start()
    killer.join(10)
    assert not isinstance(call(), Refused)


def _terminate(pid: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    connection.close()


# claim


def test_claim_gives_what_is_due_grouped_by_message_and_hop():
    one = entry(remote("a@remote.test"), remote("b@remote.test"), remote("c@other.test"), local("office@demo.test"))
    two = entry(remote("a@remote.test"), reverse_path=None, envid="ENV")
    accept(one, two)
    claimed = claim()
    assert sorted((m.id, m.recipients[0].next_hop, len(m.recipients)) for m in claimed) == sorted(
        [(one.incoming.id, "remote.test", 2), (one.incoming.id, "other.test", 1), (two.incoming.id, "remote.test", 1)]
    )
    of_two = next(message for message in claimed if message.id == two.incoming.id)
    assert (of_two.reverse_path, of_two.envid, of_two.direction) == ("", "ENV", "inbound")
    [recipient] = of_two.recipients
    assert recipient.accepted_at == two.incoming.received_at
    assert (recipient.original, recipient.tries, recipient.staged) == ("a@remote.test", 0, False)
    assert claim() == []


def test_lease_that_ran_out_can_be_claimed_again():
    accept(entry(remote("a@remote.test")))
    moment = now()
    assert len(claim(now=moment, lease_s=60)) == 1
    assert claim(now=moment + timedelta(seconds=59), lease_by="2/1") == []
    assert len(claim(now=moment + timedelta(seconds=61), lease_by="2/1")) == 1
    assert Recipient.objects.get().lease_by == "2/1"


def test_leases_that_ran_out_can_be_left_alone():
    accept(entry(remote("a@remote.test")))
    assert claim(lease_s=1)
    accept(entry(remote("b@remote.test")))
    [message] = claim(now=now() + timedelta(seconds=5), lease_by="other", lapsed=False)
    assert message.recipients[0].resolved == "b@remote.test"


def test_leases_that_their_holder_doesnt_know_of_are_given_back():
    accept(*(entry(remote(f"{name}@remote.test")) for name in "abc"))
    first, *_ = [r for m in claim(limit=2) for r in m.recipients]
    claim(lease_by="other", limit=1)
    assert spool.release_all_but([first.id], lease_by=BY) == 1
    assert sorted(Recipient.objects.values_list("lease_by", flat=True)) == ["", BY, "other"]
    assert spool.release_all_but([], lease_by=BY) == 1


def test_leases_of_dead_workers_are_taken_back_and_nobody_elses():
    accept(*(entry(remote(f"{name}@remote.test")) for name in "abcd"))
    for name in ("0-1-dead", "0-1-alive", "0-11-other", "0-1-dead"):
        assert len(claim(lease_by=name, limit=1)) == 1
    assert spool.take_back("0-1", but="0-1-alive", now=now()) == 2
    taken = [r for m in claim(lease_by="0-1-alive") for r in m.recipients]
    assert [(r.resolved, r.lost_leases) for r in taken] == [("a@remote.test", 1), ("d@remote.test", 1)]
    assert Recipient.objects.get(resolved="c@remote.test").lease_by == "0-11-other"


def test_a_lease_that_runs_out_counts_as_a_lost_try():
    accept(entry(remote("a@remote.test")))
    moment = now()
    for lost in range(4):
        [message] = claim(now=moment + timedelta(seconds=61 * lost), lease_s=60)
        [recipient] = message.recipients
        assert (recipient.tries, recipient.lost_leases) == (lost, lost)
    assert Recipient.objects.get().tries == 3


def test_held_and_later_recipients_are_not_claimed():
    accept(*(entry(remote("a@remote.test")) for _ in range(3)))
    held, later, _ = Recipient.objects.order_by("id")
    Recipient.objects.filter(pk=held.pk).update(holds=Hold.SUSPENDED)
    Recipient.objects.filter(pk=later.pk).update(due_at=now() + timedelta(hours=1))
    assert len(claim()) == 1
    assert spool.count_waiting() == 3


def test_tenants_are_served_in_turn():
    flood = [entry(local("a@demo.test", tenant_id=1), local("b@demo.test", tenant_id=1)) for _ in range(10)]
    accept(*flood, entry(local("c@other.test", tenant_id=2)))
    Recipient.objects.update(state="waiting", settled_at=None)
    tenants = [recipient.tenant_id for message in claim(limit=4) for recipient in message.recipients]
    assert len(tenants) == 4
    assert 2 in tenants


def test_draining_node_claims_nothing():
    accept(entry(remote("a@remote.test")))
    number = spool.register_node("mx1", "1", now())
    Node.objects.filter(number=number).update(draining=True)
    assert claim(node=number) == []
    assert len(claim(node=number + 1)) == 1


def test_two_claimers_never_get_the_same_recipient():
    accept(*(entry(remote("a@remote.test")) for _ in range(40)))
    start = threading.Barrier(4)
    got: list[int] = []

    def work(name: str) -> None:
        try:
            start.wait(10)
            for _ in range(5):
                got.extend(r.id for m in claim(lease_by=name, limit=5) for r in m.recipients)
        finally:
            spool.close_connection()

    running = [threading.Thread(target=work, args=(f"1/{number}",)) for number in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
    assert len(got) == len(set(got)) == 40


def test_next_due_tells_when_to_wake():
    moment = now()
    assert spool.next_due(moment) is None
    accept(entry(remote("a@remote.test")))
    assert spool.next_due(now()) <= now()
    [message] = claim(now=now(), lease_s=600)
    due = spool.next_due(now())
    assert timedelta(seconds=590) < due - now() <= timedelta(seconds=600)
    settle(settlement(message, message.recipients[0], state="waiting", due_at=moment + timedelta(hours=1)))
    assert spool.next_due(now()) == moment + timedelta(hours=1)


def test_released_recipients_can_be_claimed_at_once():
    accept(entry(remote("a@remote.test")))
    [message] = claim()
    ids = [recipient.id for recipient in message.recipients]
    spool.release(ids, lease_by="other")
    assert claim() == []
    spool.release(ids, lease_by=BY)
    assert len(claim()) == 1


# settle


def test_settled_recipient_has_its_attempt_and_its_content_goes_with_the_last():
    given = entry(remote("a@remote.test"), remote("b@remote.test"))
    accept(given)
    [message] = claim()
    first, second = message.recipients
    assert settle(settlement(message, first, attempt=attempt(first))) == spool.Settled()
    assert Content.objects.count() == 1
    row = Recipient.objects.get(pk=first.id)
    assert (row.state, row.lease_until, row.lease_by, row.tries, row.last_reply) == (
        "delivered", None, "", 1, "250 2.0.0 OK",
    )
    assert row.settled_at is not None
    tried = row.attempts.get()
    assert (tried.outcome, tried.host, tried.address, tried.duration_ms) == (
        "delivered", "mx.remote.test", "192.0.2.9", 12,
    )
    settle(settlement(message, second, state="failed"))
    assert not Content.objects.exists()


def test_key_of_a_spilled_body_is_given_back_when_nobody_needs_it():
    given = replace(entry(remote("a@remote.test")), key="0000000000001")
    accept(given)
    content = spool.read_content(given.incoming.id, folder=Path("/spool"))
    assert content.body.path == Path("/spool/0000000000001")
    assert content.body.data is None
    [message] = claim()
    assert settle(settlement(message, message.recipients[0])).unlink == ("0000000000001",)


def test_deferred_recipient_waits_until_it_is_due():
    accept(entry(remote("a@remote.test")))
    [message] = claim()
    due = now() + timedelta(minutes=5)
    settle(settlement(message, message.recipients[0], state="waiting", due_at=due, delay_reported=True))
    row = Recipient.objects.get()
    assert (row.state, row.due_at, row.lease_by, row.settled_at, row.delay_reported) == ("waiting", due, "", None, True)
    assert Content.objects.exists()
    assert claim() == []
    assert len(claim(now=due)) == 1


def test_failure_and_its_dsn_are_one_transaction(monkeypatch):
    accept(entry(remote("a@remote.test")))
    [message] = claim()
    [recipient] = message.recipients
    dsn = incoming(local("shop@demo.test", tenant_id=3), direction="internal", reverse_path=None)
    ended = settlement(message, recipient, state="failed", attempt=attempt(recipient), dsn=dsn)

    whole = sql.write

    def cut(statements):
        whole(statements[:2])
        raise OperationalError("gone")

    monkeypatch.setattr(sql, "write", cut)
    with pytest.raises(spool.SpoolUnavailable):
        settle(ended)
    monkeypatch.undo()
    assert Recipient.objects.get().state == "waiting"
    assert not models.Attempt.objects.exists()

    settle(ended)
    assert Recipient.objects.get(pk=recipient.id).state == "failed"
    made = Message.objects.get(pk=dsn.id)
    assert (made.direction, made.reverse_path) == ("internal", "")
    [returned] = claim()
    assert (returned.id, returned.recipients[0].next_hop, returned.recipients[0].staged) == (dsn.id, "local", False)
    assert returned.recipients[0].tenant_id == 3
    assert spool.read_content(dsn.id, folder=Path("spool")).body.data == letters.TEXT


def test_recipient_claimed_by_another_is_not_settled():
    accept(entry(remote("a@remote.test")))
    moment = now()
    [message] = claim(now=moment, lease_s=1)
    [recipient] = message.recipients
    claim(now=moment + timedelta(seconds=5), lease_by="2/1")
    dsn = incoming(local("shop@demo.test"), direction="internal", reverse_path=None)
    done = settle(settlement(message, recipient, state="failed", attempt=attempt(recipient), dsn=dsn))
    assert done.lost == (recipient.id,)
    assert Recipient.objects.get().state == "waiting"
    assert Message.objects.count() == 1
    assert not models.Attempt.objects.exists()


def test_poison_settlement_fails_alone():
    accept(entry(remote("a@remote.test")), entry(remote("b@remote.test")))
    one, two = claim()
    bad = settlement(two, two.recipients[0], attempt=replace(attempt(two.recipients[0]), id=1 << 70))
    done = settle(settlement(one, one.recipients[0], reply="x\0" * 900), bad)
    assert done.failed == (two.recipients[0].id,)
    assert Recipient.objects.get(pk=one.recipients[0].id).state == "delivered"
    assert Recipient.objects.get(pk=two.recipients[0].id).state == "waiting"


# staged copies


def test_staged_recipient_that_was_not_published_is_queued_again():
    accept(entry(local("office@demo.test")))
    [row] = Recipient.objects.all()
    assert claim() == []
    assert spool.republish([row.id, 12345], now()) == 1
    [message] = claim()
    assert message.recipients[0].staged
    assert spool.republish([row.id], now()) == 0


def test_only_the_holder_of_the_lease_marks_a_recipient_staged():
    dsn = entry(local("office@demo.test"))
    accept(replace(dsn, recipients=spool.recipients_of(dsn.incoming, IDS.next, staged=False), keep_content=True))
    [message] = claim()
    [recipient] = message.recipients
    named = []
    assert not spool.mark_staged(recipient.id, lease_by="other", take_name=lambda: named.append("other"))
    assert spool.mark_staged(recipient.id, lease_by=BY, take_name=lambda: named.append(BY))
    assert named == [BY]
    assert Recipient.objects.get().staged


def test_recipient_whose_file_can_not_take_its_name_is_not_marked():
    def broken():
        raise OSError(errno.EIO, "Input/output error")

    dsn = entry(local("office@demo.test"))
    accept(replace(dsn, recipients=spool.recipients_of(dsn.incoming, IDS.next, staged=False), keep_content=True))
    [message] = claim()
    with pytest.raises(OSError, match="Input"):
        spool.mark_staged(message.recipients[0].id, lease_by=BY, take_name=broken)
    assert not Recipient.objects.get().staged


def test_which_exist_and_which_keys_are_in_use():
    given = entry(local("office@demo.test"), remote("a@remote.test"))
    key = Message(id=given.incoming.id).queue_id
    accept(replace(given, key=key))
    ids = [row.id for row in given.recipients]
    assert spool.which_exist([*ids, 5]) == {ids[0]: "delivered", ids[1]: "waiting"}
    assert spool.spool_keys_in_use([key, "0000000000009", "tmp.3"]) == {key}


# nodes


def test_node_keeps_its_number_and_another_gets_the_next():
    assert spool.register_node("mx1", "1.0", now()) == 0
    assert spool.register_node("mx2", "1.0", now()) == 1
    assert spool.register_node("mx1", "1.1", now()) == 0
    assert Node.objects.get(name="mx1").version == "1.1"
    later = now() + timedelta(minutes=1)
    spool.seen(0, later)
    assert Node.objects.get(name="mx1").last_seen_at == later


def test_nodes_that_come_at_once_get_different_numbers():
    start = threading.Barrier(6)
    numbers: list[int] = []

    def work(number: int) -> None:
        try:
            start.wait(10)
            numbers.append(spool.register_node(f"mx{number}", "1", now()))
        finally:
            spool.close_connection()

    running = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
    assert sorted(numbers) == list(range(6))


def test_tables_that_are_older_than_the_program_are_noticed():
    assert not spool.has_pending_migrations()
    MigrationRecorder.Migration.objects.filter(app="operations").delete()
    try:
        assert spool.has_pending_migrations()
    finally:
        MigrationRecorder(connection).record_applied("operations", "0001_initial")


def test_sixty_fifth_node_is_told_what_to_do():
    moment = now()
    Node.objects.bulk_create(
        Node(number=number, name=f"mx{number}", version="1", started_at=moment, last_seen_at=moment)
        for number in range(64)
    )
    with pytest.raises(spool.NoFreeNumber, match="POSTHOUSE_NODE"):
        spool.register_node("one more", "1", moment)


def test_facts_of_the_charge_are_json():
    accept(entry(remote("a@remote.test"), charges=((subject(9), 1),)))
    with connection.cursor() as cursor:
        cursor.execute("SELECT facts FROM sending_message")
        [facts] = cursor.fetchone()
    assert json.loads(facts)["charged"] == [
        {"kind": "mailbox", "id": 7, "name": "shop@demo.test", "window": "hour", "used": 1, "allowed": 9}
    ]
