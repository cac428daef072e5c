"""The console's sign-in: a panel account, or a mailbox's address with its main password; or an account's passkey.

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
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST

from panel.client_address import client_ip
from panel.console import persons
from panel.mailboxes import passwords
from panel.mailboxes.main_passwords import credential_of, may_open
from panel.mailboxes.models import Credential
from panel.tenants import visits
from panel.tenants.models import User
from panel.tenants.sign_in import lockout, passkeys, sessions, views
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


class ConsoleSignIn(views.SignIn):
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
            views.complete(request, form.account, verified=True, passkey=form.opened.passkey)
            return in_language(HttpResponseRedirect(self.get_success_url()), form.account.language)
        told = self.get_context_data(form=ConsoleSignInForm(request), passkey_fault=form.fault())
        return views.locked(self.render_to_response(told), form.wait_s)

    def form_valid(self, form: Any) -> HttpResponse:
        if form.credential is None:
            return super().form_valid(form)
        _complete(self.request, form.credential)
        return in_language(HttpResponseRedirect(self.get_success_url()), form.credential.mailbox.language)


class ConsoleSignInCode(views.SignInCode):
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


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    visits.leave(request, visits.SIGNED_OUT, ip=client_ip(request))
    logout(request)
    return HttpResponseRedirect(reverse("console:sign-in"))


def _complete(request: HttpRequest, credential: Credential) -> None:
    """The person is in: a session of its own, and the mailbox's login history says so."""
    ip, mailbox = client_ip(request), credential.mailbox
    with transaction.atomic():
        login(request, mailbox.person, backend=BACKEND)
        persons.remember(request, credential)
        sessions.begin(request, mailbox.person)
        persons.came_in(credential, str(mailbox), ip)
    lockout.right(str(mailbox), ip)
