"""The mail that tells a person that the own mailbox fills up. Pure: facts in, bytes out.

Decides its words and its shape. When one is due is decided in panel/rules/quota. It goes
round in no circle: no reverse-path, so nothing of it is returned (RFC 5321 §4.5.5), and
Auto-Submitted, so nothing answers it (RFC 3834 §5).
"""

import hashlib
from datetime import datetime

from mailserver import trace
from mailserver.envelope import Body, Client, Incoming, IncomingRecipient
from panel.rules import quota
from panel.rules.addresses import Address
from panel.rules.facts import Resolution

_UNITS = ("bytes", "KB", "MB", "GB", "TB")  # each 1,024 of the one before, as mail clients count


def incoming(
    resolution: Resolution, used_bytes: int, quota_bytes: int, *, number: int, hostname: str,
    postmaster: Address | None, at: datetime,
) -> Incoming:
    """The warning to a mailbox, as a message; `resolution` is of the mailbox's own address."""
    mailbox = resolution.asked
    sender = str(postmaster) if postmaster else f"postmaster@{hostname}"
    subject = f"Your mailbox is {quota.percent(used_bytes, quota_bytes)} % full"
    content = (
        trace.date_header(at)
        + trace.message_id_header(trace.message_id(number, hostname))
        + (
            f"From: Postmaster <{sender}>\r\n"
            f"To: <{mailbox}>\r\n"
            f"Subject: {subject}\r\n"
            "Auto-Submitted: auto-generated\r\n"
            "MIME-Version: 1.0\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            "Content-Transfer-Encoding: 8bit\r\n"
            "\r\n"
        ).encode()
        + "\r\n".join(_text(mailbox, used_bytes, quota_bytes)).encode()
    )
    return Incoming(
        id=number,
        received_at=at,
        direction="internal",
        login=None,
        client=Client(ip="", port=0, name="", tls="", esmtp=False),
        reverse_path=None,
        recipients=(IncomingRecipient(mailbox, resolution.deliveries, resolution.tenant_id, notify="NEVER"),),
        prefix=b"",
        body=Body(len(content), hashlib.sha256(content).hexdigest(), content, None),
        subject=subject,
        message_id=trace.message_id(number, hostname),
        header_from=sender,
        smtputf8=not (mailbox.is_ascii and sender.isascii()),
        body_type="" if content.isascii() else "8BITMIME",
        ret="",
        envid="",
    )


def _text(mailbox: Address, used_bytes: int, quota_bytes: int) -> list[str]:
    left = max(0, quota_bytes - used_bytes)
    return [
        f"Your mailbox {mailbox} holds {_size(used_bytes)} of the {_size(quota_bytes)} that it may hold.",
        f"{_size(left)} are left." if left else "Nothing is left.",
        "",
        "When it is full, mail to you is put off or returned to whoever sent it.",
        "",
        "To make room, delete messages that you don't need in your mail program, the large ones",
        "first, and empty the trash: what lies there counts as well. Or ask whoever looks after",
        "your mail for more room.",
        "",
        "This message comes from the mail server by itself. You need not answer it.",
        "",
    ]


def _size(number: int) -> str:
    """Bytes to one digit: "7.1 MB"."""
    power = 0
    while number >= 1000 * 1024**power and power < len(_UNITS) - 1:
        power += 1
    return f"{number / 1024**power:,.1f} {_UNITS[power]}" if power else f"{number:,} bytes"
