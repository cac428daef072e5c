"""A real Postfix elsewhere delivers to our MX port."""

import smtplib

import pytest

from tests.support.installation import message, until
from tests.support.postfix import Postfix

pytestmark = pytest.mark.postfix


@pytest.fixture
def sending(posthouse, postfix):
    """A Postfix whose transport map leads demo.test to our MX port, with a mailbox bob of its own."""
    made = Postfix("elsewhere.test", hops={"demo.test": posthouse.mx})
    made.start()
    yield made
    made.discard()


def give(postfix: Postfix, *recipients: str, subject: str) -> None:
    with smtplib.SMTP("127.0.0.1", postfix.port, timeout=30) as client:
        client.sendmail("bob@elsewhere.test", recipients, message("bob@elsewhere.test", recipients[0], subject))


@pytest.mark.once("sqlite")
def test_a_postfix_delivers_inward(posthouse, sending):
    give(sending, "office@demo.test", subject="From outside")
    (path,) = posthouse.inbox("office@demo.test").wait()
    raw = path.read_bytes()
    assert b"Return-Path: <bob@elsewhere.test>" in raw
    assert b"with ESMTPS\r\n" in raw, "it used STARTTLS when it was offered"


@pytest.mark.once("sqlite")
def test_a_postfix_is_refused_for_an_unknown_address_and_bounces_it_itself(posthouse, sending):
    give(sending, "nobody@demo.test", subject="To nobody")
    (path,) = until(lambda: sending.inbox("bob"), what="the bounce")
    assert b"550 5.1.1" in path.read_bytes()
    assert posthouse.run("answer = Message.objects.count()") == 0
