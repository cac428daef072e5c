"""Changing a mailbox's rules: by the service, the admin's page and the command line."""

import io
import json
import sys
from datetime import date

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from panel.mailboxes.models import BlockEntry, Mailbox, MailRules, VacationAnswer
from panel.mailboxes.rule_services import MOST_BLOCKED, MOST_FORWARDS, Rules, change_rules, clear_rules, rules_of
from panel.mailboxes.services import change_alias, create_alias
from panel.operations import services as operations
from panel.tenants.changes import ServiceError
from tests.support import world
from tests.support.traces import Traces

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop() -> Mailbox:
    domain = world.domain("demo.test", world.tenant("Demo"))
    world.domain_alias("demo.alias", domain)
    world.mailbox("office@demo.test")
    return world.mailbox("shop@demo.test")


def change(mailbox: Mailbox, **values) -> Rules:
    return change_rules(mailbox, actor=None, **values)


def refusal(mailbox: Mailbox, **values) -> tuple[str, str]:
    seen = Traces()
    with pytest.raises(ServiceError) as refused:
        change(mailbox, **values)
    assert seen.nothing
    return refused.value.field, str(refused.value)


# The service


def test_a_change_is_told_once_and_the_same_again_not_at_all(shop):
    seen = Traces()
    change(shop, junk=True, block=["Spam.TEST", "Bob@Partner.test"])
    assert (seen.entry.action, seen.domains) == ("mailbox.rules_changed", {"demo.test"})
    assert seen.entry.before == {"junk": False, "blocked": []}
    assert seen.entry.after == {"junk": True, "blocked": ["bob@partner.test", "spam.test"]}
    again = Traces()
    change(shop, junk=True, block=["spam.test"])
    assert again.nothing
    assert rules_of(shop) == Rules(junk=True, blocked=("bob@partner.test", "spam.test"))


def test_a_mailbox_without_rules_has_no_row(shop):
    assert rules_of(shop) == Rules()
    change(shop)
    assert not MailRules.objects.exists()


@pytest.mark.parametrize(("values", "field", "sentence"), [
    ({"vacation": True}, "vacation_text", "Write what senders are answered"),
    ({"vacation_from": date(2026, 8, 2), "vacation_until": date(2026, 8, 1)}, "vacation_until", "before the first"),
    ({"vacation_days": 0}, "vacation_days", "from 1 to 365"),
    ({"vacation_subject": "a\r\nBcc: x@y.test"}, "vacation_subject", "line break"),
    ({"vacation_text": "x" * 5001}, "vacation_text", "longer than 5000"),
    ({"forward_to": ["nowhere"]}, "forward_to", "has no @"),
    ({"forward_to": ["shop+x@demo.alias"]}, "forward_to", "this mailbox itself"),
    ({"forward_to": [f"x{n}@elsewhere.test" for n in range(MOST_FORWARDS + 1)]}, "forward_to", "10 addresses at most"),
    ({"blocked": ["two words"]}, "blocked", "two words"),
    ({"block": ["shop@demo.test"]}, "block", "this mailbox itself"),
    ({"blocked": [f"x{n}.test" for n in range(MOST_BLOCKED + 1)]}, "blocked", "500 senders at most"),
])
def test_what_makes_no_sense_is_refused_by_its_name(shop, values, field, sentence):
    found, said = refusal(shop, **values)
    assert found == field
    assert sentence in said
    assert rules_of(shop) == Rules()


def test_a_forward_that_leads_back_is_refused_with_its_way(shop):
    office = Mailbox.objects.get(address__local_part="office")
    create_alias(address="desk@demo.test", targets=["shop@demo.test"], actor=None)
    change(office, forward_to=["desk@demo.test"])
    assert refusal(shop, forward_to=["office@demo.test"]) == (
        "forward_to",
        "The mail would come back here: shop@demo.test → office@demo.test → desk@demo.test → shop@demo.test.",
    )
    change(shop, forward_to=["new@demo.test"])
    with pytest.raises(ServiceError, match="itself: new@demo.test → shop@demo.test → new@demo.test"):  # noqa: RUF043
        create_alias(address="new@demo.test", targets=["shop@demo.test"], actor=None)


