"""Two tenants in one shared domain, and one message to two tenants: neither learns anything of the other.

What each may see: the command line's queue, the log that the console reads (sending/log), delivery
reports, and the headers of what lies in the mailbox.
"""

import email
import smtplib
from collections.abc import Iterator

import pytest

from tests.support.dns import dns_server
from tests.support.installation import Installation, Template, message, until
from tests.support.postfix import Postfix

pytestmark = pytest.mark.postfix

SECRET = "hidden-away@elsewhere.test"
# What Acme may not learn of Beta, and the other way round.
OF_BETA = ("Beta", "beta.test", SECRET, "ben@beta.test")
OF_ACME = ("web shop", "127.0.0.1", "hidden@isp.test", "other@acme.test")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Postfix]:
    made = Postfix("elsewhere.test")
    made.start()
    yield made
    made.discard()


@pytest.fixture(scope="module")
def two(template: Template, tmp_path_factory: pytest.TempPathFactory, elsewhere: Postfix) -> Iterator[Installation]:
    """Acme with ann@isp.test, Beta with ben@isp.test; Beta's desk@isp.test leads outside and fails there."""
    installation = Installation(template, tmp_path_factory.mktemp("isolation") / "data")
    try:
        installation.run(
            "acme, beta = world.tenant('Acme'), world.tenant('Beta')\n"
            "world.domain('isp.test')\nworld.domain('acme.test', acme)\nworld.domain('beta.test', beta)\n"
            "world.mailbox('ann@isp.test', owner=acme)\nworld.mailbox('hidden@isp.test', owner=acme)\n"
            "world.mailbox('other@acme.test')\n"
            "world.mailbox('ben@isp.test', owner=beta)\nworld.mailbox('ben@beta.test')\n"
            f"world.alias('desk@isp.test', {SECRET!r}, 'ben@beta.test', owner=beta)\n"
        )
        with dns_server(elsewhere_test="@ MX 10 mx\nmx A 127.0.0.1\n") as dns:
            installation.start(dns=dns.listen, outward_port=elsewhere.port)
            yield installation
    finally:
        installation.kill()


@pytest.fixture(scope="module")
def sent(two: Installation) -> str:
    """The one message of which most is asked; its queue id."""
    return send(two)


def send(two: Installation) -> str:
    """Acme's ann to her colleague, to Beta's ben and to Beta's desk, one of them hidden (Bcc). Its queue id."""
    with two.client("ann@isp.test") as client:
        client.mail("ann@isp.test")
        for recipient in ("other@acme.test", "hidden@isp.test", "ben@isp.test", "desk@isp.test"):
            code, text = client.rcpt(recipient)
            assert code == 250, text
            assert b"elsewhere" not in text and b"beta" not in text.lower()
        code, text = client.data(message("ann@isp.test", "other@acme.test", "Offer"))
    assert code == 250, text
    return text.split()[-1].decode()


def queue(two: Installation, *arguments: str) -> str:
    return two.manage("queue", *arguments)


def log(two: Installation, tenant: str) -> str:
    """All that the log gives this tenant, as text."""
    return str(two.run(
        "from dataclasses import asdict\nfrom panel.sending.log import recipients_seen_by\n"
        f"answer = [asdict(one) for one in recipients_seen_by([Tenant.objects.get(name={tenant!r}).pk])]"
    ))


def assert_tells_nothing(text: str, secrets: tuple[str, ...]) -> None:
    found = [secret for secret in secrets if secret.lower() in text.lower()]
    assert not found, (found, text)


