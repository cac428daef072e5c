"""Who looks after a tenant: its members, with roles; inviting, changing and removing them.

An admin names admins and viewers; owners are named and removed by owners. Whether an address has
an account already is not told: inviting it reads the same in both cases.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.console.access import tenant_page
from panel.console.frame import page
from panel.console.places import Role, TenantPlace
from panel.operations import invitations
from panel.tenants.changes import ServiceError
from panel.tenants.models import Invitation, Membership
from panel.tenants.services import change_membership, delete_membership

MOST_LISTED = 200


class RoleForm(forms.Form):
    """A role, each with what it may do; `place` says which of them one may give."""

    role = forms.ChoiceField(label=gettext_lazy("Role"), widget=forms.RadioSelect)

    def __init__(self, place: TenantPlace, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"].choices = [  # type: ignore[attr-defined] # it is a ChoiceField
            (role.stored, _("{role}: {may}").format(role=str(role.word).capitalize(), may=role.may))
            for role in sorted(Role, reverse=True) if role <= place.role
        ]


class MemberForm(RoleForm):
    """Somebody by address, with a role."""

    email = forms.EmailField(
        label=gettext_lazy("Email address"), max_length=254,
        help_text=gettext_lazy(
            "We send a letter with a link, valid for seven days. Whoever has no account yet makes one with it."
        ),
        widget=forms.EmailInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    field_order = ["email", "role"]


@tenant_page()
def people(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """The members, those who are invited, and those of the tenants above, who reach it too."""
    own = list(_members(place)[: MOST_LISTED + 1])
    above = []
    if place.tenant.parent:
        parents = [each for each in (place.tenant.parent, place.tenant.parent.parent) if each]
        # Who they are is the reseller's to tell; that they are there is this tenant's to know.
        above = [{"tenant": each.name, "count": Membership.objects.filter(tenant=each).count()} for each in parents]
    rows = [{"member": each, "role": Role.of(each), "may": _may(place, each)} for each in own[:MOST_LISTED]]
    waiting = list(place.of(Invitation.objects.select_related("tenant", "invited_by")).order_by("email"))
    holding = invitations.holding(waiting, place.tenant, timezone.now())
    invited = [{
        "invitation": each, "role": Role[each.role.upper()], "holds": each.pk in holding,
        "ends_at": invitations.ends_at(each), "may": place.may_change and Role[each.role.upper()] <= place.role,
    } for each in waiting]
    return page(
        request, place, "console/people.html", _("People"), rows=rows, above=above, has_more=len(own) > MOST_LISTED,
        roles=sorted(Role, reverse=True), invited=invited,
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def add(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """Invite somebody."""
    form = MemberForm(place, request.POST or None, initial={"role": Role.VIEWER.stored})
    if request.method == "POST" and form.is_valid():
        try:
            made = invitations.invite(
                tenant=place.tenant, email=form.cleaned_data["email"], role=form.cleaned_data["role"],
                link=invitation_link, actor=place.account, ip=place.ip,
            )
        except ServiceError as error:
            form.add_error("email" if error.field == "email" else None, str(error))
        else:
            messages.success(request, _(
                "{email} is invited: a letter with a link is on its way, which is valid for seven days."
            ).format(email=made.email))
            return _back(place)
    return page(
        request, place, "console/member.html", _("Invite somebody"), crumbs=_crumbs(place), form=form,
        button=_("Invite"), back=_people(place),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def invite_again(request: HttpRequest, place: TenantPlace, invitation: int) -> HttpResponse:
    """Send the letter again, with a new link."""
    return _act_on(
        request, place, invitation, partial(invitations.send_again, link=invitation_link),
        _("{email} is sent a new link, valid for seven days from now; the one before opens nothing any more."),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def withdraw(request: HttpRequest, place: TenantPlace, invitation: int) -> HttpResponse:
    """Take an invitation back."""
    return _act_on(
        request, place, invitation, invitations.withdraw,
        _("The invitation of {email} is withdrawn; its link opens nothing any more."),
    )


def _act_on(
    request: HttpRequest, place: TenantPlace, invitation: int, act: Callable[..., None], said: str
) -> HttpResponse:
    """Do it to an invitation of this tenant; `said` of its {email} tells that it was done."""
    found: Invitation = place.find(_invited(), pk=invitation)
    if request.method == "POST":
        try:
            act(found, among=_within(place), actor=place.account, ip=place.ip)
        except ServiceError as error:
            messages.warning(request, str(error))
        else:
            messages.success(request, said.format(email=found.email))
    return _back(place)


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def change(request: HttpRequest, place: TenantPlace, member: int) -> HttpResponse:
    """Give a member another role."""
    found: Membership = place.find(_all(), pk=member)
    form = RoleForm(place, request.POST or None, initial={"role": found.role})
    if not _may(place, found):
        messages.warning(request, _("Only an owner changes an owner."))
        return _back(place)
    if request.method == "POST" and form.is_valid():
        try:
            change_membership(
                found, role=form.cleaned_data["role"], among=_within(place), actor=place.account, ip=place.ip
            )
        except ServiceError as error:
            form.add_error("role", str(error))
        else:
            messages.success(request, _("{user} is {role} now.").format(
                user=found.user, role=Role[form.cleaned_data["role"].upper()].word
            ))
            return _back(place)
    return page(
        request, place, "console/member.html", str(found.user), crumbs=_crumbs(place), form=form, button=_("Save"),
        back=_people(place), remove=reverse("console:remove-member", args=[place.tenant.pk, found.pk]),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def remove(request: HttpRequest, place: TenantPlace, member: int) -> HttpResponse:
    """Take a member out, after it was asked for."""
    found: Membership = place.find(_all(), pk=member)
    form = forms.Form(request.POST if request.method == "POST" else None)
    if not _may(place, found):
        messages.warning(request, _("Only an owner removes an owner."))
        return _back(place)
    if request.method == "POST" and form.is_valid():
        try:
            user = str(found.user)
            delete_membership(found, among=_within(place), actor=place.account, ip=place.ip)
        except ServiceError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, _("{user} is no longer a member.").format(user=user))
            if found.user_id == place.account.pk:
                return HttpResponseRedirect(reverse("console:start"))
            return _back(place)
    return page(
        request, place, "console/confirm.html", _("Remove {user}?").format(user=found.user), crumbs=_crumbs(place),
        form=form, button=_("Remove"), harmful=True, back=_people(place),
        sentence=_(
            "{user} can then no longer open {tenant}. The account itself stays, and you can invite it again. "
            "Invitations that it sent, and that nobody answered, are void."
        ).format(user=found.user, tenant=place.tenant),
    )


def _may(place: TenantPlace, member: Membership) -> bool:
    """Whether this one may be changed and removed here."""
    return place.may_change and Role.of(member) <= place.role


def _within(place: TenantPlace) -> list[str]:
    """The roles of those who may be changed and removed here."""
    return [role.stored for role in Role if role <= place.role]


def invitation_link(token: str) -> str:
    """Where whoever is invited answers."""
    return reverse("console:invitation", args=[token])


def _invited() -> Any:
    return Invitation.objects.select_related("tenant__parent__parent", "invited_by")


def _all() -> Any:
    return Membership.objects.select_related("user", "tenant__parent__parent")


def _members(place: TenantPlace) -> "QuerySet[Membership]":
    return place.of(_all()).order_by("user__email")


def _people(place: TenantPlace) -> str:
    return reverse("console:people", args=[place.tenant.pk])


def _crumbs(place: TenantPlace) -> list[tuple[Any, str]]:
    return [(_("People"), _people(place))]


def _back(place: TenantPlace) -> HttpResponse:
    return HttpResponseRedirect(_people(place))