def test_an_alias_that_would_close_a_circle_with_a_forward_is_refused(shop):
    alias = create_alias(address="desk@demo.test", targets=["x@elsewhere.test"], actor=None)
    change(shop, forward_to=["desk@demo.test"])
    with pytest.raises(ServiceError, match="lead back"):
        change_alias(alias, targets=["shop@demo.test"], actor=None)


def test_what_another_tenants_mailbox_forwards_to_stays_hidden(shop):
    world.domain("other.test", world.tenant("Other"))
    theirs = world.mailbox("anna@other.test")
    change(theirs, forward_to=["shop@demo.test"])
    assert "shop@demo.test → anna@other.test → … → shop@demo.test" in refusal(shop, forward_to=["anna@other.test"])[1]


def test_a_changed_vacation_forgets_whom_it_has_answered(shop):
    change(shop, vacation=True, vacation_text="Away.")
    VacationAnswer.objects.create(mailbox=shop, sender="bob@elsewhere.test", until=timezone.now())
    change(shop, junk=True)
    assert VacationAnswer.objects.exists()
    change(shop, vacation_text="Still away.")
    assert not VacationAnswer.objects.exists()


def test_rules_are_cleared_by_part_or_all(shop):
    change(shop, junk=True, forward_to=["x@elsewhere.test"], forward_keep=False, blocked=["spam.test"])
    assert clear_rules(shop, ["forward", "block"], actor=None) == Rules(junk=True)
    assert not BlockEntry.objects.exists()
    assert clear_rules(shop, actor=None) == Rules() == rules_of(shop)
    with pytest.raises(ServiceError, match="no rule 'x'"):
        clear_rules(shop, ["x"], actor=None)


@pytest.mark.parametrize(("rules", "sentences"), [
    (Rules(), []),
    (Rules(vacation=True, vacation_days=1), ["Answers each sender once in a day."]),
    (Rules(vacation=True, vacation_from=date(2026, 9, 1), vacation_until=date(2026, 9, 3)),
     ["Answers each sender once in 7 days from 2026-09-01 until 2026-09-03."]),
    (Rules(vacation=True, vacation_until=date(2026, 8, 1)), ["Answered senders until 2026-08-01; that is over."]),
    (Rules(forward_to=("a@x.test", "b@x.test")), ["Forwards to a@x.test, b@x.test and keeps a copy."]),
    (Rules(junk=True, blocked=("a.test", "b.test", "c.test", "d.test")),
     ["Puts what is marked as junk into Junk.", "Takes nothing from a.test, b.test, c.test and 1 more."]),
])
def test_rules_are_told_in_sentences(rules, sentences):
    assert rules.sentences(date(2026, 8, 15)) == sentences


# The admin's page


@pytest.fixture
def owner() -> Client:
    client = Client()
    client.force_login(operations.create_account(
        email="owner@provider.test", password="an unusual password", provider_role="owner", actor=None
    ))
    return client


def page_of(mailbox: Mailbox) -> str:
    return reverse("admin:mailboxes_mailbox_rules", args=(mailbox.pk,))


def sent(**values: str) -> dict[str, str]:
    return {"vacation_days": "7", "forward_keep": "on", **values}


def test_the_page_shows_what_is_set_and_saves_it_again_without_a_trace(shop, owner):
    change(shop, vacation=True, vacation_text="Away.\nSoon back.", vacation_until=date(2026, 8, 31), blocked=["a.test"])
    text = owner.get(page_of(shop)).content.decode()
    assert "Away.\nSoon back." in text and 'value="2026-08-31"' in text and "a.test" in text
    seen = Traces()
    again = sent(vacation="on", vacation_text="Away.\r\nSoon back.", vacation_until="2026-08-31", blocked="a.test")
    assert owner.post(page_of(shop), again).status_code == 302
    assert seen.nothing, seen.entry.after


