"""Where everybody begins: the start, the choice of tenants, a tenant's home."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Q, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from panel.console import persons
from panel.console.access import account_page, anybody, tenant_page, to_sign_in
from panel.console.domain_words import Told, because, counted, day, said, told
from panel.console.frame import address, page
from panel.console.hours import chart
from panel.console.places import AccountPlace, TenantPlace
from panel.domains import checks
from panel.domains.listed import by_rank
from panel.domains.models import Domain, Proof
from panel.mailboxes.models import Credential, Mailbox
from panel.operations.holdings import holdings, with_counts
from panel.rules.addresses import display_domain
from panel.rules.status import Status
from panel.rules.verdicts import Verdict
from panel.sending.log import SeenLine, latest_seen_by
from panel.sending.models import Recipient
from panel.sending.used import Bar, day_of, hours_of, window_words, with_day
from panel.tenants import visits
from panel.tenants.models import Membership, Tenant, User
from panel.tenants.shown import moment
from panel.tenants.sign_in.sessions import VERIFIED
from panel.tenants.standing import status_words, with_parents

NAMED = 3  # of each kind of what needs somebody
LATEST = 6  # recipients
BEGINNING = timedelta(days=7)  # so long a mailbox waits for its first message; a log is kept for longer
MOST_TENANTS = 100  # on the page of choice; beyond that the search finds them
NEAR = ("warn", "bad")


@dataclass(frozen=True, slots=True)
class Need:
    """What somebody should look at: a heading, what it means, and where it is mended."""

    look: str  # bad or warn
    heading: str
    sentence: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A recipient among the latest, as the home page says it."""

    seen: SeenLine
    look: str
    words: str
    icon: str
    inbound: bool


@dataclass(frozen=True, slots=True)
class OfDomain:
    """A domain and how it stands."""

    domain: Domain
    name: str  # in its own script
    shown: checks.Shown
    told: Told


_STATES: dict[str, tuple[str, Any, str]] = {
    Recipient.State.WAITING: ("", gettext_lazy("Waiting"), "clock"),
    Recipient.State.DELIVERED: ("good", gettext_lazy("Delivered"), ""),
    Recipient.State.FAILED: ("bad", gettext_lazy("Bounced"), ""),
    Recipient.State.DISCARDED: ("", gettext_lazy("Given up"), "x"),
}


@anybody
def start(request: HttpRequest) -> HttpResponse:
    """To where the account belongs."""
    account = request.user
    if not isinstance(account, User) or not account.is_active:
        return to_sign_in(request)
    if account.is_staff:
        return HttpResponseRedirect(reverse("admin:index"))
    if account.kind == User.Kind.PERSON:
        return HttpResponseRedirect(reverse("console:me"))
    own = list(Tenant.objects.of(account).values_list("pk", flat=True)[:2])
    if len(own) == 1:
        return HttpResponseRedirect(reverse("console:home", args=own))
    if not own and persons.mailbox_of(request, account):
        return HttpResponseRedirect(reverse("console:me"))
    return HttpResponseRedirect(reverse("console:tenants"))


@account_page()
def tenants(request: HttpRequest, place: AccountPlace) -> HttpResponse:
    """The tenants that this account may enter."""
    rows = Tenant.objects.of(place.account)
    searched = request.GET.get("q", "").strip()[:100].replace("\x00", "")
    if searched:
        rows = rows.filter(name__icontains=searched)
    listed = list(with_day(with_counts(rows.select_related("plan", "parent__parent")))[: MOST_TENANTS + 1])
    asking = _asking(request, place.account, listed)
    shown = [{"tenant": each, "day": day_of(each), "status": each.status, "word": _word(each),
              "asks": asking.get(each.pk, "")} for each in listed[:MOST_TENANTS]]
    return page(
        request, place, "console/tenants.html", _("Your organisations"), shown=shown, searched=searched,
        has_more=len(listed) > MOST_TENANTS,
    )


