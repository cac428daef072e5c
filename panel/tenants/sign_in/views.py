"""The sign-in's page, in place of the admin's own."""

import math
from typing import Any

from django.contrib import admin
from django.contrib.auth import login
from django.contrib.auth.views import LoginView
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from panel.client_address import client_ip
from panel.tenants import audit
from panel.tenants.models import User
from panel.tenants.sign_in import lockout
from panel.tenants.sign_in.forms import SignInForm


class SignIn(LoginView):
    """Asks for email address and password; answers 429 while it is locked."""

    template_name = "sign_in/password.html"
    authentication_form = SignInForm

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if admin.site.has_permission(request):
            return HttpResponseRedirect(self.get_success_url())
        return super().get(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**admin.site.each_context(self.request), title="Sign in", **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        complete(self.request, form.get_user())
        return HttpResponseRedirect(self.get_success_url())

    def form_invalid(self, form: Any) -> HttpResponse:
        answer = super().form_invalid(form)
        if form.wait_s:
            answer.status_code = 429
            answer.headers["Retry-After"] = str(math.ceil(form.wait_s))
        return answer


def complete(request: HttpRequest, account: User) -> None:
    """The account is in: a session of its own, an audit entry, and its network is known from now on."""
    ip = client_ip(request)
    with transaction.atomic():
        login(request, account, backend="django.contrib.auth.backends.ModelBackend")
        audit.record(account, lockout.SIGNED_IN, account, tenant=None, ip=ip)
    lockout.right(str(account.email), ip)
