"""One box for everything of a tenant's: a domain, a mailbox, an alias, a message; else the message log is asked.

What is found alone is gone to at once. Whatever is not the tenant's is answered as what doesn't exist.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models.lookups import Exact
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from panel.console.access import tenant_page
from panel.console.frame import address, page
from panel.console.places import TenantPlace
from panel.database import ids
from panel.database.indexed import Folded, Unindexed, begins, begins_folded
from panel.domains.models import Domain
from panel.mailboxes import found as mailboxes
from panel.mailboxes.models import Address, Mailbox
from panel.rules.log_query import MOST
from panel.rules.searched import Searched
from panel.sending import found as sending
from panel.sending.models import Message, Recipient

MOST_OF_A_KIND = 10
HELD = ("local_part", "domain__name", "mailbox__pk", "mailbox__name", "alias__pk")


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing; `url` is empty where it has no page."""

    name: str
    url: str
    words: str = ""
    is_exact: bool = False  # a message, found by one of its ids


@dataclass(frozen=True, slots=True)
class Group:
    """What was found of one kind."""

    title: str
    hits: list[Hit]
    more: bool = False


@tenant_page()
def search(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """What `q` names; nothing yet without it."""
    searched = Searched.of(request.GET.get("q", "")[:MOST])
    if not searched.text:
        return page(request, place, "console/search.html", _("Find"), groups=[], searched="", log=[])
    groups = [each for each in _groups(place, searched) if each.hits]
    hits = [hit for group in groups for hit in group.hits]
    log = _log(place, searched)
    if len(hits) == 1 and hits[0].url and (hits[0].is_exact or hits[0].name == searched.text.lower()):
        return HttpResponseRedirect(hits[0].url)
    if not hits and len(log) == 1:
        return HttpResponseRedirect(log[0].url)
    return page(
        request, place, "console/search.html", _("Results for “{text}”").format(text=searched.shown), groups=groups,
        searched=searched.shown, log=log, looked_for=searched.text,
    )


def _groups(place: TenantPlace, searched: Searched) -> list[Group]:
    message = _by_id(place, searched)
    if message:
        return [message]
    return [*_domains(place, searched), *_addresses(place, searched), *_message_ids(place, searched)]


def _by_id(place: TenantPlace, searched: Searched) -> Group | None:
    """The message of this queue id, when something of it is the tenant's."""
    number = sending.number_of(searched)
    if number is None:
        return None
    rows = Recipient.objects.filter(message=number)
    for side in ("tenant", "recipient_tenant"):
        if rows.filter(Exact(Unindexed(side), place.tenant.pk)).exists():
            return Group(_("Messages"), [_message(place, number, "")])
    return None


def _domains(place: TenantPlace, searched: Searched) -> list[Group]:
    """A whole name is that domain alone; else those whose names begin so."""
    if not searched.begins or searched.local_part:
        return []
    name = searched.domain or searched.at_domain or searched.begins
    found = list(place.of(Domain.objects.all()).filter(begins("name", name)).order_by("name")[: MOST_OF_A_KIND + 1])
    if found and found[0].name == name:
        found = found[:1]
    hits = [Hit(each.name, address("domain", tenant=place.tenant.pk, domain=each.pk)) for each in found]
    return [Group(_("Domains"), hits[:MOST_OF_A_KIND], len(hits) > MOST_OF_A_KIND)]


def _addresses(place: TenantPlace, searched: Searched) -> list[Group]:
    """Mailboxes by address and by their person's name, aliases by address."""
    held = mailboxes.addresses(place.of(Address.objects.all()), searched)
    rows: list[Any] = [] if held is None else list(held.values_list(*HELD)[: 2 * MOST_OF_A_KIND])
    if searched.name and searched.local_part is None:
        named = place.of(Mailbox.objects.all()).filter(begins_folded("name", searched.name)).order_by(Folded("name"))
        known = {row[2] for row in rows}
        rows += [row for row in named.values_list(*(f"address__{each}" for each in HELD))[:MOST_OF_A_KIND]
                 if row[2] not in known]
    if searched.address:
        # ann@example.co is not ann@example.com.
        rows = [row for row in rows if _written(row) == searched.address]
    tenant = place.tenant.pk
    boxes = [Hit(_written(row), address("mailbox", tenant=tenant, mailbox=row[2]), row[3] or "")
             for row in rows if row[2] is not None]
    aliases = [Hit(_written(row), address("alias", tenant=tenant, alias=row[4])) for row in rows if row[4] is not None]
    return [
        Group(_("Mailboxes"), boxes[:MOST_OF_A_KIND], len(boxes) > MOST_OF_A_KIND),
        Group(_("Aliases"), aliases[:MOST_OF_A_KIND], len(aliases) > MOST_OF_A_KIND),
    ]


def _written(row: Any) -> str:
    return f"{row[0] or '*'}@{row[1]}"


def _message_ids(place: TenantPlace, searched: Searched) -> list[Group]:
    """Messages that the tenant submitted, by their Message-ID."""
    if not searched.message_ids:
        return []
    own = Message.objects.filter(Exact(Unindexed("tenant"), place.tenant.pk), message_id__in=searched.message_ids)
    rows = list(own.order_by("-pk").values_list("pk", "subject")[: MOST_OF_A_KIND + 1])
    hits = [_message(place, pk, subject or _("(no subject)")) for pk, subject in rows]
    return [Group(_("Messages"), hits[:MOST_OF_A_KIND], len(hits) > MOST_OF_A_KIND)]


def _message(place: TenantPlace, number: int, words: str) -> Hit:
    queue_id = ids.to_text(number)
    return Hit(queue_id, reverse("console:message", args=[place.tenant.pk, queue_id]), words, True)


def _log(place: TenantPlace, searched: Searched) -> list[Hit]:
    """The questions to the message log that the text can be."""
    if searched.address:
        asked = [(f"to:{searched.address}", _("messages to it")), (f"from:{searched.address}", _("messages from it"))]
    elif searched.network is not None:
        asked = [(f"ip:{searched.text}", _("messages sent from there"))]
    elif searched.domain and "." in searched.text:
        asked = [(f"domain:{searched.domain}", _("messages from or to it"))]
    else:
        asked = [('"{}"'.format(searched.text.replace('"', " ")), _("messages with this in the subject"))]
    url = reverse("console:messages", args=[place.tenant.pk])
    return [Hit(each, f"{url}?{urlencode({'q': each})}", words) for each, words in asked]
