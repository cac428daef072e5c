"""Letters through the queue of a running mailserver: one that was asked for, and one that its own look was due for."""

import email
import email.policy

from tests.support.installation import PASSWORD, Installation, until
from tests.support.peer import peer

ASK = """
from panel.operations import password_reset
from panel.operations.services import create_account
create_account(email='ann@elsewhere.test', password={password!r}, provider_role='owner', actor=None)
password_reset.ask('ann@elsewhere.test', ip='203.0.113.9', link=lambda token: f'/admin/login/reset/{{token}}/')
"""


SIGNED_IN = """
from django.utils import timezone
from panel.mailboxes.models import LoginEvent, Mailbox
now, box = timezone.now(), Mailbox.objects.get(address__local_part="shop")
for ip in ("192.0.2.1", "198.51.100.1"):
    LoginEvent.objects.create(
        at=now, last_at=now, tenant=box.address.tenant, mailbox=box, login=str(box), ip=ip, protocol="imap",
        outcome="ok",
    )
"""


def test_the_link_goes_out_by_our_own_queue_and_sets_a_password(installation: Installation):
    installation.run(SIGNED_IN)
    installation.start()
    posthouse = installation
    until(lambda: posthouse.inbox("shop@demo.test").subjects() == [
        "shop@demo.test: a sign-in from a new network"
    ], what="what worker 0 had to tell")
    with peer() as there:
        posthouse.manage("route", "set", "elsewhere.test", f"smtp://{there.listen}", "--tls", "none")
        posthouse.run(ASK.format(password=PASSWORD))
        (received,) = until(lambda: there.received, what="the letter")
    assert "<>" in received.mail
    letter = email.message_from_bytes(received.content, policy=email.policy.default)
    assert (letter["To"], letter["Auto-Submitted"]) == ("ann@elsewhere.test", "auto-generated")
    assert letter["From"] == "Posthouse <no-reply@mx.posthouse.test>"
    text = letter.get_body(("plain",)).get_content()
    (link,) = [line.strip() for line in text.splitlines() if "://" in line]
    assert link in letter.get_body(("html",)).get_content()
    address, _, token = link.removesuffix("/").rpartition("/")
    assert address == f"http://localhost:{posthouse.http}/admin/login/reset"
    name = posthouse.run(
        "from panel.operations import password_reset\n"
        f"answer = str(password_reset.set_password({token!r}, 'another unusual one', ip=None))"
    )
    assert name == "ann@elsewhere.test"
    left = "answer = [Content.objects.count(), [r.state for r in Recipient.objects.all()]]"
    until(lambda: posthouse.run(left) == [0, ["delivered"] * 2], what="its settlement")
