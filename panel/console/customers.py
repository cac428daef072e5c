"""A reseller's customers: the list, adding one, its name and plan, and stopping one.

Going into a customer's console takes nothing here: a member of the reseller has its role there as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.db.models import OuterRef, Q, Subquery, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext

from panel.console.access import tenant_page
from panel.console.frame import page
from panel.console.log_words import utc
from panel.console.people import invitation_link
from panel.console.places import Role, TenantPlace
from panel.database.indexed import begins_folded
from panel.mailboxes.models import Mailbox
from panel.operations import services
from panel.operations.customers import change_customer, create_customer, customers_of, plans_between, plans_for
from panel.operations.holdings import holdings, with_counts
from panel.rules.status import Status
from panel.sending.used import Bar, day_of, with_day
from panel.tenants.changes import AlreadySo, ServiceError
from panel.tenants.decided import is_held
from panel.tenants.models import Plan, Tenant
from panel.tenants.shown import size
from panel.tenants.standing import Standing, standing, status_words, with_parents

PAGE = 25  # as the provider's lists have: a row takes 0.4 to 1.2 ms
MOST_SEARCHED = 100


@dataclass(frozen=True, slots=True)
class Line:
    """A customer in the list."""

    tenant: Any  # with its counts
    look: str
    word: str
    why: str
    stored: int
    day: Bar


class PlanField(forms.ModelChoiceField):
    """The plans with what decides between them."""

    def label_from_instance(self, plan: Plan) -> str:
        numbers = [(_("Domains"), plan.domains), (_("Mailboxes"), plan.mailboxes)]
        told = " · ".join([
            *(f"{word} {_('unlimited') if most is None else format(most, ',')}" for word, most in numbers),
            f"{_('Storage')} {size(plan.storage_bytes) or _('unlimited')}",
        ])
        return f"{plan} ({told})"


class AddForm(forms.Form):
    """A customer: what it is called, what it may have, and who runs it."""

    name = forms.CharField(
        label=gettext_lazy("Name of the organisation"), max_length=100, widget=forms.TextInput({"autocomplete": "off"})
    )
    plan = PlanField(label=gettext_lazy("Plan"), queryset=Plan.objects.none(), empty_label=None)
    owner = forms.EmailField(
        label=gettext_lazy("Email address of its first owner"), max_length=254,
        help_text=gettext_lazy("We send it a letter with a link, valid for seven days."),
        widget=forms.EmailInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, place: TenantPlace, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plans = plans_for(place.tenant)
        self.fields["plan"].queryset = plans  # type: ignore[attr-defined] # it is a ModelChoiceField
        if not plans.exists():
            self.fields["plan"].help_text = _("There is no plan that you may give: ask your provider for one.")


class ChangeForm(forms.Form):
    """What it is called, and what it may have; `shown` is the plan that it had when the form was."""

    name = forms.CharField(
        label=gettext_lazy("Name of the organisation"), max_length=100, widget=forms.TextInput({"autocomplete": "off"})
    )
    plan = PlanField(
        label=gettext_lazy("Plan"), queryset=Plan.objects.none(), empty_label=None,
        help_text=gettext_lazy("What it has beyond a smaller plan it keeps; it can only not add more."),
    )
    shown = forms.IntegerField(widget=forms.HiddenInput)

    def __init__(self, place: TenantPlace, found: Tenant, data: Any = None) -> None:
        plan = found.plan
        super().__init__(data, initial={"name": found.name, "plan": plan, "shown": plan.pk})
        field, plans = self.fields["plan"], plans_between(place.tenant, found)
        if not plans.filter(pk=plan.pk).exists():
            plans, field.disabled = Plan.objects.filter(pk=plan.pk), True
            field.help_text = _("Your provider gave it this plan: ask there for another one.")
        field.queryset = plans  # type: ignore[attr-defined] # it is a ModelChoiceField


class SuspendForm(forms.Form):
    level = forms.ChoiceField(
        label=gettext_lazy("What stops"), widget=forms.RadioSelect, initial="all",
        choices=[("all", gettext_lazy("Signing in and sending")), ("sending", gettext_lazy("Sending only"))],
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=300, help_text=gettext_lazy("The customer reads it."),
        widget=forms.TextInput({"autocomplete": "off"}),
    )


class ReasonForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=300, required=False,
        help_text=gettext_lazy("Optional. The customer reads it."), widget=forms.TextInput({"autocomplete": "off"}),
    )


@tenant_page()
def customers(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """The list, in the order of the names; `after` in the address is the customer that the page follows."""
    searched = " ".join(request.GET.get("q", "")[:MOST_SEARCHED].replace("\x00", "").split())
    mine = rows = customers_of(place.tenant)
    if searched:
        rows = rows.filter(begins_folded("name", searched))
    after = request.GET.get("after", "")
    if after.isdecimal() and len(after) < 19:
        last = mine.filter(pk=int(after)).values_list("name", flat=True).first()
        if last is not None:
            rows = rows.filter(Q(name__gt=last) | Q(name=last, pk__gt=int(after)))
    found = list(_counted(rows.order_by("name", "pk"))[: PAGE + 1])
    number = Tenant.objects.filter(parent=place.tenant).count()
    allowed = place.tenant.plan.customers
    return page(
        request, place, "console/customers.html", _("Customers"), lines=_lines(found[:PAGE]), searched=searched,
        after=after, last=found[PAGE - 1].pk if len(found) > PAGE else "", number=number, allowed=allowed,
        is_reseller=allowed != 0, may_add=place.may(Role.OWNER) and (allowed is None or number < allowed),
        add_url=reverse("console:add-customer", args=[place.tenant.pk]),
    )


@tenant_page(role=Role.OWNER, change=Role.OWNER)
def add(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """Make one, and invite its first owner."""
    form = AddForm(place, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            made = create_customer(
                place.tenant, name=data["name"], plan=data["plan"], owner=data["owner"], link=invitation_link,
                actor=place.account, ip=place.ip,
            )
        except ServiceError as error:
            field = {"email": "owner", "user": "owner"}.get(error.field, error.field)
            form.add_error(field if field in form.fields else None, str(error))
        else:
            messages.success(request, _(
                "{tenant} is there, and {email} is invited as its owner: a letter with a link is on its way."
            ).format(tenant=made, email=data["owner"]))
            return HttpResponseRedirect(reverse("console:customer", args=[place.tenant.pk, made.pk]))
    return page(
        request, place, "console/member.html", _("Add customer"), crumbs=_crumbs(place), form=form, button=_("Add"),
        back=_customers(place),
    )


@tenant_page()
def customer(request: HttpRequest, place: TenantPlace, customer: int) -> HttpResponse:
    """How it stands, what it has, and what may be done to it."""
    found = _find(place, customer)
    numbers, storage = holdings(found)
    held = is_held(found, place.account)
    is_closed, is_stopped = found.status == Status.CLOSED, found.status not in (Status.ACTIVE, Status.CLOSED)
    owner = place.may(Role.OWNER) and not held
    holds = standing(
        found, list(with_parents(found))[1:], place.account,
        Standing("good", status_words(Status.ACTIVE), _("Its mailboxes sign in, send and receive.")),
    )
    return page(
        request, place, "console/customer.html", str(found), crumbs=_crumbs(place), found=found, holds=holds,
        word=holds.word.capitalize(), holdings=[*numbers, storage], day=day_of(found), held=held and place.may_change,
        may_edit=owner and not is_closed,
        may_suspend=place.may_change and not held and not is_closed and found.status != Status.SUSPENDED,
        may_resume=place.may_change and not held and is_stopped,
        may_close=owner and not is_closed, may_restore=owner and is_closed,
    )


@tenant_page(role=Role.OWNER, change=Role.OWNER)
def change(request: HttpRequest, place: TenantPlace, customer: int) -> HttpResponse:
    """Give it another name, or another of the plans that may be given."""
    found = _find(place, customer)
    name, its_page = str(found), reverse("console:customer", args=[place.tenant.pk, customer])
    form = ChangeForm(place, found, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            change_customer(place.tenant, found, **form.cleaned_data, actor=place.account, ip=place.ip)
        except ServiceError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            messages.success(request, _("{tenant} is changed.").format(tenant=found))
            return HttpResponseRedirect(its_page)
    return page(
        request, place, "console/member.html", _("Name and plan"), crumbs=[*_crumbs(place), (name, its_page)],
        form=form, button=_("Save"), back=its_page,
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def suspend(request: HttpRequest, place: TenantPlace, customer: int) -> HttpResponse:
    """Stop it, with a reason that it reads."""
    found = _find(place, customer)
    form = SuspendForm(request.POST if request.method == "POST" else None)

    def act() -> str:
        only = form.cleaned_data["level"] == "sending"
        services.suspend(
            found, reason=form.cleaned_data["reason"], sending_only=only, actor=place.account, ip=place.ip
        )
        return _("{tenant} is suspended.").format(tenant=found)

    return _confirm(
        request, place, found, form, act, title=_("Suspend {tenant}").format(tenant=found), button=_("Suspend"),
        harmful=True, sentence=_(
            "Its mailboxes can no longer sign in or send, and what they have in the queue waits; mail for them is "
            "still accepted. The same goes for organisations below it. You can resume it at any time; its own people "
            "can't."
        ),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def resume(request: HttpRequest, place: TenantPlace, customer: int) -> HttpResponse:
    """Let it go on, if nobody above stopped it."""
    found = _find(place, customer)
    form = ReasonForm(request.POST if request.method == "POST" else None)

    def act() -> str:
        services.resume(found, reason=form.cleaned_data["reason"], actor=place.account, ip=place.ip)
        return _("{tenant} is active again.").format(tenant=found)

    return _confirm(
        request, place, found, form, act, title=_("Resume {tenant}").format(tenant=found), button=_("Resume"),
        sentence=_("Its mailboxes sign in and send as before, and what waits in the queue goes."),
    )


@tenant_page(role=Role.OWNER, change=Role.OWNER)
def close(request: HttpRequest, place: TenantPlace, customer: int) -> HttpResponse:
    """Close it; it can be restored until its grace period ends."""
    found = _find(place, customer)
    form = ReasonForm(request.POST if request.method == "POST" else None)

    def act() -> str:
        services.close(found, reason=form.cleaned_data["reason"], actor=place.account, ip=place.ip)
        return _("{tenant} is closed. An owner can undo it here until {time}.").format(
            tenant=found, time=utc(found.grace_ends_at) if found.grace_ends_at else ""
        )

    ends = timezone.now() + timedelta(days=settings.ENVIRONMENT.grace_days)
    return _confirm(
        request, place, found, form, act, title=_("Close {tenant}?").format(tenant=found),
        button=pgettext("to end", "Close"), harmful=True, sentence=_(
            "From then on nobody signs in to its mailboxes, nothing is sent for it, and mail to it is refused; the "
            "same goes for organisations that belong to it. All of it is kept, and an owner can undo this here until "
            "{time}. Then its domains, mailboxes and their mail are removed for good."
        ).format(time=utc(ends)),
    )


@tenant_page(role=Role.OWNER, change=Role.OWNER)
def restore(request: HttpRequest, place: TenantPlace, customer: int) -> HttpResponse:
    """Undo the closing, if nobody above closed it."""
    found = _find(place, customer)

    def act() -> str:
        services.restore(found, actor=place.account, ip=place.ip)
        return _("{tenant} is what it was before.").format(tenant=found)

    return _confirm(
        request, place, found, forms.Form(request.POST if request.method == "POST" else None), act,
        title=_("Restore {tenant}").format(tenant=found), button=_("Restore"),
        sentence=_("It becomes what it was before it was closed, with all its mail."),
    )


def _confirm(
    request: HttpRequest, place: TenantPlace, found: Tenant, form: forms.Form, act: Callable[[], str], *, title: str,
    **words: Any,
) -> HttpResponse:
    """Ask, then act and go back to the customer's page. What can't be done any more is said there."""
    its_page = reverse("console:customer", args=[place.tenant.pk, found.pk])
    if request.method == "POST" and form.is_valid():
        try:
            messages.success(request, act())
            return HttpResponseRedirect(its_page)
        except AlreadySo as error:
            messages.warning(request, str(error))
            return HttpResponseRedirect(its_page)
        except ServiceError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
    return page(
        request, place, "console/confirm.html", title, crumbs=[*_crumbs(place), (str(found), its_page)], form=form,
        back=its_page, **words,
    )


def _find(place: TenantPlace, customer: int) -> Any:
    """One of its customers or of theirs. Raises Http404, also for another reseller's."""
    rows = with_day(customers_of(place.tenant)).select_related("plan", "parent__parent__parent")
    return get_object_or_404(rows, pk=customer)


