"""The rules of mailboxes, without a database: where mail goes, and who is answered."""

from dataclasses import replace
from datetime import date

import pytest

from panel.rules import filtering, headers
from panel.rules.addresses import Address, parse_address
from panel.rules.facts import Delivery, LocalMailbox, MailRules, Resolution, Step, Vacation, Verdict
from panel.rules.filtering import Answering, Mail, follow

BOB = parse_address("bob@elsewhere.test")
FAR = Delivery(parse_address("far@elsewhere.test"), None)
AWAY = Vacation("Away.")
TODAY = date(2026, 8, 15)
TO_ANN = b"From: bob@elsewhere.test\r\nTo: Ann <ann@demo.test>\r\nSubject: Hello\r\n"


def box(name: str = "ann", number: int = 1, **rules) -> LocalMailbox:
    made = MailRules(**rules) if rules else None
    return LocalMailbox(number, f"opaque{number}", 7, Address(name, "demo.test"), None, rules=made)


def at(mailbox: LocalMailbox, *outside: Delivery, to: tuple[int, ...] = ()) -> Step:
    return Step(mailbox.address, mailbox, outside, to)


def alias(name: str, *outside: Delivery, to: tuple[int, ...] = ()) -> Step:
    return Step(Address(name, "demo.test"), None, outside, to)


def gets(steps: list[Step], mail: Mail | None = None) -> list[str]:
    way = follow(steps, mail or Mail(BOB))
    return [f"{each.resolved}{' (junk)' if each.junk else ''}" for each in way.deliveries]


# --- forward --------------------------------------------------------------------------------


def test_without_rules_mail_stays():
    assert gets([at(box())]) == ["ann@demo.test"]


def test_a_forward_with_a_copy_goes_to_both():
    assert gets([at(box(forwards=True), FAR)]) == ["ann@demo.test", "far@elsewhere.test"]


def test_a_forward_without_a_copy_goes_only_there():
    assert gets([at(box(forwards=True, keeps=False), FAR)]) == ["far@elsewhere.test"]


def test_a_forward_that_leads_nowhere_keeps_the_mail():
    assert gets([at(box(forwards=True, keeps=False))]) == ["ann@demo.test"]


def test_a_forward_that_leads_nowhere_keeps_the_mail_although_others_on_the_alias_get_it():
    nowhere, ben = box(forwards=True, keeps=False), box("ben", 2)
    assert gets([alias("all", to=(1, 2)), at(nowhere), at(ben)]) == ["ben@demo.test", "ann@demo.test"]
    blocks = box("cat", 3, blocked=frozenset({"elsewhere.test"}))
    steps = [alias("all", to=(1, 2)), at(nowhere, to=(3,)), at(ben), at(blocks)]
    assert gets(steps) == ["ben@demo.test", "ann@demo.test"], "her forward leads only to one who blocks the sender"
    assert gets(steps, Mail(parse_address("a@other.test"))) == ["ben@demo.test", "cat@demo.test"]


def test_two_that_forward_to_each_other_and_keep_nothing_keep_it_once_each():
    one, two = box(forwards=True, keeps=False), box("ben", 2, forwards=True, keeps=False)
    assert gets([at(one, to=(1,)), at(two, to=(0,))]) == ["ann@demo.test", "ben@demo.test"]


def test_mail_that_its_own_forward_brought_back_is_kept_and_not_forwarded_again():
    steps = [at(box(forwards=True, keeps=False, vacation=AWAY), FAR)]
    way = follow(steps, Mail(BOB, came_back=frozenset({1})))
    assert [str(each.resolved) for each in way.deliveries] == ["ann@demo.test"]
    assert way.answering == () and way.forwarded == ()


def test_an_address_that_is_reached_twice_gets_one():
    steps = [alias("all", FAR, to=(1, 2)), at(box(forwards=True), FAR), at(box("ben", 2))]
    assert gets(steps) == ["far@elsewhere.test", "ann@demo.test", "ben@demo.test"]


