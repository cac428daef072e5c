"""A person's password and sign-ins: who came in with what, from where, and how to shut somebody out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.console import persons
from panel.console.access import mailbox_page
from panel.console.frame import page
from panel.console.own_passwords import OWN_REASON
from panel.console.places import MailboxPlace
from panel.mailboxes import links, passwords, services
from panel.mailboxes.models import Credential, LoginEvent, Mailbox
from panel.operations.recovery import asked_of, ends_at
from panel.rules.lockout import network_of
from panel.rules.sign_in import PROTOCOL
from panel.tenants.changes import ServiceError
from panel.tenants.credential_words import credential_words
from panel.tenants.sign_in import lockout, sessions
from panel.tenants.sign_in.account import factor_of
from panel.tenants.sign_in.forms import NewPasswordForm, locked_sentence

PAGE = 10
KNOWN_BY = 200  # earlier sign-ins that tell which networks are known

OWN: Any = gettext_lazy("Password and sign-ins")
BY: Mapping[str, Any] = {
    "imap": gettext_lazy("reading"), "pop3": gettext_lazy("fetching"), "submission": gettext_lazy("sending"),
    "smtp": gettext_lazy("sending"), "sieve": gettext_lazy("rules"), PROTOCOL: gettext_lazy("This console"),
}
_OUTCOMES = {
    LoginEvent.Outcome.OK: ("", gettext_lazy("Signed in")),
    LoginEvent.Outcome.WRONG: ("warn", gettext_lazy("Wrong password")),
    LoginEvent.Outcome.REFUSED: ("warn", gettext_lazy("Right password, refused: frozen, expired or from elsewhere")),
    LoginEvent.Outcome.SCOPE: ("warn", gettext_lazy("Refused: the password isn't for that")),
    LoginEvent.Outcome.FACTOR: ("warn", gettext_lazy(
        "Refused: the main password opens no mail program while a second factor is on. Use an app password"
    )),
    LoginEvent.Outcome.SUSPENDED: ("warn", gettext_lazy("Refused: the mailbox is suspended")),
    LoginEvent.Outcome.LOCKED: ("warn", gettext_lazy("Not looked at, after wrong passwords")),
}
Outcome = LoginEvent.Outcome


@dataclass(frozen=True, slots=True)
class SignIn:
    """Sign-ins that were alike, as lists show them."""

    event: LoginEvent
    name: str  # by which password
    how: Any
    look: str
    words: Any
    is_new: bool  # from a network that wasn't seen before
    may_freeze: bool


class ByMainPasswordForm(forms.Form):
    """What a person does who gives the main password once more."""

    password = forms.CharField(
        label=gettext_lazy("Your password now"), strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def __init__(self, place: MailboxPlace, credential: Credential, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.place, self.credential = place, credential

    def clean_password(self) -> str:
        login, password = str(self.place.mailbox), self.cleaned_data["password"]
        wait_s = lockout.wait_s(login, self.place.ip)
        if wait_s:
            raise ValidationError(locked_sentence(wait_s), code="locked")
        if not passwords.verify_main(password, self.credential.secret):
            lockout.wrong(login, self.place.ip, password)
            raise ValidationError(_("This isn't your password."))
        return str(password)


class OldAndNewForm(ByMainPasswordForm, NewPasswordForm):
    """Another main password, for the one that holds."""

    field_order = ["password", "new", "again"]


@mailbox_page()
def sign_ins(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """The sign-ins, the newest first; `before` in the address is the one that the page follows."""
    rows = LoginEvent.objects.filter(mailbox=place.mailbox).order_by("-pk")
    before = request.GET.get("before", "")
    if before.isdecimal() and len(before) < 19:
        rows = rows.filter(pk__lt=int(before))
    found = list(rows[: PAGE + KNOWN_BY])
    used = {each.credential_id for each in found[:PAGE] if each.credential_id is not None}
    own = Credential.objects.filter(mailbox=place.mailbox, pk__in=used)
    key, main = request.session.session_key, main_password(place.mailbox)
    asked = asked_of(place.mailbox)
    return page(
        request, place, "console/me_sign_ins.html", str(OWN), before=before,
        asked=asked, asked_is_over=asked is not None and ends_at(asked) <= timezone.now(),
        sign_ins=_shown(found[:PAGE], found, own), last=found[PAGE - 1].pk if len(found) > PAGE else "",
        ties=list(links.of_mailbox(place.mailbox)), now=links.began_as(main),
        sessions=[{
            "name": sessions.name_of(each.session_key), "browser": sessions.browser(each.browser),
            "session": each, "is_this": each.session_key == key,
        } for each in sessions.of(place.account)],
        of="console:me-", **factor_of(place.account),
    )


def newest(mailbox: Mailbox) -> list[LoginEvent]:
    """So many that the networks which are known can be told. One query."""
    return list(LoginEvent.objects.filter(mailbox=mailbox).order_by("-pk")[:KNOWN_BY])


def latest(events: Sequence[LoginEvent], credentials: Iterable[Credential], most: int) -> list[SignIn]:
    """Of a mailbox's `newest` those that came in, with its passwords."""
    return _shown([each for each in events if each.outcome == Outcome.OK][:most], events, credentials)


