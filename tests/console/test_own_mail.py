"""Mail read in the browser: the own alone, harmless whatever it holds, and never by a link to elsewhere."""

import base64
import os
import threading
from dataclasses import replace

import pytest
from django.test import Client

from panel.console import own_mail
from panel.console.own_mail import NOTHING
from panel.console.turns import Turns
from panel.mailboxes import inbox
from panel.mailboxes.models import MailboxUsage
from tests.console.test_own_mailbox import HOSTILE, browser, text
from tests.support import queue, world
from tests.support.installation import until

pytestmark = [pytest.mark.django_db, pytest.mark.once("postgresql")]

LETTER = (
    f"From: Bob <bob@elsewhere.test>\r\nTo: ann@acme.test\r\nReply-To: x@evil.test\r\nSubject: {HOSTILE}\r\n"
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n"
    "<style>p{color:#123;position:fixed}</style>"
    "<p>Pay <a href='https://evil.test/'>here</a><script>alert(1)</script><img src='https://evil.test/x.png'>"
    "&lt;img src=x onerror=alert(2)&gt;</p>\r\n--b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n"
    'Content-Disposition: attachment; filename="e\r\n\tvil\u202e.html"\r\n\r\n'
).encode() + base64.b64encode(b"<script>alert(3)</script>") + b"\r\n--b--\r\n"


@pytest.fixture
def ann(tmp_path, settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, data=tmp_path)
    world.domain("acme.test", world.tenant("Acme"))
    return world.mailbox("ann@acme.test")


@pytest.fixture
def client(ann) -> Client:
    return browser(ann)


def keep(tmp_path, of, name: str, message: bytes = LETTER, folder: str = "new"):
    place = tmp_path / "mail" / of.opaque_id[:2] / of.opaque_id / "Maildir" / folder
    place.mkdir(parents=True, exist_ok=True)
    file = place / name
    file.write_bytes(message)
    return file


def test_an_empty_inbox_one_that_is_elsewhere_and_one_that_may_not_be_read_are_told_apart(
    client, ann, tmp_path, monkeypatch
):
    assert "Your inbox is empty" in text(client, "/me/mail/")
    MailboxUsage.objects.create(mailbox=ann, messages=3, known_at="2026-01-01T00:00:00Z")
    assert "be read here" in text(client, "/me/mail/")
    keep(tmp_path, ann, "1790000001.M1.mail", b"Subject: Hello\r\n\r\nx")
    assert "Hello" in text(client, "/me/mail/")

    def closed(*_given, **_named):
        raise PermissionError

    monkeypatch.setattr(inbox.os, "open", closed)  # tests run as root, whom no mode stops
    assert "be read here" in text(client, "/me/mail/")
    text(client, "/me/mail/1790000001.M1.mail/", 404)


def test_a_hostile_message_is_warned_of_and_its_attachment_only_downloaded(client, ann, tmp_path):
    keep(tmp_path, ann, "1790000001.M1.mail")
    for path in ("/me/mail/", "/me/mail/1790000001.M1.mail/", "/me/mail/1790000001.M1.mail/?as=text"):
        page = text(client, path)
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>alert" not in page
    # As text.
    assert "Pay here &lt;https://evil.test/&gt;&lt;img src=x onerror=alert(2)&gt;" in page
    assert "x.png" not in page and "evil.test/'" not in page and 'href="https:' not in page and "<img" not in page
    assert "The sender isn&#x27;t verified" in page or "The sender isn't verified" in page
    assert "Answers go to" in page and "x@<wbr>evil" in page
    answer = client.get("/me/mail/1790000001.M1.mail/1/")
    assert answer.content == b"<script>alert(3)</script>" and answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"].startswith("attachment;") and "%E2%80%AE" not in answer["Content-Disposition"]
    assert answer["X-Content-Type-Options"] == "nosniff" and answer["Content-Security-Policy"] == NOTHING
    assert "no-store" in answer["Cache-Control"]
    text(client, "/me/mail/1790000001.M1.mail/2/", 404)


