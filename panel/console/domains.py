"""A tenant's domains: the list, a new one, and the records of each with what the DNS says of them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote

from django import forms
from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from panel.console.access import tenant_page
from panel.console.domain_words import Chip, Told, chips, coming, counted, record_label, said, told
from panel.console.frame import page
from panel.console.places import Role, TenantPlace
from panel.domains import checks, listed
from panel.domains.claims import NeedsProof, claim_domain
from panel.domains.listed import Rank
from panel.domains.models import Domain, DomainAlias, Proof
from panel.mailboxes.models import Alias, Mailbox
from panel.rules.addresses import BadAddress, canonical_domain, display_domain
from panel.rules.limits import Window
from panel.rules.records import Record
from panel.rules.status import Status
from panel.rules.verdicts import Row, Verdict
from panel.sending.used import Bar, used
from panel.tenants.changes import ServiceError
from panel.tenants.decided import is_held
from panel.tenants.history import MOST_CHANGES, Change
from panel.tenants.history import told as change_told
from panel.tenants.models import AuditEntry

PAGE = 30
MOST_TYPED = 253


@dataclass(frozen=True, slots=True)
class Line:
    """A domain in the list."""

    domain: Domain
    name: str  # in its own script
    told: Told
    chips: list[Chip]
    mailboxes: int
    day: Bar | None  # None: it has no limit of its own, and isn't counted
    checked_at: Any


class NameForm(forms.Form):
    """A domain's name."""

    name = forms.CharField(
        label=gettext_lazy("Domain"), max_length=MOST_TYPED,
        help_text=gettext_lazy("What stands after the @, such as acme.example or bücher.example."),
        error_messages={"required": gettext_lazy("Write a domain, such as acme.example.")},
        widget=forms.TextInput(attrs={
            "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false", "placeholder": "acme.example",
            "inputmode": "url",
        }),
    )


_Claimed = TypeVar("_Claimed")


def claimed(
    request: HttpRequest, form: NameForm, claim: Callable[[str], _Claimed]
) -> tuple[_Claimed | None, Record | None]:
    """What the form's name became; or the record that is to prove it first, and what is wrong beside the name."""
    if request.method != "POST" or not form.is_valid():
        return None, None
    try:
        return claim(form.cleaned_data["name"]), None
    except NeedsProof as error:
        form.add_error("name", _(
            "Somebody here has this name, or began to add it. If it is yours, prove it by the record below."
        ))
        return None, error.record
    except ServiceError as error:
        form.add_error("name" if error.field == "name" else None, str(error))
        return None, None