def _counted(rows: Any) -> Any:
    """With what the list tells of each, for the rows that are shown alone.

    What is stored is summed up customer by customer: of all that are shown at once PostgreSQL reads what every
    mailbox of the installation holds (38 ms of 100,000 mailboxes).
    """
    boxes = Mailbox.objects.filter(tenant=OuterRef("pk")).order_by().values("tenant")
    stored = Subquery(boxes.annotate(stored=Sum("usage__used_bytes")).values("stored"))
    return with_day(with_counts(rows)).annotate(stored=stored).select_related("plan", "parent__parent__parent")


def _lines(found: Sequence[Any]) -> list[Line]:
    return [Line(each, *_state(each), each.stored or 0, day_of(each)) for each in found]


def _state(tenant: Tenant) -> tuple[str, str, str]:
    """Look, word and why: the strictest of it and of what stands above it."""
    holding = max(with_parents(tenant), key=lambda each: each.status)  # of equals the nearest
    if holding.status == Status.ACTIVE:
        return "good", status_words(Status.ACTIVE).capitalize(), ""
    why = holding.status_reason if holding is tenant else _("With {name}").format(name=holding)
    look = "warn" if holding.status == Status.NO_SENDING else "bad"
    return look, status_words(holding.status).capitalize(), why


def _customers(place: TenantPlace) -> str:
    return reverse("console:customers", args=[place.tenant.pk])


def _crumbs(place: TenantPlace) -> list[tuple[Any, str]]:
    return [(_("Customers"), _customers(place))]
