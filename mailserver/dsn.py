"""Delivery status notifications: what a sender is told of its message. Pure: facts in, bytes out.

Decides whether one is wanted, and its words. Who may get one, when, and in which languages, is the judge's.
RFC 3461 (NOTIFY, RET), RFC 3464 (message/delivery-status), RFC 6522 (multipart/report),
RFC 6533 (addresses outside ASCII), RFC 3834 §2 (Auto-Submitted), RFC 3282 (Content-Language).

The part for people is plain text alone. RFC 6522 §3 would let it be multipart/alternative, but
programs that sort DSNs look for text there, and HTML would add nothing to a few lines. It is in
ASCII on the wire whatever the language; the part for programs is never translated.

A DSN names the address that the sender wrote, never what it resolves to: where the two
differ, the remote's name and words are left out as well, for they tell it.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.header import Header
from email.message import EmailMessage
from enum import Enum

from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from mailserver import trace
from mailserver.envelope import (
    Body,
    Claimed,
    ClaimedMessage,
    Client,
    Incoming,
    IncomingRecipient,
    Outcome,
)
from panel.database import ids
from panel.rules.addresses import Address, BadAddress, decode_xtext
from panel.rules.facts import Delivery
from panel.rules.headers import first, legible

RETURNED_BYTES = 64 * 1024  # of the message that come back; above that, its headers, and of those so many
FIELD_CHARACTERS = 600  # of a value in the report
SUBJECT_CHARACTERS = 80


class Kind(Enum):
    """What is reported; the words of NOTIFY (RFC 3461 §4.1)."""

    FAILURE = "FAILURE"
    DELAY = "DELAY"
    SUCCESS = "SUCCESS"


@dataclass(frozen=True, slots=True)
class Told:
    """One recipient that is reported. `retried_until` is given for a delay."""

    recipient: Claimed
    outcome: Outcome
    local: bool = False
    retried_until: datetime | None = None


def is_wanted(kind: Kind, notify: str) -> bool:
    """Whether a recipient's NOTIFY asks for it; without one, failures and delays are told (RFC 3461 §4.1)."""
    words = {word.strip().upper() for word in notify.split(",")} if notify else {"FAILURE", "DELAY"}
    return "NEVER" not in words and kind.value in words


def incoming(
    kind: Kind,
    message: ClaimedMessage,
    told: Sequence[Told],
    *,
    number: int,
    hostname: str,
    at: datetime,
    sender: Address,
    deliveries: tuple[Delivery, ...],
    tenant_id: int | None,
    header: bytes,
    whole: bytes | None,
    languages: tuple[str, ...] = ("en",),
) -> Incoming:
    """The DSN as a message to `sender`, to be written with the settlements that it reports.

    It says so in each of the languages, the first also in the subject. `deliveries` are where the
    sender's mail goes, `tenant_id` is whose address that is;
    `header` is the message's header block, `whole` all of it if it may be returned.
    """
    report = _Report(kind, message, told, number, hostname, at, sender, header, whole, languages)
    content = report.content()
    return Incoming(
        id=number,
        received_at=at,
        direction="internal",
        login=None,
        client=Client(ip="", port=0, name="", tls="", esmtp=False),
        reverse_path=None,  # RFC 3464 §2: never an answer to it
        recipients=(IncomingRecipient(sender, deliveries, tenant_id, notify="NEVER"),),  # RFC 3461 §6.1
        prefix=b"",
        body=Body(len(content), hashlib.sha256(content).hexdigest(), content, None),
        subject=report.subject,
        message_id=trace.message_id(number, hostname),
        header_from=f"mailer-daemon@{hostname}",
        smtputf8=not sender.is_ascii,
        body_type="" if content.isascii() else "8BITMIME",
        ret="",
        envid="",
    )


_SUBJECTS = {
    Kind.FAILURE: gettext_noop("Your message could not be delivered"),
    Kind.DELAY: gettext_noop("Your message is still waiting"),
    Kind.SUCCESS: gettext_noop("Your message was delivered"),
}
# With the message's subject, and without one.
_OPENINGS = {
    Kind.FAILURE: (
        gettext_noop('Your message "{subject}" of {arrived}\ncould not be delivered to:'),
        gettext_noop("Your message of {arrived}\ncould not be delivered to:"),
    ),
    Kind.DELAY: (
        gettext_noop('Your message "{subject}" of {arrived}\nhas not been delivered yet to:'),
        gettext_noop("Your message of {arrived}\nhas not been delivered yet to:"),
    ),
    Kind.SUCCESS: (
        gettext_noop('Your message "{subject}" of {arrived}\nwas delivered to:'),
        gettext_noop("Your message of {arrived}\nwas delivered to:"),
    ),
}
_ENDINGS = {
    Kind.FAILURE: gettext_noop("It will not be tried again. Check the address, or reach the recipient another way."),
    Kind.DELAY: gettext_noop(
        "You need not do anything, nor send it again: it is tried again by itself. If that\n"
        "comes to nothing you will hear. If it is urgent, reach the recipient another way."
    ),
    Kind.SUCCESS: gettext_noop("A recipient's own server may still report otherwise."),
}

