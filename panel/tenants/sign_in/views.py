"""The sign-in's pages, in place of the admin's own: password, then the second factor's code or a passkey."""

import math
import time
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model, login
from django.contrib.auth.views import LoginView, RedirectURLMixin
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST

from panel.client_address import client_ip
from panel.tenants import audit
from panel.tenants.changes import ServiceError
from panel.tenants.models import User
from panel.tenants.sign_in import lockout, passkeys, second_factor, sessions
from panel.tenants.sign_in.forms import CodeForm, Guarded, PasskeyForm, SignInForm
from panel.tenants.sign_in.language import in_language
from panel.tenants.sign_in.whose import language_of, name_of

PENDING = "pending_sign_in"  # in the session: whose password was right, and when
PENDING_S = 10 * 60


class SignIn(LoginView):
    """Asks for email address and password; answers 429 while it is locked."""

    template_name = "sign_in/password.html"
    authentication_form: type[Guarded] = SignInForm
    code_page = "sign-in-code"  # where the second step is

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if self.is_in():
            return HttpResponseRedirect(self.get_success_url())
        return super().get(request, *args, **kwargs)

    def is_in(self) -> bool:
        """Whether there is nobody to ask any more."""
        return admin.site.has_permission(self.request)

    def frame(self) -> dict[str, Any]:
        """What the page around the form needs."""
        return admin.site.each_context(self.request)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**self.frame(), title=_("Sign in"), **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        account = form.get_user()
        if second_factor.of(account) is None:
            self.let_in(account)
            return in_language(self.request, HttpResponseRedirect(self.get_success_url()), self.language(account))
        remember(self.request, account, self.holds_by(account))
        query = urlencode({"next": self.get_redirect_url()})
        return HttpResponseRedirect(f"{reverse(self.code_page)}?{query}")

    def let_in(self, account: User, *, verified: bool = False, passkey: str = "") -> None:
        complete(self.request, account, verified=verified, passkey=passkey)

    def language(self, account: User) -> str:
        """What whoever came in sees the panel in; empty: what the browser asks for."""
        return language_of(account)

    def holds_by(self, account: User) -> str | None:
        """Tells the password that was right from the next one; None when it opens nothing any more."""
        return account.get_session_auth_hash()

    def form_invalid(self, form: Any) -> HttpResponse:
        return locked(super().form_invalid(form), form.wait_s)


@method_decorator([never_cache, csrf_protect], name="dispatch")
class SignInCode(RedirectURLMixin, View):
    """Asks for the second factor's code, of who gave the right password within the last ten minutes."""

    next_page = "admin:index"
    template_name = "sign_in/code.html"
    start = "admin:login"  # where the first step is
    staff_alone = True

    def get(self, request: HttpRequest) -> HttpResponse:
        account = self._pending(request)
        return self._page(account) if account else self._again()

    def post(self, request: HttpRequest) -> HttpResponse:
        account = self._pending(request)
        if account is None:
            return self._again()
        form: CodeForm | PasskeyForm
        if request.POST.get("passkey"):
            form = PasskeyForm(request, account, request.POST)
        else:
            form = CodeForm(request, account, request.POST, recovery=self._by_recovery_code)
        if not form.is_valid() or form.opened is None:
            return locked(self._page(account, form), form.wait_s)
        self.let_in(account, verified=True, passkey=form.opened.passkey)
        if form.opened.left is not None:
            told = _(
                "You signed in with a recovery code; {left} are left. You find new ones under your account."
            ) if account.kind == User.Kind.PANEL else _(
                "You signed in with a recovery code; {left} are left. You find new ones under “Password and sign-ins”."
            )
            messages.warning(request, told.format(left=form.opened.left))
        return in_language(self.request, HttpResponseRedirect(self.get_success_url()), self.language(account))

    @property
    def _by_recovery_code(self) -> bool:
        return "recovery" in self.request.GET

    def frame(self) -> dict[str, Any]:
        """What the page around the form needs."""
        return admin.site.each_context(self.request)

    def let_in(self, account: User, *, verified: bool = False, passkey: str = "") -> None:
        complete(self.request, account, verified=verified, passkey=passkey)

    def language(self, account: User) -> str:
        return language_of(account)

    def holds_by(self, account: User) -> str | None:
        return account.get_session_auth_hash()

    def _pending(self, request: HttpRequest) -> User | None:
        account = pending(request, self.holds_by)
        return account if account and (account.is_staff or not self.staff_alone) else None

    def _page(self, account: User, form: CodeForm | PasskeyForm | None = None) -> HttpResponse:
        other = {"next": self.get_redirect_url()} | ({} if self._by_recovery_code else {"recovery": "1"})
        factor = second_factor.of(account)
        has_app = factor is not None and factor.has_app
        context = {
            **self.frame(), "title": _("Second step"), "account": name_of(account),
            "of_mailbox": account.kind == User.Kind.PERSON,
            "form": form if isinstance(form, CodeForm) else CodeForm(
                self.request, account, recovery=self._by_recovery_code
            ),
            "by_recovery_code": self._by_recovery_code, "other": f"?{urlencode(other)}", "has_app": has_app,
            "asks_code": has_app or self._by_recovery_code,
            "by_passkey": not self._by_recovery_code and passkeys.site() is not None and bool(passkeys.of(account)),
            "passkey_fault": "" if form is None or isinstance(form, CodeForm) else form.fault(),
        }
        return TemplateResponse(self.request, self.template_name, context)

    def _again(self) -> HttpResponse:
        messages.info(self.request, _("That took longer than ten minutes. Start again with your password."))
        query = urlencode({"next": self.get_redirect_url()})
        return HttpResponseRedirect(f"{reverse(self.start)}?{query}")


