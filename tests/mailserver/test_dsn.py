"""What a sender is told, read by Python's own mail parser (in tests only)."""

import base64
import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import translation

from mailserver import dsn
from mailserver.dsn import Kind, Told
from mailserver.envelope import Claimed, ClaimedMessage, Disposition, Incoming, Outcome
from mailserver.judge import languages_for
from panel.database import ids
from panel.rules import reply
from panel.rules.addresses import Address
from panel.rules.facts import Delivery, LocalMailbox, Resolution, Step, Verdict
from panel.rules.reply import Reply

AT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
SENDER = Address("shop", "demo.test")
HEADER = b"Received: from x\r\nFrom: shop@demo.test\r\nSubject: hello\r\n"
WHOLE = HEADER + b"\r\nthe body\r\n--posthouse\r\n"
UNKNOWN = Reply(550, "5.1.1", "no such user <ann@far.test>")


def claimed(original="ann@far.test", resolved="", number=1, **fields) -> Claimed:
    values = {
        "id": number, "original": original, "resolved": resolved or original, "tenant_id": 1,
        "recipient_tenant_id": None, "next_hop": "far.test", "tries": 0, "accepted_at": AT - timedelta(hours=5),
        "expires_at": AT + timedelta(days=4), "staged": False, "notify": "", "orcpt": "", "delay_reported": False,
    }
    return Claimed(**(values | fields))


def told(recipient=None, answer=UNKNOWN, host="mx.far.test", **fields) -> Told:
    recipient = recipient or claimed()
    return Told(recipient, Outcome(recipient.id, Disposition.FAILED, answer, host=host), **fields)


def made(
    *about: Told, kind=Kind.FAILURE, sender=SENDER, header=HEADER, whole=WHOLE, languages=("en",), **fields
) -> Incoming:
    values = {
        "id": 77, "reverse_path": str(sender), "direction": "submission", "tenant_id": 1, "credential_id": 1,
        "smtputf8": False, "body_type": "", "ret": "", "envid": "", "size": 100,
        "recipients": tuple(each.recipient for each in about),
    }
    return dsn.incoming(
        kind, ClaimedMessage(**(values | fields)), about or (told(),), number=4711 << 22, hostname="mx1.here.test",
        at=AT, sender=sender, deliveries=(), tenant_id=1, header=header, whole=whole, languages=languages,
    )


def parts(report: Incoming):
    content = report.body.data
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    parsed = email.message_from_bytes(content, policy=email.policy.SMTP)
    assert not parsed.defects
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    return parsed, *parsed.iter_parts()


def blocks(status):
    return [dict(block.items()) for block in status.get_payload()]


def test_a_failure_is_a_report_of_three_parts():
    head, text, status, returned = parts(made())
    assert [part.get_content_type() for part in (text, status, returned)] == [
        "text/plain", "message/delivery-status", "message/rfc822",
    ]
    assert head["From"] == "Mail delivery <mailer-daemon@mx1.here.test>"
    assert head["To"] == "shop@demo.test"
    assert head["Auto-Submitted"] == "auto-replied"
    assert head["Message-ID"] == f"<{ids.to_text(4711 << 22)}@mx1.here.test>"
    assert head["Date"] == "Tue, 24 Nov 2026 09:30:00 +0000"
    about_message, about_ann = blocks(status)
    assert about_message == {
        "Reporting-MTA": "dns; mx1.here.test", "Arrival-Date": "Tue, 24 Nov 2026 04:30:00 +0000",
    }
    assert about_ann == {
        "Final-Recipient": "rfc822; ann@far.test", "Action": "failed", "Status": "5.1.1",
        "Remote-MTA": "dns; mx.far.test", "Diagnostic-Code": "smtp; 550 5.1.1 no such user <ann@far.test>",
        "Last-Attempt-Date": "Tue, 24 Nov 2026 09:30:00 +0000",
    }
    words = text.get_content()
    assert "<ann@far.test>" in words and "There is no such mailbox (5.1.1)." in words
    assert "no such user" in words
    assert returned.get_payload(0)["Subject"] == "hello"


def test_it_goes_from_the_null_path_and_asks_for_no_report_itself():
    report = made()
    assert (report.reverse_path, report.direction, report.login) == (None, "internal", None)
    (recipient,) = report.recipients
    assert (recipient.original, recipient.notify) == (SENDER, "NEVER")


