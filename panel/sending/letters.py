"""Mail that Posthouse itself writes to people: into the queue, as a message made here.

A Letter says something in one language; its plain text and its HTML are made of the same blocks. The
runner takes it within seconds and finds its way as for any other mail. It has the null reverse-path,
so nobody is told of a failure but the provider: what can't be delivered is held as undeliverable.
The content is deleted when it is delivered.

Nobody gets more than so many of a purpose in a day, nor is told the same thing again within its time.
RFC 5322, RFC 2046 §5.1.4 (alternative), RFC 2047, RFC 3834 §5 (Auto-Submitted), RFC 6531.
"""

import hashlib
import hmac
import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email import policy
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage
from email.utils import format_datetime
from enum import StrEnum
from typing import ClassVar

from django.conf import settings
from django.db import transaction
from django.template.loader import render_to_string
from django.utils import translation

from panel.database import ids
from panel.rules.addresses import BadAddress, parse_address
from panel.sending.models import Content, LetterSent, Message, Recipient
from panel.tenants.changes import DECEIVING, alone

KEPT = timedelta(days=31)  # of what was written to whom
DAY = timedelta(days=1)
# How one begins (RFC 2047 §2). CPython decodes it before it writes a header, and a line's end in it as one.
ENCODED_WORD = "=?"


class Purpose(StrEnum):
    """Why somebody is written to; each has a bound of its own, so that none takes another's place."""

    RESET = "reset"
    INVITATION = "invitation"
    DOMAIN = "domain"  # what became of one's domains, of which one may have many
    WARNING = "warning"
    SIGN_IN = "sign-in"
    RECOVERY = "recovery"  # an address became a mailbox's recovery address
    SECOND_FACTOR = "second factor"
    RECOVERY_CHANGED = "recovery changed"  # apart, so that nobody's share is used up before what matters comes


MOST_A_DAY = {  # to one address
    Purpose.RESET: 20, Purpose.INVITATION: 20, Purpose.DOMAIN: 100, Purpose.WARNING: 10, Purpose.SIGN_IN: 3,
    Purpose.RECOVERY: 5, Purpose.RECOVERY_CHANGED: 10, Purpose.SECOND_FACTOR: 10,
}


# What a letter is made of


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    kind: ClassVar[str] = "words"
    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """A few names and what they are."""

    kind: ClassVar[str] = "facts"
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Link:
    """What to open; its address begins with the one in the settings."""

    kind: ClassVar[str] = "link"
    text: str
    url: str


@dataclass(frozen=True, slots=True)
class Aside:
    """What matters less, at the end."""

    kind: ClassVar[str] = "aside"
    text: str


Block = Words | Facts | Link | Aside
Due = Callable[[], Message | None]  # `send` with all that it is given


@dataclass(frozen=True, slots=True)
class Letter:
    """What it says, in the language in which it was composed. Others' names in it are `cleaned`."""

    subject: str
    blocks: tuple[Block, ...]


