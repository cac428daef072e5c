"""What was done to a tenant, by whom: its entries of the audit log."""

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from panel.console.access import tenant_page
from panel.console.frame import page
from panel.console.places import TenantPlace
from panel.database.indexed import begins_folded
from panel.tenants.history import told
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
        rows = rows.filter(_begins(typed))
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
