"""The letter that answers while somebody is away: what every reader and every list program makes of it."""

import email
import email.policy
from datetime import UTC, datetime

import pytest

from mailserver import vacation
from mailserver.envelope import Incoming
from panel.database.ids import IdMaker
from panel.rules import headers
from panel.rules.addresses import parse_address
from panel.rules.facts import Vacation
from panel.rules.limits import Kind, Subject, Window

AT = datetime(2026, 8, 15, 9, 0, tzinfo=UTC)
ASKED = b"From: bob@elsewhere.test\r\nSubject: Hello\r\nReferences: <1@a.test>\r\n <2@a.test>\r\n"


def letter(
    text: str = "Away.", raw: bytes = ASKED, sender: str = "bob@elsewhere.test", message_id: str = "<3@a.test>", **facts
) -> Incoming:
    return vacation.incoming(
        Vacation(text, **facts), mailbox=parse_address("ann@demo.test"), tenant_id=7, sender=parse_address(sender),
        fields=headers.split(raw), message_id=message_id, number=IdMaker(1, 1).next(), at=AT, deliveries=(),
        sender_tenant_id=None,
    )


def read(made: Incoming):
    return email.message_from_bytes(made.body.data, policy=email.policy.SMTP)


def test_it_cannot_be_answered_nor_reported_and_says_that_a_program_wrote_it():
    made = letter()
    message = read(made)
    assert (made.direction, made.reverse_path, made.caused_by) == ("answer", None, 7)
    assert made.recipients[0].notify == "NEVER"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["X-Auto-Response-Suppress"] == "All"
    assert (message["From"], message["To"]) == ("ann@demo.test", "bob@elsewhere.test")
    assert message["Date"].datetime == AT
    assert not message.defects


def test_it_is_charged_once_to_whoever_its_owners_mail_is():
    ann = Subject(Kind.MAILBOX, 3, "ann@demo.test", ((Window.HOUR, 5),), 7)
    assert letter(charged=(ann,)).charges == ((ann, 1),)


def test_it_belongs_to_the_thread():
    message = read(letter())
    assert message["In-Reply-To"] == "<3@a.test>"
    assert message["References"].split() == ["<1@a.test>", "<2@a.test>", "<3@a.test>"]


def test_a_long_thread_keeps_its_first_and_last():
    raw = b"References: " + b"\r\n ".join(b"<%d@a.test>" % number for number in range(500)) + b"\r\n"
    references = read(letter(raw=raw))["References"].split()
    assert len(references) == vacation.MOST_REFERENCES
    assert (references[0], references[-2], references[-1]) == ("<0@a.test>", "<499@a.test>", "<3@a.test>")


@pytest.mark.parametrize("message_id", [
    "", "no brackets", "<a b@c.test>", "<1@a.test>\r\nBcc: x@y.test", "<" + "x" * 500 + ">",
])
def test_an_odd_message_id_is_not_repeated(message_id):
    message = read(letter(message_id=message_id))
    assert message["In-Reply-To"] is None and message["References"] is None and message["Bcc"] is None


@pytest.mark.parametrize(("subject", "shown"), [
    ("", "Auto: Hello"), ("I am away", "I am away"), ("Nicht da: 留守", "Nicht da: 留守"),
    ("äöü " * 40, ("äöü " * 40).strip()),
    ("=?utf-8?q?x?=", "=?utf-8?q?x?="),
])
def test_its_subject_is_the_own_or_that_of_the_message(subject, shown):
    made = letter(subject=subject.strip())
    assert str(read(made)["Subject"]) == shown
    assert all(len(line) <= 78 for line in made.body.data.split(b"\r\n"))
    assert made.body.data.isascii()


def test_a_message_without_a_subject_is_answered_with_one():
    assert read(letter(raw=b"From: bob@elsewhere.test\r\n"))["Subject"] == "Auto"


@pytest.mark.parametrize("name", ["Ann Archer", 'Ann "the" Archer, Ltd.', "Änn Ärcher", "安", "a\\b", "x@y.test"])
def test_its_author_is_named_and_nobody_else(name):
    message = read(letter(name=name))
    (author,) = message["From"].addresses
    assert (author.display_name, author.addr_spec) == (name, "ann@demo.test")


@pytest.mark.parametrize("text", ["Away.\n\nBack on Monday.", "Zurück am Montag.\n" * 100, "x" * 3000, ".\n.dot"])
def test_its_text_arrives_as_it_was_written(text):
    message = read(letter(text))
    assert message.get_content_type() == "text/plain" and message.get_content_charset() == "utf-8"
    assert message.get_content().replace("\r\n", "\n").rstrip("\n") == text.rstrip("\n")


def test_addresses_outside_ascii_need_smtputf8():
    assert letter(sender="bäb@elsewhere.test").smtputf8
    assert not letter().smtputf8
