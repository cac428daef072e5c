"""A mailbox's page: can this person send and read, and how much? And what is done to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext

from panel.console.access import tenant_page
from panel.console.fields import RecipientsField, SizeField
from panel.console.frame import page
from panel.console.home import line_of
from panel.console.mailboxes import PasswordForm, add_errors, crumbs, filled, new_password
from panel.console.own_recovery import RECOVERY_INPUT, link_to
from panel.console.places import Role, TenantPlace
from panel.mailboxes import standing
from panel.mailboxes.models import BY_ADDRESS, Alias, AliasTarget, Credential, Mailbox
from panel.mailboxes.recovery import shown_asked, shown_recovery
from panel.mailboxes.rule_services import rules_without_blocked
from panel.mailboxes.services import change_mailbox, set_password
from panel.mailboxes.storage import Storage
from panel.operations.recovery import Became, ask_recovery
from panel.operations.services import close, restore, resume, suspend
from panel.rules.limits import Kind, Window
from panel.rules.status import Status
from panel.sending.given import Given, given
from panel.sending.mailbox_log import latest_of_mailbox
from panel.sending.models import SendingLimit
from panel.sending.services import inherit_limit, set_limit
from panel.sending.used import Bar, levels_of, used
from panel.tenants.audit import MOST_REASON
from panel.tenants.changes import AlreadySo, ServiceError, hash_password
from panel.tenants.decided import is_held
from panel.tenants.models import SecondFactor
from panel.tenants.sign_in import second_factor
from panel.tenants.standing import Standing

LATEST = 6
MOST_PASSWORDS = 50  # app passwords on a page
MOST_KNOWN = 200  # of the newest it is known which was used last, and what was sent with them
MOST_ALIASES = 10
MAY = {"submission": gettext_lazy("send"), "imap": gettext_lazy("read"), "pop3": gettext_lazy("read by POP3"),
       "sieve": gettext_lazy("filters")}
LOOKS = {"off": ("", "x"), "bad": ("bad", "player-pause"), "warn": ("warn", ""), "good": ("good", "")}  # of a standing


@dataclass(frozen=True, slots=True)
class Password:
    """A password of the mailbox, as its page shows it."""

    credential: Credential
    may: Sequence[Any]

    @property
    def is_app(self) -> bool:
        return self.credential.kind == Credential.Kind.APP

    @property
    def is_over(self) -> bool:
        return self.credential.expires_at is not None and self.credential.expires_at <= timezone.now()


class ChangeForm(forms.Form):
    """Name, storage, and how much it may send: nothing for as much as the provider gave."""

    name = forms.CharField(
        label=gettext_lazy("Name"), max_length=100, required=False, widget=forms.TextInput({"autocomplete": "off"})
    )
    quota_bytes = SizeField(label=gettext_lazy("Storage"), help_text=gettext_lazy("Such as 5 GB. Empty: unlimited."))
    hour = RecipientsField(label=gettext_lazy("Recipients in 1 hour"))
    day = RecipientsField(label=gettext_lazy("Recipients in 24 hours"))

    def __init__(self, most: dict[str, Given], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for window, each in most.items():
            self.fields[window].help_text = (
                _("Empty: unlimited.") if each.recipients is None
                else _("Up to {most}, as your provider gave. Leave it empty for that.").format(
                    most=f"{each.recipients:,}"
                )
            )


class ReasonForm(forms.Form):
    """Why; it stands on the page and in the audit log."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=MOST_REASON, widget=forms.TextInput({"autocomplete": "off"}),
        help_text=gettext_lazy("It stands on the mailbox's page and in the audit log."),
        error_messages={"required": gettext_lazy("Say why, for whoever asks later.")},
    )


