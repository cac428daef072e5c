"""The real mailserver stores by LMTP in a real Dovecot."""

import re
import smtplib

import pytest

from tests.support.dovecot import Dovecot
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


@pytest.mark.once("sqlite")
def test_the_store_has_what_was_sent_byte_for_byte(posthouse, store):
    posthouse.send(SHOP, OFFICE, text=".a dot\r\nGrüße.\r\n")
    (mail,) = until(lambda: store.mail(OFFICE), what="the mail in Dovecot")
    assert mail.endswith("\r\n\r\n.a dot\r\nGrüße.\r\n".encode())
    assert mail.startswith(b"Return-Path: <shop@demo.test>\r\n")
    from_outside(posthouse, "office+shop@demo.test")
    assert len(store.mail(OFFICE)) == 2, "it is there when the session has its 250"
    assert [b"Delivered-To: office+shop@demo.test\r\n" in mail for mail in store.mail(OFFICE)].count(True) == 1
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


ODD = {
    "empty": b"",
    "dots": b".\r\n..\r\n.a\r\n\r\n.\r\n",
    "8-bit": "Grüße\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
    "long": b"x" * 998 + b"\r\n",
    "megabyte": b".an \xe4 in each line\r\n" * 50_000,
    "blank": b"\r\n\r\n \t\r\n\r\n",
    "controls": bytes(each for each in range(1, 32) if each not in b"\r\n") + b"\x7f\r\n",
    "from": b"From somebody\r\n>From x\r\n",
}
HEADS = {
    "8-bit head": b"X-Odd: \xe4\xf6\r\n",
    "folded": b"X-Fold: a\r\n b\r\n\tc\r\n",
    "no field": b"this is no header field\r\n",
    "of mbox": b"Status: RO\r\nX-UID: 5\r\nContent-Length: 3\r\n",
}


def send_odd(reading: Dovecot, *recipients: str) -> dict[str, bytes]:
    """By the MX port, in one transaction each; the message of each subject."""
    first = b"From: bob@elsewhere.test\r\nSubject: <%s>\r\n"
    sent = {name: first % name.encode() + b"\r\n" + body for name, body in ODD.items()}
    sent |= {name: first % name.encode() + head + b"\r\nbody\r\n" for name, head in HEADS.items()}
    sent["head alone"] = first % b"head alone"
    with smtplib.SMTP("127.0.0.1", reading.installation.mx, timeout=60) as client:
        client.ehlo("elsewhere.test")
        for each in sent.values():
            client.docmd("MAIL FROM:<bob@elsewhere.test> BODY=8BITMIME")
            for recipient in recipients:
                assert client.docmd(f"RCPT TO:<{recipient}>")[0] == 250
            assert client.docmd("DATA")[0] == 354
            client.send(each.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            assert client.getreply()[0] == 250
    return sent


def read_all(reading: Dovecot, login: str) -> dict[str, bytes]:
    """The messages of a mailbox over IMAP by what stands in their subject."""
    with reading.imap(login) as client:
        _, parts = client.fetch("1:*", "(RFC822.SIZE BODY.PEEK[])")
    found = {}
    for head, content in (part for part in parts if isinstance(part, tuple)):
        assert int(re.search(rb"RFC822.SIZE (\d+)", head)[1]) == len(content)
        found[re.search(rb"Subject: <(.*)>", content)[1].decode()] = content
    return found


@pytest.mark.once("postgresql")
def test_both_ways_of_storing_are_read_whole_and_byte_for_byte_alike(reading):
    reading.installation.run(
        "world.domain('lmtp.test', Tenant.objects.get(name='Demo'), store='lmtp')\nworld.mailbox('ann@lmtp.test')"
    )
    sent = send_odd(reading, OFFICE, "ann@lmtp.test")
    for login in (OFFICE, "ann@lmtp.test"):
        read = until(lambda login=login: len(found := read_all(reading, login)) == len(sent) and found, what="all mail")
        for name, content in sent.items():
            assert read[name].endswith(b"\r\n" + content), (login, name)
            assert read[name].startswith(b"Return-Path: <bob@elsewhere.test>\r\nDelivered-To: " + login.encode())
    # A mailbox that may not log in still receives.
    reading.installation.manage("mailbox", "suspend", "ann@lmtp.test", "--reason", "found in a leak")
    folder = reading.installation.inbox("ann@lmtp.test")
    send_odd(reading, "ann@lmtp.test")
    assert len(folder.wait(2 * len(sent))) == 2 * len(sent)
    # What Dovecot made is open to who writes Maildirs, when the domain is ours again.
    reading.installation.manage("domain", "set", "lmtp.test", "--store", "maildir")

    def is_written_by_us() -> bool:
        from_outside(reading.installation, "ann@lmtp.test")
        return any(".R" in path.name for path in folder.files())

    until(is_written_by_us, what="a file of ours")
