"""The page of an invitation's link: who invites to what; accept, decline.

Whoever opens it reads the mail of the invited address: to them it tells whether that has an account,
as a letter to set a new password would. Opening it uses nothing up: mail scanners open it too.
"""

from typing import Any

from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters

from panel.client_address import client_ip
from panel.console.language import of_who_came_in
from panel.console.places import Role
from panel.operations import invitations
from panel.tenants import visits
from panel.tenants.changes import ServiceError
from panel.tenants.models import Invitation, Membership, User
from panel.tenants.sign_in.forms import NewPasswordForm
from panel.tenants.sign_in.language import in_language
from panel.tenants.sign_in.views import complete


@sensitive_post_parameters()
def answer(request: HttpRequest, token: str) -> HttpResponse:
    found = invitations.of(token)
    if found is None:
        return _page(request, "console/invitation_over.html", _("This invitation is over"))
    account = request.user if isinstance(request.user, User) and request.user.is_active else None
    act, ip = request.POST.get("act", ""), client_ip(request)
    is_known = User.objects.filter(kind=User.Kind.PANEL, email=found.email).exists()
    new = None if account or is_known else NewPasswordForm(request.POST if act == "join" else None)
    fault = ""
    try:
        if act == "decline":
            invitations.decline(token, ip=ip)
            return _page(request, "console/invitation_over.html", _("You declined"), tenant=found.tenant)
        if act == "sign-out" and account:
            visits.leave(request, visits.SIGNED_OUT, ip=ip)
            logout(request)
            return HttpResponseRedirect(request.get_full_path())
        if act == "accept" and account:
            return _in(request, invitations.accept(token, account, ip=ip))
        if act == "join" and new is not None and new.is_valid():
            made, membership = invitations.accept_as_new(token, new.cleaned_data["new"], ip=ip)
            complete(request, made)
            return in_language(request, _in(request, membership), of_who_came_in(request, made))
    except ServiceError as error:
        if new is not None and error.field == "password":
            new.add_error("new", str(error))
        else:
            fault = str(error)
    return _of(request, found, account, new, fault)


def _of(
    request: HttpRequest, found: Invitation, account: User | None, new: NewPasswordForm | None, fault: str
) -> HttpResponse:
    is_own = account is not None and account.kind == User.Kind.PANEL and account.email == found.email
    return _page(
        request, "console/invitation.html", _("Invitation"), invitation=found, role=Role[found.role.upper()],
        ends_at=invitations.ends_at(found), account=account, is_own=is_own, form=new, fault=fault,
        sign_in=f"{reverse('console:sign-in')}?{urlencode({'next': request.path})}",
    )


def _in(request: HttpRequest, membership: Membership) -> HttpResponse:
    messages.success(request, _("You look after {tenant} now, as {role}.").format(
        tenant=membership.tenant, role=Role.of(membership).word
    ))
    return HttpResponseRedirect(reverse("console:home", args=[membership.tenant_id]))


def _page(request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
    return TemplateResponse(request, template, {"title": title, **context})
