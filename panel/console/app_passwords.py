"""The app passwords of a tenant's mailbox: add, freeze, unfreeze, revoke; the main one can be frozen too."""

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.console.access import tenant_page
from panel.console.fields import LinesField, end_of
from panel.console.frame import page
from panel.console.mailbox import MOST_PASSWORDS, ReasonForm, below, confirm, find, page_of, shown
from panel.console.mailboxes import add_errors
from panel.console.places import Role, TenantPlace
from panel.mailboxes.models import Credential, Mailbox
from panel.mailboxes.services import create_credential, freeze_credential, revoke_credential, unfreeze_credential
from panel.rules.status import Status
from panel.tenants.changes import ServiceError
from panel.tenants.form_fields import DayField

SCOPES = [
    ("submission", gettext_lazy("Send")), ("imap", gettext_lazy("Read (IMAP)")), ("pop3", gettext_lazy("Read (POP3)")),
    ("sieve", gettext_lazy("Change filters")),
]


class AppPasswordForm(forms.Form):
    label = forms.CharField(
        label=gettext_lazy("What uses it"), max_length=100,
        widget=forms.TextInput({"autocomplete": "off", "placeholder": gettext_lazy("Web shop")}),
        error_messages={"required": gettext_lazy("Say what uses it, so that you know it later.")},
    )
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("It may"), choices=SCOPES, widget=forms.CheckboxSelectMultiple,
        initial=["submission", "imap"], error_messages={"required": gettext_lazy("Choose at least one.")},
    )
    networks = LinesField(
        label=gettext_lazy("Only from"), required=False, rows=2,
        help_text=gettext_lazy("Addresses or networks such as 203.0.113.0/24, one a line. Empty: from anywhere."),
    )
    last_day = DayField(
        label=gettext_lazy("Last day"),
        help_text=gettext_lazy("Until its end, in UTC. Empty: until it is revoked."),
    )


@tenant_page()
def app_passwords(request: HttpRequest, place: TenantPlace, mailbox: int) -> HttpResponse:
    """All of them, the newest first; `before` in the address is the one that the page follows."""
    found = find(place, mailbox)
    rows = found.credentials.filter(kind=Credential.Kind.APP).order_by("-pk")
    before = request.GET.get("before", "")
    if before.isdecimal() and len(before) < 19:
        rows = rows.filter(pk__lt=int(before))
    listed = list(rows[: MOST_PASSWORDS + 1])
    return page(
        request, place, "console/mailbox_passwords.html", _("App passwords"), crumbs=below(place, found),
        mailbox=found, passwords=shown(listed[:MOST_PASSWORDS]), before=before,
        last=listed[MOST_PASSWORDS - 1].pk if len(listed) > MOST_PASSWORDS else "",
        is_closed=found.status == Status.CLOSED,
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def add(request: HttpRequest, place: TenantPlace, mailbox: int) -> HttpResponse:
    """Make one; its secret is shown in the answer, and never again."""
    found = find(place, mailbox)
    form = AppPasswordForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            made, secret = create_credential(
                found, label=data["label"], scopes=data["scopes"], networks=data["networks"],
                expires_at=end_of(data["last_day"]), actor=place.account, ip=place.ip,
            )
        except ServiceError as error:
            error.field = "last_day" if error.field == "expires_at" else error.field
            add_errors(form, error)
        else:
            return page(
                request, place, "console/secret.html",
                _("The new app password “{label}”").format(label=made.label), crumbs=below(place, found),
                user_name=str(found), secret=secret, back=page_of(place, found),
                sentence=_("Put it into the program that uses it; it works nowhere else."),
            )
    return page(
        request, place, "console/address_form.html", _("New app password"), crumbs=below(place, found), form=form,
        button=_("Make it"), back=page_of(place, found),
        told=_("For one program that uses {mailbox}: it can be frozen and revoked by itself.").format(mailbox=found),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def freeze(request: HttpRequest, place: TenantPlace, mailbox: int, credential: int) -> HttpResponse:
    """Let nobody use it until it is unfrozen."""
    found, one = _find(place, mailbox, credential)
    form = ReasonForm(request.POST if request.method == "POST" else None)

    def act() -> str:
        freeze_credential(one, reason=form.cleaned_data["reason"], actor=place.account, ip=place.ip)
        return _("Nobody signs in or sends with the {password} any more.").format(password=one.words)

    return confirm(
        request, place, found, form, act, title=_("Freeze the {password}").format(password=one.words),
        button=_("Freeze"),
        sentence=_("Nobody signs in or sends with it, on open connections too. Unfreeze undoes it."),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def unfreeze(request: HttpRequest, place: TenantPlace, mailbox: int, credential: int) -> HttpResponse:
    """Let it be used again, if it wasn't the provider who froze it."""
    found, one = _find(place, mailbox, credential)

    def act() -> str:
        unfreeze_credential(one, actor=place.account, ip=place.ip)
        return _("The {password} works again.").format(password=one.words)

    return confirm(
        request, place, found, None, act,
        title=_("Unfreeze the {password}").format(password=one.words), button=_("Unfreeze"),
        sentence=_("It works again as before. Where somebody else knows it, make another one instead."),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def revoke(request: HttpRequest, place: TenantPlace, mailbox: int, credential: int) -> HttpResponse:
    """Delete it for good."""
    found, one = _find(place, mailbox, credential)

    def act() -> str:
        name = one.words
        revoke_credential(one, actor=place.account, ip=place.ip)
        return _("The {password} is revoked.").format(password=name)

    return confirm(
        request, place, found, None, act,
        title=_("Revoke the {password}?").format(password=one.words), button=_("Revoke"), harmful=True,
        sentence=_("What uses it can no longer sign in or send. This can't be undone; Freeze can."),
    )


def _find(place: TenantPlace, mailbox: int, credential: int) -> tuple[Mailbox, Credential]:
    """The mailbox, and its own password. Raises Http404."""
    found = find(place, mailbox)
    one: Credential = place.find(Credential.objects.all(), pk=credential, mailbox=found)
    one.mailbox = found
    return found, one
