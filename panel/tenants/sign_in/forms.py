"""The sign-in's forms."""

import math
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm as AnyAuthenticationForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.forms import AuthenticationForm
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from panel.client_address import client_ip
from panel.tenants.changes import RULES_IN_WORDS
from panel.tenants.models import User
from panel.tenants.sign_in import lockout, passkeys, second_factor
from panel.tenants.sign_in.door import ADMIN, Door
from panel.tenants.sign_in.whose import name_of

WRONG: Any = gettext_lazy(
    "This email address and password don't belong together. The password minds capital and small letters."
)


def locked_sentence(wait_s: float) -> str:
    """What to do, and when; the same for every account, known or not."""
    minutes = math.ceil(wait_s / 60)
    opens = timezone.now() + timedelta(minutes=minutes)
    return ngettext(
        "Too many wrong passwords came for this account or from your network. Try again in {count} minute, at "
        "{opens:%H:%M} UTC: until then no password is looked at, not even the right one.",
        "Too many wrong passwords came for this account or from your network. Try again in {count} minutes, at "
        "{opens:%H:%M} UTC: until then no password is looked at, not even the right one.",
        minutes,
    ).format(count=minutes, opens=opens)


class Guarded(AnyAuthenticationForm):
    """Email address and password, under the lockout: what is locked isn't looked at, what is wrong counts."""

    error_messages = {**AnyAuthenticationForm.error_messages, "invalid_login": WRONG}
    request: HttpRequest

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wait_s = 0.0  # while it is locked
        self.fields["username"].label = _("Email address")

    def clean(self) -> dict[str, Any]:
        login, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not login or not password:
            return self.cleaned_data
        ip = client_ip(self.request)
        self.wait_s = lockout.wait_s(login, ip)
        if self.wait_s:
            raise ValidationError(locked_sentence(self.wait_s), code="locked")
        try:
            self.look(login, password)
        except ValidationError:
            # Also an account that is closed or isn't the provider's: what reads like a wrong one counts like one.
            lockout.wrong(login, ip, password)
            raise
        return self.cleaned_data

    def look(self, login: str, password: str) -> None:
        """Find whose these are (`user_cache`). Raises ValidationError."""
        super().clean()


class SignInForm(Guarded, AuthenticationForm):
    """Of a panel account that the admin lets in."""

    error_messages = {**AuthenticationForm.error_messages, "invalid_login": WRONG}


def _code_field(label: Any, help_text: Any, *, digits: bool) -> forms.CharField:
    typed = {"autocomplete": "one-time-code", "inputmode": "numeric"} if digits else {"autocomplete": "off"}
    return forms.CharField(
        label=label, max_length=64, help_text=help_text,
        widget=UnfoldAdminTextInputWidget(attrs={**typed, "autocapitalize": "off", "spellcheck": "false"}),
    )