def _asking(request: HttpRequest, account: User, rows: Sequence[Tenant]) -> dict[int, str]:
    """Why nothing but its name is told of each that asks for a second factor (as access.py), to who has shown none."""
    required = any(above.second_factor_required for row in rows for above in with_parents(row))
    if request.session.get(VERIFIED) or not required:
        return {}
    own = set(Membership.objects.filter(user=account).values_list("tenant", flat=True))
    return {
        row.pk: _("{tenant} lets in only those who sign in with a second factor.").format(tenant=row) for row in rows
        if any(above.second_factor_required and above.pk in {row.pk, *own} for above in with_parents(row))
    }


@tenant_page()
def home(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """A tenant's home: what needs somebody, the numbers, the latest; before that the first steps."""
    tenant = place.tenant
    held, storage = holdings(tenant)
    numbers = {each.name: each for each in held}
    # Whoever has addresses in a shared domain only is set up too.
    if not numbers["mailboxes"].used and not numbers["aliases"].used:
        return _first_steps(request, place)
    latest = [line_of(each) for each in latest_seen_by([tenant.pk], LATEST)]
    day, domains = day_of(tenant), _domains(place)
    is_new = numbers["mailboxes"].used == 1 and not (latest or day.used or numbers["aliases"].used)
    if is_new and not any(of.shown.sending_ends_at for of in domains):
        only = _untried(place)
        if only is not None:
            return _first_steps(request, place, only)
    needs = sorted(_needs(place, domains), key=lambda each: each.look != "bad")
    now = timezone.now()
    bars = [*((each.title, each) for each in (*held, storage)), (_sent(day), day)]
    title = ngettext("One thing needs you", "{count} things need you", len(needs)).format(count=len(needs))
    return page(
        request, place, "console/home.html", title if needs else _("Nothing needs you"), needs=needs, latest=latest,
        numbers=numbers, storage=storage,
        sent_day=(_sent(day), day), near=[each for each in bars if each[1].look in NEAR],
        domains=domains, chart=chart(hours_of(tenant, now), now), visit=visits.lately(tenant),
    )


def _sent(bar: Bar) -> str:
    return _("Sent in {window}").format(window=window_words(bar.window))


def _needs(place: TenantPlace, domains: Sequence[OfDomain]) -> Iterator[Need]:
    """What is the matter: one query."""
    tenant = place.tenant
    for each in with_parents(tenant):
        if each.status != Status.ACTIVE:
            # What an owner closed an owner opens again: in the settings.
            url = address("settings", tenant=tenant.pk) if (
                each == tenant and each.status == Status.CLOSED and place.is_owner
            ) else ""
            sentences = [
                because(each.status_reason) if each == tenant else "",
                _("Until {day} it can be undone in the settings.").format(day=day(each.grace_ends_at))
                if url and each.grace_ends_at else _("Ask your provider."),
            ]
            yield Need("bad", _("{name} is {word}.").format(name=tenant, word=status_words(each.status)),
                       " ".join(filter(None, sentences)), url)
            break
    for of in [of for of in domains if _is_troubled(of)][:NAMED]:
        yield _of_domain(of, address("domain", tenant=tenant.pk, domain=of.domain.pk))
    frozen = Credential.objects.filter(mailbox=OuterRef("pk"), frozen_at__isnull=False).order_by("-frozen_at")
    mailboxes: Any = Mailbox.objects.filter(tenant=tenant).annotate(
        has_frozen=Exists(frozen), frozen_reason=Subquery(frozen.values("frozen_reason")[:1])
    )
    stopped = mailboxes.filter(~Q(status=Status.ACTIVE) | Q(has_frozen=True)).select_related("address__domain")
    for mailbox in stopped.order_by("pk")[: 2 * NAMED]:
        url = address("mailbox", tenant=tenant.pk, mailbox=mailbox.pk)
        if mailbox.status != Status.ACTIVE:
            yield Need("warn", _("{name} is {word}.").format(name=mailbox, word=status_words(mailbox.status)),
                       because(mailbox.status_reason), url)
        if mailbox.has_frozen:
            yield Need("bad", _("A password of {mailbox} is frozen.").format(mailbox=mailbox),
                       because(mailbox.frozen_reason), url)


def _of_domain(of: OfDomain, url: str) -> Need:
    domain = of.domain
    if domain.status != Status.ACTIVE:
        word = status_words(domain.status)
        return Need("bad", _("{name} is {word}.").format(name=of.name, word=word), because(domain.status_reason), url)
    if domain.proof == Proof.LAPSED:
        return Need(
            "bad", _("{name}: its proof lapsed, so nothing is sent for it.").format(name=of.name),
            _("Mail for it still arrives. Put the proof back at your DNS provider."), url,
        )
    if domain.proof == Proof.PENDING:
        return Need(
            "warn", _("{name} waits for proof that it is yours.").format(name=of.name),
            _("Until then it neither sends nor receives here."), url,
        )
    if of.shown.sending_ends_at:
        return Need(
            "warn", _("{name} stops sending {when}.").format(
                name=of.name, when=moment(of.shown.sending_ends_at, plain=True)
            ),
            _("Neither its proof nor its MX is there any more. Put the proof back at your DNS provider."), url,
        )
    overall = of.shown.overall
    heading = _("{name}: {words}.").format(name=of.name, words=said(overall.words))
    return Need(overall.look, heading, said(overall.sentence), url)


def _domains(place: TenantPlace) -> list[OfDomain]:
    """The first few, those in trouble before the others: one query."""
    rows = by_rank(place.of(Domain.objects.exclude(status=Status.CLOSED))).select_related("tenant", "latest_check")
    return [_of(each, place) for each in rows[: 2 * NAMED]]


def _of(domain: Domain, place: TenantPlace) -> OfDomain:
    shown = checks.shown(domain)
    return OfDomain(domain, display_domain(domain.name), shown, told(domain, shown, place.status))


def _is_troubled(of: OfDomain) -> bool:
    """By itself: that the whole organisation is stopped, is said once."""
    return of.domain.status != Status.ACTIVE or of.domain.proof != Proof.PROVED or of.shown.overall.look in NEAR


def _word(row: Tenant | Domain) -> str:
    return status_words(row.status).capitalize()


def line_of(seen: SeenLine) -> Line:
    look, words, icon = _STATES[seen.state]
    return Line(seen, look, words, icon, inbound=not seen.submitted)


def _untried(place: TenantPlace) -> Mailbox | None:
    """The only mailbox, if it is new, in a domain of the tenant's, and nothing is wrong with it."""
    if place.status != Status.ACTIVE:
        return None
    fine = place.of(Mailbox.objects.all()).filter(
        status=Status.ACTIVE, address__domain__tenant=place.tenant, address__domain__status=Status.ACTIVE,
        created_at__gt=timezone.now() - BEGINNING,
    )
    found: Mailbox | None = fine.exclude(
        credentials__frozen_at__isnull=False
    ).select_related("address__domain").first()
    return found


def _first_steps(request: HttpRequest, place: TenantPlace, mailbox: Mailbox | None = None) -> HttpResponse:
    """One page that ticks itself, until a first message came. A mailbox needn't wait for the records."""
    rows = by_rank(place.of(Domain.objects.exclude(status=Status.CLOSED))).select_related("tenant", "latest_check")
    first = rows.order_by("pk").first()
    of = _of(first, place) if first else None
    wrong = [row for row in of.shown.required if row.verdict is not Verdict.SAME] if of else []
    are_right = of is not None and of.domain.proof == Proof.PROVED and not wrong
    left = 1 + (of is None) + (not are_right)
    title = ngettext("One step left", "{count} steps left", left).format(count=left)
    if place.account.name:
        title = _("{title}, {name}").format(title=title, name=place.account.name)
    return page(
        request, place, "console/first_steps.html", title, of=of,
        domain=of.domain if of else None, wrong=wrong, are_right=are_right,
        counted=counted(of.shown.required) if of else "", mailbox=mailbox,
        add_domain=address("add-domain", tenant=place.tenant.pk),
        add_mailbox=address("add-mailbox", tenant=place.tenant.pk), visit=visits.lately(place.tenant),
    )
