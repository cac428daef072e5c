"""The real mailserver stores by LMTP in a real Dovecot."""

import smtplib

import pytest

from tests.support.installation import message, until
from tests.support.lmtp import DovecotStore, dovecot_store

pytestmark = pytest.mark.dovecot

SHOP, OFFICE, NEW = "shop@demo.test", "office@demo.test", "new@demo.test"


@pytest.fixture
def store():
    with dovecot_store(SHOP, OFFICE, quota_bytes={SHOP: 2000}) as made:
        yield made


@pytest.fixture
def posthouse(installation, store: DovecotStore):
    installation.run(f"world.mailbox({NEW!r})")  # Dovecot doesn't know it
    installation.start(store=store.setting)
    return installation


def from_outside(posthouse, *recipients: str, text: str = "Hello.\r\n") -> dict[str, tuple[int, bytes]]:
    """Deliver by our MX port; raises what smtplib makes of a refusal."""
    with smtplib.SMTP("127.0.0.1", posthouse.mx, timeout=30) as client:
        sent = message("bob@elsewhere.test", recipients[0], "From outside", text)
        return client.sendmail("bob@elsewhere.test", list(recipients), sent)


def states(posthouse) -> dict[str, str]:
    return posthouse.run("answer = {row.original: row.state for row in Recipient.objects.all()}")


def test_the_store_has_what_was_sent_byte_for_byte(posthouse, store):
    posthouse.send(SHOP, OFFICE, text=".a dot\r\nGrüße.\r\n")
    (mail,) = until(lambda: store.mail(OFFICE), what="the mail in Dovecot")
    assert mail.endswith("\r\n\r\n.a dot\r\nGrüße.\r\n".encode())
    assert mail.startswith(b"Return-Path: <shop@demo.test>\r\n")
    from_outside(posthouse, OFFICE)
    assert len(store.mail(OFFICE)) == 2, "it is there when the session has its 250"
    assert posthouse.inbox(OFFICE).files() == []


def test_what_dovecot_refuses_is_refused_in_the_session_or_waits(posthouse, store):
    with pytest.raises(smtplib.SMTPDataError) as refused:
        from_outside(posthouse, NEW)
    assert refused.value.smtp_code == 550
    assert b"5.1.1" in refused.value.smtp_error
    from_outside(posthouse, SHOP, text="x" * 70 + "\r\n" + "y\r\n" * 1000)
    until(lambda: states(posthouse) == {NEW: "failed", SHOP: "waiting"}, what="both outcomes")
    assert "4.2.2" in posthouse.run(f"answer = Recipient.objects.get(original={SHOP!r}).last_reply")


def test_mail_waits_for_a_dovecot_that_is_away(posthouse, store):
    store.stop()
    from_outside(posthouse, OFFICE)
    until(lambda: states(posthouse) == {OFFICE: "waiting"}, what="the outcome")
    store.start()
    posthouse.manage("queue", "retry", "--all")
    until(lambda: store.mail(OFFICE), what="the mail in Dovecot")
    until(lambda: states(posthouse) == {OFFICE: "delivered"}, what="the outcome")