def _shown(
    events: Sequence[LoginEvent], around: Sequence[LoginEvent], credentials: Iterable[Credential]
) -> list[SignIn]:
    own = {each.pk: each for each in credentials}
    # From where each network came first, among those that are looked at.
    first: dict[str, int] = {}
    for event in reversed(around):
        if event.outcome == Outcome.OK:
            first.setdefault(network_of(event.ip or ""), event.pk)
    oldest = min(first.values(), default=0)
    shown = []
    for each in events:
        credential = own.get(each.credential_id) if each.credential_id is not None else None
        came = each.outcome == Outcome.OK
        look, words = _OUTCOMES[Outcome(each.outcome)]
        network = network_of(each.ip or "")
        shown.append(SignIn(
            each, _name(each, credential), BY.get(each.protocol, each.protocol.upper()), look, words,
            came and bool(network) and first.get(network) == each.pk != oldest,
            came and credential is not None and credential.frozen_at is None,
        ))
    return shown


def _name(event: LoginEvent, credential: Credential | None) -> str:
    if credential is not None and credential.kind == Credential.Kind.MAIN:
        return _("Main password")
    if credential is not None:
        return credential.label or _("An app password without a name")
    return capfirst(credential_words(event.credential_text)) or _("No password of yours")


@mailbox_page(change=True)
def password(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """Another main password; every session but this one ends."""
    credential = main_password(place.mailbox)
    form = OldAndNewForm(place, credential, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            services.set_password(place.mailbox, form.cleaned_data["new"], actor=place.account, ip=place.ip)
        except ServiceError as error:
            form.add_error("new", str(error))
        else:
            request.session.cycle_key()
            main = main_password(place.mailbox)
            # Somebody may have set another one in the same moment, to shut this session out.
            if passwords.verify_main(form.cleaned_data["new"], main.secret):
                persons.remember(request, main)
            sessions.end_all(
                place.account, but=request.session.session_key, reason="its password was changed",
                actor=place.account, ip=place.ip,
            )
            messages.success(request, _(
                "Your password is changed. Wherever else you were signed in, you no longer are; app passwords go on."
            ))
            return _back()
    return page(
        request, place, "console/me_password.html", _("Change your password"), crumbs=_crumbs(), form=form,
        back=reverse("console:me-sign-ins"),
    )


@mailbox_page(change=True)
def freeze(request: HttpRequest, place: MailboxPlace, sign_in: int) -> HttpResponse:
    """"Not you?": freeze the password that somebody came in with, after it was asked for."""
    event = LoginEvent.objects.filter(pk=sign_in, mailbox=place.mailbox).first()
    if event is None:
        raise Http404
    if event.credential_id is None:
        return _is_over(request)
    credential = Credential.objects.filter(pk=event.credential_id, mailbox=place.mailbox).first()
    if credential is None or credential.frozen_at is not None:
        return _is_over(request)
    credential.mailbox = place.mailbox
    is_main, name = credential.kind == Credential.Kind.MAIN, _name(event, credential)
    if request.method == "POST":
        try:
            services.freeze_credential(credential, reason=OWN_REASON, actor=place.account, ip=place.ip)
        except ServiceError as error:
            messages.warning(request, str(error))
            return _back()
        if is_main:
            request.session.flush()
            messages.warning(request, _(
                "Your main password is frozen: nobody gets in with it. Ask whoever looks after {domain} for a new one."
            ).format(domain=place.mailbox.address.domain))
            return HttpResponseRedirect(reverse("console:sign-in"))
        messages.success(request, _("“{name}” is frozen: nobody gets in with it.").format(name=name))
        return HttpResponseRedirect(reverse("console:me-passwords"))
    return page(
        request, place, "console/me_freeze.html", _("Freeze “{name}”?").format(name=name), crumbs=_crumbs(),
        event=event, is_main=is_main, back=reverse("console:me-sign-ins"),
    )


@mailbox_page(change=True)
def end_session(request: HttpRequest, place: MailboxPlace, name: str) -> HttpResponse:
    """Sign one of the own sessions of the console out."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    try:
        sessions.end(place.account, name, actor=place.account, ip=place.ip)
    except ServiceError as error:
        messages.warning(request, str(error))
    else:
        messages.success(request, _("Signed out there."))
    return _back()


@mailbox_page(change=True)
def end_sessions(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """Sign out wherever else one is signed in."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    sessions.end_all(place.account, but=request.session.session_key, actor=place.account, ip=place.ip)
    messages.success(request, _("Signed out everywhere else."))
    return _back()


def _is_over(request: HttpRequest) -> HttpResponse:
    messages.warning(request, _("The password of that sign-in opens nothing any more."))
    return _back()


def main_password(mailbox: Mailbox) -> Credential:
    """The main password as it is now: there is one, the session began with it."""
    found: Credential = Credential.objects.get(mailbox=mailbox, kind=Credential.Kind.MAIN)
    return found


def _crumbs() -> list[tuple[Any, str]]:
    return [(str(OWN), reverse("console:me-sign-ins"))]


def _back() -> HttpResponse:
    return HttpResponseRedirect(reverse("console:me-sign-ins"))

