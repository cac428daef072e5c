"""A person's app passwords: one for each device or program, shown once, ended any time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.console.access import mailbox_page
from panel.console.fields import end_of
from panel.console.frame import page
from panel.console.own_programs import offered
from panel.console.places import MailboxPlace
from panel.mailboxes import services
from panel.mailboxes.models import Credential
from panel.tenants.changes import ServiceError
from panel.tenants.form_fields import DayField, LinesField
from panel.tenants.sign_in import second_factor

MOST_LISTED = 200
OWN_REASON = "frozen by its owner"  # what the owner froze, the owner may let go on
UNUSED = timedelta(days=90)

_MAY = {
    "submission": gettext_lazy("send"), "imap": gettext_lazy("read"), "pop3": gettext_lazy("fetch"),
    "sieve": gettext_lazy("rules"),
}
# By "for" in the address: what the password is called, unless one writes something else.
PROGRAMS: Mapping[str, Any] = {
    "apple": gettext_lazy("iPhone, iPad or Mac"), "thunderbird": "Thunderbird", "outlook": "Outlook",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """An app password as lists show it."""

    credential: Credential
    may: list[Any]
    is_over: bool
    is_unused: bool
    may_go_on: bool

    @property
    def name(self) -> str:
        return self.credential.label or _("Without a name")


def shown(credential: Credential) -> Shown:
    now = timezone.now()
    seen = credential.last_used_at or credential.created_at
    return Shown(
        credential, [_MAY[scope] for scope in credential.scopes if scope in _MAY],
        credential.expires_at is not None and credential.expires_at <= now, now - seen > UNUSED,
        credential.frozen_reason == OWN_REASON,
    )


class PasswordForm(forms.Form):
    """A new app password."""

    label = forms.CharField(
        label=gettext_lazy("What is it for?"), max_length=100,
        help_text=gettext_lazy("The device or program, so that you know it again when you want to end it."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    submission = forms.BooleanField(label=gettext_lazy("Send mail"), required=False)
    imap = forms.BooleanField(label=gettext_lazy("Read mail, in all folders (IMAP)"), required=False)
    pop3 = forms.BooleanField(label=gettext_lazy("Fetch new mail only (POP3)"), required=False)
    sieve = forms.BooleanField(
        label=gettext_lazy("Change how incoming mail is sorted (ManageSieve)"), required=False
    )
    networks = LinesField(
        label=gettext_lazy("Only from these networks"), required=False, max_length=3000,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text=gettext_lazy("One a line, such as 192.0.2.0/24. Empty: from anywhere."),
    )
    last_day = DayField(
        label=gettext_lazy("Last day"), help_text=gettext_lazy("It ends with this day, in UTC. Empty: it doesn't end.")
    )

    @property
    def scopes(self) -> list[Any]:
        return [self[name] for name in services.SCOPES]

    @property
    def has_folded_errors(self) -> bool:
        return bool(self["networks"].errors or self["last_day"].errors)


@mailbox_page()
def passwords(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """The app passwords, the newest first."""
    found = list(Credential.objects.filter(mailbox=place.mailbox, kind=Credential.Kind.APP).order_by("-pk")[
        : MOST_LISTED + 1
    ])
    return page(
        request, place, "console/me_passwords.html", _("App passwords"),
        passwords=[shown(each) for each in found[:MOST_LISTED]], has_more=len(found) > MOST_LISTED,
        has_factor=second_factor.of(place.account) is not None,
    )


@mailbox_page(change=True)
def add(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """Make one, and show it once, with the settings that go with it."""
    program = request.GET.get("for", "")
    program = program if program in PROGRAMS else ""
    initial = {"label": PROGRAMS.get(program, ""), "submission": True, "imap": True}
    form = PasswordForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            credential, secret = services.create_credential(
                place.mailbox, label=form.cleaned_data["label"],
                scopes=[name for name in services.SCOPES if form.cleaned_data[name]],
                networks=form.cleaned_data["networks"],
                expires_at=end_of(form.cleaned_data["last_day"]),
                actor=place.account, ip=place.ip,
            )
        except ServiceError as error:
            field = {"scopes": "submission", "expires_at": "last_day"}.get(error.field, error.field)
            if field in form.fields:
                form.add_error(field, _("Choose at least one.") if error.field == "scopes" else str(error))
            else:
                # The plan's numbers are the organisation's to know.
                form.add_error(None, _(
                    "No more app passwords can be made. Revoke one that you don't use, or ask whoever looks after "
                    "{domain}."
                ).format(domain=place.mailbox.address.domain))
        else:
            return _once(request, place, credential, secret, program)
    return page(
        request, place, "console/me_password_add.html", _("New app password"), crumbs=_crumbs(), form=form,
        back=reverse("console:me-passwords"),
    )


@mailbox_page(change=True)
def freeze(request: HttpRequest, place: MailboxPlace, password: int) -> HttpResponse:
    """Stop one until it is let go on."""
    credential = _find(place, password)
    name = shown(credential).name
    if request.method == "POST":
        try:
            services.freeze_credential(credential, reason=OWN_REASON, actor=place.account, ip=place.ip)
        except ServiceError as error:
            messages.warning(request, str(error))
        else:
            messages.success(request, _("“{name}” is frozen: nobody gets in with it.").format(name=name))
        return _back()
    return _ask(
        request, place, _("Freeze “{name}”?").format(name=name), _("Freeze"),
        _("Whatever uses it is signed out at once and can neither read nor send. You can unfreeze it later."),
    )


@mailbox_page(change=True)
def unfreeze(request: HttpRequest, place: MailboxPlace, password: int) -> HttpResponse:
    """Let one go on that its owner froze."""
    credential = _find(place, password)
    name = shown(credential).name
    if credential.frozen_reason != OWN_REASON:
        if credential.frozen_at:
            messages.warning(request, _(
                "“{name}” was frozen by somebody else. Ask them, or revoke it and make a new one."
            ).format(name=name))
        return _back()
    if request.method == "POST":
        try:
            services.unfreeze_credential(credential, actor=place.account, ip=place.ip)
        except ServiceError as error:
            messages.warning(request, str(error))
        else:
            messages.success(request, _("“{name}” works again.").format(name=name))
        return _back()
    return _ask(
        request, place, _("Unfreeze “{name}”?").format(name=name), _("Unfreeze"),
        _("Whatever has it can read and send again. If you froze it because it isn't yours, revoke it instead."),
    )


@mailbox_page(change=True)
def revoke(request: HttpRequest, place: MailboxPlace, password: int) -> HttpResponse:
    """End one for good."""
    credential = _find(place, password)
    name = shown(credential).name
    if request.method == "POST":
        try:
            services.revoke_credential(credential, actor=place.account, ip=place.ip)
        except ServiceError as error:
            messages.warning(request, str(error))
        else:
            messages.success(request, _("“{name}” is revoked.").format(name=name))
        return _back()
    return _ask(
        request, place, _("Revoke “{name}”?").format(name=name), _("Revoke"),
        _("Whatever uses it is signed out at once, and it never works again. A new one can be made any time."),
        harmful=True,
    )


def _once(
    request: HttpRequest, place: MailboxPlace, credential: Credential, secret: str, program: str
) -> HttpResponse:
    return page(
        request, place, "console/me_password_once.html", _("Your new app password"), crumbs=_crumbs(),
        password=shown(credential), secret=secret, program=program, **offered(credential.scopes),
    )


def _find(place: MailboxPlace, pk: int) -> Credential:
    """An app password of this mailbox. Raises Http404."""
    found = Credential.objects.filter(pk=pk, mailbox=place.mailbox, kind=Credential.Kind.APP).first()
    if found is None:
        raise Http404
    found.mailbox = place.mailbox
    return found


def _ask(
    request: HttpRequest, place: MailboxPlace, title: str, button: str, sentence: str, *, harmful: bool = False
) -> HttpResponse:
    return page(
        request, place, "console/confirm.html", title, crumbs=_crumbs(), form=forms.Form(), button=button,
        sentence=sentence, harmful=harmful, back=reverse("console:me-passwords"),
    )


def _crumbs() -> list[tuple[Any, str]]:
    return [(_("App passwords"), reverse("console:me-passwords"))]


def _back() -> HttpResponse:
    return HttpResponseRedirect(reverse("console:me-passwords"))
