"""Letters as mail: what stands in their headers and both parts, whatever a name holds; and how many one gets."""

import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from django.conf import settings as all_settings
from django.test import Client
from django.utils import timezone

from mailserver.directory.resolution import resolve
from panel import environment
from panel.mailboxes.language import language_of
from panel.operations.services import create_account
from panel.rules.addresses import parse_address
from panel.sending import letters
from panel.sending.letters import Aside, Facts, Letter, Link, Purpose, Words
from panel.sending.models import LetterSent, Message, Recipient
from panel.tenants.models import DirectoryChange, User
from tests.support import world
from tests.support.all_letters import composers
from tests.support.post import posted

pytestmark = pytest.mark.django_db

ANN = "ann@elsewhere.test"
HOSTILE = "<b onclick=x>\r\nBcc: thief@evil.test\r\n\r\n<script>\u202egnp\u2066\u2028日本 & \ud800\x00{x} %s"


@pytest.fixture(autouse=True)
def here(settings) -> None:
    settings.ENVIRONMENT = replace(
        settings.ENVIRONMENT, url="https://mail.provider.test", postmaster="post@provider.test"
    )


def send(to: str = ANN, language: str = "en", name: str = "Acme", **fields):
    def compose() -> Letter:
        said = letters.cleaned(name)
        return Letter(f"About {said}", (
            Words(f"It is {said}."), Facts(((said, said),)), Link("Open", letters.url("/t/1/")), Aside(said),
        ))

    fields = {"purpose": Purpose.LIMIT, "now": timezone.now(), "within": timedelta(hours=1), **fields}
    return letters.send(to, language, compose, **fields)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_letter_is_mail_whatever_is_in_a_name(language):
    send(language=language, name=HOSTILE)
    send(language=language)
    hostile, plain = posted()
    for letter in (hostile, plain):
        head = letter.message
        assert letter.raw.isascii() and b"\n" not in letter.raw.replace(b"\r\n", b"")
        assert max(map(len, letter.raw.split(b"\r\n"))) <= 998
        assert head.keys() == [
            "Date", "Message-ID", "From", "To", "Reply-To", "Subject", "Auto-Submitted", "MIME-Version", "Content-Type",
            "Content-Language",
        ]
        assert (head["To"], head["Auto-Submitted"], head["Content-Language"]) == (ANN, "auto-generated", language)
        assert (head["From"], head["Reply-To"]) == ("Posthouse <no-reply@mx.posthouse.test>", "post@provider.test")
        assert [part.get_content_type() for part in head.walk()] == [
            "multipart/alternative", "text/plain", "text/html"
        ]
        assert f'<html lang="{language}">' in letter.html and not head.defects
        assert letter.path() == "/t/1/" and 'href="https://mail.provider.test/t/1/"' in letter.html
    assert hostile.subject == "About <b onclick=x> Bcc: thief@evil.test <script>gnp 日本 & {x} %s"
    assert hostile.text.count("<script>gnp 日本 & {x} %s") == 4 and "\u202e" not in hostile.text + hostile.html
    # No tag or attribute of its own, and nothing that is loaded from anywhere.
    assert Tags(hostile.html).seen == Tags(plain.html).seen
    assert not {"img", "script", "link", "iframe"} & {tag for tag, _ in Tags(plain.html).seen}
    style = re.findall(r"<style>(.*?)</style>", plain.html, re.S)
    assert re.findall(r"<style>(.*?)</style>", hostile.html, re.S) == style and len(style) == 1
    assert not re.search(r"url|@import|@font-face", style[0])
    message = Message.objects.get(pk=Recipient.objects.order_by("pk")[0].message_id)
    assert (message.reverse_path, message.direction, message.body) == ("", "internal", "7BIT")
    assert message.subject == hostile.subject


