"""The rules of mailboxes on a running mailserver with a real Dovecot: vacation, forward, junk, block, Sieve.

demo.test is stored by Posthouse's own Maildirs, sieve.test by Dovecot's LMTP, and elsewhere.test is a peer.
One installation serves all tests: each has mailboxes of its own.
"""

import smtplib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dovecot import Dovecot, prepare
from tests.support.installation import PASSWORD, Installation, message, until
from tests.support.managesieve import Sieve
from tests.support.peer import Peer, peer

pytestmark = pytest.mark.dovecot

AWAY = "vacation=True, vacation_text='Zurück am Montag.', vacation_subject='Nicht da, 留守'"
STORES = ["demo.test", "sieve.test"]
MARKED = b"From: bob@elsewhere.test\r\nX-Spam-Flag: YES\r\nSubject: Buy\r\n\r\nNow.\r\n"


class Running:
    """The installation, its Dovecot and the peer; `n` numbers mailboxes."""

    def __init__(self, installation: Installation, dovecot: Dovecot, elsewhere: Peer) -> None:
        self.installation, self.dovecot, self.elsewhere = installation, dovecot, elsewhere
        self.n = 0

    def mailboxes(self, domain: str, *settings: str) -> list[str]:
        """New mailboxes with these rules; empty settings: none."""
        names = [f"box{self.n + at}@{domain}" for at in range(len(settings))]
        self.n += len(settings)
        code = "".join(
            f"box = world.mailbox({name!r})\n" + (f"world.rules(box, {rules})\n" if rules else "")
            for name, rules in zip(names, settings, strict=True)
        )
        self.installation.run(f"{code}world.changed({domain!r})")
        return names

    def from_outside(
        self, *recipients: str, raw: bytes = b"", sender: str = "bob@elsewhere.test", subject: str = "Hello"
    ) -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP("127.0.0.1", self.installation.mx, timeout=30) as client:
            return client.sendmail(sender, recipients, raw or message(sender, recipients[0], subject))

    def states(self, *about: str) -> list[tuple[str, ...]]:
        """Direction, original, resolved and state of the recipients that name one of these addresses."""
        rows = self.installation.query(
            "SELECT m.direction, r.original, r.resolved, r.state FROM sending_recipient r"
            " JOIN sending_message m ON m.id = r.message_id ORDER BY r.id"
        )
        return [row for row in rows if set(about) & {row[1], row[2]}]

    def count(self, address: str, folder: str = "INBOX") -> int:
        """How many messages a mail client sees there."""
        with self.dovecot.imap(address, folder=folder) as client:
            if client.state != "SELECTED":
                return 0
            return len(client.search(None, "ALL")[1][0].split())

    def to_elsewhere(self, subject: str) -> list[bytes]:
        return [each.content for each in self.elsewhere.received if f"Subject: {subject}".encode() in each.content]


@pytest.fixture(scope="module")
def running(template) -> Iterator[Running]:
    # A short path that every user can enter.
    with tempfile.TemporaryDirectory(prefix="ph-") as name, peer() as elsewhere:
        Path(name).chmod(0o755)
        installation = Installation(template, Path(name) / "data")
        installation.run("world.domain('sieve.test', Tenant.objects.get(name='Demo'), store='lmtp')")
        installation.manage("route", "set", "elsewhere.test", f"smtp://{elsewhere.listen}", "--tls", "none")
        dovecot = Dovecot(installation)
        folder = installation.run(
            "from django.conf import settings\nfrom panel.operations import dovecot\n"
            "answer = dovecot.folder(settings.ENVIRONMENT)"
        )
        try:
            installation.start(
                module=prepare(installation), store=f"maildir,lmtp:{folder}/run/posthouse-lmtp"
            )
            dovecot.start()
            yield Running(installation, dovecot, elsewhere)
        finally:
            dovecot.stop()
            installation.kill()


@pytest.mark.parametrize("domain", STORES)
def test_two_who_are_away_answer_each_other_once_and_never_loop(running, domain):
    one, two = running.mailboxes(domain, AWAY, AWAY)
    running.installation.send(one, two, subject="Coming over?")
    until(lambda: running.count(one) == 1, what="the answer")
    running.installation.send(one, two, subject="Still there?")
    running.installation.send(two, one, subject="The other way")
    until(lambda: running.count(two) == 3 and running.count(one) == 2, what="all of it")
    rows = running.states(one, two)
    assert sorted(row[0] for row in rows) == ["answer"] * 2 + ["submission"] * 3 and len(rows) == 5
    with running.dovecot.imap(one) as client:
        head = client.fetch("1", "(BODY.PEEK[])")[1][0][1].decode()
    assert "Return-Path: <>" in head
    assert "Auto-Submitted: auto-replied\r\n" in head
    assert "In-Reply-To: <Coming-over?@client.test>\r\nReferences: <Coming-over?@client.test>\r\n" in head


