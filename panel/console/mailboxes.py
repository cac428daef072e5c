"""A tenant's mailboxes: the list, and adding one."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count, F, Max, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import JSONObject
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.console.access import tenant_page
from panel.console.fields import AddressField, SizeField, domains_for_addresses
from panel.console.filled import Filled
from panel.console.frame import address, page
from panel.console.places import Role, TenantPlace
from panel.database.indexed import Folded, begins_folded
from panel.domains.models import Domain, Proof
from panel.mailboxes import found
from panel.mailboxes.models import BY_ADDRESS, Address, Credential, Mailbox
from panel.mailboxes.services import create_mailbox
from panel.mailboxes.storage import Storage
from panel.operations.holdings import holdings
from panel.rules.limits import Window
from panel.rules.searched import Searched
from panel.rules.status import Status
from panel.sending.used import Bar, used
from panel.tenants.changes import RULES_IN_WORDS, ServiceError, hash_password
from panel.tenants.gauge import NEAR_PERCENT
from panel.tenants.listed import first
from panel.tenants.models import Tenant
from panel.tenants.shown import size
from panel.tenants.standing import status_words, with_parents

PAGE = 25  # as the provider's lists have: a row takes 0.4 to 1.2 ms
MOST_DOMAINS = 100  # that the list is narrowed down by
USUAL_QUOTA_BYTES = 5 * 1024**3  # proposed where the plan wants one and no mailbox shows what is usual
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # without those that are taken for one another

# Nearly full as a gauge is amber. Divided first: a quota may be as large as the database's numbers.
NEARLY_FULL = Q(usage__used_bytes__gte=F("quota_bytes") / 100 * NEAR_PERCENT, quota_bytes__gt=0)
STATES: Mapping[str, tuple[Any, Q]] = {
    "active": (gettext_lazy("Active"), Q(status=Status.ACTIVE)),
    "full": (gettext_lazy("Nearly full"), NEARLY_FULL),
    "no-sending": (gettext_lazy("No sending"), Q(status=Status.NO_SENDING)),
    "suspended": (gettext_lazy("Suspended"), Q(status=Status.SUSPENDED)),
    "closed": (gettext_lazy("Closed"), Q(status=Status.CLOSED)),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A mailbox in the list."""

    mailbox: Mailbox
    look: str
    word: Any
    icon: str
    why: str
    storage: Filled
    day: Bar | None
    last_used_at: Any


