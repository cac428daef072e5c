"""Limits hold exactly, with many sessions on many workers at once."""

import smtplib
from concurrent.futures import ThreadPoolExecutor

from tests.support.installation import Installation, message

SESSIONS = 64
LIMIT = 100


def send_until_refused(installation: Installation, number: int) -> tuple[int, list[bytes]]:
    """How many messages one session got through out of four, and the refusals."""
    accepted, refusals = 0, []
    with installation.client("shop@demo.test") as client:
        for count in range(4):
            try:
                client.sendmail(
                    "shop@demo.test", ["office@demo.test"],
                    message("shop@demo.test", "office@demo.test", f"{number}.{count}"),
                )
                accepted += 1
            except smtplib.SMTPDataError as error:
                refusals.append(b"%d %s" % (error.smtp_code, error.smtp_error))
    return accepted, refusals


def test_64_sessions_on_4_workers_reach_a_mailboxs_limit_exactly(installation):
    installation.manage("limit", "set", "shop@demo.test", f"hour={LIMIT}")
    installation.start(workers=4)
    with ThreadPoolExecutor(SESSIONS) as pool:
        outcomes = list(pool.map(lambda number: send_until_refused(installation, number), range(SESSIONS)))
    assert sum(accepted for accepted, _ in outcomes) == LIMIT
    refusals = [refusal for _, refused in outcomes for refusal in refused]
    assert len(refusals) == SESSIONS * 4 - LIMIT
    for refusal in refusals:
        assert refusal.startswith(b"450 4.7.1"), refusal
        assert b"free again at" in refusal
    assert len(installation.inbox("office@demo.test").files()) == LIMIT
    assert installation.run("answer = Recipient.objects.count()") == LIMIT


def test_a_message_with_more_recipients_than_the_tenants_limit_is_refused_whole(installation):
    installation.manage("limit", "set", "tenant:Demo", "hour=1")
    installation.start()
    with installation.client("shop@demo.test") as client:
        client.mail("shop@demo.test")
        for recipient in ("office@demo.test", "shop@demo.test"):
            assert client.rcpt(recipient)[0] == 250
        code, _ = client.data(message("shop@demo.test", "office@demo.test"))
        assert code in (450, 550)
    assert installation.inbox("office@demo.test").files() == []
    # Nothing was charged: one recipient still fits.
    installation.send("shop@demo.test", "office@demo.test")
