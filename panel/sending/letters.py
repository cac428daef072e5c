"""Mail that Posthouse itself writes to people: into the queue, as a message made here.

The runner takes it within seconds and finds its way as for any other mail. It has the null
reverse-path, so nobody is told of a failure but the provider: what can't be delivered is held as
undeliverable. The content is deleted when it is delivered.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from email.utils import format_datetime

from django.conf import settings
from django.db import transaction

from panel.database import ids
from panel.rules.addresses import parse_address
from panel.sending.models import Content, Message, Recipient


@transaction.atomic
def write(to: str, subject: str, text: str, *, now: datetime, within: timedelta) -> Message:
    """Queue a letter to one address, to be tried for so long. Subject and text are ours, ASCII, never a person's.

    Raises BadAddress, and ValueError for what would not be a header or a line of text.
    """
    address = parse_address(to, smtputf8=False)
    if not (subject.isascii() and subject.isprintable() and text.isascii() and "\r" not in text):
        raise ValueError("a letter is ASCII, its subject one line")
    maker = ids.IdMaker(secrets.randbelow(ids.NODES), secrets.randbelow(ids.WORKERS))
    message_id, recipient_id = maker.next(), maker.next()
    hostname, postmaster = settings.ENVIRONMENT.hostname, settings.ENVIRONMENT.postmaster
    sender = f"no-reply@{hostname}"
    identity = f"<{ids.to_text(message_id)}@{hostname}>"
    head = [
        f"Date: {format_datetime(now)}", f"Message-ID: {identity}", f"From: Posthouse <{sender}>", f"To: <{address}>",
        *([f"Reply-To: <{postmaster}>"] if postmaster.isascii() and postmaster else []),
        f"Subject: {subject}", "Auto-Submitted: auto-generated",  # RFC 3834 §5: no vacation answers it
        "MIME-Version: 1.0", "Content-Type: text/plain; charset=us-ascii", "Content-Transfer-Encoding: 7bit",
    ]
    body = "\r\n".join([*head, "", *text.strip("\n").split("\n"), ""]).encode()
    message = Message.objects.create(
        id=message_id, accepted_at=now, direction=Message.Direction.INTERNAL, subject=subject, message_id=identity,
        header_from=sender, size=len(body), body="7BIT",
    )
    Content.objects.create(
        message=message, prefix=b"", where=Content.Where.INLINE, body=body, size=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    Recipient.objects.create(
        id=recipient_id, message=message, original=str(address), resolved=str(address), next_hop=address.domain,
        state=Recipient.State.WAITING, due_at=now, expires_at=now + within, notify="NEVER",
    )
    return message
