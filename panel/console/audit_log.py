"""What was done to a tenant, by whom: its entries of the audit log."""

from collections.abc import Sequence
from dataclasses import replace

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from panel.console.access import tenant_page
from panel.console.frame import page
from panel.console.places import TenantPlace
from panel.database.indexed import begins_folded, fold, is_folded
from panel.sending.models import BulkAct
from panel.sending.selection import Selection
from panel.tenants.action_words import ACTIONS
from panel.tenants.history import action_words, told
from panel.tenants.models import AuditEntry

PAGE = 50
SEARCHED = ("subject_name", "actor_name", "action")


@tenant_page()
def log(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """The newest first; `before` in the address is the entry that the page follows."""
    rows = place.of(AuditEntry.objects.select_related("actor"))
    searched = " ".join(request.GET.get("q", "")[:200].replace("\x00", "").split())
    if searched:
        # As it is written here, or as it is kept: "mailbox created" is mailbox.created.
        typed = {searched, searched.replace(" ", ".", 1).replace(" ", "_")}
        rows = rows.filter(_begins(typed) | _called(searched))
    before = request.GET.get("before", "")
    if before.isdecimal() and len(before) < 19:
        rows = rows.filter(pk__lt=int(before))
    found = list(rows.order_by("-pk")[: PAGE + 1])
    _tell_of_bulk_acts(found)
    return page(
        request, place, "console/audit.html", _("Audit log"), changes=[told(each) for each in found[:PAGE]],
        searched=searched, before=before, last=found[PAGE - 1].pk if len(found) > PAGE else "",
    )


def _tell_of_bulk_acts(entries: Sequence[AuditEntry]) -> None:
    """Name what the provider's acts on many messages were about in the reader's language: kept is English."""
    asked = {each.subject_id for each in entries if each.subject_type == "bulkact"}
    if not asked or get_language() in (None, "en"):
        return
    acts = BulkAct.objects.in_bulk(asked)
    for entry in entries:
        act = acts.get(entry.subject_id) if entry.subject_type == "bulkact" else None
        if act is not None and "which" in entry.after:
            # That they are the reader's own needs no name.
            words = replace(Selection.stored(act.selection).told_to_tenants(), tenant=None).sentence()
            entry.subject_name, entry.after = words, {**entry.after, "which": words}


def _begins(typed: set[str]) -> Q:
    found = Q()
    for column in SEARCHED:
        for text in typed:
            found |= begins_folded(column, text)
    return found


def _called(searched: str) -> Q:
    """The actions whose words in the reader's language begin so; English ones are found as they are kept."""
    if get_language() in (None, "en"):
        return Q()
    found = Q()
    for action in ACTIONS:
        if fold(action_words(action)).startswith(fold(searched)):
            found |= is_folded("action", action)
    return found
