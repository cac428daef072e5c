"""Messages as a session hands them to intake, for tests of intake and the spool."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from mailserver.config import Config
from mailserver.envelope import Body, Client, Incoming, IncomingRecipient, NewRecipient
from mailserver.spool import Entry, recipients_of
from panel import environment
from panel.database.ids import IdMaker
from panel.rules.addresses import Address
from panel.rules.facts import Delivery, LocalMailbox

IDS = IdMaker(1, 1)
TEXT = b"From: shop@demo.test\r\nTo: office@demo.test\r\nSubject: Hello\r\n\r\nHello.\r\n"
CLIENT = Client(ip="192.0.2.7", port=41000, name="client.example", tls="TLSv1.3 TLS_AES_256_GCM_SHA384", esmtp=True)


def config(data: Path) -> Config:
    """The default settings, with all state under `data`."""
    return Config.of(environment.read({"POSTHOUSE_DATA": str(data), "POSTHOUSE_HOSTNAME": "mx.posthouse.test"}))


def now() -> datetime:
    return datetime.now(UTC)


def address(text: str) -> Address:
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain)


def body(data: bytes = TEXT) -> Body:
    return Body(size=len(data), sha256=hashlib.sha256(data).hexdigest(), data=data, path=None)


def local(text: str, tenant_id: int = 1, number: int = 1) -> IncomingRecipient:
    """A recipient with a mailbox here; `number` makes its folder."""
    mailbox = LocalMailbox(
        mailbox_id=number, opaque_id=f"{number:020x}", tenant_id=tenant_id, address=address(text), quota_bytes=None
    )
    return IncomingRecipient(address(text), (Delivery(address(text), mailbox),), tenant_id)


def remote(text: str) -> IncomingRecipient:
    return IncomingRecipient(address(text), (Delivery(address(text), None),), None)


def incoming(*recipients: IncomingRecipient, **fields) -> Incoming:
    """A message from outside; whatever is not named is usual."""
    values = {
        "id": IDS.next(), "received_at": now(), "direction": "inbound", "login": None, "client": CLIENT,
        "reverse_path": address("peer@remote.test"), "recipients": recipients,
        "prefix": b"Received: from client.example\r\n", "body": body(), "subject": "Hello",
        "message_id": "<1@client.example>", "header_from": "shop@demo.test", "smtputf8": False, "body_type": "",
        "ret": "", "envid": "", "charges": (),
    }
    return Incoming(**(values | fields))


def entry(*recipients: IncomingRecipient, **fields) -> Entry:
    """The message with its rows, local copies taken for staged."""
    message = incoming(*recipients, **fields)
    rows: tuple[NewRecipient, ...] = recipients_of(message, IDS.next, staged=True)
    return Entry(message, rows, keep_content=any(not row.local for row in rows))
