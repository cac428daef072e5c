"""A tenant's settings: what it is, who must have a second factor, and closing it, with an undo for a while.

Its name is for whoever stands above it to change: names are unique among all that belong to the same one or to
nobody, so that a refused one would tell a tenant of another.
"""

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings as django_settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from panel.console.access import tenant_page
from panel.console.frame import page
from panel.console.log_words import utc
from panel.console.places import Role, TenantPlace
from panel.mailboxes.main_passwords import without_second_factor as people_without_second_factor
from panel.operations import services
from panel.operations.holdings import holdings
from panel.rules.status import Status
from panel.tenants.changes import ServiceError
from panel.tenants.decided import OF_MEMBERS, OF_PEOPLE, is_factor_of_above, is_held
from panel.tenants.services import change_tenant, without_second_factor
from panel.tenants.sign_in.second_factor import of as owns_second_factor
from panel.tenants.standing import status_words


class CloseForm(forms.Form):
    """The name, typed again, so that nobody closes the wrong one; and why."""

    name = forms.CharField(
        label=gettext_lazy("Name of the organisation"), max_length=100,
        error_messages={"required": gettext_lazy("Type its name, so that nobody closes the wrong one.")},
        help_text=gettext_lazy("Type it as it stands above."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=300, required=False,
        help_text=gettext_lazy("Optional. It stands in the audit log."),
    )

    def __init__(self, place: TenantPlace, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._name = place.tenant.name

    def clean_name(self) -> str:
        typed = str(self.cleaned_data["name"])
        if typed.strip() != self._name.strip():
            raise forms.ValidationError(_("This is not its name: “{name}”.").format(name=self._name))
        return typed


@tenant_page()
def settings(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """What it is, and what an owner may do to all of it."""
    tenant = place.tenant
    is_closed = tenant.status == Status.CLOSED
    things, storage = holdings(tenant)
    held, factor_of_above = is_held(tenant, place.account), is_factor_of_above(tenant, place.account)
    people_factor_of_above = is_factor_of_above(tenant, place.account, OF_PEOPLE)
    return page(
        request, place, "console/settings.html", _("Settings"), is_closed=is_closed, holdings=[*things, storage],
        word=status_words(tenant.status), ends=utc(tenant.grace_ends_at) if tenant.grace_ends_at else "",
        without_factor=without_second_factor(tenant).count(), factor_of_above=factor_of_above,
        may_require=place.may(Role.OWNER) and not factor_of_above,
        people_without_factor=people_without_second_factor(tenant), people_factor_of_above=people_factor_of_above,
        may_require_of_people=place.may(Role.OWNER) and not people_factor_of_above,
        may_close=place.may(Role.OWNER) and not held,
        may_undo=is_closed and place.is_owner and not held,
        close_url=reverse("console:close-tenant", args=[tenant.pk]),
        undo_url=reverse("console:undo-closing", args=[tenant.pk]),
    )


@tenant_page(role=Role.OWNER, change=Role.OWNER)
def second_factor(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """Ask a second factor of everybody who opens this console, or no longer."""
    required = not place.tenant.second_factor_required
    if required:
        missing = without_second_factor(place.tenant).count()
        title, button = _("Require a second factor?"), _("Require it")
        sentence = ngettext(
            "Everybody who opens this organisation's console needs an authenticator app or a passkey. {count} member "
            "has none today, and sees only the page on which one is set up until then.",
            "Everybody who opens this organisation's console needs an authenticator app or a passkey. {count} members "
            "have none today, and see only the page on which one is set up until then.",
            missing,
        ).format(count=missing)
    else:
        title, button = _("Leave the second factor to each?"), _("Leave it to each")
        sentence = _(
            "Members who have one go on with it, and may remove it. Their password alone opens the console then."
        )
    return _ask(
        request, place, OF_MEMBERS, required, title, button=button, sentence=sentence,
        must_have=required and not owns_second_factor(place.account),
    )


@tenant_page(role=Role.OWNER, change=Role.OWNER)
def people_second_factor(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """Ask a second factor of the people with mailboxes, or no longer."""
    required = not place.tenant.people_second_factor_required
    if required:
        missing = people_without_second_factor(place.tenant)
        title, button = _("Require a second factor of people with mailboxes?"), _("Require it")
        sentence = ngettext(
            "Whoever signs in to a mailbox here sets up an authenticator app or a passkey first: the person of "
            "{count} mailbox has none today. Mail programs go on with the main password until then; from then on each "
            "needs an app password.",
            "Whoever signs in to a mailbox here sets up an authenticator app or a passkey first: the people of "
            "{count} mailboxes have none today. Mail programs go on with the main password until then; from then on "
            "each needs an app password.",
            missing,
        ).format(count=f"{missing:,}")
    else:
        title, button = _("Leave the second factor to each person?"), _("Leave it to each")
        sentence = _(
            "People who have one go on with it, and may remove it. The main password alone opens their mailbox then, "
            "in mail programs too."
        )
    return _ask(request, place, OF_PEOPLE, required, title, button=button, sentence=sentence)


def _ask(
    request: HttpRequest, place: TenantPlace, of_whom: str, required: bool, title: str, **words: Any
) -> HttpResponse:
    """Ask it of them, or no longer, as the page that was confirmed said."""
    if request.method != "POST" and is_factor_of_above(place.tenant, place.account, of_whom):
        return _back(place)  # the settings say so
    form = forms.Form(request.POST if request.method == "POST" else None)
    if request.method == "POST" and request.POST.get("required") not in ("yes", "no"):
        return _back(place)
    if request.method == "POST" and form.is_valid():
        asked: dict[str, Any] = {of_whom: request.POST["required"] == "yes"}
        try:
            change_tenant(place.tenant, **asked, actor=place.account, ip=place.ip)
        except ServiceError as error:
            form.add_error(None, str(error))
        else:
            return _back(place)
    return page(
        request, place, "console/settings_second_factor.html", title, crumbs=[(_("Settings"), _settings(place))],
        form=form, back=_settings(place), required=required, **words,
    )


@tenant_page(role=Role.OWNER, change=Role.OWNER)
def close(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """Close it, after it was asked for by name."""
    tenant = place.tenant
    if not place.status.may_log_in:
        return _back(place)
    form = CloseForm(place, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            services.close(tenant, reason=form.cleaned_data["reason"], actor=place.account, ip=place.ip)
        except ServiceError as error:
            form.add_error("reason" if error.field == "reason" else None, str(error))
        else:
            return _back(place)  # which says until when it can be undone
    ends = timezone.now() + timedelta(days=django_settings.ENVIRONMENT.grace_days)
    return page(
        request, place, "console/confirm.html", _("Close {tenant}?").format(tenant=tenant),
        crumbs=[(_("Settings"), _settings(place))], form=form, button=_("Close the organisation"), harmful=True,
        back=_settings(place),
        sentence=_(
            "From then on nobody signs in to its mailboxes, nothing is sent for it, and mail to it is refused; the "
            "same goes for organisations that belong to it. All of it is kept, and an owner can undo this here until "
            "{time}. Then its domains, mailboxes and their mail are removed for good."
        ).format(time=utc(ends)),
    )


@tenant_page(role=Role.OWNER, change=Role.OWNER, while_stopped=True)
def undo(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """Undo the closing, when nobody above closed it."""
    if request.method == "POST" and place.tenant.status == Status.CLOSED:
        try:
            services.restore(place.tenant, actor=place.account, ip=place.ip)
        except ServiceError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, _("{tenant} is what it was before.").format(tenant=place.tenant))
    return _back(place)


def _settings(place: TenantPlace) -> str:
    return reverse("console:settings", args=[place.tenant.pk])


def _back(place: TenantPlace) -> HttpResponse:
    return HttpResponseRedirect(_settings(place))