class OptionalReasonForm(ReasonForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = False
        self.fields["reason"].help_text = _("Optional. It stands in the audit log.")


class SuspendForm(ReasonForm):
    what = forms.ChoiceField(
        label=gettext_lazy("What stops?"), widget=forms.RadioSelect, initial="sending",
        choices=[
            ("sending", gettext_lazy("Sending only: signing in, reading and receiving go on")),
            ("all", gettext_lazy("Signing in and sending: mail for it is still accepted")),
        ],
        error_messages={"required": gettext_lazy("Choose what stops.")},
    )
    field_order = ["what", "reason"]


class RecoveryForm(forms.Form):
    recovery = forms.CharField(
        label=gettext_lazy("Recovery address"), required=False, max_length=320, widget=RECOVERY_INPUT,
        help_text=gettext_lazy("One that its person reads without this mailbox. Empty: none."),
    )


def find(place: TenantPlace, pk: int) -> Mailbox:
    """The tenant's mailbox with what its page reads. Raises Http404."""
    rows = Mailbox.objects.select_related(*standing.READ, "usage", "rules", "recovery_asked")
    found: Mailbox = place.find(
        rows.annotate(has_factor=Exists(SecondFactor.objects.filter(user=OuterRef("person")))), pk=pk
    )
    return found


@tenant_page()
def mailbox(request: HttpRequest, place: TenantPlace, mailbox: int) -> HttpResponse:
    found = find(place, mailbox)
    holds, storage = standing.of_mailbox(found, place.account), filled(found)
    is_full = holds.look == "good" and storage.allowed is not None and (storage.used or 0) >= storage.allowed
    if is_full:
        holds = Standing("bad", _("full"), _(
            "It sends, but new mail doesn't fit in. Give it more storage, or let its person delete some."
        ))
    # The main one first ("main" is after "app"), then the newest.
    credentials = list(found.credentials.order_by("-kind", "-pk")[: 1 + MOST_KNOWN])
    mains = [each for each in credentials if each.kind == Credential.Kind.MAIN]
    apps = [each for each in credentials if each.kind == Credential.Kind.APP]
    has_factor = bool(found.has_factor)  # type: ignore[attr-defined]
    passwords = shown([*mains, *sorted(apps[:MOST_PASSWORDS], key=lambda each: (each.label, each.pk))], has_factor)
    levels = used(levels_of(found))
    was_used = [each for each in credentials if each.last_used_at]
    used_last = max(was_used, key=lambda each: each.last_used_at, default=None)  # type: ignore[arg-type, return-value]
    aliases = list(_leading_to(place, found)[: MOST_ALIASES + 1])
    status = Status(found.status)
    is_over = found.grace_ends_at is not None and found.grace_ends_at <= timezone.now()
    is_stopped, is_closed = status in (Status.NO_SENDING, Status.SUSPENDED), status is Status.CLOSED
    theirs = is_held(found, place.account)
    return page(
        request, place, "console/mailbox.html", str(found), crumbs=crumbs(place), mailbox=found, address=str(found),
        holds=holds, look=LOOKS[holds.look][0], state_icon="" if is_full else LOOKS[holds.look][1], passwords=passwords,
        used_last=used_last, recovery=shown_recovery(found),
        recovery_asked=shown_asked(getattr(found, "recovery_asked", None)), has_factor=has_factor,
        has_more_passwords=len(apps) > MOST_PASSWORDS,
        frozen=sum(each.frozen_at is not None for each in credentials), known=len(credentials),
        knows_all=len(credentials) <= MOST_KNOWN,
        limits=[(bar, _comes_from(place, bar)) for bar in levels.bars], storage=storage, stored=Storage.of(found),
        aliases=aliases[:MOST_ALIASES], has_more_aliases=len(aliases) > MOST_ALIASES,
        rules=list(rules_without_blocked(found).sentences(timezone.now().date())),
        latest=[line_of(each) for each in latest_of_mailbox(found, [each.pk for each in credentials], LATEST)],
        is_closed=is_closed, is_the_providers=theirs, may_restore=is_closed and not (is_over or theirs),
        may_suspend=status < Status.SUSPENDED, may_resume=is_stopped and not theirs,
    )


def shown(credentials: Sequence[Credential], has_factor: bool = False) -> list[Password]:
    """`has_factor`: the mailbox's person has a second factor."""
    return [Password(each, _may(each, has_factor)) for each in credentials]


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def change(request: HttpRequest, place: TenantPlace, mailbox: int) -> HttpResponse:
    """Name, storage and limits, all of it or nothing."""
    found = find(place, mailbox)
    most = {window.value: given(found, window.value) for window in Window}
    own = dict(SendingLimit.objects.filter(mailbox=found).values_list("window", "recipients"))
    # What the provider set on this mailbox is what an empty field stands for.
    shown = {window: own.get(window) for window, each in most.items() if own.get(window) != each.recipients}
    initial = {"name": found.name, "quota_bytes": found.quota_bytes, **shown}
    form = ChangeForm(most, request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid() and _changed(form, place, found, most, own):
        messages.success(request, _("{mailbox} is changed.").format(mailbox=found))
        return to_page(place, found)
    return page(
        request, place, "console/address_form.html", _("Change {mailbox}").format(mailbox=found),
        crumbs=below(place, found), form=form, button=_("Save"), back=page_of(place, found),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def password(request: HttpRequest, place: TenantPlace, mailbox: int) -> HttpResponse:
    """Set the main password, made by us or typed."""
    found = find(place, mailbox)
    form = PasswordForm(request.POST if request.method == "POST" else None, initial={"way": "made"})
    if request.method == "POST" and form.is_valid():
        made = new_password() if form.cleaned_data["way"] == "made" else ""
        try:
            set_password(
                found, hash_password(made) if made else form.cleaned_data["password"], actor=place.account, ip=place.ip
            )
        except ServiceError as error:
            add_errors(form, error)
        else:
            if made:
                return page(
                    request, place, "console/secret.html", _("The new password of {mailbox}").format(mailbox=found),
                    crumbs=below(place, found), user_name=str(found), secret=made, back=page_of(place, found),
                    sentence=_(
                        "The old one no longer works. This one signs in to the console, beside the second factor; mail "
                        "programs go on with their app passwords."
                    ) if found.has_factor else _(  # type: ignore[attr-defined]
                        "The old one no longer works: put this one into the mail program."
                    ),
                )
            messages.success(
                request, _("{mailbox} has a new password; the old one no longer works.").format(mailbox=found)
            )
            return to_page(place, found)
    return page(
        request, place, "console/address_form.html", _("Set the password of {mailbox}").format(mailbox=found),
        crumbs=below(place, found), form=form, button=_("Set password"), back=page_of(place, found),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def recovery(request: HttpRequest, place: TenantPlace, mailbox: int) -> HttpResponse:
    """Set or remove the recovery address; what the person set is not shown whole, and is replaced."""
    found = find(place, mailbox)
    lede = _(
        "If the password is forgotten, a link to choose another one goes there: whoever reads it can open the mailbox. "
        "It counts once the mailbox's person has confirmed it by a link in a letter to it."
    )
    if found.recovery_is_own:
        own = _("Its person set {address}. What you save takes its place.").format(address=shown_recovery(found))
        lede = f"{own} {lede}"
    initial = {"recovery": "" if found.recovery_is_own else found.recovery}
    form = RecoveryForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            became = ask_recovery(
                found, form.cleaned_data["recovery"], link=link_to, actor=place.account, ip=place.ip
            )
        except ServiceError as error:
            add_errors(form, error)
        else:
            if became is Became.ASKED:
                messages.success(request, _(
                    "A letter went out. The address counts once the person of {mailbox} has opened the link in it and "
                    "signed in."
                ).format(mailbox=found))
            elif became is Became.REMOVED:
                messages.success(request, _("{mailbox} has no recovery address any more.").format(mailbox=found))
            return to_page(place, found)
    return page(
        request, place, "console/address_form.html", _("Recovery address of {mailbox}").format(mailbox=found),
        crumbs=below(place, found), form=form, button=_("Save"), back=page_of(place, found), told=lede,
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def remove_factor(request: HttpRequest, place: TenantPlace, mailbox: int) -> HttpResponse:
    """Take its person's second factor away, for somebody who lost all of it."""
    found = find(place, mailbox)
    form = OptionalReasonForm(request.POST if request.method == "POST" else None)

    def act() -> str:
        second_factor.remove(found.person, reason=form.cleaned_data["reason"], actor=place.account, ip=place.ip)
        return _("{mailbox} has no second factor any more.").format(mailbox=found)

    sentence = _(
        "For somebody who lost the phone, the passkeys and the recovery codes: all of it goes. Be sure that it is the "
        "person of {mailbox} who asks: the main password alone opens the mailbox then, in mail programs too. A letter "
        "tells of it."
    ).format(mailbox=found)
    return confirm(
        request, place, found, form, act, title=_("Remove the second factor of {mailbox}?").format(mailbox=found),
        button=pgettext("a second factor", "Remove"), sentence=sentence, harmful=True,
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def stop(request: HttpRequest, place: TenantPlace, mailbox: int) -> HttpResponse:
    """Suspend it, or its sending alone, with a reason."""
    found = find(place, mailbox)
    form = SuspendForm(request.POST if request.method == "POST" else None, initial={"what": "sending"})

    def act() -> str:
        sending_only = form.cleaned_data["what"] == "sending"
        suspend(found, reason=form.cleaned_data["reason"], sending_only=sending_only, actor=place.account, ip=place.ip)
        said = _("{mailbox} can't send any more.") if sending_only else _("{mailbox} is suspended.")
        return said.format(mailbox=found)

    return confirm(
        request, place, found, form, act, title=_("Suspend {mailbox}").format(mailbox=found), button=_("Suspend"),
        sentence=_("It takes hold within a second, on open connections too. What waits in the queue waits on. Resume "
                   "undoes it."),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def go_on(request: HttpRequest, place: TenantPlace, mailbox: int) -> HttpResponse:
    """Resume it, if nobody above suspended it."""
    found = find(place, mailbox)

    def act() -> str:
        resume(found, actor=place.account, ip=place.ip)
        return _("{mailbox} is active again.").format(mailbox=found)

    return confirm(
        request, place, found, None, act,
        title=_("Resume {mailbox}").format(mailbox=found), button=_("Resume"),
        sentence=_("It signs in and sends as before, and what waits in the queue goes."),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def shut(request: HttpRequest, place: TenantPlace, mailbox: int) -> HttpResponse:
    """Close it; it can be restored until its grace period ends."""
    found = find(place, mailbox)

    def act() -> str:
        close(found, actor=place.account, ip=place.ip)
        return _("{mailbox} is closed. Until {day} it can be restored from its page.").format(
            mailbox=found, day=f"{found.grace_ends_at:%Y-%m-%d}"
        )

    ends = timezone.now() + timedelta(days=settings.ENVIRONMENT.grace_days)
    return confirm(
        request, place, found, None, act,
        title=_("Close {mailbox}?").format(mailbox=found), button=_("Close the mailbox"), harmful=True,
        sentence=_(
            "Nobody signs in or sends with it, and mail for it is refused. Its mail is kept, and you can restore it "
            "until {day}; then the mail is removed for good and the address is free again."
        ).format(day=f"{ends:%Y-%m-%d}"),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def reopen(request: HttpRequest, place: TenantPlace, mailbox: int) -> HttpResponse:
    """Undo the closing."""
    found = find(place, mailbox)

    def act() -> str:
        restore(found, actor=place.account, ip=place.ip)
        return _("{mailbox} is back as it was.").format(mailbox=found)

    return confirm(
        request, place, found, None, act,
        title=_("Restore {mailbox}").format(mailbox=found), button=_("Restore"),
        sentence=_("It becomes what it was before it was closed, with all its mail."),
    )


def confirm(
    request: HttpRequest, place: TenantPlace, found: Mailbox, form: forms.Form | None, act: Callable[[], str],
    **words: Any,
) -> HttpResponse:
    """Ask, then act and go back to the mailbox's page. What can't be done any more is said there.

    `form` None: there is nothing to fill in.
    """
    form = form if form is not None else forms.Form(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            messages.success(request, act())
        except AlreadySo as error:
            messages.warning(request, str(error))
        except ServiceError as error:
            if error.field in form.fields:
                form.add_error(error.field, str(error))
                return _asked(request, place, found, form, words)
            messages.error(request, str(error))
        return to_page(place, found)
    return _asked(request, place, found, form, words)


def _asked(
    request: HttpRequest, place: TenantPlace, found: Mailbox, form: forms.Form, words: dict[str, Any]
) -> HttpResponse:
    return page(
        request, place, "console/confirm.html", words.pop("title"), crumbs=below(place, found), form=form,
        back=page_of(place, found), **words,
    )


def _changed(
    form: ChangeForm, place: TenantPlace, found: Mailbox, most: dict[str, Given], own: dict[str, int | None]
) -> bool:
    """Save all of it, or nothing and say what is wrong beside its field."""
    data: dict[str, Any] = form.cleaned_data
    who: dict[str, Any] = {"actor": place.account, "ip": place.ip}
    field = ""
    try:
        with transaction.atomic():
            change_mailbox(found, name=data["name"], quota_bytes=data["quota_bytes"], **who)
            for window, each in most.items():
                field, wanted = window, data[window]
                if wanted is None or wanted == each.recipients:
                    # As much as was given: nothing of its own, so that it follows the plan.
                    if window in own and own[window] != (each.recipients if each.is_own else object()):
                        inherit_limit(found, window=window, **who)
                elif wanted != own.get(window, object()):
                    set_limit(found, window=window, recipients=wanted, **who)
    except ServiceError as error:
        form.add_error(field if error.field == "recipients" else error.field or None, str(error))
    return not form.errors


def _may(credential: Credential, has_factor: bool) -> list[Any]:
    if credential.kind == Credential.Kind.MAIN:
        return [_("console")] if has_factor else [MAY["submission"], MAY["imap"], _("console")]
    return [MAY.get(scope, scope) for scope in credential.scopes]


def _leading_to(place: TenantPlace, found: Mailbox) -> Any:
    """The tenant's aliases that name it as a target, with how many others they lead to."""
    targets = AliasTarget.objects.filter(alias=OuterRef("pk")).order_by()
    count = Subquery(targets.values("alias").annotate(n=Count("pk") - 1).values("n"))
    rows = place.of(Alias.objects.all()).filter(targets__target=str(found)).annotate(others=count)
    return rows.select_related("address__domain").order_by(*BY_ADDRESS)


def _comes_from(place: TenantPlace, bar: Bar) -> str:
    """Why a limit is that much; nothing for what is unlimited."""
    if bar.limit_id is not None:
        return {
            Kind.MAILBOX: _("set here"), Kind.DOMAIN: _("domain"), Kind.TENANT: _("organisation"),
        }.get(bar.kind, _("set here"))
    return _("plan {plan}").format(plan=bar.plan) if bar.plan and bar.allowed is not None else ""


def page_of(place: TenantPlace, found: Mailbox) -> str:
    return reverse("console:mailbox", args=[place.tenant.pk, found.pk])


def to_page(place: TenantPlace, found: Mailbox) -> HttpResponse:
    return HttpResponseRedirect(page_of(place, found))


def below(place: TenantPlace, found: Mailbox) -> list[tuple[Any, str]]:
    return crumbs(place, (str(found), page_of(place, found)))
