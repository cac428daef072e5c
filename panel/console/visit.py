"""The end of a look into a tenant's console by the provider's staff. It begins in the admin, on the tenant's page."""

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from panel.client_address import client_ip
from panel.console.access import visit_act
from panel.tenants import visits
from panel.tenants.models import Visit


@visit_act
def leave(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Back to the tenant's page in the admin."""
    visits.leave(request, ip=client_ip(request))
    return HttpResponseRedirect(reverse("admin:tenants_tenant_change", args=[visit.tenant_id]))