# What to say of a status code (RFC 3463 §3) where its text may not be shown, or would not help.
_REASONS = {
    "1.1": gettext_noop("There is no such mailbox"),
    "1.2": gettext_noop("Its domain does not exist"),
    "1.3": gettext_noop("The address is not valid"),
    "1.10": gettext_noop("Its domain takes no mail"),
    "2.1": gettext_noop("The mailbox is switched off"),
    "2.2": gettext_noop("The mailbox is full"),
    "3.4": gettext_noop("The message is too large"),
    "4.1": gettext_noop("Its mail server does not answer"),
    "4.2": gettext_noop("The connection to its mail server broke off"),
    "4.3": gettext_noop("Its mail server can't be found just now"),
    "4.4": gettext_noop("Its domain has no mail server"),
    "4.6": gettext_noop("The address leads round in a circle"),
    "4.7": gettext_noop("It could not be delivered in time"),
    "6.7": gettext_noop("Its mail server does not take addresses outside ASCII"),
    "7.1": gettext_noop("The message was refused"),
}
_OTHERWISE = {
    Kind.FAILURE: gettext_noop("It was not accepted"), Kind.DELAY: gettext_noop("Its mail server put it off"),
    Kind.SUCCESS: "",
}
BETWEEN_LANGUAGES = "-" * 20


