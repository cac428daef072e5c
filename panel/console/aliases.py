"""A tenant's aliases: second addresses, one address for several people, and the catch-all of a domain."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from panel.console.access import tenant_page
from panel.console.fields import AddressField, LinesField, domains_for_addresses, end_of, last_day_of
from panel.console.frame import address, page
from panel.console.mailboxes import add_errors
from panel.console.places import Role, TenantPlace
from panel.database.indexed import begins, begins_folded
from panel.domains.models import Domain
from panel.mailboxes import found
from panel.mailboxes.models import BY_ADDRESS, Address, Alias, AliasTarget
from panel.mailboxes.services import change_alias, create_alias, delete_alias
from panel.rules.searched import Searched
from panel.tenants.changes import ServiceError
from panel.tenants.form_fields import DayField
from panel.tenants.listed import first

PAGE = 25  # as the provider's lists have: a row takes 0.4 to 1.2 ms
SHOWN_TARGETS = 3  # of an alias, in the list
RENEWED_DAYS = 30
BEGINS_WITH = {"address": 320, "targets": 3500, "description": 200, "last_day": 10}  # characters of each at most
MOST_AGAIN = 200  # targets that are looked at for an address of …
MOST_ASKED = 3500  # characters: gunicorn takes a line of 4,094


class AliasForm(forms.Form):
    """Where an alias leads, and what for."""

    targets = LinesField(
        label=gettext_lazy("Leads to"), help_text=gettext_lazy("Addresses here or elsewhere, one a line."),
        error_messages={"required": gettext_lazy("Write at least one address that it leads to.")},
    )
    description = forms.CharField(
        label=gettext_lazy("What it is for"), max_length=200, required=False,
        widget=forms.TextInput({"autocomplete": "off"}),
    )
    last_day = DayField(
        label=gettext_lazy("Last day"),
        help_text=gettext_lazy(
            "Until its end, in UTC. Then mail for it is refused, and it can be renewed. Empty: it stays until it is "
            "deleted."
        ),
    )

    def values(self) -> dict[str, Any]:
        """What the services take. A day that stands as it was leaves the end as it is, to the minute."""
        values = {name: value for name, value in self.cleaned_data.items() if name != "last_day"}
        if "last_day" in self.changed_data:
            values["expires_at"] = end_of(self.cleaned_data["last_day"])
        return values


class AddForm(AliasForm):
    address = AddressField(
        label=gettext_lazy("Address"),
        help_text=gettext_lazy("With nothing before the @ it takes all that nobody in the domain has: the catch-all."),
    )
    field_order = ["address", "targets", "description", "last_day"]

    def __init__(self, domains: Sequence[Domain], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["address"].offer(domains)  # type: ignore[attr-defined] # it is an AddressField
        if domains:
            self.fields["address"].widget.attrs["placeholder"] = f"info@{domains[0]}"


@tenant_page()
def aliases(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """The list, in the order of the addresses; `after` in the address is the one that the page follows."""
    searched = Searched.of(request.GET.get("q", ""))
    rows, is_cut = _found(place, searched)
    shown = _page(rows, request.GET.get("after", ""))
    domains = domains_for_addresses(place)
    lines = [(each, [one.target for one in each.targets.all()]) for each in shown[:PAGE]]
    return page(
        request, place, "console/aliases.html", _("Aliases"), searched=searched, is_cut=is_cut,
        lines=[(each, to[:SHOWN_TARGETS], len(to) - SHOWN_TARGETS) for each, to in lines],
        renewed_days=RENEWED_DAYS,
        after=request.GET.get("after", ""), last=_key(shown[PAGE - 1]) if len(shown) > PAGE else "",
        add_url=reverse("console:add-alias", args=[place.tenant.pk]), may_add=place.may_change and bool(domains),
        add_domain=address("add-domain", tenant=place.tenant.pk), example=domains[0] if domains else "",
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def add(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """One form; in the address may stand what it begins with (as after a deletion: `_again`)."""
    initial = {name: request.GET.get(name, "")[:most].replace("\x00", "") for name, most in BEGINS_WITH.items()}
    form = AddForm(
        domains_for_addresses(place), request.POST if request.method == "POST" else None, initial=initial
    )
    if request.method == "POST" and form.is_valid():
        try:
            made = create_alias(tenant=place.tenant, **form.values(), actor=place.account, ip=place.ip)
        except ServiceError as error:
            _tell(form, error)
        else:
            messages.success(request, _("{alias} is there.").format(alias=made))
            _warn(request, place, made)
            return _to_list(place)
    return page(
        request, place, "console/address_form.html", _("Add alias"), crumbs=_crumbs(place), form=form,
        button=_("Add alias"), back=_list(place),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def change(request: HttpRequest, place: TenantPlace, alias: int) -> HttpResponse:
    """Let it lead elsewhere, describe it otherwise or end on another day; its address stays."""
    one = _find(place, alias)
    initial = {
        "targets": list(one.targets.values_list("target", flat=True)), "description": one.description,
        "last_day": last_day_of(one.expires_at),
    }
    form = AliasForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            change_alias(one, **form.values(), actor=place.account, ip=place.ip)
        except ServiceError as error:
            _tell(form, error)
        else:
            messages.success(request, _("{alias} is changed.").format(alias=one))
            _warn(request, place, one)
            return _to_list(place)
    return page(
        request, place, "console/address_form.html", str(one), crumbs=_crumbs(place), form=form, button=_("Save"),
        back=_list(place), remove=reverse("console:remove-alias", args=[place.tenant.pk, one.pk]),
        told=_("It has expired: mail for it is refused, and nobody sends as it. Write a later last day to renew it.")
        if one.has_expired else _("Those of your mailboxes that it leads to may also send as it."),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def renew(request: HttpRequest, place: TenantPlace, alias: int) -> HttpResponse:
    """Give it another end, RENEWED_DAYS from now."""
    one = _find(place, alias)
    if request.method == "POST" and one.expires_at is not None:
        try:
            change_alias(
                one, expires_at=timezone.now() + timedelta(days=RENEWED_DAYS), actor=place.account, ip=place.ip
            )
        except ServiceError as error:
            messages.error(request, str(error))
        else:
            messages.success(
                request, _("{alias} is renewed: it expires in {days} days.").format(alias=one, days=RENEWED_DAYS)
            )
    return _to_list(place)


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def remove(request: HttpRequest, place: TenantPlace, alias: int) -> HttpResponse:
    one = _find(place, alias)
    form = forms.Form(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        name, again = str(one), _again(place, one)
        try:
            delete_alias(one, actor=place.account, ip=place.ip)
        except ServiceError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, format_html(
                '{} <a href="{}">{}</a>', _("{alias} is deleted; its address is free again.").format(alias=name), again,
                _("Add it again"),
            ))
        return _to_list(place)
    return page(
        request, place, "console/confirm.html", _("Delete {alias}?").format(alias=one), crumbs=_crumbs(place),
        form=form, button=_("Delete"), harmful=True, back=_list(place),
        sentence=_(
            "Mail for it is refused from then on, and nobody sends as it. No mailbox is touched, and you can add it "
            "again."
        ) if one.address.local_part else _(
            "Mail that nobody in {domain} has is refused from then on. No mailbox is touched, and you can add it again."
        ).format(domain=one.address.domain),
    )


def _warn(request: HttpRequest, place: TenantPlace, alias: Alias) -> None:
    """Say which of its targets nobody in the tenant's own domains has; of others' nothing is told."""
    written = alias.targets.order_by("target").values_list("target", flat=True)
    targets = [(text, *text.rsplit("@", 1)) for text in written]
    own = dict(place.of(Domain.objects.all()).filter(
        name__in={name for _text, _at, name in targets}
    ).values_list("pk", "name"))
    # What takes it: the address itself, the one that it is a subaddress of, or the catch-all.
    taking = {text: {(name, at), (name, at.partition("+")[0]), (name, "")} for text, at, name in targets}
    asked = {at for each in taking.values() for _name, at in each}
    there = {
        (own[domain], at) for domain, at in Address.objects.filter(
            domain__in=own, local_part__in=asked
        ).values_list("domain", "local_part")
    }
    missing = [text for text, _at, name in targets if name in own.values() and not taking[text] & there]
    if missing:
        shown = _(", ").join(missing[:SHOWN_TARGETS])
        messages.warning(request, ngettext(
            "Nobody has {addresses}: what leads there reaches nobody until there is such a mailbox or alias.",
            "{count} of its targets are nobody's, such as {addresses}: what leads there reaches nobody until there "
            "are such mailboxes or aliases.", len(missing),
        ).format(addresses=shown, count=len(missing)))


def _again(place: TenantPlace, one: Alias) -> str:
    """Where the form stands filled in to make it anew as it is, with so many targets as an address has room for."""
    targets = list(one.targets.values_list("target", flat=True)[:MOST_AGAIN])
    last_day = None if one.has_expired else last_day_of(one.expires_at)
    there = reverse("console:add-alias", args=[place.tenant.pk])
    as_it_is = {"address": str(one), "description": one.description, "last_day": str(last_day or "")}
    while len(asked := urlencode({**as_it_is, "targets": "\n".join(targets)})) > MOST_ASKED and targets:
        targets.pop()
    return f"{there}?{asked}"


def _tell(form: forms.Form, error: ServiceError) -> None:
    error.field = "last_day" if error.field == "expires_at" else error.field
    add_errors(form, error)


def _found(place: TenantPlace, searched: Searched) -> tuple["QuerySet[Any]", bool]:
    """Those whose address, target or description begins so; whether there are more than are looked at."""
    rows = place.of(Alias.objects.all())
    if not searched.text:
        return rows, False
    addresses = found.addresses(place.of(Address.objects.all()).filter(alias__isnull=False), searched)
    leading = place.of(AliasTarget.objects.all()).filter(begins("target", searched.begins)).order_by("target")
    described = rows.filter(begins_folded("description", searched.name)).order_by()
    keys, is_cut = first(
        None if addresses is None else addresses.values_list("alias", flat=True),
        leading.values_list("alias", flat=True) if searched.begins else None,
        described.values_list("pk", flat=True) if searched.name else None,
    )
    # The keys are the tenant's already: to ask for that again makes SQLite read all of its addresses for each key.
    return Alias.objects.filter(pk__in=keys), is_cut


def _page(rows: "QuerySet[Any]", after: str) -> list[Alias]:
    """One more than a page, after this address; two queries."""
    local_part, _at, name = after[:400].replace("\x00", "").rpartition("@")
    if name:
        rows = rows.filter(found.after(name, local_part))
    rows = rows.select_related("address__domain").prefetch_related("targets")
    return list(rows.order_by(*BY_ADDRESS)[: PAGE + 1])


def _key(alias: Alias) -> str:
    return f"{alias.address.local_part}@{alias.address.domain}"


def _find(place: TenantPlace, pk: int) -> Alias:
    found: Alias = place.find(Alias.objects.select_related("address__domain", "address__tenant"), pk=pk)
    return found


def _list(place: TenantPlace) -> str:
    return reverse("console:aliases", args=[place.tenant.pk])


def _to_list(place: TenantPlace) -> HttpResponse:
    return HttpResponseRedirect(_list(place))


def _crumbs(place: TenantPlace) -> list[tuple[Any, str]]:
    return [(_("Aliases"), _list(place))]
