"""What a person sent, and where each message is."""

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from panel.console.access import mailbox_page
from panel.console.frame import page
from panel.console.places import MailboxPlace
from panel.database import ids
from panel.sending.message_page import tls_in_words
from panel.sending.models import Recipient
from panel.sending.sent import SEARCHED, Way, listed, search, sent_by, standing, ways
from panel.tenants.credential_words import credential_words

PAGE = 25


@mailbox_page()
def sent(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """The newest first, or those with this in them; `before` is the queue id that the page follows."""
    rows = sent_by(place.mailbox)
    searched = " ".join(request.GET.get("q", "")[:200].replace("\x00", "").split())
    if searched:
        rows = search(rows, searched)
    before = request.GET.get("before", "")
    number = _number(before)
    if number is not None:
        rows = rows.filter(pk__lt=number)
    found = list(rows.order_by("-pk")[: PAGE + 1])
    return page(
        request, place, "console/me_sent.html", _("Sent mail"), sent=listed(found[:PAGE]), searched=searched,
        before=before if number is not None else "", last=found[PAGE - 1].queue_id if len(found) > PAGE else "",
        looked_through=SEARCHED,
    )


@mailbox_page()
def message(request: HttpRequest, place: MailboxPlace, sent: str) -> HttpResponse:
    """Where a message is. 404 also for what others of the tenant sent."""
    number = _number(sent)
    found = sent_by(place.mailbox).filter(pk=number).first() if number is not None else None
    if found is None:
        raise Http404
    to, has_more = ways(place.mailbox, found)
    look, words, icon = standing(to)
    return page(
        request, place, "console/me_sent_message.html", found.subject or _("(no subject)"),
        crumbs=[(_("Sent mail"), reverse("console:me-sent"))], message=found, ways=to, has_more=has_more, look=look,
        words=words, icon=icon, next=_next(to), is_waiting=any(each.state == Recipient.State.WAITING for each in to),
        tls=tls_in_words(found.tls), by=credential_words(found.credential_text.removeprefix(f"{place.mailbox}, ")),
    )


def _next(to: list[Way]) -> Way | None:
    """Whose turn is first."""
    return min((each for each in to if each.due_at), key=lambda each: str(each.due_at), default=None)


def _number(queue_id: str) -> int | None:
    try:
        return ids.from_text(queue_id)
    except ValueError:
        return None