def test_html_stands_in_a_frame_under_its_own_policy_and_pictures_are_loaded_when_asked_for(client, ann, tmp_path):
    at = "/me/mail/1790000001.M1.mail/"
    keep(tmp_path, ann, "1790000001.M1.mail")
    page = text(client, at)
    assert f'src="{at}formatted/"' in page and 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in page
    assert "Remote pictures are not loaded" in page and 'href="?pictures=1"' in page and "evil.test/x.png" not in page
    assert f'src="{at}formatted/pictures/"' in text(client, f"{at}?pictures=1")
    for path, pictures in ((f"{at}formatted/", "data:"), (f"{at}formatted/pictures/", "data: https:")):
        answer = client.get(path)
        framed = answer.content.decode()
        assert "<style>\np{color:#123}\n</style>" in framed
        assert "<script" not in framed and 'href="https://evil.test/" data-to="evil.test"' in framed
        assert ('<img src="https://evil.test/x.png">' in framed) is (pictures != "data:")
        policy = dict(each.strip().partition(" ")[::2] for each in answer["Content-Security-Policy"].split(";"))
        assert policy == {
            "default-src": "'none'", "style-src": "'unsafe-inline'", "img-src": pictures, "base-uri": "'none'",
            "form-action": "'none'", "frame-ancestors": "'self'",
            "sandbox": "allow-popups allow-popups-to-escape-sandbox",
        }
        assert answer["X-Frame-Options"] == "SAMEORIGIN" and answer["Referrer-Policy"] == "no-referrer"
        assert answer["X-Content-Type-Options"] == "nosniff" and "no-store" in answer["Cache-Control"]
        assert answer["X-DNS-Prefetch-Control"] == "off" and not answer.cookies
    as_text = text(client, f"{at}?as=text")
    assert "<iframe" not in as_text and "Remote pictures" not in as_text and "With its formatting" in as_text
    # What has no HTML, and what has too much of it.
    keep(tmp_path, ann, "1790000002.M1.mail", b"Subject: x\r\n\r\n<b>plain")
    page = text(client, "/me/mail/1790000002.M1.mail/")
    assert "&lt;b&gt;plain" in page and "<iframe" not in page and "formatting" not in page
    keep(tmp_path, ann, "1790000003.M1.mail", b"Content-Type: text/html\r\n\r\n" + b"<div>" * 1000 + b"deep")
    page = text(client, "/me/mail/1790000003.M1.mail/")
    assert "deep" in page and "too long or too nested to be shown safely" in page and "<iframe" not in page
    text(client, "/me/mail/1790000003.M1.mail/formatted/", 404)


def test_a_sender_whose_name_shows_another_address_and_one_with_no_one_reading_are_warned_of(client, ann, tmp_path):
    for number, (froms, said) in enumerate((
        ("From: =?utf-8?q?boss=40acme.test?= <x@evil.test>\r\n", "name shows <code>boss@acme.test</code>"),
        ("From: boss@acme.test\r\nFrom: x@evil.test\r\n", "told who sent this"), ("", "told who sent this"),
    )):
        keep(tmp_path, ann, f"179000000{number}.M1.mail", f"{froms}Subject: x\r\n\r\nx".encode())
        assert said in text(client, f"/me/mail/179000000{number}.M1.mail/")
    assert text(client, "/me/mail/").count("doubtful sender") == 3


def test_only_who_logged_in_here_to_send_it_is_verified(client, ann, tmp_path):
    tenant = ann.address.tenant
    plain = b"From: Bob <bob@acme.test>\r\nAuthentication-Results: mail.test; dkim=pass; spf=pass; dmarc=pass\r\n\r\nx"
    for sent, verified in (
        (queue.recipient(queue.message(tenant), "ann@acme.test"), True),
        (queue.recipient(queue.message(), "ann@acme.test"), False),
        (queue.recipient(queue.message(tenant), "carl@acme.test"), False),
    ):
        name = f"1790000001.R{queue_text(sent)}.mail,S=3,W=3"
        keep(tmp_path, ann, f"{name}:2,S", plain, "cur")
        assert ("verified here" in text(client, f"/me/mail/{name}/")) is verified
    keep(tmp_path, ann, "1790000002.RZZZZZZZZZZZZZ.mail", plain)
    assert "verified here" not in text(client, "/me/mail/1790000002.RZZZZZZZZZZZZZ.mail/")


def queue_text(recipient) -> str:
    from panel.database import ids

    return ids.to_text(recipient.pk)


