"""Where the pages of an own sign-in stand, and whose they are: here those of an account in the admin.

The console has its own addresses and look for the accounts of tenants, and for persons with a mailbox.
"""

from typing import Any

from django.contrib import admin
from django.contrib.auth.hashers import check_password
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy

from panel.tenants.models import User
from panel.tenants.sign_in.sessions import VERIFIED


class Door:
    sign_in = "admin:login"
    # Before and after the last part of the second factor is taken away.
    weakens: Any = gettext_lazy("Whoever learns your password can then sign in as you.")
    is_weaker: Any = gettext_lazy("Your second factor is removed; your password alone opens the account.")

    def account(self, request: HttpRequest) -> User:
        assert isinstance(request.user, User)  # admin_view lets nobody else in
        return request.user

    def is_password(self, account: User, password: str) -> bool:
        """Whether it is the one that the account signs in with."""
        return check_password(password, account.password)

    def verified(self, request: HttpRequest, is_so: bool) -> None:
        """This session is from now on one that was opened with a second factor, or isn't."""
        request.session[VERIFIED] = is_so

    def url(self, name: str) -> str:
        return reverse(f"account:{name}")

    def page(self, request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
        return TemplateResponse(request, template, {**admin.site.each_context(request), "title": title, **context})


ADMIN = Door()