def test_the_page_saves_all_rules(shop, owner):
    answer = owner.post(page_of(shop), sent(
        vacation="on", vacation_text="Away.", vacation_from="2026-08-01", forward_to="a@x.test\r\nb@x.test\r\n",
        junk="on", blocked="spam.test",
    ), follow=True)
    assert rules_of(shop) == Rules(
        vacation=True, vacation_text="Away.", vacation_from=date(2026, 8, 1), forward_to=("a@x.test", "b@x.test"),
        junk=True, blocked=("spam.test",),
    )
    assert "Forwards to a@x.test, b@x.test and keeps a copy." in answer.content.decode()


@pytest.mark.parametrize(("values", "field"), [
    ({"vacation": "on"}, "vacation_text"), ({"forward_to": "x"}, "forward_to"), ({"blocked": "a b"}, "blocked"),
    ({"vacation_until": "tomorrow"}, "vacation_until"), ({"vacation_days": "0"}, "vacation_days"),
    ({"vacation_subject": "a\x00b"}, "vacation_subject"), ({"forward_to": "<script>alert(1)</script>"}, "forward_to"),
])
def test_the_page_says_what_is_wrong_beside_the_field(shop, owner, values, field):
    answer = owner.post(page_of(shop), sent(**values))
    assert answer.status_code == 200
    assert list(answer.context["form"].errors) == [field]
    assert "<script>alert(1)" not in answer.content.decode()
    assert rules_of(shop) == Rules()


def test_the_page_says_all_that_is_wrong_and_saves_nothing(shop, owner):
    seen = Traces()
    answer = owner.post(page_of(shop), sent(
        vacation="on", vacation_from="2026-02-01", vacation_until="2026-01-01", forward_to="shop@demo.test",
        blocked="a b", junk="on",
    ))
    assert set(answer.context["form"].errors) == {"vacation_text", "vacation_until", "forward_to", "blocked"}
    assert seen.nothing
    assert rules_of(shop) == Rules()


# The command line


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("rule", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_sets_shows_and_clears(shop, monkeypatch):
    assert run("show", "shop@demo.test") == "shop@demo.test has no rules: its mail is stored as it comes.\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("Away.\nSoon back.\n"))
    said = run(
        "set", "shop@demo.test", "--vacation", "on", "--until", "2099-08-31", "--text-stdin",
        "--forward-to", "a@x.test", "--keep", "no", "--junk", "on", "--block", "spam.test",
    )
    assert "Answers each sender once in 7 days until 2099-08-31." in said
    assert "    Away.\n    Soon back.\n" in said
    run("set", "shop@demo.test", "--until", "", "--unblock", "spam.test")
    shown = json.loads(run("show", "shop@demo.test", "--json"))
    assert shown == {
        "address": "shop@demo.test", "vacation": True, "vacation_from": None, "vacation_until": None,
        "vacation_subject": "", "vacation_text": "Away.\nSoon back.", "vacation_days": 7, "forward_to": ["a@x.test"],
        "forward_keep": False, "junk": True, "blocked": [],
    }
    assert "Puts what is marked as junk into Junk." in run("clear", "shop@demo.test", "vacation", "forward")
    assert json.loads(run("clear", "shop@demo.test", "--json"))["junk"] is False
    dated = json.loads(run("set", "shop@demo.test", "--from", "2099-08-01", "--json"))
    assert dated["vacation_from"] == "2099-08-01"


@pytest.mark.parametrize(("arguments", "sentence"), [
    (("show", "nobody@demo.test"), "There is no mailbox nobody@demo.test."),
    (("set", "shop@demo.test"), "Nothing is to be changed"),
    (("set", "shop@demo.test", "--from", "1.8.2026"), "write it as 2026-08-31"),
    (("clear", "shop@demo.test", "everything"), "There is no rule 'everything'"),
    (("clear", "shop@demo.test"), "Nothing to change"),
])
def test_the_command_says_what_is_wrong(shop, arguments, sentence):
    with pytest.raises(CommandError, match=sentence):
        run(*arguments)
