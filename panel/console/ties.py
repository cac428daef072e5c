"""Tying a panel account to a mailbox, from either side: who does it proves both in one sitting.

The account by its password and the mailbox by its main password, each with its second factor where it has one. Both
under the lockouts of their sign-ins, and in words that don't tell whether there is such an account or mailbox.
"""

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.hashers import check_password, make_password
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.client_address import client_ip
from panel.console import persons
from panel.console.access import account_page, mailbox_page
from panel.console.frame import page
from panel.console.places import AccountPlace, MailboxPlace
from panel.mailboxes import links, passwords
from panel.mailboxes.main_passwords import credential_of, may_open
from panel.mailboxes.models import Credential, MailboxLink
from panel.tenants.changes import ServiceError
from panel.tenants.models import User
from panel.tenants.sign_in import lockout, second_factor
from panel.tenants.sign_in.forms import WRONG, OwnCodeForm, OwnForm, locked_sentence

_SECRET = {"autocomplete": "off"}
_CODE_INPUT = forms.TextInput({"autocomplete": "off", "spellcheck": "false", "autocapitalize": "off"})


class MailboxForm(forms.Form):
    """A mailbox and its main password, before what proves the account."""

    address = forms.CharField(
        label=gettext_lazy("Address of the mailbox"), max_length=320,
        widget=forms.TextInput({"autocomplete": "off", "spellcheck": "false", "autocapitalize": "off"}),
    )
    mailbox_password = forms.CharField(
        label=gettext_lazy("Main password of the mailbox"), strip=False, widget=forms.PasswordInput(_SECRET)
    )
    mailbox_code = forms.CharField(
        label=gettext_lazy("Code of the mailbox"), required=False, max_length=64,
        help_text=gettext_lazy("Only if the mailbox has a second factor: from its app, or a recovery code."),
        widget=_CODE_INPUT,
    )
    credential: Credential | None = None
    request: HttpRequest

    def clean(self) -> dict[str, Any]:
        data = self.cleaned_data
        if not {"address", "mailbox_password", "password"} <= set(data):
            return data
        ip = client_ip(self.request)
        login, password = data["address"], data["mailbox_password"]
        wait_s = lockout.wait_s(login, ip)
        if wait_s:
            raise ValidationError(locked_sentence(wait_s), code="locked")
        credential = credential_of(login)
        if credential is None:
            passwords.verify_none(password)
        if credential is None or not (
            passwords.verify_main(password, credential.secret) and may_open(credential, ip)
        ):
            lockout.wrong(login, ip, password)
            self.add_error("mailbox_password", WRONG)
            return data
        # Codes are used up last.
        data = super().clean() or data
        if not self.errors and self._is_code(credential.mailbox.person, data.get("mailbox_code") or "", login, ip):
            self.credential = credential
        return data

    def _is_code(self, person: User, code: str, login: str, ip: str | None) -> bool:
        """Whether the mailbox's second factor is shown as well, if it has one."""
        if not second_factor.of(person) or second_factor.take(person, code, ip=ip):
            return True
        lockout.wrong(login, ip, second_factor.guess(code))
        self.add_error("mailbox_code", second_factor.WRONG)
        return False


class AddMailboxForm(MailboxForm, OwnForm):
    field_order = ["address", "mailbox_password", "mailbox_code", "password"]


class AddMailboxAndCodeForm(MailboxForm, OwnCodeForm):
    field_order = ["address", "mailbox_password", "mailbox_code", "password", "code"]


