"""What we write above a message: Received, on submission Date and Message-ID, and the marks of forwards.

Decides the words, not when they are written. RFC 5321 §4.4, RFC 3848 and RFC 6531 §4.3
(the protocol's name), RFC 5322 §3.6. Return-Path is written by the local delivery.
"""

import re
from datetime import datetime

from mailserver.envelope import Client
from panel.database import ids
from panel.rules.addresses import Address

# What an EHLO name may show in a header: an atom's letters, dots, and a literal's.
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9.:_\-\[\]]")
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
# Says which mailbox here has forwarded a message, so that it isn't forwarded again (disposition).
FORWARDED = "X-Posthouse-Forwarded"
_MARK = re.compile(rb"^%s:[^\r\n]*\r\n" % FORWARDED.encode(), re.MULTILINE)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def received(
    client: Client, *, by: str, message_id: int, at: datetime, authenticated: bool, smtputf8: bool,
    recipient: Address | None,
) -> bytes:
    """The Received field of a message that `client` gave us.

    Of a mail client that logged in neither address nor name nor login shows: the recipient
    has no right to them (DESIGN §4), and our log has them under the id. `recipient` is given
    when there is only one: with several, each would learn of a Bcc.
    """
    if authenticated:
        lines = [f"Received: by {by} with {protocol(client, authenticated, smtputf8)}"]
    else:
        literal = f"[IPv6:{client.ip}]" if ":" in client.ip else f"[{client.ip}]"
        source = f"{_NOT_A_NAME.sub('?', client.name) or 'unknown'} ({literal})"
        lines = [f"Received: from {source}", f"\tby {by} with {protocol(client, authenticated, smtputf8)}"]
    if client.tls:
        lines.append(f"\t({client.tls})")
    lines.append(f"\tid {ids.to_text(message_id)}")
    if recipient is not None and recipient.domain:
        lines.append(f"\tfor <{recipient}>")
    return ("\r\n".join(lines) + f";\r\n\t{date(at)}\r\n").encode()


def protocol(client: Client, authenticated: bool, smtputf8: bool) -> str:
    """The name of the protocol after `with`: RFC 3848, RFC 6531 §4.3."""
    if smtputf8:
        name = "UTF8SMTP"
    elif client.esmtp or client.tls:
        name = "ESMTP"  # there is no registered name for HELO within TLS
    else:
        return "SMTP"
    return name + ("S" if client.tls else "") + ("A" if authenticated else "")


def received_count(header: bytes) -> int:
    """The number of servers that say they handled the message. Counts in a malformed header as well."""
    return len(_RECEIVED.findall(header))


def without_marks(prefix: bytes) -> bytes:
    """What stands above a copy that no forward sends on: that some recipient forwards is nobody else's to know."""
    return _MARK.sub(b"", prefix)


def begins_with_field(header: bytes) -> bool:
    """Whether the first line is a field's; else it would read as a part of what we write above it."""
    return _FIELD.match(header) is not None


def date(at: datetime) -> str:
    """RFC 5322 §3.3, in UTC, whatever the locale."""
    return f"{_DAYS[at.weekday()]}, {at.day} {_MONTHS[at.month - 1]} {at.year:04} {at:%H:%M:%S} +0000"


def date_header(now: datetime) -> bytes:
    return f"Date: {date(now)}\r\n".encode()


def message_id(number: int, domain: str) -> str:
    """A Message-ID that nobody else makes: our id in the sender's domain."""
    return f"<{ids.to_text(number)}@{domain}>"


def message_id_header(text: str) -> bytes:
    return f"Message-ID: {text}\r\n".encode()