# --- block ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("entry", "is_blocked"), [
    ("bob@elsewhere.test", True), ("elsewhere.test", True), ("test", True), ("ann@elsewhere.test", False),
    ("where.test", False), ("deep.elsewhere.test", False),
])
def test_an_entry_blocks_an_address_or_a_domain_with_all_below(entry, is_blocked):
    rules = MailRules(blocked=frozenset({entry}))
    assert filtering.is_blocked(rules, Mail(parse_address("BOB@Elsewhere.test"))) is is_blocked
    assert filtering.is_blocked(rules, Mail(None, (BOB,))) is is_blocked, "in From alone"


def test_blocked_mail_is_neither_kept_forwarded_nor_answered():
    steps = [at(box(forwards=True, vacation=AWAY, blocked=frozenset({"elsewhere.test"})), FAR)]
    assert follow(steps, Mail(BOB)) == filtering.Way(())


def test_who_blocks_takes_nothing_from_others_on_the_same_alias():
    blocks = box(forwards=True, blocked=frozenset({"elsewhere.test"}))
    steps = [alias("all", to=(1, 2)), at(blocks, to=(2,)), at(box("ben", 2))]
    assert gets(steps) == ["ben@demo.test"]


def test_at_rcpt_only_the_envelope_decides():
    steps = (at(box(blocked=frozenset({"elsewhere.test"}))),)
    here = Resolution(steps[0].address, Verdict.HERE, 7, (Delivery(steps[0].address, steps[0].mailbox),), steps=steps)
    assert filtering.at_rcpt(here, BOB).verdict is Verdict.BLOCKED
    assert filtering.at_rcpt(here, None) == filtering.at_rcpt(here, parse_address("a@other.test")) == here
    unknown = replace(here, verdict=Verdict.UNKNOWN)
    assert filtering.at_rcpt(unknown, BOB) is unknown


# --- junk -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("raw", "is_junk"), [
    (b"X-Spam-Flag: YES\r\n", True), (b"x-spam-flag:yes\r\n", True), (b"X-Spam: Yes\r\n", True),
    (b"X-Spam-Status: Yes, score=9.1\r\n", True), (b"X-Spam-Flag:\r\n YES\r\n", True),
    (b"X-Spam-Flag: NO\r\n", False), (b"X-Spam-Status: No, score=0\r\n", False), (b"Subject: YES\r\n", False),
    (b"", False),
])
def test_what_a_spam_filter_marked_is_junk(raw, is_junk):
    assert filtering.is_marked_as_junk(headers.split(raw)) is is_junk


def test_junk_goes_into_junk_and_no_further_where_that_is_wanted():
    steps = [at(box(junk=True, forwards=True, keeps=False, vacation=AWAY), FAR)]
    way = follow(steps, Mail(BOB, is_junk=True))
    assert gets(steps, Mail(BOB, is_junk=True)) == ["ann@demo.test (junk)"]
    assert way.answering == ()
    assert gets(steps) == ["far@elsewhere.test"], "other mail goes on"
    assert gets([at(box(forwards=True), FAR)], Mail(BOB, is_junk=True)) == ["ann@demo.test", "far@elsewhere.test"]


def test_the_sieve_script_knows_every_mark():
    script = filtering.sieve_for_junk()
    assert all(f'"{name}" "{begins}*"' in script for name, begins in filtering.JUNK_MARKS)
    assert f'fileinto :create "{filtering.JUNK_FOLDER}"' in script


# --- vacation -------------------------------------------------------------------------------


def test_who_is_on_an_alias_answers_mail_to_it_also_when_another_on_it_forwards_there():
    one, away = box("ben", 2, forwards=True), box(vacation=AWAY)
    (answering,) = follow([alias("all", to=(1, 2)), at(one, to=(2,)), at(away)], Mail(BOB)).answering
    assert Address("all", "demo.test") in answering.known


def why(
    raw: bytes = TO_ANN, sender: str | None = "bob@elsewhere.test", *, known: tuple[str, ...] = ("ann@demo.test",),
    today: date = TODAY, is_junk: bool = False, **vacation,
) -> str:
    answering = Answering(box(), replace(AWAY, **vacation), frozenset(map(parse_address, known)))
    mail = Mail(parse_address(sender) if sender else None, is_junk=is_junk)
    return filtering.why_no_answer(answering, mail, headers.split(raw), today=today, separator="+")


def test_a_person_who_writes_to_the_address_is_answered():
    assert why() == ""