@pytest.mark.parametrize("language", ["en", "ja"])
def test_each_letter_is_one_whatever_is_in_a_name(language, monkeypatch):
    monkeypatch.setattr(letters, "MOST_A_DAY", dict.fromkeys(Purpose, 100))
    for name in (HOSTILE, "Acme"):
        for compose in composers(name).values():
            letters.send(
                ANN, language, compose, purpose=Purpose.LIMIT, now=timezone.now(), within=timedelta(hours=1)
            )
    found = posted()
    hostile, plain = found[: len(found) // 2], found[len(found) // 2 :]
    for odd, letter in zip(hostile, plain, strict=True):
        assert odd.message.keys() == letter.message.keys() and "Bcc" not in odd.message
        assert not odd.message.defects and not odd.message["Subject"].defects
        assert Tags(odd.html).seen == Tags(letter.html).seen
        assert odd.path() == letter.path()
        assert "\u202e" not in odd.text + odd.html and "\n\nBcc" not in odd.text
    assert len({each.text for each in plain}) == len(plain) == len(composers("Acme"))


@pytest.mark.once("postgresql")
def test_an_encoded_word_in_a_name_or_an_address_begins_no_field():
    word = "=?utf-8?q?=0D=0ABcc=3A_thief=40evil.test=0D=0A=0D=0A?="
    send(name=word)
    send(f"{word}@elsewhere.test")
    for letter, to in zip(posted(), (ANN, "undisclosed-recipients:;"), strict=True):
        assert "Bcc" not in letter.message and str(letter.message["To"]) == to
        assert b"\r\nBcc" not in letter.raw and not letter.message.defects
    assert posted()[0].subject.startswith("About = ?utf-8?q?=0D=0ABcc=3A_thief")


def test_an_address_outside_ascii_is_written_to_as_such():
    send("アン@xn--elsewhere-test.test")
    (letter,) = posted()
    assert "To: アン@xn--elsewhere-test.test\r\n".encode() in letter.raw
    assert Message.objects.get().smtputf8 and Message.objects.get().body == "8BITMIME"


def test_nobody_is_flooded_or_told_twice():
    now = timezone.now()
    told = [
        send(about="limit 1", once_within=timedelta(hours=1), now=now + timedelta(minutes=20 * at)) for at in range(4)
    ]
    assert [each is not None for each in told] == [True, False, False, True]
    assert send(about="limit 2", once_within=timedelta(hours=1), now=now + timedelta(hours=1)), "another thing"
    assert send("bob@elsewhere.test", about="limit 1", once_within=timedelta(hours=1), now=now), "or somebody else"
    for _ in range(20):
        send(now=now + timedelta(hours=2))
    mine = Recipient.objects.filter(resolved=ANN)
    assert mine.count() == letters.MOST_A_DAY[Purpose.LIMIT]
    assert send(purpose=Purpose.RESET, now=now + timedelta(hours=2)), "which was asked for"
    assert send(now=now + timedelta(days=1, hours=3))
    send(now=now + timedelta(days=60))
    assert LetterSent.objects.count() == 1 and ANN not in str(LetterSent.objects.values()), "what is over is deleted"


@pytest.mark.once("postgresql")
def test_the_switch_of_languages_says_in_which_one_letters_come(settings):
    account = create_account(email=ANN, password="!unusual password", actor=None)
    world.domain("acme.test", world.tenant())
    person = world.mailbox("x@acme.test")
    assert language_of(account) == language_of(None) == "en"
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, language="ja")
    assert language_of(account) == language_of(person) == "ja", "the installation's, until one chose"
    for user in (account, person.person):
        client = Client()
        client.force_login(user)
        for language in ("en", "xx"):
            client.post("/language/", {"language": language})
    account.refresh_from_db()
    person.refresh_from_db()
    assert (account.language, person.language) == ("en", "en") and language_of(person) == "en"
    # What the mailserver writes to it is in that language at once.
    assert DirectoryChange.objects.latest("pk").domain == "acme.test"
    found = resolve(parse_address("x@acme.test"), separator="+", postmaster=None, hostname="", now=timezone.now()).value
    assert [each.mailbox.language for each in found.deliveries] == ["en"]
    Client().post("/language/", {"language": "ja"})
    assert set(User.objects.values_list("language", flat=True)) == {"en", ""}, "nobody's who isn't signed in"
    with pytest.raises(environment.BadSetting, match=r"POSTHOUSE_LANGUAGE.*en, ja"):
        environment.read({"POSTHOUSE_LANGUAGE": "fr"})
    assert all_settings.LANGUAGE_CODE == "en"
