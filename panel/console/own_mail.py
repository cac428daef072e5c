"""The newest mail of a person's inbox, to read in the browser.

A message is shown as text alone, HTML too: nothing of it is run, nothing is loaded from elsewhere, and
each link says where it leads. What it may be warned of stands above it. Attachments are only ever
downloaded.
"""

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _

from panel.console.access import mailbox_page
from panel.console.frame import page
from panel.console.places import MailboxPlace
from panel.database import ids
from panel.mailboxes import inbox
from panel.mailboxes.inbox import Kept, Unreadable
from panel.mailboxes.storage import Storage
from panel.rules import headers, mime
from panel.sending.models import Message, Recipient

LISTED = 50
AT_ONCE = 2  # messages that a process reads: the largest takes some 100 MB
TURN_S = 10
_DELIVERED_AS = re.compile(r"\d+\.R([0-9A-Z]{13})\.")
# Of what is downloaded nothing is to be opened here, whatever the browser makes of it.
NOTHING = "default-src 'none'; sandbox; frame-ancestors 'none'"

_turns = threading.BoundedSemaphore(AT_ONCE)


@mailbox_page()
def mail(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """The newest of the inbox."""
    try:
        listing = inbox.newest(settings.ENVIRONMENT.data, place.mailbox, LISTED)
    except Unreadable:
        return _not_here(request, place)
    if not listing.kept and (Storage.of(place.mailbox).messages or 0) > 0:
        return _not_here(request, place)
    return page(
        request, place, "console/me_mail.html", _("Read mail"), letters=[_line(each) for each in listing.kept],
        has_more=listing.has_more, count=LISTED,
    )


def _a_few_at_once(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """A page that holds a whole message in memory, some copies of it over: so many of them wait for their turn."""

    @wraps(view)
    def waiting(request: HttpRequest, place: MailboxPlace, **named: Any) -> HttpResponse:
        if not _turns.acquire(timeout=TURN_S):
            answer = page(request, place, "console/me_mail_busy.html", _("Read mail"))
            answer.status_code = 503
            answer.headers["Retry-After"] = str(TURN_S)
            return answer
        try:
            return view(request, place, **named)
        finally:
            _turns.release()

    return waiting


@mailbox_page()
@_a_few_at_once
def letter(request: HttpRequest, place: MailboxPlace, letter: str) -> HttpResponse:
    """A message as text, with what there is to know of its sender."""
    kept = _find(place, letter)
    message = mime.with_crlf(kept.data)
    read = mime.read(message)
    text, is_all = mime.shown(message, read)
    sender = mime.sender(read.fields)
    attached = [
        {"number": number, "part": part, "size": _size(part), "name": _name(part, number)}
        for number, part in enumerate(read.parts) if not part.is_shown
    ]
    return page(
        request, place, "console/me_letter.html", read.first(b"Subject") or _("(no subject)"),
        crumbs=[(_("Read mail"), reverse("console:me-mail"))], kept=kept, at=_at(kept), sender=sender,
        to=read.first(b"To"), cc=read.first(b"Cc"), said_at=read.first(b"Date", 60), text=text,
        was_html=any(part.is_shown and part.type == "text/html" for part in read.parts), attached=attached,
        answers_to=mime.answers_to(read.fields, sender.address),
        is_whole=read.is_whole and is_all and kept.size <= len(kept.data),
        is_verified=bool(sender.address) and _was_submitted_here(place, kept),
    )


@mailbox_page()
@_a_few_at_once
def attachment(request: HttpRequest, place: MailboxPlace, letter: str, part: int) -> HttpResponse:
    """A part of a message, to keep; never to be opened here."""
    kept = _find(place, letter)
    message = mime.with_crlf(kept.data)
    read = mime.read(message)
    if part >= len(read.parts):
        raise Http404
    found = read.parts[part]
    answer = HttpResponse(mime.content(message, found), content_type="application/octet-stream")
    answer.headers["Content-Disposition"] = content_disposition_header(True, _name(found, part)) or "attachment"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Content-Security-Policy"] = NOTHING
    return answer


def _find(place: MailboxPlace, letter: str) -> Kept:
    """Raises Http404, also where nothing can be read here."""
    try:
        kept = inbox.find(settings.ENVIRONMENT.data, place.mailbox, letter)
    except Unreadable:
        kept = None
    if kept is None:
        raise Http404
    return kept


def _not_here(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    return page(request, place, "console/me_mail_elsewhere.html", _("Read mail"))


def _line(kept: Kept) -> dict[str, Any]:
    fields = mime.header(mime.with_crlf(kept.data))
    return {
        "kept": kept, "sender": mime.sender(fields), "subject": headers.first(fields, b"Subject"), "at": _at(kept),
    }


def _was_submitted_here(place: MailboxPlace, kept: Kept) -> bool:
    """Whether its sender logged in here to send it: then who it is from was checked."""
    named = _DELIVERED_AS.match(kept.base)
    if not named:
        return False
    try:
        number = ids.from_text(named[1])
    except ValueError:
        return False
    return Recipient.objects.filter(
        pk=number, resolved=str(place.mailbox.address), message__direction=Message.Direction.SUBMISSION
    ).exists()


def _size(part: mime.Part) -> int:
    """About as large as it is decoded."""
    encoded = part.end - part.begin
    return encoded * 3 // 4 if part.encoding == "base64" else encoded


def _name(part: mime.Part, number: int) -> str:
    ending = {"message/rfc822": "eml", "text/calendar": "ics", "text/plain": "txt"}.get(part.type, "bin")
    return part.name or f"part-{number + 1}.{ending}"


def _at(kept: Kept) -> datetime:
    return datetime.fromtimestamp(kept.at_s, UTC)