class CodeForm(forms.Form):
    """The second step: a code of the app, or a recovery code. `opened` says by what it was passed."""

    def __init__(self, request: HttpRequest, account: User, *args: Any, recovery: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request, self.account = request, account
        self.wait_s = 0.0
        self.opened: second_factor.Opened | None = None
        if recovery:
            self.fields["code"] = _code_field(_("Recovery code"), _("One of the ten that you kept."), digits=False)
        else:
            self.fields["code"] = _code_field(_("Code"), _("Six digits, from your authenticator app."), digits=True)
        self.fields["code"].widget.attrs["autofocus"] = True

    def clean_code(self) -> str:
        login, ip, code = name_of(self.account), client_ip(self.request), self.cleaned_data["code"]
        self.wait_s = lockout.wait_s(login, ip)
        if self.wait_s:
            raise ValidationError(locked_sentence(self.wait_s), code="locked")
        self.opened = second_factor.take(self.account, code, ip=ip)
        if self.opened is None:
            lockout.wrong(login, ip, second_factor.guess(code))
            raise ValidationError(second_factor.WRONG)
        return str(code)


class PasskeyForm(forms.Form):
    """What an authenticator answered, in place of a code; without an account in place of the password as well.

    `opened` says by what it was passed, `account` whose it is then.
    """

    passkey = forms.CharField(max_length=passkeys.MOST_ANSWER, widget=forms.HiddenInput)

    def __init__(self, request: HttpRequest, account: User | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request, self.account = request, account
        self.wait_s = 0.0
        self.opened: second_factor.Opened | None = None

    def clean_passkey(self) -> str:
        answer, ip = str(self.cleaned_data["passkey"]), client_ip(self.request)
        purpose = passkeys.Purpose.STEP if self.account else passkeys.Purpose.ALONE
        challenge = passkeys.spent(self.request, purpose)
        login = name_of(self.account) if self.account else passkeys.login_of(answer)
        self.wait_s = lockout.wait_s(login, ip)
        if self.wait_s:
            raise ValidationError(locked_sentence(self.wait_s), code="locked")
        passkey = passkeys.take(answer, challenge, account=self.account, ip=ip)
        if passkey is None:
            lockout.wrong(login, ip, passkeys.guess(answer))
            raise ValidationError(passkeys.WRONG)
        self.account, self.opened = passkey.factor.user, second_factor.Opened(passkey=passkey.name)
        return answer

    def fault(self) -> str:
        """What is wrong, for beside the button."""
        return " ".join(map(str, self.errors.get("passkey", ())))


class NewPasswordForm(forms.Form):
    """A new password, twice."""

    new = forms.CharField(
        label=gettext_lazy("New password"), strip=False, help_text=RULES_IN_WORDS,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
    )
    again = forms.CharField(
        label=gettext_lazy("The same again"), strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        new, again = self.cleaned_data.get("new"), self.cleaned_data.get("again")
        if new and again and new != again:
            self.add_error("again", _("This differs from the one above."))
        return self.cleaned_data


class OwnForm(forms.Form):
    """What somebody who is signed in does to the own account: the password is asked again."""

    password = forms.CharField(
        label=gettext_lazy("Your password"), strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "current-password"}),
    )

    def __init__(self, request: HttpRequest, *args: Any, door: Door = ADMIN, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request, self.door, self.account = request, door, door.account(request)

    def clean_password(self) -> str:
        login, ip, password = name_of(self.account), client_ip(self.request), self.cleaned_data["password"]
        wait_s = lockout.wait_s(login, ip)
        if wait_s:
            raise ValidationError(locked_sentence(wait_s), code="locked")
        if not self.door.is_password(self.account, password):
            lockout.wrong(login, ip, password)
            raise ValidationError(_("This isn't your password."))
        return str(password)


class OwnPasswordForm(NewPasswordForm, OwnForm):
    """Another password for the own account."""


class EnrolForm(OwnForm):
    """A code of the app that was just set up."""

    code = _code_field(gettext_lazy("Code"), gettext_lazy("The six digits that the app shows now."), digits=True)
    field_order = ["code", "password"]


class OwnCodeForm(OwnForm):
    """Password and code, or password and passkey, for what weakens the account."""

    code = _code_field(
        gettext_lazy("Code"), gettext_lazy("From your authenticator app, or a recovery code."), digits=False
    )
    passkey = forms.CharField(max_length=passkeys.MOST_ANSWER, required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        factor = second_factor.of(self.account)
        if factor is not None and not factor.has_app:
            self.fields["code"].label, self.fields["code"].help_text = _("Recovery code"), ""
        if passkeys.site() is None or not passkeys.of(self.account):
            del self.fields["passkey"]
        elif self.data.get("passkey", "").strip():  # as the field reads it: blanks are no answer
            self.fields["code"].required = False

    def clean(self) -> dict[str, Any]:
        code, answer, ip = self.cleaned_data.get("code"), self.cleaned_data.get("passkey"), client_ip(self.request)
        # The code is used up last: a wrong password costs none.
        if self.errors:
            return self.cleaned_data
        login = name_of(self.account)
        if answer:
            challenge = passkeys.spent(self.request, passkeys.Purpose.PROVE)
            if not passkeys.take(answer, challenge, account=self.account, ip=ip):
                lockout.wrong(login, ip, passkeys.guess(answer))
                self.add_error(None, passkeys.WRONG)
        elif not code or not second_factor.take(self.account, code, ip=ip):
            lockout.wrong(login, ip, second_factor.guess(code or ""))
            self.add_error("code", second_factor.WRONG)
        return self.cleaned_data


def _name_field(**more: Any) -> forms.CharField:
    return forms.CharField(
        label=gettext_lazy("Name"), max_length=passkeys.MOST_NAME, widget=UnfoldAdminTextInputWidget(), **more
    )


class PasskeyNameForm(forms.Form):
    name = _name_field()


class OfferForm(OwnForm):
    """Before a passkey is made: whose hands these are."""

    name = _name_field(help_text=gettext_lazy("So that you know later which device or program has it."))
    field_order = ["name", "password"]


class AddPasskeyForm(OfferForm):
    """A passkey that was just made."""

    passkey = forms.CharField(max_length=passkeys.MOST_ANSWER, widget=forms.HiddenInput)