@never_cache
@csrf_protect
@require_POST
def passkey_for_the_step(request: HttpRequest) -> HttpResponse:
    """What the browser needs to use a passkey of who gave the right password."""
    return for_the_step(request, pending(request))


def for_the_step(request: HttpRequest, account: User | None) -> HttpResponse:
    if account is None:
        return not_now(_("That took longer than ten minutes. Start again with your password."))
    return needed(lambda: passkeys.to_use(request, passkeys.Purpose.STEP, account))


def needed(made: Callable[[], str]) -> HttpResponse:
    """JSON for the script, or what it is to say."""
    try:
        return HttpResponse(made(), content_type="application/json")
    except ServiceError as error:
        return not_now(str(error))


def not_now(sentence: str) -> HttpResponse:
    """What the script is to say. No error of the browser's: it would stand in its console beside ours."""
    return JsonResponse({"sentence": sentence})


def complete(request: HttpRequest, account: User, *, verified: bool = False, passkey: str = "") -> None:
    """The account is in: a session of its own, an audit entry, and its network is known from now on.

    Not if a second factor was set up since the password was looked at: the sign-in begins anew.
    """
    ip = client_ip(request)
    with transaction.atomic():
        if not verified and second_factor.has_come(account):
            return
        request.session.pop(PENDING, None)
        login(request, account, backend="django.contrib.auth.backends.ModelBackend")
        request.session[sessions.VERIFIED] = verified
        sessions.begin(request, account)
        request.session.save()  # before a second factor can be set up, which ends it
        after = ({"second factor": True} if verified else {}) | ({"passkey": passkey} if passkey else {})
        audit.record(account, lockout.SIGNED_IN, account, tenant=None, after=after, ip=ip)
    lockout.right(str(account.email), ip)


def remember(request: HttpRequest, account: User, holds_by: str | None) -> None:
    """The password was right: what `holds_by` tells of it. The second step is next."""
    # Another key than the one that the browser came with: nobody else holds it.
    request.session.cycle_key()
    request.session[PENDING] = {"account": account.pk, "hash": holds_by, "at": time.time()}


def pending(
    request: HttpRequest, holds_by: Callable[[User], str | None] = lambda account: account.get_session_auth_hash()
) -> User | None:
    """Whose password was right in this session, if that still holds: `holds_by` tells the same of it."""
    waiting = request.session.get(PENDING)
    if not waiting or not 0 <= time.time() - waiting["at"] < PENDING_S:
        return None
    account = get_user_model().objects.filter(pk=waiting["account"]).first()
    if account is None or not account.is_active:
        return None
    holds = holds_by(account)
    return account if holds is not None and holds == waiting["hash"] else None


def locked(answer: HttpResponse, wait_s: float) -> HttpResponse:
    """The answer, as 429 while it is locked."""
    if wait_s:
        answer.status_code = 429
        answer.headers["Retry-After"] = str(math.ceil(wait_s))
    return answer