def test_a_message_to_two_tenants_tells_neither_of_the_other(two, sent):
    queue_id = sent
    (report,) = two.inbox("ann@isp.test").wait()
    until(lambda: two.run("answer = Recipient.objects.filter(state='waiting').count()") == 0, what="the end")

    # Delivery report to Acme: the address that was written, never where it leads.
    text = report.read_text()
    assert "desk@isp.test" in text
    assert_tells_nothing(text, OF_BETA)

    # Acme: its four recipients as it wrote them, and an outcome; one row for the alias's two ways.
    shown = queue(two, "show", queue_id, "--tenant", "Acme")
    for address in ("other@acme.test", "hidden@isp.test", "ben@isp.test", "desk@isp.test"):
        assert address in shown
    assert shown.count("desk@isp.test") == 1
    assert_tells_nothing(shown, OF_BETA)
    assert_tells_nothing(queue(two, "list", "--tenant", "Acme"), OF_BETA)
    assert_tells_nothing(log(two, "Acme"), OF_BETA)

    own_charges = two.run("answer = Message.objects.get(direction='submission').facts['charged']")
    assert {each["name"] for each in own_charges} >= {"Acme", "Beta"}, "both were charged; each sees its own"

    # Beta: its two addresses, and where its alias led; not who else, by what login or from where.
    shown = queue(two, "show", queue_id, "--tenant", "Beta").replace("mx.elsewhere.test 127.0.0.1", "")
    assert "ben@isp.test" in shown and SECRET in shown
    assert "ann@isp.test" in shown, "the reverse-path"
    assert_tells_nothing(shown, OF_ACME)
    assert_tells_nothing(queue(two, "list", "--tenant", "Beta"), OF_ACME)
    own = log(two, "Beta").replace("'address': '127.0.0.1'", "")  # the server elsewhere, not the client
    assert_tells_nothing(own, OF_ACME)
    assert "Offer" not in own, "the subject is the submitter's"

    # A third tenant learns not even that there is such a message.
    with pytest.raises(AssertionError, match=f"There is no message {queue_id}"):
        queue(two, "show", queue_id, "--tenant", "Demo")
    assert log(two, "Demo") == "[]"


@pytest.mark.once("sqlite")
def test_what_lies_in_a_mailbox_names_no_other_recipient_and_no_client(two, sent):
    for address, allowed in (
        ("ben@isp.test", "ben@isp.test"), ("ben@beta.test", "desk@isp.test"), ("other@acme.test", "other@acme.test"),
        ("hidden@isp.test", "hidden@isp.test"),
    ):
        (path,) = two.inbox(address).wait()
        headers, _, _ = path.read_text().partition("\n\n")
        for recipient in ("hidden@isp.test", "ben@isp.test", "desk@isp.test", "ben@beta.test", SECRET):
            assert recipient in (allowed, address) or recipient not in headers, (address, headers)
        assert "127.0.0.1" not in headers, headers
        assert "Acme" not in headers and "Beta" not in headers
        assert email.message_from_string(path.read_text())["Return-Path"] == "<ann@isp.test>"


def test_while_it_waits_neither_sees_more(two, sent, elsewhere):
    elsewhere.stop()
    queue_id = send(two)
    until(lambda: two.run("answer = Recipient.objects.filter(state='waiting', tries__gt=0).count()"), what="a try")
    listed = queue(two, "list", "--tenant", "Acme")
    assert "desk@isp.test" in listed and queue_id in listed
    assert_tells_nothing(listed, OF_BETA)
    assert_tells_nothing(queue(two, "list", "--tenant", "Acme", "--json"), OF_BETA)
    assert_tells_nothing(queue(two, "show", queue_id, "--tenant", "Acme"), OF_BETA)
    listed = queue(two, "list", "--tenant", "Beta")
    assert "desk@isp.test" in listed
    assert_tells_nothing(listed, OF_ACME)


def test_an_address_of_another_tenant_in_the_shared_domain_is_nobodys_business(two):
    """Who holds an address, and what it is, shows nowhere: not at AUTH, MAIL, RCPT or when it is made."""
    with two.client("ann@isp.test") as client:
        for foreign in ("ben@isp.test", "desk@isp.test", "nobody@isp.test"):
            code, text = client.mail(foreign)
            assert code == 550, text
            assert_tells_nothing(text.decode().replace(foreign, ""), OF_BETA)
            client.rset()
    with pytest.raises(AssertionError, match=r"The address desk@isp\.test is taken already\.") as refusal:
        two.manage("mailbox", "create", "desk@isp.test", "--tenant", "Acme", "--password-stdin", typed="right horse\n")
    assert_tells_nothing(str(refusal.value).rpartition("posthouse")[2], ("alias", "Beta", SECRET))
    answers = set()
    for login in ("ben@isp.test", "nobody@isp.test"):
        with two.client() as client:
            try:
                client.login(login, "a wrong password")
            except smtplib.SMTPAuthenticationError as error:
                answers.add((error.smtp_code, error.smtp_error))
    assert len(answers) == 1, answers
