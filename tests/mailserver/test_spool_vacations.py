"""Automatic answers in the spool: with the message's rows, once per sender and period, bounded, pruned."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection

from mailserver import spool
from mailserver.envelope import Accepted, VacationAnswer
from mailserver.spool import vacations
from panel.mailboxes.models import VacationAnswer as Remembered
from panel.rules.limits import Kind, Subject, Window
from panel.sending.models import Content, Message, Recipient
from tests.support import letters, world
from tests.support.letters import IDS, entry, incoming, local, remote

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)

OFFICE = local("office@demo.test", tenant_id=1, number=1)


@pytest.fixture
def box():
    world.domain("demo.test", world.tenant("Demo"))
    return world.mailbox("office@demo.test")


def answer(box_id: int, sender: str = "bob@remote.test", days: float = 7, **fields) -> VacationAnswer:
    letter = incoming(remote(sender), direction="answer", reverse_path=None, caused_by=1, **fields)
    return VacationAnswer(box_id, sender, letters.now() + timedelta(days=days), letter)


def take(*answers: VacationAnswer, **fields):
    [taken] = spool.accept([entry(OFFICE, answers=answers, **fields)], now=letters.now(), next_id=IDS.next)
    return taken


def answered() -> list[str]:
    return list(Recipient.objects.filter(state="waiting").order_by("id").values_list("original", flat=True))


def test_an_answer_is_queued_with_the_message_once_in_its_period(box):
    take(answer(box.pk))
    take(answer(box.pk))
    take(answer(box.pk, "eve@remote.test"))
    assert answered() == ["bob@remote.test", "eve@remote.test"]
    assert set(Message.objects.values_list("direction", flat=True)) == {"inbound", "answer"}
    row = Recipient.objects.filter(state="waiting").first()
    assert (row.tenant_id, row.recipient_tenant_id, row.next_hop) == (1, None, "remote.test")
    assert Content.objects.count() == 2


def test_a_sender_is_answered_again_when_the_period_is_over(box):
    take(answer(box.pk, days=-1))
    take(answer(box.pk))
    take(answer(box.pk))
    assert len(answered()) == 2


def test_many_workers_at_once_give_one_answer(box):
    barrier = threading.Barrier(4)
    found = []

    def work() -> None:
        try:
            barrier.wait(10)
            for _ in range(5):
                found.append(take(answer(box.pk)))
        finally:
            connection.close()

    running = [threading.Thread(target=work) for _ in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert len(found) == 20 and all(isinstance(each, Accepted) for each in found)
    assert answered() == ["bob@remote.test"]


def test_a_refused_message_is_not_answered(box):
    nothing = Subject(Kind.TENANT, 1, "Demo", ((Window.HOUR, 0),), 1)
    assert not isinstance(take(answer(box.pk), charges=((nothing, 1),)), Accepted)
    assert answered() == [] and not Remembered.objects.exists()


def test_an_answer_is_charged_and_over_a_limit_there_is_none(box):
    """Whoever sends with ever new senders, or changes the vacation between, sends no more than by logging in."""
    two = Subject(Kind.MAILBOX, box.pk, "office@demo.test", ((Window.HOUR, 2),), 1)
    for number in (1, 1, 2, 3, 4):
        assert isinstance(take(answer(box.pk, f"x{number}@remote.test", charges=((two, 1),))), Accepted)
    assert answered() == ["x1@remote.test", "x2@remote.test"]
    assert Remembered.objects.count() == 2, "who wasn't answered can be another time"
    assert Recipient.objects.filter(state="delivered").count() == 5
    plenty = replace(two, limits=((Window.HOUR, 4),))
    take(*(answer(box.pk, f"x{number}@remote.test", charges=((plenty, 1),)) for number in (2, 3, 4, 5)))
    assert len(answered()) == 4, "an answer that isn't given again costs nothing"


def test_an_answer_that_can_not_be_written_costs_the_message_nothing(box):
    bad = answer(box.pk, body=letters.body(b"x"), id=0)
    assert isinstance(take(bad, answer(box.pk, "eve@remote.test")), Accepted)
    assert answered() == ["eve@remote.test"]


def test_an_answer_that_the_database_refuses_costs_the_message_nothing(box):
    known = Message.objects.create(id=IDS.next(), accepted_at=letters.now(), direction="inbound", size=1)
    assert isinstance(take(answer(box.pk, id=known.pk)), Accepted)
    assert answered() == [] and not Remembered.objects.exists()
    assert Recipient.objects.filter(state="delivered").count() == 1


def test_a_mailbox_that_is_gone_answers_nobody(box):
    assert isinstance(take(answer(box.pk + 1)), Accepted)
    assert answered() == []


def test_a_mailbox_remembers_only_so_many(box, monkeypatch):
    monkeypatch.setattr(vacations, "MOST_REMEMBERED", 3)
    for number in range(5):
        take(answer(box.pk, f"x{number}@remote.test"))
    assert len(answered()) == 3


def test_what_no_longer_counts_is_forgotten(box):
    take(answer(box.pk, days=-1), answer(box.pk, "eve@remote.test"))
    assert spool.forget(letters.now()) == 1
    assert list(Remembered.objects.values_list("sender", flat=True)) == ["eve@remote.test"]