class PasswordForm(forms.Form):
    """A main password, made by us or typed."""

    way = forms.ChoiceField(
        label=gettext_lazy("The password"), widget=forms.RadioSelect, initial="made",
        choices=[("made", gettext_lazy("Make one, and show it once")), ("typed", gettext_lazy("I type one"))],
        error_messages={"required": gettext_lazy("Choose one of the two.")},
    )
    password = forms.CharField(
        label=gettext_lazy("The password that you type"), required=False, strip=False, help_text=RULES_IN_WORDS,
        widget=forms.PasswordInput({"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        typed = bool(data.get("password"))
        if data.get("way") == "typed" and not typed:
            self.add_error("password", _("Type the password, or let one be made."))
        elif data.get("way") == "made" and typed:
            self.add_error("password", _("Choose “I type one” above, or leave this empty."))
        return data


class AddForm(PasswordForm):
    """One mailbox. `place` says where its address may lie."""

    address = AddressField(label=gettext_lazy("Address"))
    name = forms.CharField(
        label=gettext_lazy("Name"), max_length=100, required=False, widget=forms.TextInput({"autocomplete": "off"})
    )
    quota_bytes = SizeField(label=gettext_lazy("Storage"), help_text=gettext_lazy("Such as 5 GB. Empty: unlimited."))

    field_order = ["address", "name", "way", "password", "quota_bytes"]

    def __init__(self, domains: Sequence[Domain], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["address"].offer(domains)  # type: ignore[attr-defined] # it is an AddressField


@tenant_page()
def mailboxes(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """The list, in the order of the addresses; `after` in the address is the one that the page follows."""
    all_rows = place.of(Mailbox.objects.all())
    counts = _counts(place)
    domains = _domains(place) if counts["all"] else []
    may_add = place.may_change and bool(domains_for_addresses(place))
    add: dict[str, Any] = {"add_url": reverse("console:add-mailbox", args=[place.tenant.pk]), "may_add": may_add,
           "add_domain": address("add-domain", tenant=place.tenant.pk)}
    if not counts["all"]:
        return page(request, place, "console/mailboxes.html", _("Mailboxes"), counts=counts, **add)
    searched = Searched.of(request.GET.get("q", ""))
    domain, state = request.GET.get("domain", "")[:253].replace("\x00", ""), request.GET.get("state", "")
    rows, is_cut = _found(place, all_rows, searched)
    if domain:
        rows = rows.filter(domain_name=domain)
    if state in STATES:
        rows = rows.filter(STATES[state][1])
    shown = _page(place, rows, request.GET.get("after", ""))
    return page(
        request, place, "console/mailboxes.html", _("Mailboxes"), counts=counts, lines=_lines(shown[:PAGE]),
        last=_key(shown[PAGE - 1]) if len(shown) > PAGE else "", after=request.GET.get("after", ""), is_cut=is_cut,
        searched=searched, domain=domain, domains=domains, state=state,
        states=[(name, words, counts[name.replace("-", "_")]) for name, (words, _q) in STATES.items()], **add,
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def add(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """One form; a password that was made is shown in the answer, and never again."""
    domains = domains_for_addresses(place)
    data = request.POST if request.method == "POST" else None
    form = AddForm(domains, data, initial=_initial(request, place, domains))
    if request.method == "POST" and form.is_valid():
        made = new_password() if form.cleaned_data["way"] == "made" else ""
        mailbox = _added(form, place, made)
        if mailbox is not None:
            return _answer(request, place, mailbox, made)
    held, storage = holdings(place.tenant)
    return page(
        request, place, "console/mailbox_add.html", _("Add mailbox"), crumbs=crumbs(place), form=form,
        held=next(each for each in held if each.name == "mailboxes"), storage=storage, domains=domains,
        back=reverse("console:mailboxes", args=[place.tenant.pk]),
        add_domain=address("add-domain", tenant=place.tenant.pk),
    )


def new_password() -> str:
    """A main password that can be read out and typed: some 99 random bits in groups of five letters."""
    return "-".join("".join(secrets.choice(_LETTERS) for _each in range(5)) for _group in range(4))


def crumbs(place: TenantPlace, *more: tuple[Any, str]) -> list[tuple[Any, str]]:
    return [(_("Mailboxes"), reverse("console:mailboxes", args=[place.tenant.pk])), *more]


def add_errors(form: forms.Form, error: ServiceError) -> None:
    """Put what a service refused beside its field."""
    form.add_error(error.field if error.field in form.fields else None, str(error))


def _added(form: AddForm, place: TenantPlace, made: str) -> Mailbox | None:
    data = form.cleaned_data
    try:
        return create_mailbox(
            address=data["address"], tenant=place.tenant, name=data["name"], quota_bytes=data["quota_bytes"],
            # What is made here needs no look whether it is a common one.
            password=hash_password(made) if made else data["password"], actor=place.account, ip=place.ip,
        )
    except ServiceError as error:
        add_errors(form, error)
        return None


def _answer(request: HttpRequest, place: TenantPlace, mailbox: Mailbox, made: str) -> HttpResponse:
    # Who came from the first steps goes on with them.
    begun = "local_part" in request.GET
    its_page = reverse("console:home", args=[place.tenant.pk]) if begun else reverse(
        "console:mailbox", args=[place.tenant.pk, mailbox.pk]
    )
    another = reverse("console:add-mailbox", args=[place.tenant.pk])
    if made:
        return page(
            request, place, "console/secret.html", _("{mailbox} is there").format(mailbox=mailbox),
            crumbs=crumbs(place), user_name=str(mailbox), secret=made, back=its_page, another=another,
            sentence=_("Give this to whoever reads the mailbox. It opens the mail program and this console."),
        )
    messages.success(request, _("{mailbox} is there.").format(mailbox=mailbox))
    return HttpResponseRedirect(another if "another" in request.POST else its_page)


def _initial(request: HttpRequest, place: TenantPlace, domains: Sequence[Domain]) -> dict[str, Any]:
    """What the first steps filled in, and the storage that is usual here."""
    typed = " ".join(request.GET.get("local_part", "")[:320].replace("\x00", "").split())
    whole = f"{typed}@{domains[0]}" if typed and "@" not in typed and domains else typed
    return {"address": whole, "quota_bytes": usual_quota(place), "way": "made"}


def usual_quota(place: TenantPlace) -> str:
    """The storage of the latest mailbox, written as a size; what the plan needs where there is none."""
    latest = place.of(Mailbox.objects.all()).order_by("-pk").values_list("quota_bytes", flat=True).first()
    wanted = USUAL_QUOTA_BYTES if place.tenant.plan.storage_bytes is not None else None
    return size(latest or wanted)


def _counts(place: TenantPlace) -> dict[str, int]:
    """How many there are, in all and in each state: one query.

    As a part of the tenant's row: for a number PostgreSQL reads the whole table of what all mailboxes hold.
    """
    numbers = {"all": Count("pk")}
    numbers |= {name.replace("-", "_"): Count("pk", filter=each) for name, (_words, each) in STATES.items()}
    boxes = Mailbox.objects.filter(tenant=OuterRef("pk")).order_by().values("tenant")
    told = Subquery(boxes.annotate(told=JSONObject(**numbers)).values("told"))
    return Tenant.objects.filter(pk=place.tenant.pk).values_list(told, flat=True).get() or dict.fromkeys(numbers, 0)


def _domains(place: TenantPlace) -> list[str]:
    """The names of the domains that the tenant has mailboxes in, or may have."""
    # Not joined: SQLite would read the addresses of all domains.
    there = Address.objects.filter(tenant=place.tenant).order_by().values("domain")
    held = Q(tenant=place.tenant) | Q(kind=Domain.Kind.SHARED, pk__in=there)
    return list(Domain.objects.filter(held).order_by("name").values_list("name", flat=True)[:MOST_DOMAINS])


def _found(place: TenantPlace, rows: "QuerySet[Any]", searched: Searched) -> tuple["QuerySet[Any]", bool]:
    """Those whose address or name begins so; whether there are more than are looked at."""
    if not searched.text:
        return rows, False
    there = place.of(Address.objects.all()).filter(mailbox__isnull=False)
    addresses = found.addresses(there, searched)
    named = rows.filter(begins_folded("name", searched.name)).order_by(Folded("name")) if searched.name else None
    keys, is_cut = first(
        None if addresses is None else addresses.values_list("mailbox", flat=True),
        None if named is None else named.values_list("pk", flat=True),
    )
    # The keys are the tenant's already: to ask for that again makes SQLite read all of its addresses for each key.
    return Mailbox.objects.filter(pk__in=keys), is_cut


def _page(place: TenantPlace, rows: "QuerySet[Any]", after: str) -> list[Mailbox]:
    """One more than a page, after this address."""
    local_part, _at, name = after[:400].replace("\x00", "").rpartition("@")
    if name:
        rows = rows.filter(found.after(name, local_part))
    shown = list(rows.select_related("address__domain", "usage").order_by(*BY_ADDRESS)[: PAGE + 1])
    for mailbox in shown:
        # At hand, with what stands above it: to join those four tables PostgreSQL plans longer than it reads.
        mailbox.address.tenant = place.tenant
    return shown


def _key(mailbox: Mailbox) -> str:
    return f"{mailbox.address.local_part}@{mailbox.address.domain}"


def _lines(shown: Sequence[Mailbox]) -> list[Line]:
    """Three queries, however many they are."""
    days = {bar.subject_id: bar for bar in used(shown).bars if bar.window is Window.DAY}
    last = _last_used([each.pk for each in shown])
    return [
        Line(each, *row_state(each), filled(each), days.get(each.pk), last.get(each.pk)) for each in shown
    ]


def filled(mailbox: Mailbox) -> Filled:
    return Filled(Storage.of(mailbox).used_bytes, mailbox.quota_bytes)


def _last_used(mailboxes: Collection[int]) -> dict[int, Any]:
    rows = Credential.objects.filter(mailbox__in=mailboxes).order_by()
    return dict(rows.values_list("mailbox").annotate(Max("last_used_at")))


def row_state(mailbox: Mailbox) -> tuple[str, Any, str, str]:
    """Look, word, drawing and reason: the strictest of the mailbox and what stands above it, as its page says it."""
    domain = mailbox.address.domain
    rows: list[Any] = [mailbox, domain, *with_parents(mailbox.address.tenant)]
    holding = max(rows, key=lambda row: row.status)  # of equals the nearest
    if holding.status != Status.ACTIVE:
        word = status_words(holding.status).capitalize()
        why = holding.status_reason if holding is mailbox else _("With {name}").format(name=holding)
        return "", word, "x" if holding.status == Status.CLOSED else "player-pause", why
    if domain.proof == Proof.PENDING:
        return "warn", _("Not proved"), "clock", _("{domain} waits for proof.").format(domain=domain)
    if domain.proof == Proof.LAPSED:
        return "bad", _("Proof lapsed"), "", _("Receives, can't send.")
    return "good", _("Active"), "", ""