def test_a_forward_leaves_with_and_without_a_copy_and_its_failure_is_kept_here(running):
    inside, = running.mailboxes("demo.test", "")
    keeps, passes = running.mailboxes(
        "demo.test", f"forward_to=['far@elsewhere.test', {inside!r}]",
        "forward_to=['away@elsewhere.test'], forward_keep=False",
    )
    running.from_outside(keeps, subject="With a copy")
    running.from_outside(passes, subject="Without one")
    until(lambda: running.to_elsewhere("With a copy") and running.to_elsewhere("Without one"), what="both elsewhere")
    assert (running.count(keeps), running.count(inside), running.count(passes)) == (1, 1, 0)
    envelopes = {each.rcpts[0].partition(">")[0]: each.mail for each in running.elsewhere.received}
    assert "bob@elsewhere.test" in str(envelopes), "the sender's envelope, as an alias leaves it"
    assert "away@elsewhere.test" in str(envelopes)
    # It comes back: a forward never goes round, and what its owner keeps nowhere else stays here.
    (sent,) = running.to_elsewhere("Without one")
    running.from_outside(passes, raw=sent)
    assert running.count(passes) == 1
    running.elsewhere.behaviour.rcpt["full@elsewhere.test"] = "550 5.2.2 full"
    (lost,) = running.mailboxes("demo.test", "forward_to=['full@elsewhere.test'], forward_keep=False")
    running.from_outside(lost, subject="Not taken")
    held = f"SELECT holds FROM sending_recipient WHERE original = '{lost}' AND state = 'waiting'"
    until(lambda: running.installation.query(held) == [(2,)], what="the hold")
    assert len(running.states(lost)) == 1, "nobody is told whom we can't be sure of"


def test_a_forward_is_charged_and_cannot_pass_a_limit(running):
    running.installation.run(
        "tenant = world.tenant('Limited')\nworld.limit(tenant, hour=1)\nworld.domain('limited.test', tenant)"
    )
    (box,) = running.mailboxes("limited.test", "forward_to=['far@elsewhere.test']")
    running.from_outside(box, subject="The one")
    with pytest.raises(smtplib.SMTPDataError) as refused:
        running.from_outside(box, subject="One too many")
    assert refused.value.smtp_code == 450
    assert running.count(box) == 1


@pytest.mark.parametrize("domain", STORES)
def test_marked_junk_goes_into_junk_where_that_is_wanted(running, domain):
    wants, plain = running.mailboxes(domain, "junk=True, forward_to=['far@elsewhere.test']", "")
    running.from_outside(wants, plain, raw=MARKED)
    until(lambda: running.count(wants, "Junk") == 1 and running.count(plain) == 1, what="the mail")
    running.from_outside(wants, subject=f"Clean for {domain}")
    until(lambda: running.count(wants) == 1, what="clean mail")
    assert running.count(wants, "Junk") == 1 and running.count(plain, "Junk") == 0
    assert not running.to_elsewhere("Buy")
    if domain == "demo.test":
        assert (running.installation.maildir(wants) / ".Junk" / "maildirfolder").exists()


@pytest.mark.parametrize("domain", STORES)
def test_who_is_blocked_is_refused_at_both_doors(running, domain):
    blocks, other = running.mailboxes(
        domain, f"blocked=['bob@elsewhere.test', 'spam.test'], {AWAY}, forward_to=['far@elsewhere.test']", ""
    )
    with smtplib.SMTP("127.0.0.1", running.installation.mx, timeout=30) as client:
        client.ehlo()
        client.mail("bob@elsewhere.test")
        assert client.rcpt(blocks) == (550, f"5.7.1 {blocks} takes no mail from this sender".encode())
        client.rset()
        client.mail("list@elsewhere.test")
        assert client.rcpt(blocks)[0] == client.rcpt(other)[0] == 250
        both = f"From: x@deep.spam.test\r\nTo: {blocks}\r\nSubject: Both\r\n\r\n.\r\n"
        assert client.data(both.encode())[0] == 250
        client.mail("list@elsewhere.test")
        client.rcpt(blocks)
        assert client.data(b"From: x@spam.test\r\n\r\n.\r\n")[0] == 550
    until(lambda: running.count(other) == 1 and len(running.states(blocks)) == 1, what="the other's mail and the row")
    assert running.states(blocks)[0][3] == "discarded"
    running.installation.run(
        f"world.rules(Mailbox.objects.get(address__local_part={blocks.partition('@')[0]!r}), blocked=[{other!r}])\n"
        f"world.changed({domain!r})"
    )

    def refused_at_submission() -> bool:
        with running.installation.client(other) as client:
            client.mail(other)
            return client.rcpt(blocks)[0] == 550

    until(refused_at_submission, what="the refusal")
    assert running.count(blocks) == 0
    assert not running.to_elsewhere("Both")


def test_a_script_of_ones_own_sorts_what_dovecot_stores_and_sends_nothing(running):
    (box,) = running.mailboxes("sieve.test", "")
    client = Sieve(running.dovecot)
    client.answer()
    client.secure()
    client.answer()
    assert client.login(box, PASSWORD).startswith("OK")
    sorting = 'if header :contains "subject" "invoice" { fileinto :create "Bills"; }'
    assert client.put("sort", f'require ["fileinto", "mailbox"];\n{sorting}\n').startswith("OK")
    assert client.ask('SETACTIVE "sort"')[-1].startswith("OK")
    running.from_outside(box, subject="Your invoice")
    running.from_outside(box, subject="Hello")
    until(lambda: running.count(box, "Bills") == 1 and running.count(box) == 1, what="both")
    for script in (
        'require "vacation"; vacation "Away.";', 'require "reject"; reject "No.";', 'require "ereject"; ereject "No.";',
        'require "enotify"; notify "mailto:far@elsewhere.test";',
    ):
        assert client.put("sends", script).startswith("NO"), script
    # A redirect is taken, and not carried out: the mail stays.
    assert client.put("redirects", 'redirect "far@elsewhere.test";').startswith("OK")
    assert client.ask('SETACTIVE "redirects"')[-1].startswith("OK")
    running.from_outside(box, subject="Stays here")
    until(lambda: running.count(box) == 2, what="the mail")
    assert not running.to_elsewhere("Stays here")
