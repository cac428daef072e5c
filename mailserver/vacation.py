"""Automatic answers of people who are away: the letter itself. Pure: facts in, bytes out.

Whether there is one is decided in rules/filtering, and once per sender in spool/vacations.
RFC 5230 §5 (its fields), RFC 3834 §3 (the null path, Auto-Submitted), RFC 5322 §3.6.4
(References), RFC 2047 (words outside ASCII).
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from email.charset import BASE64, Charset
from email.header import Header

from mailserver import trace
from mailserver.envelope import Body, Client, Incoming, IncomingRecipient
from panel.rules import headers
from panel.rules.addresses import Address
from panel.rules.facts import Delivery, Vacation
from panel.rules.headers import Field

MOST_REFERENCES = 20  # the oldest are left out; the first stays, it names the thread
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")
_UTF8 = Charset("utf-8")
_UTF8.header_encoding = BASE64


def incoming(
    vacation: Vacation,
    *,
    mailbox: Address,
    tenant_id: int,
    sender: Address,
    fields: Sequence[Field],
    message_id: str,
    number: int,
    at: datetime,
    deliveries: tuple[Delivery, ...],
    sender_tenant_id: int | None,
) -> Incoming:
    """The answer as a message from `mailbox` (of `tenant_id`) to `sender`.

    `fields` and `message_id` are those of the message that it answers; `deliveries` are where
    the sender's mail goes, `sender_tenant_id` is whose address that is here.
    """
    subject = vacation.subject or f"Auto: {headers.first(fields, b'subject')}".rstrip(": ")
    encoding, body = _encoded(vacation.text)
    own_id = trace.message_id(number, mailbox.domain)
    lines = [
        f"From: {_named(vacation.name, mailbox)}",
        f"To: <{sender}>",
        f"Subject: {_words(subject, 'Subject')}",
        *_thread(fields, message_id),
        "Auto-Submitted: auto-replied",
        "X-Auto-Response-Suppress: All",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Transfer-Encoding: {encoding}",
    ]
    content = (
        trace.date_header(at) + trace.message_id_header(own_id) + "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    )
    return Incoming(
        id=number,
        received_at=at,
        direction="answer",
        login=None,
        client=Client(ip="", port=0, name="", tls="", esmtp=False),
        reverse_path=None,  # RFC 3834 §3.3: nobody answers an answer
        recipients=(IncomingRecipient(sender, deliveries, sender_tenant_id, notify="NEVER"),),
        prefix=b"",
        body=Body(len(content), hashlib.sha256(content).hexdigest(), content, None),
        subject=subject,
        message_id=own_id,
        header_from=str(mailbox),
        smtputf8=not (sender.is_ascii and mailbox.is_ascii),
        body_type="",
        ret="",
        envid="",
        caused_by=tenant_id,
        charges=tuple((subject, 1) for subject in vacation.charged),
    )


def _words(text: str, field: str) -> str:
    """The text as a field's value: as it is, or in encoded words. It has no line ends (services)."""
    plain = text.isascii() and text.isprintable() and "=?" not in text and len(text) <= 900
    return text if plain else Header(text, _UTF8, maxlinelen=75, header_name=field).encode(linesep="\r\n")


def _named(name: str, address: Address) -> str:
    if not name:
        return f"<{address}>"
    if _ATOMS.fullmatch(name) and "=?" not in name:
        return f"{name} <{address}>"
    if name.isascii() and name.isprintable() and "=?" not in name:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}" <{address}>'
    return f"{_words(name, 'From')} <{address}>"


def _thread(fields: Sequence[Field], message_id: str) -> list[str]:
    if not _MESSAGE_ID.fullmatch(message_id):
        return []
    before: list[str] = []
    for name in (b"references", b"in-reply-to"):
        raw = next((headers.unfold(field.raw) for field in fields if field.is_named(name)), b"")
        before = _MESSAGE_ID.findall(raw.decode("ascii", "replace"))
        if before:
            break
    known = [*dict.fromkeys(before), message_id]
    if len(known) > MOST_REFERENCES:
        known = [known[0], *known[-MOST_REFERENCES + 1 :]]
    return [f"In-Reply-To: {message_id}", "References: " + "\r\n\t".join(known)]


def _encoded(text: str) -> tuple[str, bytes]:
    """The text with its Content-Transfer-Encoding, lines ending in CRLF."""
    body = "\r\n".join(text.split("\n")) + "\r\n"
    if body.isascii() and all(len(line) <= 998 for line in body.split("\r\n")):  # RFC 5322 §2.1.1
        return "7bit", body.encode()
    return "base64", base64.encodebytes(body.encode()).replace(b"\n", b"\r\n")
