"""The console's sign-in: a panel account, or a mailbox's address with its main password; or a passkey of either.

The panel account is tried first. Forms, lockout, second factor and sessions are those of the
admin's sign-in (tenants/sign_in); what is new here is the person. Staff may sign in here as well
and are led to the admin.
"""

from typing import Any

from django.contrib.auth import login, logout
from django.contrib.auth.hashers import check_password
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST

from panel.client_address import client_ip
from panel.console import persons
from panel.console.language import of_who_came_in
from panel.mailboxes import links, passwords
from panel.mailboxes.main_passwords import credential_of, may_open
from panel.mailboxes.models import Credential
from panel.tenants import visits
from panel.tenants.models import User
from panel.tenants.sign_in import lockout, passkeys, second_factor, sessions, views
from panel.tenants.sign_in.forms import Guarded, PasskeyForm
from panel.tenants.sign_in.language import in_language

BACKEND = "django.contrib.auth.backends.ModelBackend"


class ConsoleSignInForm(Guarded):
    """Of any panel account, or of a mailbox. `credential` is by what a person came in."""

    credential: Credential | None = None

    def look(self, login: str, password: str) -> None:
        """As many hashes, whether there is such a login or not: the time tells nothing.

        More if it is both an account and a mailbox, or the mailbox's password was hashed elsewhere.
        """
        account = User.objects.filter(kind=User.Kind.PANEL, email=login.strip().lower()).first()
        credential = credential_of(login)
        if credential is None:
            # An account's own hash is one of them.
            passwords.verify_none(password, but_one=account is not None)
        if account is not None and check_password(password, account.password) and account.is_active:
            self.user_cache = account
            return
        if credential is not None and passwords.verify_main(password, credential.secret) and may_open(
            credential, client_ip(self.request)
        ):
            self.user_cache, self.credential = credential.mailbox.person, credential
            return
        raise self.get_invalid_login_error()


class _OfPersonsToo(View):
    """What each step does for a panel account, and for the person of a mailbox."""

    def let_in(self, account: User, *, verified: bool = False, passkey: str = "") -> None:
        if account.kind == User.Kind.PANEL:
            views.complete(self.request, account, verified=verified, passkey=passkey)
        elif credential := persons.opening(account, client_ip(self.request)):
            _complete(self.request, credential, verified=verified)

    def language(self, account: User) -> str:
        return of_who_came_in(self.request, account)

    def holds_by(self, account: User) -> str | None:
        return _holds_by(account, client_ip(self.request))


class ConsoleSignIn(_OfPersonsToo, views.SignIn):
    template_name = "console/sign_in.html"
    authentication_form = ConsoleSignInForm
    code_page = "console:sign-in-code"
    next_page = "console:start"

    def is_in(self) -> bool:
        return bool(self.request.user.is_authenticated)

    def frame(self) -> dict[str, Any]:
        return {"by_passkey": passkeys.site() is not None}

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self.by_passkey(request) if request.POST.get("passkey") else super().post(request, *args, **kwargs)

    def by_passkey(self, request: HttpRequest) -> HttpResponse:
        """In place of password and code: it has asked its owner for finger, face or PIN."""
        form = PasskeyForm(request, None, request.POST)
        if form.is_valid() and form.opened and form.account:
            if self._came_in(form.account, form.opened.passkey):
                return in_language(request, HttpResponseRedirect(self.get_success_url()), self.language(form.account))
            form.add_error("passkey", passkeys.WRONG)
        told = self.get_context_data(form=ConsoleSignInForm(request), passkey_fault=form.fault())
        return views.locked(self.render_to_response(told), form.wait_s)

    def _came_in(self, account: User, passkey: str) -> bool:
        """By a passkey alone; no while the person's mailbox may not log in."""
        if account.kind == User.Kind.PANEL:
            views.complete(self.request, account, verified=True, passkey=passkey)
            return True
        credential = persons.opening(account, client_ip(self.request))
        if credential is not None:
            _complete(self.request, credential, verified=True, passkey=passkey)
        return credential is not None


class ConsoleSignInCode(_OfPersonsToo, views.SignInCode):
    template_name = "console/sign_in_code.html"
    start = "console:sign-in"
    next_page = "console:start"
    staff_alone = False

    def frame(self) -> dict[str, Any]:
        return {}


@never_cache
@csrf_protect
@require_POST
def passkey(request: HttpRequest) -> HttpResponse:
    """What the browser needs to use whichever passkey it has for us. Nobody is known yet."""
    if request.session.session_key is None:
        # A session of its own, for the challenge; who goes no further leaves it behind.
        request.session.set_expiry(passkeys.LIFE_S)
        sessions.forget_old()
    return views.needed(lambda: passkeys.to_use(request, passkeys.Purpose.ALONE, None))


@never_cache
@csrf_protect
@require_POST
def passkey_for_the_step(request: HttpRequest) -> HttpResponse:
    """What the browser needs to use a passkey of who gave the right password."""
    ip = client_ip(request)
    return views.for_the_step(request, views.pending(request, lambda account: _holds_by(account, ip)))


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    visits.leave(request, visits.SIGNED_OUT, ip=client_ip(request))
    logout(request)
    return HttpResponseRedirect(reverse("console:sign-in"))


def _holds_by(account: User, ip: str | None) -> str | None:
    """What tells the password that was right from the next one."""
    if account.kind == User.Kind.PANEL:
        return account.get_session_auth_hash()
    credential = persons.opening(account, ip)
    return links.began_as(credential) if credential else None


def _complete(
    request: HttpRequest, credential: Credential, *, verified: bool = False, passkey: str = ""
) -> None:
    """The person is in: a session of its own, and the mailbox's login history says so; else as views.complete."""
    ip, mailbox = client_ip(request), credential.mailbox
    with transaction.atomic():
        if not verified and second_factor.has_come(mailbox.person):
            return
        request.session.pop(views.PENDING, None)
        login(request, mailbox.person, backend=BACKEND)
        request.session[sessions.VERIFIED] = verified
        persons.remember(request, credential)
        sessions.begin(request, mailbox.person)
        request.session.save()
        persons.came_in(credential, str(mailbox), ip, passkey=passkey)
    lockout.right(str(mailbox), ip)