def test_only_a_few_messages_are_held_in_memory_at_once_and_one_of_each_person(client, ann, tmp_path, monkeypatch):
    keep(tmp_path, ann, "1790000001.M1.mail")
    monkeypatch.setattr(own_mail, "TURN_S", 0.01)
    turns = own_mail._turns
    with turns.turn(-1, 5), turns.turn(-2, 5):
        for where in ("", "1/", "formatted/"):
            busy = client.get(f"/me/mail/1790000001.M1.mail/{where}")
            assert busy.status_code == 503 and "in a few seconds" in busy.content.decode() and busy["Retry-After"]
            assert busy["X-Frame-Options"] == ("SAMEORIGIN" if "formatted" in where else "DENY")
    with turns.turn(ann.pk, 5):
        text(client, "/me/mail/1790000001.M1.mail/", 503)
        text(client, "/me/mail/")
        with turns.turn(-1, 0) as of_another:
            assert of_another
    for _ in range(own_mail.AT_ONCE + 1):
        text(client, "/me/mail/1790000001.M1.mail/")
        text(client, "/me/mail/1790000009.M1.mail/", 404)


def test_whoever_waits_gets_the_turn_and_no_more_wait_than_may():
    turns = Turns(2, 1)
    got = []

    def wait(person):
        with turns.turn(person, 30) as has_turn:
            got.append((person, has_turn))

    with turns.turn(1, 0), turns.turn(2, 0):
        waiting = threading.Thread(target=wait, args=(1,))
        waiting.start()
        until(lambda: turns._waits[1], what="it to wait")
        for person in (1, 3):  # one more of the same, one more of all
            wait(person)
        assert got == [(1, False), (3, False)]
    waiting.join(30)
    assert got[2:] == [(1, True)] and not turns._waits.total() and not turns._working


def test_neither_anothers_mail_nor_a_link_to_elsewhere_is_read(client, ann, tmp_path):
    bob = world.mailbox("bob@acme.test")
    theirs = keep(tmp_path, bob, "1790000009.M9.mail")
    text(client, "/me/mail/1790000009.M9.mail/", 404)
    secret = tmp_path / "secret.key"
    secret.write_text("Subject: the key\r\n\r\nthe key")
    own = keep(tmp_path, ann, "1790000001.M1.mail").parent
    (own / "1790000002.M2.mail").symlink_to(secret)
    os.mkfifo(own / "1790000003.M3.mail")
    (own / "1790000004.M4.mail").mkdir()
    (own.parent / "cur").symlink_to(theirs.parent)
    page = text(client, "/me/mail/")
    assert page.count("unread") == 1 and "the key" not in page
    for name in ("1790000002.M2.mail", "1790000003.M3.mail", "1790000004.M4.mail", "1790000009.M9.mail",
                 "..%2F..%2Fsecret.key", "1790000001.M1.mail:2,S", "1790000001.M1.mail%00", "1790000001.M*", "x" * 300):
        text(client, f"/me/mail/{name}/", 404)
        assert client.get(f"/me/mail/{name}/0/").status_code == 404, name
    # A whole Maildir that is a link to another's.
    moved = own.parent.rename(tmp_path / "aside")
    own.parent.symlink_to(theirs.parents[1])
    assert "Your inbox is empty" in text(client, "/me/mail/") and moved


def test_the_newest_come_first_and_only_so_many(client, ann, tmp_path, monkeypatch):
    for number in range(52):
        folder = "cur" if number % 2 else "new"
        keep(tmp_path, ann, f"17900000{number:02}.M1.mail" + (":2,RS" if number % 2 else ""),
             f"From: b@x.test\nSubject: Letter {number:02}\n\nx".encode(), folder)
    page = text(client, "/me/mail/")
    assert page.index("Letter 51") < page.index("Letter 50") < page.index("Letter 02")
    assert "Letter 01" not in page and "These are the newest 50" in page and page.count("unread") == 25
    monkeypatch.setattr(inbox, "MOST_BYTES", 30)
    assert "too long or too nested" in text(client, "/me/mail/1790000050.M1.mail/")
    monkeypatch.setattr(inbox, "MOST_S", -1.0)
    assert "be read here" not in text(client, "/me/mail/")
