"""The pages of a forgotten password: asking for a link, and choosing a new one by it.

One look, the console's, whoever asks: nobody is signed in, and nothing tells whose account it is.
"""

import math
import time
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters
from unfold.widgets import UnfoldAdminEmailInputWidget

from panel.client_address import client_ip
from panel.mailboxes.models import Mailbox
from panel.operations import password_reset
from panel.rules.addresses import BadAddress, parse_address
from panel.tenants.changes import ServiceError
from panel.tenants.models import User
from panel.tenants.sign_in.forms import NewPasswordForm

EVEN_S = 0.15  # an answer takes so long at least: known and unknown addresses alike


class ForgotForm(forms.Form):
    email = forms.CharField(
        label=gettext_lazy("Email address"), max_length=254,
        help_text=gettext_lazy("The one that you sign in with: your account's, or your mailbox's."),
        widget=UnfoldAdminEmailInputWidget(attrs={"autocomplete": "username", "autofocus": True}),
    )

    def clean_email(self) -> str:
        email = str(self.cleaned_data["email"])
        try:
            parse_address(email)  # a mailbox's may be outside ASCII
        except BadAddress as error:
            raise forms.ValidationError(error.said(_)) from None
        return email


class ResetForm(NewPasswordForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["new"].widget.attrs["autofocus"] = True


@never_cache
@csrf_protect
def forgot(request: HttpRequest) -> HttpResponse:
    """Ask for the link; 429 for a network that asked too often."""
    form = ForgotForm(request.POST or None)
    if request.method != "POST" or not form.is_valid():
        return _page(request, "sign_in/forgot.html", _("Forgot your password?"), form=form)
    began_s = time.monotonic()
    try:
        password_reset.ask(
            form.cleaned_data["email"], ip=client_ip(request), link=lambda token: reverse("reset", args=[token])
        )
    except password_reset.TooMany as error:
        minutes = math.ceil(error.wait_s / 60)
        form.add_error(None, ngettext(
            "{error} Try again in {count} minute.", "{error} Try again in {count} minutes.", minutes
        ).format(error=error, count=minutes))
        answer = _page(request, "sign_in/forgot.html", _("Forgot your password?"), form=form)
        answer.status_code = 429
        answer.headers["Retry-After"] = str(math.ceil(error.wait_s))
        return answer
    time.sleep(max(0.0, began_s + EVEN_S - time.monotonic()))
    return _page(request, "sign_in/sent.html", _("Check your mail"), email=form.cleaned_data["email"])


@sensitive_post_parameters()
@never_cache
@csrf_protect
def reset(request: HttpRequest, token: str) -> HttpResponse:
    """Choose a new password. Opening the page uses nothing up: mail scanners open it too.

    Its address is a secret, which the policy "same-origin" of all pages keeps in the house; with
    "no-referrer" browsers send `Origin: null`, and no form would get past the check for forgeries.
    """
    whose = password_reset.of(token, ip=client_ip(request))
    if whose is None:
        return _page(request, "sign_in/over.html", _("This link is over"))
    form = ResetForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            whose = password_reset.set_password(token, form.cleaned_data["new"], ip=client_ip(request))
        except ServiceError as error:
            form.add_error("new" if error.field else None, str(error))
        else:
            messages.success(request, _("Your new password holds. Sign in with it."))
            is_staff = isinstance(whose, User) and whose.is_staff
            return HttpResponseRedirect(reverse("admin:login" if is_staff else "console:sign-in"))
    return _page(
        request, "sign_in/reset.html", _("Choose a new password"), form=form, account=whose,
        is_mailbox=isinstance(whose, Mailbox),
    )


def _page(request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
    return TemplateResponse(request, template, {"title": title, **context})