def cleaned(text: object, most: int = 100) -> str:
    """Somebody's name, address or words as a piece of one line: nothing that ends it or turns its direction."""
    kept = []
    for character in str(text):
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp", "Zs"):
            kept.append(" ")
        elif category != "Cs" and character not in DECEIVING:
            kept.append(character)
    line = " ".join("".join(kept).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _of_clean_lines(letter: Letter) -> Letter:
    """Whoever composes it cleans each name, to bound it; a forgotten one does no harm either."""
    blocks: list[Block] = []
    for block in letter.blocks:
        if isinstance(block, Facts):
            blocks.append(Facts(tuple((cleaned(name), cleaned(value, 400)) for name, value in block.pairs)))
        else:
            blocks.append(replace(block, text=cleaned(block.text, 2000)))
    return Letter(cleaned(letter.subject, 200).replace(ENCODED_WORD, "= ?"), tuple(blocks))


def url(path: str) -> str:
    """A link to one of the panel's pages: never of what a browser says."""
    return str(settings.ENVIRONMENT.url) + path


# Sending


@transaction.atomic
def send(
    to: str, language: str, compose: Callable[[], Letter], *, purpose: Purpose, now: datetime, within: timedelta,
    about: str = "", once_within: timedelta | None = None, most_about: int | None = None,
) -> Message | None:
    """Queue a letter to one address, to be tried for so long; `compose` is called in that language.

    None, and nothing is written, when the address had its share of this purpose today, or `most_about` letters
    `about` this, or was told `about` this less than `once_within` ago. Raises BadAddress.
    """
    address = parse_address(to).canonical
    alone("letters")  # two that look at once would both find nothing
    sent = LetterSent.objects.filter(to=_digest(str(address)), purpose=purpose)
    if sent.filter(at__gt=now - DAY).count() >= MOST_A_DAY[purpose]:
        return None
    if most_about and sent.filter(about=about, at__gt=now - DAY).count() >= most_about:
        return None
    if once_within and sent.filter(about=about, at__gt=now - once_within).exists():
        return None
    with translation.override(language):
        letter = _of_clean_lines(compose())
        texts = {name: _rendered(name, letter, language) for name in ("txt", "html")}
    LetterSent.objects.create(at=now, to=_digest(str(address)), purpose=purpose, about=about)
    LetterSent.objects.filter(at__lt=now - KEPT).delete()
    maker = ids.IdMaker(secrets.randbelow(ids.NODES), secrets.randbelow(ids.WORKERS))
    message_id, recipient_id = maker.next(), maker.next()
    sender = f"no-reply@{settings.ENVIRONMENT.hostname}"
    identity = f"<{ids.to_text(message_id)}@{settings.ENVIRONMENT.hostname}>"
    # All of it is ASCII, whatever the language, but for an address that isn't (RFC 6531).
    smtputf8 = not address.is_ascii
    written = EmailMessage(policy.SMTP.clone(cte_type="7bit", utf8=smtputf8))
    written["Date"] = format_datetime(now)
    written["Message-ID"] = identity
    written["From"] = HeaderAddress("Posthouse", addr_spec=sender)
    written["To"] = "undisclosed-recipients:;" if ENCODED_WORD in address.local_part else HeaderAddress(
        username=address.local_part, domain=address.domain
    )
    if reply_to := _reply_to():
        written["Reply-To"] = HeaderAddress(addr_spec=reply_to)
    written["Subject"] = letter.subject
    written["Auto-Submitted"] = "auto-generated"  # RFC 3834 §5: no vacation answers it
    written.set_content(texts["txt"], charset="utf-8")
    written.add_alternative(texts["html"], subtype="html", charset="utf-8")
    written["Content-Language"] = language  # now: what stands there before goes into the part
    body = written.as_bytes()
    message = Message.objects.create(
        id=message_id, accepted_at=now, direction=Message.Direction.INTERNAL, subject=letter.subject,
        message_id=identity, header_from=sender, size=len(body), smtputf8=smtputf8,
        body="7BIT" if body.isascii() else "8BITMIME",
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


def count(about: str, since: datetime) -> int:
    """How many letters went to anybody about this."""
    return LetterSent.objects.filter(about=about, at__gt=since).count()


def _rendered(suffix: str, letter: Letter, language: str) -> str:
    context = {"letter": letter, "language": language, "hostname": settings.ENVIRONMENT.hostname}
    return str(render_to_string(f"letters/letter.{suffix}", context)).strip() + "\n"


def _reply_to() -> str:
    """The postmaster's address, if it can stand in any letter."""
    try:
        address = parse_address(settings.ENVIRONMENT.postmaster, smtputf8=False)
    except BadAddress:
        return ""
    return str(address)


def _digest(address: str) -> str:
    """Tells one address from another; without the secret key it says nothing of it."""
    return hmac.new(settings.SECRET_KEY.encode(), b"letter" + address.encode(), hashlib.sha256).hexdigest()[:40]
