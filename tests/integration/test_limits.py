"""Limits hold exactly, with many sessions on many workers at once."""

import smtplib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.installation import Installation, People, Template, message

SESSIONS = 64
LIMIT = 100


@pytest.fixture(scope="module")
def installation(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Running; each test has a tenant of its own."""
    made = Installation(template, tmp_path_factory.mktemp("limits") / "data", workers=4)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def send_until_refused(installation: Installation, people: People, number: int) -> tuple[int, list[bytes]]:
    """How many messages one session got through out of four, and the refusals."""
    accepted, refusals = 0, []
    with installation.client(people.shop) as client:
        for count in range(4):
            try:
                client.sendmail(
                    people.shop, [people.office], message(people.shop, people.office, f"{number}.{count}")
                )
                accepted += 1
            except smtplib.SMTPDataError as error:
                refusals.append(b"%d %s" % (error.smtp_code, error.smtp_error))
    return accepted, refusals


def test_64_sessions_on_4_workers_reach_a_mailboxs_limit_exactly(installation):
    people = installation.people()
    installation.manage("limit", "set", people.shop, f"hour={LIMIT}")
    with ThreadPoolExecutor(SESSIONS) as pool:
        outcomes = list(pool.map(lambda number: send_until_refused(installation, people, number), range(SESSIONS)))
    assert sum(accepted for accepted, _ in outcomes) == LIMIT
    refusals = [refusal for _, refused in outcomes for refusal in refused]
    assert len(refusals) == SESSIONS * 4 - LIMIT
    for refusal in refusals:
        assert refusal.startswith(b"450 4.7.1"), refusal
        assert b"free again at" in refusal
    assert len(installation.inbox(people.office).files()) == LIMIT
    assert installation.run(f"answer = Recipient.objects.filter(tenant__name={people.tenant!r}).count()") == LIMIT


def test_a_message_with_more_recipients_than_the_tenants_limit_is_refused_whole(installation):
    people = installation.people()
    installation.manage("limit", "set", f"tenant:{people.tenant}", "hour=1")
    with installation.client(people.shop) as client:
        client.mail(people.shop)
        for recipient in (people.office, people.shop):
            assert client.rcpt(recipient)[0] == 250
        code, _ = client.data(message(people.shop, people.office))
        assert code in (450, 550)
    assert installation.inbox(people.office).files() == []
    # Nothing was charged: one recipient still fits.
    installation.send(people.shop, people.office)
