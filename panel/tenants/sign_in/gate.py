"""Who must have a second factor and came in without one sees one page: where it is set up.

Here that is a panel account; of a person with a mailbox console/access asks it, as of a tenant's members.
"""

from collections.abc import Callable
from typing import Any

from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from panel.tenants.models import User
from panel.tenants.sign_in import second_factor
from panel.tenants.sign_in.sessions import VERIFIED

OPEN = {
    "account:second-factor", "account:add-passkey", "account:offer-passkey", "admin:logout", "admin:login",
    "sign-in-code", "admin:jsi18n",
    "console:sign-in", "console:sign-in-code", "console:sign-out", "console:sign-in-passkey",
    "console:sign-in-code-passkey", "console:account-second-factor", "console:account-add-passkey",
    "console:account-offer-passkey", "console:language",
}


class SecondFactorGate:
    """Django's middleware, after the one that knows the account. Asks nothing of who need not have one."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        account = request.user
        if not isinstance(account, User) or account.kind != User.Kind.PANEL or request.session.get(VERIFIED):
            return None
        if not second_factor.is_required(account):
            return None
        if request.resolver_match is not None and request.resolver_match.view_name in OPEN:
            return None
        return to_second_factor(request, account)


def to_second_factor(request: HttpRequest, account: User) -> HttpResponse:
    """To where one is set up; to the sign-in, which asks for it, when there is one."""
    if second_factor.of(account):
        logout(request)  # it came to have one, or to need one, since this session began
        return lead(request, reverse("admin:login" if account.is_staff else "console:sign-in"))
    if account.kind == User.Kind.PERSON:
        return lead(request, reverse("console:me-second-factor"))
    return lead(request, reverse("account:second-factor" if account.is_staff else "console:account-second-factor"))


def lead(request: HttpRequest, where: str) -> HttpResponse:
    """To another page instead of this one.

    Whose page asked for a part of itself is told to go there as a whole: else the other page stood in the part.
    """
    if "HX-Request" in request.headers:
        return HttpResponse(headers={"HX-Redirect": where})
    return HttpResponseRedirect(where)