class AccountForm(forms.Form):
    """The mailbox's own password, and an account with what its sign-in takes."""

    password = forms.CharField(
        label=gettext_lazy("Main password of this mailbox"), strip=False, widget=forms.PasswordInput(_SECRET)
    )
    email = forms.EmailField(
        label=gettext_lazy("Email address of the account"), max_length=254,
        widget=forms.EmailInput({"autocomplete": "off", "spellcheck": "false"}),
    )
    account_password = forms.CharField(
        label=gettext_lazy("Password of the account"), strip=False, widget=forms.PasswordInput(_SECRET)
    )
    code = forms.CharField(
        label=gettext_lazy("Code"), required=False, max_length=64,
        help_text=gettext_lazy("Only if the account has a second factor: from its app, or a recovery code."),
        widget=_CODE_INPUT,
    )

    def __init__(self, place: MailboxPlace, credential: Credential, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.place, self.credential = place, credential
        self.found: User | None = None

    def clean_password(self) -> str:
        login, password = str(self.place.mailbox), str(self.cleaned_data["password"])
        self._refuse_locked(login)
        if not passwords.verify_main(password, self.credential.secret):
            lockout.wrong(login, self.place.ip, password)
            raise ValidationError(_("This isn't your password."))
        return password

    def clean(self) -> dict[str, Any]:
        data = self.cleaned_data
        if not {"password", "email", "account_password"} <= set(data):
            return data
        email, password = data["email"].strip().lower(), data["account_password"]
        self._refuse_locked(email)
        account = User.objects.filter(kind=User.Kind.PANEL, email=email).first()
        if account is None:
            make_password(password)  # the time tells nothing
        if account is None or not check_password(password, account.password) or not account.is_active:
            lockout.wrong(email, self.place.ip, password)
            self.add_error("account_password", WRONG)
            return data
        code = data.get("code") or ""
        if second_factor.of(account) and not second_factor.take(account, code, ip=self.place.ip):
            lockout.wrong(email, self.place.ip, second_factor.guess(code))
            self.add_error("code", second_factor.WRONG)
            return data
        self.found = account
        return data

    def _refuse_locked(self, login: str) -> None:
        wait_s = lockout.wait_s(login, self.place.ip)
        if wait_s:
            raise ValidationError(locked_sentence(wait_s), code="locked")


@account_page(change=True)
def add_mailbox(request: HttpRequest, place: AccountPlace) -> HttpResponse:
    """Tie a mailbox to the own account."""
    kind = AddMailboxAndCodeForm if second_factor.of(place.account) else AddMailboxForm
    form: Any = kind(request, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid() and _tied(form, form.credential, place.account, place):
        messages.success(request, _("{mailbox} is tied to your account: you find it among your places.").format(
            mailbox=form.credential.mailbox
        ))
        return HttpResponseRedirect(reverse("console:account-own"))
    return page(
        request, place, "console/tie.html", _("Tie a mailbox to your account"), form=form, button=_("Tie"),
        crumbs=[(_("Your account"), reverse("console:account-own"))], back=reverse("console:account-own"),
    )


@mailbox_page(change=True)
def add_account(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """Tie an account to the own mailbox."""
    credential = Credential.objects.filter(mailbox=place.mailbox, kind=Credential.Kind.MAIN).get()
    credential.mailbox = place.mailbox
    form = AccountForm(place, credential, request.POST if request.method == "POST" else None)
    if (
        request.method == "POST" and form.is_valid() and form.found is not None
        and _tied(form, credential, form.found, place)
    ):
        messages.success(request, _(
            "{account} is tied to your mailbox: whoever signs in with it reaches this page as well."
        ).format(account=form.found))
        return HttpResponseRedirect(reverse("console:me-sign-ins"))
    return page(
        request, place, "console/tie.html", _("Tie an account to your mailbox"), form=form, button=_("Tie"),
        crumbs=[(_("Password and sign-ins"), reverse("console:me-sign-ins"))], back=reverse("console:me-sign-ins"),
    )


@account_page(change=True)
def end_of_account(request: HttpRequest, place: AccountPlace, tie: int) -> HttpResponse:
    return _end(request, place, MailboxLink.objects.filter(pk=tie, account=place.account), "console:account-own")


@mailbox_page(change=True)
def end_of_mailbox(request: HttpRequest, place: MailboxPlace, tie: int) -> HttpResponse:
    return _end(request, place, MailboxLink.objects.filter(pk=tie, mailbox=place.mailbox), "console:me-sign-ins")


@account_page(change=True)
def open_mailbox(request: HttpRequest, place: AccountPlace, mailbox: int) -> HttpResponse:
    """From here on the person's pages are of this one of the mailboxes that the account is tied to."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if mailbox not in {each.pk for each in persons.reached_by(place.account, place.ip)}:
        raise Http404
    request.session[persons.CHOSEN] = mailbox
    return HttpResponseRedirect(reverse("console:me"))


def _tied(form: forms.Form, credential: Credential, account: User, place: AccountPlace | MailboxPlace) -> bool:
    try:
        links.link(credential, account, actor=place.account, ip=place.ip)
    except ServiceError as error:
        form.add_error(error.field if error.field in form.fields else None, str(error))
    return not form.errors


def _end(request: HttpRequest, place: AccountPlace | MailboxPlace, rows: Any, back: str) -> HttpResponse:
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    tie = rows.select_related("account", "mailbox__address__domain", "mailbox__address__tenant").first()
    try:
        if tie is not None:
            links.unlink(tie, actor=place.account, ip=place.ip)
            messages.success(request, _("{account} no longer opens {mailbox}.").format(
                account=tie.account, mailbox=tie.mailbox
            ))
    except ServiceError as error:
        messages.warning(request, str(error))
    ended_here = isinstance(place, MailboxPlace) and tie is not None and place.tied == tie.account
    return HttpResponseRedirect(reverse("console:start" if ended_here else back))
