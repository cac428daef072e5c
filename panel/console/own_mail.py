"""The newest mail of a person's inbox, to read in the browser.

A message's HTML stands in a frame of its own, sanitised (rules/letter_html): under the frame's policy nothing
is run, nothing is sent and nothing is loaded from elsewhere but pictures, once they are asked for. Each link says
where it leads. What cannot be shown so, and on wish anything, is shown as text. What a message may be warned of
stands above it. Attachments are only ever downloaded.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial, wraps
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _

from panel.console.access import mailbox_page
from panel.console.frame import page
from panel.console.places import MailboxPlace
from panel.console.turns import Turns
from panel.database import ids
from panel.mailboxes import inbox
from panel.mailboxes.inbox import Kept, Unreadable
from panel.mailboxes.storage import Storage
from panel.rules import headers, letter_html, mime
from panel.sending.models import Message, Recipient

LISTED = 50
AT_ONCE = 2  # messages that a process reads, of different persons: the largest takes some 100 MB
WAITING = 1  # requests for more of them; with the others fewer than a process has threads (deploy/start.py)
TURN_S = 10
_DELIVERED_AS = re.compile(r"\d+\.R([0-9A-Z]{13})\.")
# The frame of a message. Links open beside the console, and there without the frame's bonds.
FRAMED = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src {pictures}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
BROUGHT, REMOTE = "data:", "data: https:"
# Of what is downloaded nothing is to be opened here, whatever the browser makes of it.
NOTHING = "default-src 'none'; sandbox; frame-ancestors 'none'"

_turns = Turns(AT_ONCE, WAITING)


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


def _busy(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    return page(request, place, "console/me_mail_busy.html", _("Read mail"))


def _busy_in_frame(request: HttpRequest, _place: MailboxPlace) -> HttpResponse:
    return _in_frame(request, "", BROUGHT, is_busy=True)


def _a_few_at_once(
    view: Callable[..., HttpResponse], busy: Callable[[HttpRequest, MailboxPlace], HttpResponse] = _busy
) -> Callable[..., HttpResponse]:
    """A page that holds a whole message in memory, some copies of it over: it waits for its person's turn."""

    @wraps(view)
    def waiting(request: HttpRequest, place: MailboxPlace, **named: Any) -> HttpResponse:
        with _turns.turn(place.mailbox.pk, TURN_S) as has_turn:
            if has_turn:
                return view(request, place, **named)
        answer = busy(request, place)
        answer.status_code = 503
        answer.headers["Retry-After"] = str(TURN_S)
        return answer

    return waiting


@mailbox_page()
@_a_few_at_once
def letter(request: HttpRequest, place: MailboxPlace, letter: str) -> HttpResponse:
    """A message, with what there is to know of its sender.

    Asked for `as=text`, it is shown as text; for `pictures=1`, with pictures from elsewhere.
    """
    kept = _find(place, letter)
    message = mime.with_crlf(kept.data)
    read = mime.read(message)
    has_html = letter_html.is_offered(read)
    as_text = request.GET.get("as") == "text"
    formatted = None if as_text or not has_html else _formatted(message, read)
    text, is_all = ("", True) if formatted else mime.shown(message, read)
    sender = mime.sender(read.fields)
    attached = [
        {"number": number, "part": part, "size": _size(part), "name": _name(part, number)}
        for number, part in enumerate(read.parts) if part.is_attached
    ]
    return page(
        request, place, "console/me_letter.html", read.first(b"Subject") or _("(no subject)"),
        crumbs=[(_("Read mail"), reverse("console:me-mail"))], kept=kept, at=_at(kept), sender=sender,
        to=read.first(b"To"), cc=read.first(b"Cc"), said_at=read.first(b"Date", 60), text=text,
        formatted=formatted, has_html=has_html, as_text=as_text, attached=attached,
        with_pictures=request.GET.get("pictures") == "1",
        answers_to=mime.answers_to(read.fields, sender.address),
        is_whole=read.is_whole and is_all and kept.size <= len(kept.data),
        is_verified=bool(sender.address) and _was_submitted_here(place, kept),
    )


def _formatted(message: bytes, read: mime.Letter, *, with_remote: bool = False) -> letter_html.Formatted | None:
    try:
        return letter_html.formatted(message, read, with_remote=with_remote)
    except letter_html.TooMuch:
        return None


def _framed(request: HttpRequest, place: MailboxPlace, letter: str, pictures: str) -> HttpResponse:
    kept = _find(place, letter)
    message = mime.with_crlf(kept.data)
    formatted = _formatted(message, mime.read(message), with_remote=pictures == REMOTE)
    if formatted is None:
        raise Http404
    return _in_frame(request, formatted.markup, pictures, styles=formatted.styles)


def _in_frame(
    request: HttpRequest, markup: str, pictures: str, *, styles: str = "", is_busy: bool = False
) -> HttpResponse:
    given = {"markup": markup, "styles": styles, "is_busy": is_busy}
    answer = render(request, "console/me_letter_frame.html", given)
    answer.headers["Content-Security-Policy"] = FRAMED.format(pictures=pictures)
    answer.headers["X-Frame-Options"] = "SAMEORIGIN"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Referrer-Policy"] = "no-referrer"
    # A browser may look the links' hosts up beforehand: that would tell their owners that it was read.
    answer.headers["X-DNS-Prefetch-Control"] = "off"
    return answer


@mailbox_page()
@partial(_a_few_at_once, busy=_busy_in_frame)
def framed(request: HttpRequest, place: MailboxPlace, letter: str) -> HttpResponse:
    """What stands in the frame: the message with its formatting."""
    return _framed(request, place, letter, BROUGHT)


@mailbox_page()
@partial(_a_few_at_once, busy=_busy_in_frame)
def framed_with_pictures(request: HttpRequest, place: MailboxPlace, letter: str) -> HttpResponse:
    """The same with pictures from elsewhere, by https alone."""
    return _framed(request, place, letter, REMOTE)


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
    endings = {"message/rfc822": "eml", "text/calendar": "ics", "text/plain": "txt", "image/jpeg": "jpg"}
    ending = endings.get(part.type, part.type[6:] if part.type in letter_html.PICTURES else "bin")
    return part.name or f"part-{number + 1}.{ending}"


def _at(kept: Kept) -> datetime:
    return datetime.fromtimestamp(kept.at_s, UTC)
