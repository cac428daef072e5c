"""What was done to a tenant, by whom: its entries of the audit log."""

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from panel.console.access import tenant_page
from panel.console.frame import page
from panel.console.places import TenantPlace
from panel.database.indexed import begins_folded, fold, is_folded
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
    return page(
        request, place, "console/audit.html", _("Audit log"), changes=[told(each) for each in found[:PAGE]],
        searched=searched, before=before, last=found[PAGE - 1].pk if len(found) > PAGE else "",
    )


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
