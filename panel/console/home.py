"""Where everybody begins: the start, the choice of tenants, a tenant's home, a person's page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, Q, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from panel.console.access import account_page, anybody, mailbox_page, tenant_page, to_sign_in
from panel.console.frame import address, page
from panel.console.places import AccountPlace, MailboxPlace, TenantPlace
from panel.domains.models import Domain, Proof
from panel.mailboxes.models import Credential, Mailbox, MailboxUsage
from panel.operations.holdings import Holding, holdings, with_counts
from panel.rules.status import Status
from panel.sending.log import SeenLine, latest_seen_by
from panel.sending.models import Recipient
from panel.sending.used import Bar, day_of, used, with_day
from panel.tenants.gauge import Gauge
from panel.tenants.models import Tenant, User
from panel.tenants.shown import about, size
from panel.tenants.standing import with_parents

NAMED = 3  # of each kind of what needs somebody
LATEST = 6  # recipients
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


class Filled(Gauge):
    """How much of its storage a mailbox has filled, in bytes."""

    @property
    def words(self) -> str:
        filled = about(self.used) if self.used is not None else _("not counted yet")
        if self.allowed is None:
            return _("{filled}, unlimited").format(filled=filled)
        return _("{filled} of {allowed}").format(filled=filled, allowed=size(self.allowed))


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
    return HttpResponseRedirect(reverse("console:tenants"))


@account_page()
def tenants(request: HttpRequest, place: AccountPlace) -> HttpResponse:
    """The tenants that this account may enter."""
    rows = Tenant.objects.of(place.account)
    searched = request.GET.get("q", "").strip()[:100].replace("\x00", "")
    if searched:
        rows = rows.filter(name__icontains=searched)
    listed = list(with_day(with_counts(rows.select_related("plan", "parent")))[: MOST_TENANTS + 1])
    shown = [{"tenant": each, "day": day_of(each), "status": each.status, "word": _word(each)}
             for each in listed[:MOST_TENANTS]]
    return page(
        request, place, "console/tenants.html", _("Your organisations"), shown=shown, searched=searched,
        has_more=len(listed) > MOST_TENANTS,
    )


@tenant_page()
def home(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """A tenant's home: what needs somebody, the numbers, the latest; before that the first steps."""
    tenant = place.tenant
    held, storage = holdings(tenant)
    numbers = {each.name: each for each in held}
    if not numbers["domains"].used or not numbers["mailboxes"].used:
        return _first_steps(request, place, numbers)
    day, domains = day_of(tenant), _domains(place)
    needs = sorted(_needs(place, domains), key=lambda each: each.look != "bad")
    latest = [line_of(each) for each in latest_seen_by([tenant.pk], LATEST)]
    bars = [*((each.title, each) for each in (*held, storage)), (_sent(day), day)]
    title = ngettext("One thing needs you", "{count} things need you", len(needs)).format(count=len(needs))
    return page(
        request, place, "console/home.html", title if needs else _("Nothing needs you"), needs=needs, latest=latest,
        numbers=numbers, storage=storage, sent=(_sent(day), day), near=[each for each in bars if each[1].look in NEAR],
        domains=[(each, *_standing(each)) for each in domains],
    )


