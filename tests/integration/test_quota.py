"""A full mailbox with real clients: refused in the session, and taken again once there is room."""

import imaplib
import smtplib

import pytest

from tests.support.dovecot import Dovecot, prepare
from tests.support.installation import Installation, message, until

pytestmark = pytest.mark.dovecot

OFFICE, SHOP, ALIAS = "office@demo.test", "shop@demo.test", "all@demo.test"
QUOTA = 100_000


@pytest.fixture(params=["maildir", "lmtp"])
def reading(request, template, open_folder) -> Dovecot:
    """The demo with a small mailbox and an alias of two, stored by us or by Dovecot's LMTP."""
    installation = Installation(template, open_folder / "data")
    installation.run(
        f"Mailbox.objects.filter(address__local_part='office').update(quota_bytes={QUOTA})\n"
        f"world.alias({ALIAS!r}, {OFFICE!r}, {SHOP!r})"
    )
    made = Dovecot(installation)
    module = prepare(installation)
    try:
        if request.param == "lmtp":
            made.write()
            installation.environment["POSTHOUSE_STORE"] = f"lmtp:{made.folder}/run/posthouse-lmtp"
        installation.start(module=module)
        made.start()
        yield made
    finally:
        made.stop()
        installation.kill()


def deliver(installation: Installation, recipient: str, *, size: int = 1000, declared: int = 0) -> tuple[int, bytes]:
    """From outside by the MX port; the last reply, which is the first refusal."""
    sent = message("bob@elsewhere.test", recipient, "Hay", "x" * 76 + "\r\n" * (size // 2))
    with smtplib.SMTP("127.0.0.1", installation.mx, timeout=60) as client:
        client.ehlo()
        client.mail("bob@elsewhere.test", [f"size={declared}"] if declared else [])
        code, text = client.rcpt(recipient)
        return client.data(sent) if code == 250 else (code, text)


def test_a_full_mailbox_is_refused_in_the_session_and_recovers_after_deletion(reading):
    posthouse = reading.installation
    assert deliver(posthouse, OFFICE, size=60_000)[0] == 250
    until(lambda: known(posthouse) > 60_000, what="its use in the database")

    assert deliver(posthouse, OFFICE, declared=60_000)[0] == 452, "the declared size is too much"
    assert deliver(posthouse, OFFICE, declared=200_000)[1].startswith(b"5.2.3"), "it never fits"
    assert deliver(posthouse, OFFICE, size=60_000)[1].startswith(b"4.2.2"), "its size is known at the end"
    assert deliver(posthouse, OFFICE, size=25_000)[0] == 250
    warned(reading, 1)
    fill(posthouse)
    warned(reading, 2)
    assert deliver(posthouse, OFFICE, declared=3000)[1].endswith(b"office@demo.test is full, try again later")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        posthouse.send(SHOP, OFFICE, text="x" * 3000)

    # Through an alias of two, the other one has it at once, and this one's copy waits. (Dovecot
    # lets the last message go beyond the quota: the first copy fits there.)
    for _ in range(2):
        assert deliver(posthouse, ALIAS, size=3000)[0] == 250
    with reading.imap(SHOP) as client:
        until(lambda: count(client) == 2, what="shop's copies")
    until(lambda: "4.2.2" in waiting(posthouse), what="the copy that waits")

    with reading.imap(OFFICE) as client:
        client.store("1:*", "+FLAGS", "\\Deleted")
        client.expunge()
        # At once, with the folder still open.
        until(lambda: deliver(posthouse, OFFICE, declared=3000)[0] == 250, within_s=30, what="room")
    posthouse.manage("queue", "retry", "--all")
    until(lambda: waiting(posthouse) == "", what="what waited in the mailbox")


def fill(posthouse: Installation) -> None:
    """Little messages until one doesn't fit."""
    for _ in range(40):
        if deliver(posthouse, OFFICE, size=2000)[0] == 452:
            return
    pytest.fail("it is never full")


def warned(reading: Dovecot, times: int) -> None:
    """So many mails say that it fills up: one at 80 per cent, one at 95."""
    def found() -> list[bytes]:
        with reading.imap(OFFICE) as client:
            return client.search(None, "SUBJECT", '"% full"')[1][0].split()

    until(lambda: len(found()) == times, what=f"warning {times}")


def count(client: imaplib.IMAP4_SSL) -> int:
    client.noop()
    return int(client.select("INBOX")[1][0])


def known(posthouse: Installation) -> int:
    rows = posthouse.query(
        "SELECT used_bytes FROM mailboxes_mailboxusage JOIN mailboxes_mailbox ON id = mailbox_id"
        " WHERE quota_bytes IS NOT NULL"
    )
    return rows[0][0] if rows else 0


def waiting(posthouse: Installation) -> str:
    rows = posthouse.query("SELECT last_reply FROM sending_recipient WHERE state = 'waiting'")
    return " ".join(row[0] or "waits" for row in rows)
