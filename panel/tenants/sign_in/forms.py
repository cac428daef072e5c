"""The sign-in's forms."""

import math
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.utils import timezone
from unfold.forms import AuthenticationForm

from panel.client_address import client_ip
from panel.tenants.sign_in import lockout

WRONG = "This email address and password don't belong together. The password minds capital and small letters."


def locked_sentence(wait_s: float) -> str:
    """What to do, and when; the same for every account, known or not."""
    minutes = math.ceil(wait_s / 60)
    opens = timezone.now() + timedelta(minutes=minutes)
    return (
        "Too many wrong passwords came for this account or from your network. "
        f"Try again in {minutes} minute{'s' if minutes > 1 else ''}, at {opens:%H:%M} UTC: "
        "until then no password is looked at, not even the right one."
    )


class SignInForm(AuthenticationForm):
    """Email address and password of a panel account that the admin lets in."""

    error_messages = {**AuthenticationForm.error_messages, "invalid_login": WRONG}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wait_s = 0.0  # while it is locked
        self.fields["username"].label = "Email address"

    def clean(self) -> dict[str, Any]:
        login, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not login or not password:
            return self.cleaned_data
        ip = client_ip(self.request)
        self.wait_s = lockout.wait_s(login, ip)
        if self.wait_s:
            raise ValidationError(locked_sentence(self.wait_s), code="locked")
        try:
            return super().clean()
        except ValidationError:
            # Also an account that is closed or isn't the provider's: what reads like a wrong one counts like one.
            lockout.wrong(login, ip, password)
            raise