def test_several_recipients_share_one_report():
    _, text, status, _ = parts(made(told(), told(claimed("bob@far.test", number=2), reply.NULL_MX, host="")))
    assert [block.get("Final-Recipient") for block in blocks(status)] == [
        None, "rfc822; ann@far.test", "rfc822; bob@far.test",
    ]
    assert "bob@far.test" in text.get_content()


def test_what_an_address_resolves_to_is_never_told():
    hidden = claimed("sales@demo.test", resolved="secret@gmail.test")
    answer = Reply(550, "5.1.1", "secret@gmail.test unknown at gmail")
    content = made(told(hidden, answer, host="mx.gmail.test")).body.data
    assert b"gmail" not in content and b"secret" not in content
    assert b"sales@demo.test" in content and b"Status: 5.1.1" in content


def test_a_delay_says_until_when_it_is_tried():
    until = AT + timedelta(days=4)
    report = made(told(answer=Reply(451, "4.2.0", "greylisted"), retried_until=until), kind=Kind.DELAY)
    _, text, status, returned = parts(report)
    about = blocks(status)[1]
    assert (about["Action"], about["Will-Retry-Until"]) == ("delayed", "Sat, 28 Nov 2026 09:30:00 +0000")
    assert text.get_content().replace("\r\n", "\n") == (
        "This is the mail server mx1.here.test.\n\n"
        'Your message "hello" of 2026-11-24 04:30 UTC\nhas not been delivered yet to:\n\n'
        "  <ann@far.test>\n    Its mail server put it off (4.2.0).\n"
        "    The server mx.far.test said: 451 4.2.0 greylisted\n"
        "    It will be tried until 2026-11-28 09:30 UTC.\n\n"
        "You need not do anything, nor send it again: it is tried again by itself. If that\n"
        "comes to nothing you will hear. If it is urgent, reach the recipient another way.\n\n"
        f"Number of the message: {ids.to_text(77)}\n"
    )
    assert returned.get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize(("local", "action"), [(True, "delivered"), (False, "relayed")])
def test_a_success_says_how_far_it_is_known(local, action):
    _, _, status, returned = parts(made(told(answer=reply.QUEUED, local=local), kind=Kind.SUCCESS))
    assert blocks(status)[1]["Action"] == action
    assert returned.get_content_type() == "text/rfc822-headers"


def test_envid_and_orcpt_come_back_decoded():
    recipient = claimed(orcpt="rfc822;ann+2Bx@far.test")
    _, _, status, _ = parts(made(told(recipient), envid="QQ+2B1"))
    about_message, about = blocks(status)
    assert about_message["Original-Envelope-Id"] == "QQ+1"
    assert about["Original-Recipient"] == "rfc822; ann+x@far.test"


@pytest.mark.parametrize(("ret", "whole"), [("HDRS", WHOLE), ("", None), ("FULL", WHOLE + b"x\r\n" * 40_000)])
def test_headers_alone_come_back_where_they_were_asked_for_or_the_rest_is_large(ret, whole):
    _, _, _, returned = parts(made(ret=ret, whole=whole))
    assert returned.get_content_type() == "text/rfc822-headers"
    assert "hello" in returned.get_content() and "the body" not in returned.get_content()


def test_a_huge_header_is_cut_at_a_line():
    report = made(whole=None, header=b"".join(b"X-%06d: y\r\n" % number for number in range(20_000)))
    assert report.body.size < 70_000
    assert parts(report)[3].get_content().endswith(": y\r\n")


def test_an_eight_bit_message_comes_back_as_it_was():
    whole = HEADER + "\r\nGrüße\r\n".encode()
    report = made(whole=whole)
    head, _, _, returned = parts(report)
    assert whole in report.body.data
    assert (head["Content-Transfer-Encoding"], returned["Content-Transfer-Encoding"]) == ("8bit", "8bit")
    assert (report.body_type, report.smtputf8) == ("8BITMIME", False)


def test_addresses_outside_ascii_use_the_global_kinds():
    header = "From: ü@demo.test\r\nSubject: hello\r\n".encode()
    report = made(
        told(claimed("日本@far.test")), sender=Address("ü", "demo.test"), header=header, whole=header + b"\r\nx\r\n"
    )
    content = report.body.data
    assert report.smtputf8
    assert b"Content-Type: message/global-delivery-status\r\n" in content
    assert b"Content-Type: message/global\r\n" in content
    assert "Final-Recipient: utf-8; 日本@far.test\r\n".encode() in content
    assert "To: <ü@demo.test>\r\n".encode() in content


