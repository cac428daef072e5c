"""A tenant's message log: searched by typed words, newest first, by key."""

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.console import log_words
from panel.console.access import tenant_page
from panel.console.frame import page
from panel.console.places import TenantPlace
from panel.rules.log_query import MOST, WORDS, Told, parse
from panel.sending.log import SeenRecipient
from panel.sending.log_search import began_at, find, read_key, told_of

# Offered beside the list, as status: has them.
SIFTED = (
    (Told.WAITING, gettext_lazy("Waiting")), (Told.HELD, gettext_lazy("Held")),
    (Told.BOUNCED, gettext_lazy("Bounced")), (Told.DELIVERED, gettext_lazy("Delivered")),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A recipient in the list."""

    seen: SeenRecipient
    look: str
    word: Any
    drawing: str
    remark: str
    reply: str
    url: str

    @property
    def is_due(self) -> bool:
        return self.seen.due_at is not None and self.seen.due_at <= timezone.now()

    @property
    def name(self) -> str:
        """What the line is called: the subject, for those who may see it."""
        if self.seen.submitted:
            return self.seen.subject or _("(no subject)")
        return _("Mail from {sender}").format(sender=self.seen.reverse_path) if self.seen.reverse_path else (
            _("A report") if self.seen.accepted_at else _("A message")
        )


def typed_in(request: HttpRequest) -> str:
    """The search as it was typed."""
    return " ".join(request.GET.get("q", "")[: MOST + 1].replace("\x00", " ").split())


@tenant_page()
def log(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """The list. `q` is the search, `after` the key that the page follows."""
    typed = typed_in(request)
    query, faults = parse(typed, timezone.now())
    after = request.GET.get("after", "") if read_key(request.GET.get("after", "")) else ""
    found = find(place.tenant.pk, query, after) if not faults else None
    lines = [_line(place, each) for each in found.rows] if found else []
    began = began_at(place.tenant.pk) if found and not found.after else None
    return page(
        request, place, "console/messages.html", _("Messages"), typed=typed, most=MOST, words=WORDS,
        faults=[log_words.fault(each) for each in faults], lines=lines, found=found, after=after,
        asked=log_words.asked_for(query), began=log_words.utc(began) if began else "",
        until=log_words.utc(found.until) if found and found.until else "", is_everything=query.is_everything,
        sifted=[(words, _with_status(typed, told), query.status is told) for told, words in SIFTED],
        unsifted=_with_status(typed, None), examples=log_words.EXAMPLES, is_sifted=query.status is not None,
    )


def _line(place: TenantPlace, seen: SeenRecipient) -> Line:
    look, word, drawing = log_words.STATES[told_of(seen)]
    url = reverse("console:message", args=[place.tenant.pk, seen.queue_id])
    return Line(seen, look, word, drawing, *log_words.remark(seen), url)


def _with_status(typed: str, status: Told | None) -> str:
    """The search with another status: in it, or without one."""
    words = [each for each in typed.split() if not each.lower().startswith("status:")]
    return " ".join([*words, f"status:{status.value}"] if status else words)