@mailbox_page()
def me(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """A person's page."""
    usage = MailboxUsage.objects.filter(mailbox=place.mailbox).first()
    storage = Filled(usage.used_bytes if usage else None, place.mailbox.quota_bytes)
    levels = used([place.mailbox, place.mailbox.address.tenant])
    bars = [(_sent(each), each) for each in levels.bars if each.is_first]
    return page(request, place, "console/me.html", _("Your mailbox works"), storage=storage, bars=bars)


def _sent(bar: Bar) -> str:
    return _("Sent in {window}").format(window=bar.window.words)


def _needs(place: TenantPlace, domains: Sequence[Domain]) -> Iterator[Need]:
    """What is the matter: one query."""
    tenant = place.tenant
    for each in with_parents(tenant):
        if each.status != Status.ACTIVE:
            yield Need("bad", _("{name} is {word}.").format(name=tenant, word=Status(each.status).words), (
                _reason(each.status_reason) if each == tenant and each.status_reason else _("Ask your provider.")
            ))
            break
    for domain in [each for each in domains if _is_troubled(each)][:NAMED]:
        yield _of_domain(domain, address("domain", tenant=tenant.pk, domain=domain.pk))
    frozen = Credential.objects.filter(mailbox=OuterRef("pk"), frozen_at__isnull=False).order_by("-frozen_at")
    mailboxes: Any = Mailbox.objects.filter(address__tenant=tenant).annotate(
        has_frozen=Exists(frozen), frozen_reason=Subquery(frozen.values("frozen_reason")[:1])
    )
    stopped = mailboxes.filter(~Q(status=Status.ACTIVE) | Q(has_frozen=True)).select_related("address__domain")
    for mailbox in stopped.order_by("pk")[: 2 * NAMED]:
        url = address("mailbox", tenant=tenant.pk, mailbox=mailbox.pk)
        if mailbox.status != Status.ACTIVE:
            yield Need("warn", _("{name} is {word}.").format(name=mailbox, word=Status(mailbox.status).words),
                       _reason(mailbox.status_reason), url)
        if mailbox.has_frozen:
            yield Need("bad", _("A password of {mailbox} is frozen.").format(mailbox=mailbox),
                       _reason(mailbox.frozen_reason), url)


def _of_domain(domain: Domain, url: str) -> Need:
    if domain.status != Status.ACTIVE:
        word = Status(domain.status).words
        return Need("bad", _("{name} is {word}.").format(name=domain, word=word), _reason(domain.status_reason), url)
    if domain.proof == Proof.LAPSED:
        return Need(
            "bad", _("{name}: its proof lapsed, so nothing is sent for it.").format(name=domain),
            _("Mail for it still arrives. Put the proof back at your DNS provider."), url,
        )
    return Need(
        "warn", _("{name} waits for proof that it is yours.").format(name=domain),
        _("Until then it neither sends nor receives here."), url,
    )


def _reason(text: str) -> str:
    return _("Reason: {reason}").format(reason=text) if text else ""


def _domains(place: TenantPlace) -> list[Domain]:
    """The first few, those in trouble before the others: one query."""
    # By the alphabet a lapsed proof comes before a pending one, and both before proved.
    return list(Domain.objects.filter(tenant=place.tenant).order_by("-status", "proof", "name")[: 2 * NAMED])


def _is_troubled(domain: Domain) -> bool:
    return domain.status != Status.ACTIVE or domain.proof != Proof.PROVED


def _standing(domain: Domain) -> tuple[str, Any]:
    if domain.status != Status.ACTIVE:
        return "bad", _word(domain)
    return {
        Proof.PENDING: ("", _("Waiting for proof")), Proof.LAPSED: ("bad", _("Proof lapsed")),
        Proof.PROVED: ("good", _("Active")),
    }[Proof(domain.proof)]


def _word(row: Tenant | Domain) -> str:
    return Status(row.status).words.capitalize()


def line_of(seen: SeenLine) -> Line:
    look, words, icon = _STATES[seen.state]
    return Line(seen, look, words, icon, inbound=not seen.submitted)


def _first_steps(request: HttpRequest, place: TenantPlace, numbers: dict[str, Holding]) -> HttpResponse:
    """One page that ticks itself, until there are a domain and a mailbox."""
    domain = Domain.objects.filter(tenant=place.tenant).order_by("pk").first()
    is_proved = domain is not None and domain.proof == Proof.PROVED
    has_mailbox = bool(numbers["mailboxes"].used)
    left = 1 + (not is_proved) + (not has_mailbox)
    title = ngettext("One step left", "{count} steps left", left).format(count=left)
    name = place.account.name
    return page(
        request, place, "console/first_steps.html", f"{title}, {name}" if name else title, domain=domain,
        is_proved=is_proved, has_mailbox=has_mailbox, numbers=numbers,
        add_domain=address("add-domain", tenant=place.tenant.pk),
        add_mailbox=address("add-mailbox", tenant=place.tenant.pk),
        of_domain=address("domain", tenant=place.tenant.pk, domain=domain.pk) if domain else "",
    )