@pytest.mark.parametrize(
    "hostile", ["x\r\nAction: delivered", "x\nBcc: y", "x\r\n\r\n--", "\x1b[31m", "\u2028Status: 2.0.0"]
)
def test_hostile_words_begin_no_line_of_their_own(hostile):
    recipient = claimed(orcpt=f"rfc822;{hostile}")
    header = b"Subject: =?utf-8?b?" + base64.b64encode(hostile.encode()) + b"?=\r\n"
    report = made(told(recipient, Reply(550, "5.1.1", hostile), host=hostile), envid=hostile, header=header)
    head, text, status, _ = parts(report)
    assert blocks(status)[1]["Action"] == "failed"
    assert head["Bcc"] is None
    lines = text.get_content().splitlines()
    assert not any(line.startswith(("Action", "Bcc", "Status", "--")) for line in lines)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("languages", [("ja",), ("ja", "en"), ("en",)])
def test_its_words_are_in_the_readers_language_and_ascii_on_the_wire(kind, languages):
    subject = "=?utf-8?b?" + base64.b64encode("見積書\u300011月".encode()).decode() + "?="
    about = told(claimed("sales@demo.test", "secret@gmail.test"), reply.EXPIRED, retried_until=AT + timedelta(days=1))
    with translation.override("fr"):
        report = made(about, kind=kind, languages=languages, header=f"Subject: {subject}\r\n".encode())
        assert translation.get_language() == "fr", "what this thread shows otherwise is as it was"
    assert report.body.data.isascii() and report.body_type == ""
    head, text, status, _ = parts(report)
    with translation.override(languages[0]):
        assert head["Subject"] == report.subject == translation.gettext(dsn._SUBJECTS[kind])
        opening = translation.gettext(dsn._OPENINGS[kind][0])
        beginning = translation.gettext("This is the mail server {hostname}.").format(hostname="mx1.here.test")
    said = text.get_content().replace("\r\n", "\n")
    assert text["Content-Language"] == ", ".join(languages)
    assert said.startswith(beginning) and said.count(dsn.BETWEEN_LANGUAGES) == len(languages) - 1
    assert opening.format(subject="見積書 11月", arrived="2026-11-24 04:30 UTC") in said
    assert said.count("見積書 11月") == said.count("<sales@demo.test>") == len(languages)
    assert blocks(status)[1]["Final-Recipient"] == "rfc822; sales@demo.test" and "gmail" not in said


@pytest.mark.parametrize(("verdict", "chosen", "languages"), [
    (Verdict.HERE, ["ja"], ("ja",)), (Verdict.HERE, [""], ("en",)), (Verdict.HERE, ["ja", "en"], ("en",)),
    (Verdict.HERE, ["ja", "ja"], ("ja",)), (Verdict.ELSEWHERE, [], ("en",)), (Verdict.UNKNOWN, [], ("en",)),
])
def test_the_language_is_that_of_who_is_told(verdict, chosen, languages):
    boxes = [LocalMailbox(number, "x", 1, SENDER, None, language=each) for number, each in enumerate(chosen)]
    sender = Resolution(SENDER, verdict, 1, tuple(Delivery(SENDER, box) for box in boxes))
    assert languages_for(sender, "en") == languages
    if boxes:  # which forward, and keep nothing
        forwards = replace(sender, deliveries=(), steps=(Step(SENDER, replace(boxes[0], language="ja")),))
        assert languages_for(forwards, "en") == ("ja",)
    assert languages_for(Resolution(SENDER, Verdict.ELSEWHERE), "ja") == ("ja", "en")


@pytest.mark.parametrize(
    ("notify", "wanted"),
    [("", {Kind.FAILURE, Kind.DELAY}), ("NEVER", set()), ("SUCCESS", {Kind.SUCCESS}), ("FAILURE", {Kind.FAILURE}),
     ("SUCCESS,FAILURE,DELAY", set(Kind)), ("success,delay", {Kind.SUCCESS, Kind.DELAY})],
)
def test_notify_is_obeyed(notify, wanted):
    assert {kind for kind in Kind if dsn.is_wanted(kind, notify)} == wanted
