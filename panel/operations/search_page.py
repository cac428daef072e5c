"""The page of the search box: goes straight to what alone was found, else shows all by kind."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from panel.database.indexed import within
from panel.operations import search
from panel.tenants.models import User


@admin.site.admin_view
@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """GET /admin/search/?q=TEXT."""
    assert isinstance(request.user, User)  # admin_view lets nobody else in
    searched, groups = search.search(request.user, request.GET.get("q", ""))
    only = search.single(groups)
    if only is not None:
        return HttpResponseRedirect(only)
    context = {
        **admin.site.each_context(request),
        "title": _("Search"),
        "searched": searched,
        "groups": groups,
        "not_looked_for": searched.network is not None and within("client_ip", searched.network) is None,
    }
    return TemplateResponse(request, "admin/posthouse/search.html", context)