@tenant_page()
def domains(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """Those in trouble first. `q` searches; `after` is the place in the list that the page follows."""
    every = listed.by_rank(place.of(Domain.objects.all()))
    ranks = {each["rank"]: each["count"] for each in every.order_by("rank").values("rank").annotate(count=Count("pk"))}
    searched = _typed(request.GET.get("q", ""))
    rows = every.filter(_search(searched)) if searched else every
    after = request.GET.get("after", "")[: MOST_TYPED + 2].replace("\x00", "")
    rank, _dot, name = after.partition(".")
    if name and rank in map(str, map(int, Rank)):
        rows = listed.after(rows, int(rank), name)
    found = list(rows.select_related("tenant", "latest_check")[: PAGE + 1])
    last = found[PAGE - 1] if len(found) > PAGE else None
    lines = _lines(place, found[:PAGE])
    return page(
        request, place, "console/domains.html", _("Domains"), lines=lines, searched=searched, after=after,
        next=f"{last.rank}.{last.name}" if last else "", has_any=bool(ranks), lede=_lede(place, ranks),
        has_bars=any(line.day for line in lines), add=reverse("console:add-domain", args=[place.tenant.pk]),
    )


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def add(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """A new domain; where others have the name, the record that decides is shown, and what was typed stays."""
    form = NameForm(request.POST if request.method == "POST" else None, initial={"name": _typed(
        request.GET.get("name", "")
    )})
    domain, record = claimed(request, form, lambda name: claim_domain(
        name=name, tenant=place.tenant, actor=place.account, ip=place.ip
    ))
    if domain is not None:
        if domain.proof == Proof.PROVED:
            messages.success(request, _("{domain} is yours: we found the proof.").format(domain=domain))
        else:
            messages.success(request, _("{domain} was added. Now set its records.").format(domain=domain))
        return HttpResponseRedirect(reverse("console:domain", args=[place.tenant.pk, domain.pk]))
    return page(
        request, place, "console/domain_add.html", _("Add a domain"), crumbs=crumbs(place), form=form, record=record,
        back=_list(place),
    )


@tenant_page()
def domain(request: HttpRequest, place: TenantPlace, domain: int) -> HttpResponse:
    """Whether mail for it works, and the records that it takes."""
    found = find(place, domain)
    shown = checks.shown(found)
    now = told(found, shown, place.status)
    required, optional = _parted(shown)
    is_closed = found.status == Status.CLOSED
    held = is_held(found, place.account)
    may_restore = is_closed and place.may_change and not held
    return page(
        request, place, "console/domain.html", display_domain(found.name), crumbs=crumbs(place), domain=found,
        shown=shown, told=now, coming=coming(found, shown, now, is_held=held, above=place.status),
        may_restore=may_restore,
        may_check=place.may_change and not is_closed, may_close=place.may_change and not (is_closed or held),
        # The first look is made as soon as somebody opens the page: they wait for it.
        looks_at_once=shown.checked_at is None and not request.headers.get("HX-Request"),
        required=sorted(required, key=_trouble_first), optional=optional,
        optional_set=sum(row.verdict is Verdict.SAME for row in optional),
        optional_wrong=any(row.look in ("warn", "bad") for row in optional),
        counted=counted(required), changes=_changes(place, found), **tabs(found),
    )


@tenant_page(change=Role.ADMIN)
def check(request: HttpRequest, place: TenantPlace, domain: int) -> HttpResponse:
    """Look now; takes up to some seconds. What changed is said over the page."""
    found = find(place, domain)
    there = HttpResponseRedirect(reverse("console:domain", args=[place.tenant.pk, found.pk]))
    if request.POST.get("back") == "home":
        there = HttpResponseRedirect(reverse("console:home", args=[place.tenant.pk]))
    if request.method != "POST":
        return there
    try:
        shown = checks.check(found, actor=place.account, ip=place.ip)
    except ServiceError as error:
        messages.info(request, str(error))
        return there
    fresh = find(place, found.pk)
    now = told(fresh, shown, place.status)
    look = {"good": messages.success, "bad": messages.error, "warn": messages.warning}.get(now.look, messages.info)
    look(request, _("Looked up just now: {words}.").format(words=now.words))
    return there


@tenant_page()
def zone(request: HttpRequest, place: TenantPlace, domain: int) -> HttpResponse:
    """All records as a piece of a zone file, to keep."""
    found = find(place, domain)
    answer = HttpResponse(checks.shown(found).zone, content_type="text/plain; charset=utf-8")
    # The name holds letters, digits, dots and hyphens only.
    answer["Content-Disposition"] = f'attachment; filename="{found.name}.zone"'
    return answer


@tenant_page()
def letter(request: HttpRequest, place: TenantPlace, domain: int) -> HttpResponse:
    """The records as a text for whoever runs the DNS."""
    found = find(place, domain)
    shown = checks.shown(found)
    text = _letter(found, shown)
    # Some mail programs take no longer link.
    short = _letter(found, shown, required_only=True)
    subject = _("DNS records for {domain}").format(domain=display_domain(found.name))
    return page(
        request, place, "console/domain_letter.html", subject,
        crumbs=[*crumbs(place), (display_domain(found.name), reverse("console:domain", args=[
            place.tenant.pk, found.pk,
        ]))],
        text=text, lines=text.count("\n") + 2, mail=f"mailto:?subject={quote(subject)}&body={quote(short)}",
        domain=found,
    )


# What the pages of one domain share


def find(place: TenantPlace, pk: int) -> Domain:
    """The tenant's domain, with what its pages show. Raises Http404: also for a shared one, which is the provider's."""
    found: Domain = place.find(Domain.objects.select_related("tenant", "latest_check"), pk=pk)
    return found


def tabs(domain: Domain) -> dict[str, Any]:
    """The numbers over its pages: three queries, each of an index alone."""
    held = {
        "mailboxes": Mailbox.objects.filter(domain_name=domain.name).count(),
        "aliases": Alias.objects.filter(domain_name=domain.name).count(),
    }
    names = domain.aliases.count()
    return {
        "held": held, "names_count": names, "name": display_domain(domain.name),
        # Only typed: it is removed at once, and nothing is lost.
        "is_typed": domain.proof == Proof.PENDING and not (any(held.values()) or names),
    }


def crumbs(place: TenantPlace) -> list[tuple[Any, str]]:
    return [(_("Domains"), _list(place))]


def _list(place: TenantPlace) -> str:
    return reverse("console:domains", args=[place.tenant.pk])


# The list


def _typed(text: str) -> str:
    return " ".join(text[:MOST_TYPED].replace("\x00", "").split())


def _search(searched: str) -> Q:
    """Part of a name, or a whole one in its own script; also of its aliases."""
    names = {searched.lower()}
    try:
        names.add(canonical_domain(searched))
    except BadAddress:
        pass
    # Not by a join: a domain with two other names would be found twice.
    aliases = DomainAlias.objects.filter(name__in=names).order_by().values("domain")
    return Q(name__icontains=searched) | Q(name__in=names) | Q(pk__in=aliases)


def _lines(place: TenantPlace, found: list[Domain]) -> list[Line]:
    """Three queries, however many."""
    counted = dict(
        Mailbox.objects.filter(domain_name__in=[each.name for each in found]).order_by()
        .values_list("domain_name").annotate(count=Count("pk"))
    )
    days = {bar.subject_id: bar for bar in used(found).bars if bar.window is Window.DAY} if found else {}
    lines = []
    for each in found:
        shown = checks.shown(each)
        lines.append(Line(
            each, display_domain(each.name), told(each, shown, place.status), chips(shown), counted.get(each.name, 0),
            days.get(each.pk), shown.checked_at,
        ))
    return lines


def _lede(place: TenantPlace, ranks: dict[int, int]) -> dict[str, str]:
    """How they stand, and how many more fit: what needs somebody apart from the rest."""
    count = sum(ranks.values())
    needs = sum(ranks.get(rank, 0) for rank in (Rank.LAPSED, Rank.ENDING, Rank.STOPPED, Rank.WRONG))
    pending, fine, closed = (ranks.get(rank, 0) for rank in (Rank.PENDING, Rank.FINE, Rank.CLOSED))
    parts = [
        words for number, words in (
            (pending, ngettext("one waits for its proof", "{count} wait for their proof", pending)),
            (fine, ngettext("one has nothing wrong", "{count} have nothing wrong", fine)),
            (closed, ngettext("one is closed", "{count} are closed", closed)),
        ) if number
    ]
    numbers = iter([each for each in (pending, fine, closed) if each])
    rest = _(", ").join(part.format(count=f"{next(numbers):,}") for part in parts)
    allowed = place.tenant.plan.domains
    room = ""
    if allowed is not None:
        left = max(0, allowed - count)
        room = ngettext("Room for one more.", "Room for {count} more.", left).format(count=f"{left:,}") if left else (
            _("Your plan has no room for more.")
        )
    return {
        "needs": ngettext("One needs you", "{count} need you", needs).format(count=f"{needs:,}") if needs else "",
        "rest": rest if needs else rest[:1].upper() + rest[1:], "room": room,
    }


# A domain


_ORDER = {"bad": 0, "warn": 0, "off": 1, "good": 2}


def _parted(shown: checks.Shown) -> tuple[list[Row], list[Row]]:
    """Required and optional rows. Without its proof a domain stops sending: then that is required too."""
    is_ending = shown.life in ("warning", "suspended")
    lost = [
        row for row in shown.optional if is_ending and row.record.key == "proof" and row.verdict is not Verdict.SAME
    ]
    needed = [replace(row, record=replace(row.record, is_required=True)) for row in lost]
    return [*needed, *shown.required], [row for row in shown.optional if row not in lost]


def _trouble_first(row: Row) -> int:
    return _ORDER[row.look] if row.record.key != "proof" else -1


def _changes(place: TenantPlace, found: Domain) -> list[Change]:
    """The latest, of this tenant's time with it."""
    entries = place.of(AuditEntry.objects.select_related("actor")).filter(subject_type="domain", subject_id=found.pk)
    changes = [change_told(entry) for entry in entries.order_by("-pk")[:MOST_CHANGES]]
    return [
        replace(each, differences=[one for one in each.differences if one.before and one.after]) for each in changes
    ]


def _letter(found: Domain, shown: checks.Shown, *, required_only: bool = False) -> str:
    name = display_domain(found.name)
    required, optional = _parted(shown)
    wrong = [row for row in required if row.verdict is not Verdict.SAME]
    lines = [
        _("Please set these DNS records for {domain}, so that its mail works.").format(domain=name),
        _("They were looked up on {at:%Y-%m-%d, %H:%M} UTC.").format(at=shown.checked_at) if shown.checked_at else "",
        "",
    ]
    if wrong:
        lines += [_("TO ADD OR CHANGE"), "", *_records(wrong)]
    right = [row for row in required if row.verdict is Verdict.SAME]
    if right:
        lines += [_("RIGHT ALREADY: leave them as they are"), "", *_records(right)]
    if optional and not required_only:
        lines += [_("OPTIONAL: mail works without them"), "", *_records(optional)]
    return "\n".join(lines).strip()


def _records(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        record = row.record
        yield f"{record_label(record)} ({_(record.purpose)})"
        yield f"  {_('Name')}:  {record.name}"
        yield f"  {_('Type')}:  {record.type}"
        for value in record.values:
            yield f"  {_('Value')}: {value}"
        if row.found and row.verdict is not Verdict.SAME:
            for value in row.found:
                yield f"  {_('Now')}:   {value}"
            if row.sentence.text:
                yield f"  {said(row.sentence)}"
        yield ""