class _Report:
    def __init__(
        self, kind: Kind, message: ClaimedMessage, told: Sequence[Told], number: int, hostname: str, at: datetime,
        sender: Address, header: bytes, whole: bytes | None, languages: tuple[str, ...],
    ) -> None:
        self.kind, self.message, self.told = kind, message, told
        self.number, self.hostname, self.at, self.sender = number, hostname, at, sender
        self.languages = languages
        with translation.override(languages[0]):
            self.subject = _(_SUBJECTS[kind])
        self.header, self.whole = header, whole

    def content(self) -> bytes:
        """The whole message, its header block included."""
        status = self._status()
        returned = self._returned()
        # RFC 6533 §3: the global kinds where there is UTF-8.
        of_status = "delivery-status" if status.isascii() else "global-delivery-status"
        parts = ((f"message/{of_status}".encode(), status), returned)
        # No line of a part can be the boundary: a returned message may be an older DSN, but never this one.
        boundary = f"posthouse-{ids.to_text(self.number)}-{hashlib.sha256(returned[1]).hexdigest()[:16]}"
        lines = [
            self._head(boundary, eight_bit=not all(part.isascii() for _kind, part in parts)),
            f"--{boundary}\r\n".encode(), self._words(), b"\r\n",
        ]
        for kind, part in parts:
            encoding = "7bit" if part.isascii() else "8bit"
            lines.append(
                f"--{boundary}\r\n".encode() + b"Content-Type: " + kind
                + f"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + part
            )
            lines.append(b"" if part.endswith(b"\r\n") else b"\r\n")
            lines.append(b"\r\n")
        return b"".join(lines) + f"--{boundary}--\r\n".encode()

    def _head(self, boundary: str, eight_bit: bool) -> bytes:
        return (
            trace.date_header(self.at)
            + trace.message_id_header(trace.message_id(self.number, self.hostname))
            + (
                f"From: Mail delivery <mailer-daemon@{self.hostname}>\r\n"
                f"To: <{self.sender}>\r\n"
                f"Subject: {_encoded(self.subject)}\r\n"
                "Auto-Submitted: auto-replied\r\n"
                "MIME-Version: 1.0\r\n"
                f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"\r\n'
                f"Content-Transfer-Encoding: {'8bit' if eight_bit else '7bit'}\r\n"
                "\r\n"
            ).encode()
        )

    def _words(self) -> bytes:
        """The part for a person, with its header."""
        said = []
        for language in self.languages:
            with translation.override(language):  # what is shown before and after, in this thread, stays as it was
                said.append("\n".join(self._lines()))
        part = EmailMessage(policy.SMTP.clone(cte_type="7bit", max_line_length=998))
        part.set_content(f"\n{BETWEEN_LANGUAGES}\n\n".join(said), charset="utf-8")
        del part["MIME-Version"]  # the message's
        part["Content-Language"] = ", ".join(self.languages)
        return part.as_bytes()

    def _lines(self) -> list[str]:
        subject = _clean(first(legible(self.header), b"subject", SUBJECT_CHARACTERS))
        named, unnamed = _OPENINGS[self.kind]
        lines = [
            _("This is the mail server {hostname}.").format(hostname=self.hostname), "",
            _(named if subject else unnamed).format(subject=subject, arrived=_time(self._arrived())),
        ]
        for told in self.told:
            lines += ["", f"  {_clean(_shown(told.recipient.original))}", *self._because(told)]
        lines += ["", _(_ENDINGS[self.kind]), ""]
        return [*lines, _("Number of the message: {number}").format(number=ids.to_text(self.message.id)), ""]

    def _because(self, told: Told) -> list[str]:
        if self.kind is Kind.SUCCESS:
            way = _("It lies in the mailbox.") if told.local else _("Its mail server took it, and reports no further.")
            return [f"    {way}"]
        reply = told.outcome.reply
        detail = reply.enhanced.partition(".")[2]
        reason = _(_REASONS.get(detail, _OTHERWISE[self.kind]))
        lines = ["    " + _("{reason} ({status}).").format(reason=reason, status=reply.enhanced)]
        if _may_show(told) and reply.text:
            host = _clean(told.outcome.host)
            says = _("The server {host} said:").format(host=host) if host else _("In short:")
            lines.append(f"    {says} {_clean(str(reply))}")
        if told.retried_until:
            lines.append("    " + _("It will be tried until {until}.").format(until=_time(told.retried_until)))
        return lines

    def _status(self) -> bytes:
        """The part for programs: a block for the message, and one for each recipient (RFC 3464 §2.2, §2.3)."""
        block = [f"Reporting-MTA: dns; {self.hostname}", f"Arrival-Date: {trace.date(self._arrived())}"]
        if envid := _xtext(self.message.envid):
            block.insert(0, f"Original-Envelope-Id: {envid}")
        blocks = [block]
        for told in self.told:
            recipient, reply = told.recipient, told.outcome.reply
            block = []
            kind, _, original = recipient.orcpt.partition(";")
            if original and (original := _xtext(original)) and kind.replace("-", "").isalnum():
                block.append(f"Original-Recipient: {_clean(kind)}; {original}")
            name = _clean(recipient.original)
            block += [
                f"Final-Recipient: {'rfc822' if name.isascii() else 'utf-8'}; {name}",
                f"Action: {self._action(told)}",
                f"Status: {reply.enhanced or f'{reply.code // 100}.0.0'}",
            ]
            if _may_show(told):
                if told.outcome.host:
                    block.append(f"Remote-MTA: dns; {_clean(told.outcome.host)}")
                block.append(f"Diagnostic-Code: smtp; {_clean(str(reply))}")
            block.append(f"Last-Attempt-Date: {trace.date(self.at)}")
            if told.retried_until:
                block.append(f"Will-Retry-Until: {trace.date(told.retried_until)}")
            blocks.append(block)
        return "\r\n".join("\r\n".join(block) + "\r\n" for block in blocks).encode()

    def _action(self, told: Told) -> str:
        if self.kind is Kind.SUCCESS:
            return "delivered" if told.local else "relayed"
        return "failed" if self.kind is Kind.FAILURE else "delayed"

    def _returned(self) -> tuple[bytes, bytes]:
        """The message itself where a failure may return it (RFC 3461 §4.3), else its headers."""
        whole = self.whole if self.kind is Kind.FAILURE and self.message.ret != "HDRS" else None
        if whole is not None and len(whole) <= RETURNED_BYTES:
            # RFC 6533 §4: message/global where its headers hold UTF-8; a body of 8 bits alone is rfc822.
            return (b"message/rfc822" if self.header.isascii() else b"message/global"), whole
        header = _whole_lines(self.header)
        return (b"text/rfc822-headers" if header.isascii() else b"message/global-headers"), header

    def _arrived(self) -> datetime:
        return self.told[0].recipient.accepted_at


def _encoded(subject: str) -> str:
    """Folded, and in encoded words where it isn't ASCII (RFC 2047)."""
    return Header(subject, header_name="Subject").encode(linesep="\r\n")


def _may_show(told: Told) -> bool:
    """Whether the remote's name and words may be told: only where the sender itself wrote the address."""
    return told.recipient.original.casefold() == told.recipient.resolved.casefold()


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _shown(address: str) -> str:
    return f"<{address}>"


def _clean(text: str) -> str:
    """One line of printable text: what comes from outside can't begin a field or a part of its own.

    Any space but a line's end is one, as the wide one (U+3000) between Japanese words: Python prints none but U+0020.
    """
    spaced = (" " if unicodedata.category(character) == "Zs" else character for character in text)
    return "".join(character if character.isprintable() else "?" for character in spaced)[:FIELD_CHARACTERS]


def _xtext(text: str) -> str:
    """The value of ENVID or ORCPT; empty when it is none."""
    try:
        return _clean(decode_xtext(text))
    except BadAddress:
        return ""


def _whole_lines(header: bytes) -> bytes:
    """The header block with one line end behind it, cut at a line's end when it is too long."""
    if len(header) > RETURNED_BYTES:
        header = header[: max(0, header.rfind(b"\r\n", 0, RETURNED_BYTES))]
    return header.rstrip(b"\r\n") + b"\r\n"