@pytest.mark.parametrize("sender", [
    "owner-list@lists.test", "list-owner@lists.test", "list-request@lists.test", "MAILER-DAEMON@x.test",
    "listserv@x.test", "majordomo@x.test", "noreply@x.test", "no-reply+7@x.test", "bounces@x.test",
    "list-bounces@x.test",
])
def test_senders_that_are_no_person_are_not_answered(sender):
    assert why(sender=sender) == "a sender that is no person"


def test_the_null_path_is_not_answered():
    assert why(sender=None) == "the null path"


@pytest.mark.parametrize("field", [
    b"List-Id: <x.lists.test>", b"List-Unsubscribe: <mailto:x@lists.test>", b"list-post: NO",
])
def test_a_list_is_not_answered(field):
    assert why(TO_ANN + field + b"\r\n") == "from a mailing list"


@pytest.mark.parametrize("value", [b"bulk", b"List", b"JUNK"])
def test_bulk_mail_is_not_answered(value):
    assert why(TO_ANN + b"Precedence: " + value + b"\r\n") == "bulk mail"
    assert why(TO_ANN + b"Precedence: first-class\r\n") == ""


@pytest.mark.parametrize(("value", "is_answered"), [
    (b"auto-replied", False), (b"auto-generated; x=y", False), (b"auto-notified", False), (b"", False),
    (b"No", True), (b"no; because=it", True), (b"no (by hand)", True),
])
def test_what_a_program_wrote_is_not_answered(value, is_answered):
    assert (why(TO_ANN + b"Auto-Submitted: " + value + b"\r\n") == "") is is_answered


@pytest.mark.parametrize(("value", "is_answered"), [(b"All", False), (b"DR, OOF", False), (b"DR, RN", True)])
def test_exchanges_word_for_no_answers_is_heeded(value, is_answered):
    assert (why(TO_ANN + b"X-Auto-Response-Suppress: " + value + b"\r\n") == "") is is_answered


def test_junk_is_not_answered_even_without_the_junk_rule():
    assert why(is_junk=True) == "junk"


@pytest.mark.parametrize(("line", "is_answered"), [
    (b"To: ann@demo.test", True), (b"To: ANN+shop@demo.test", True), (b"Cc: x@y.test, Ann <ann@demo.test>", True),
    (b"Resent-To: ann@demo.test", True), (b"To: everybody@demo.test", False), (b"To: undisclosed-recipients:;", False),
    (b"X-To: ann@demo.test", False), (b'To: "ann@demo.test" <x@y.test>', False), (b"To: ,,", False),
])
def test_only_mail_that_names_the_address_is_answered(line, is_answered):
    assert (why(b"From: bob@elsewhere.test\r\n" + line + b"\r\n") == "") is is_answered


def test_mail_by_an_alias_names_the_alias():
    raw = b"From: bob@elsewhere.test\r\nTo: info@demo.test\r\n"
    assert why(raw, known=("ann@demo.test", "info@demo.test")) == ""
    assert why(raw) == "not addressed in To or Cc"


def test_nobody_answers_themselves():
    assert why(sender="ann+x@demo.test") == "its own mail"
    assert why(sender="info@demo.test", known=("ann@demo.test", "info@demo.test")) == "its own mail"


@pytest.mark.parametrize(("first", "last", "is_answered"), [
    (None, None, True), (TODAY, TODAY, True), (date(2026, 8, 16), None, False), (None, date(2026, 8, 14), False),
])
def test_answers_go_out_on_the_days_that_were_set(first, last, is_answered):
    assert (why(first=first, last=last) == "") is is_answered


def test_a_mailbox_knows_the_aliases_by_which_mail_came_but_not_who_forwards_to_it():
    ann, ben = box(vacation=AWAY, forwards=True), box("ben", 2, vacation=AWAY)
    way = follow([alias("info", to=(1,)), at(ann, to=(2,)), at(ben)], Mail(BOB))
    assert [sorted(map(str, each.known)) for each in way.answering] == [
        ["ann@demo.test", "info@demo.test"], ["ben@demo.test"],
    ]


def test_who_forwards_and_keeps_nothing_answers_all_the_same():
    way = follow([at(box(vacation=AWAY, forwards=True, keeps=False), FAR)], Mail(BOB))
    assert len(way.answering) == 1 and len(way.forwarded) == 1
