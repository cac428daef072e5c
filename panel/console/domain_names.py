"""The other names of a tenant's domain (domain aliases), and its end: close, with a way back."""

from dataclasses import dataclass
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from panel.console.access import tenant_page
from panel.console.domain_words import day
from panel.console.domains import NameForm, claimed, crumbs, find, tabs
from panel.console.frame import page
from panel.console.places import Role, TenantPlace
from panel.domains import checks, services
from panel.domains.claims import MOST_ALIASES, claim_domain_alias
from panel.domains.models import Domain, DomainAlias, Proof
from panel.operations import services as operations
from panel.rules.addresses import display_domain
from panel.rules.records import Record
from panel.rules.status import Status
from panel.tenants.changes import ServiceError


@dataclass(frozen=True, slots=True)
class Name:
    """Another name of a domain; `records` are what it takes, `look` and `words` how its proof stands."""

    alias: DomainAlias
    name: str
    records: list[Record]
    look: str
    words: str
    is_proved: bool  # and the proof isn't missing


@tenant_page(change=Role.ADMIN)
def names(request: HttpRequest, place: TenantPlace, domain: int) -> HttpResponse:
    """All of them, and a form for another."""
    found = find(place, domain)
    form = NameForm(request.POST if request.method == "POST" else None)
    form.fields["name"].help_text = _("Such as an old name: what comes to info@ it then reaches info@{domain}.").format(
        domain=display_domain(found.name)
    )
    alias, record = claimed(request, form, lambda name: claim_domain_alias(
        name=name, domain=found, actor=place.account, ip=place.ip
    ))
    if alias is not None:
        messages.success(request, _("{name} was added. Now set its records.").format(name=alias.name))
        return _to(place, "domain-names", found)
    aliases = list(found.aliases.order_by("name")[:MOST_ALIASES])
    for alias in aliases:
        alias.domain = found  # with its tenant: no query a row
    return page(
        request, place, "console/domain_names.html", _("Other names of {domain}").format(
            domain=display_domain(found.name)
        ),
        crumbs=_crumbs(place, found), domain=found, form=form, record=record,
        names=[_name(alias) for alias in aliases], is_closed=found.status == Status.CLOSED, **tabs(found),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def remove_name(request: HttpRequest, place: TenantPlace, domain: int, domain_alias: int) -> HttpResponse:
    """Take a name away, after it was asked for."""
    found = find(place, domain)
    alias: DomainAlias = place.find(DomainAlias.objects.select_related("domain__tenant"), pk=domain_alias, domain=found)
    form = forms.Form(request.POST if request.method == "POST" else None)
    if request.method == "POST":
        try:
            services.delete_domain_alias(alias, actor=place.account, ip=place.ip)
        except ServiceError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, _("{name} no longer stands for {domain}.").format(
                name=alias.name, domain=found.name
            ))
            return _to(place, "domain-names", found)
    shown = display_domain(alias.name)
    return page(
        request, place, "console/confirm.html", _("Remove {name}?").format(name=shown), crumbs=_crumbs(place, found),
        form=form, button=_("Remove"), harmful=True,
        back=reverse("console:domain-names", args=[place.tenant.pk, found.pk]),
        sentence=_(
            "Mail to addresses at {name} is then refused here, and nobody sends as them. Nothing else is lost: you can "
            "add it again."
        ).format(name=shown),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def close(request: HttpRequest, place: TenantPlace, domain: int) -> HttpResponse:
    """Close the domain, after it was asked for; one that was only typed is removed at once."""
    found = find(place, domain)
    if found.status == Status.CLOSED:
        return _to(place, "domain", found)
    held = tabs(found)
    is_typed = found.proof == Proof.PENDING and not (found.addresses.exists() or held["names_count"])
    form = forms.Form(request.POST if request.method == "POST" else None)
    if request.method == "POST":
        try:
            if is_typed:
                services.remove_unproved(found, actor=place.account, ip=place.ip)
            else:
                operations.close(found, actor=place.account, ip=place.ip)
        except ServiceError as error:
            form.add_error(None, str(error))
        else:
            if is_typed:
                messages.success(request, _("{domain} was removed.").format(domain=found))
                return HttpResponseRedirect(reverse("console:domains", args=[place.tenant.pk]))
            messages.success(request, _("{domain} is closed. It can be restored until {day}.").format(
                domain=found, day=day(found.grace_ends_at)
            ))
            return _to(place, "domain", found)
    name = display_domain(found.name)
    title = _("Remove {domain}?") if is_typed else _("Close {domain}?")
    return page(
        request, place, "console/confirm.html", title.format(domain=name), crumbs=_crumbs(place, found), form=form,
        button=_("Remove") if is_typed else _("Close the domain"), harmful=True,
        back=reverse("console:domain", args=[place.tenant.pk, found.pk]),
        sentence=_("It was never proved and holds nothing, so nothing is lost. You can add it again.") if is_typed
        else _closing(name, held),
    )


@tenant_page(change=Role.ADMIN)
def restore(request: HttpRequest, place: TenantPlace, domain: int) -> HttpResponse:
    """Undo the closing."""
    found = find(place, domain)
    if request.method == "POST":
        try:
            operations.restore(found, actor=place.account, ip=place.ip)
        except ServiceError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, _("{domain} is as it was before it was closed.").format(domain=found))
    return _to(place, "domain", found)


def _name(alias: DomainAlias) -> Name:
    records = [record for record in checks.expected_of_alias(alias) if record.is_required or record.key == "proof"]
    life = checks.life_of_alias(alias)
    look, words = {
        "pending": ("", _("Waiting for proof")), "active": ("good", _("Proved")), "warning": ("warn", ""),
        "suspended": ("bad", _("No longer proved: nobody sends as it")),
    }[life.word]
    if life.ends_at:
        words = _("Proof and MX are missing: sending as it stops on {day}").format(day=day(life.ends_at))
    return Name(alias, display_domain(alias.name), records, look, words, life.word == "active")


def _closing(name: str, held: dict[str, Any]) -> str:
    mailboxes, aliases = held["held"]["mailboxes"], held["held"]["aliases"]
    inside = [
        ngettext("{count} mailbox", "{count} mailboxes", mailboxes).format(count=f"{mailboxes:,}"),
        ngettext("{count} alias", "{count} aliases", aliases).format(count=f"{aliases:,}"),
    ]
    return _(
        "Nobody logs in or sends at {domain} any more, and mail for it is refused at once ({inside}). Everything is "
        "kept for {days} days, in which you can restore it; then it is removed for good, with all mail."
    ).format(domain=name, inside=_(", ").join(inside), days=settings.ENVIRONMENT.grace_days)


def _crumbs(place: TenantPlace, found: Domain) -> list[tuple[Any, str]]:
    return [*crumbs(place), (display_domain(found.name), reverse("console:domain", args=[place.tenant.pk, found.pk]))]


def _to(place: TenantPlace, name: str, found: Domain) -> HttpResponse:
    return HttpResponseRedirect(reverse(f"console:{name}", args=[place.tenant.pk, found.pk]))
