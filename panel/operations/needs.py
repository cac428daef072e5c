"""What somebody at the provider's must look at: each thing by its name, a few of each kind.

Asks what an index answers; of each kind no more rows are read than a bound.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import CharField, F, Value
from django.db.models.functions import Concat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from panel.domains.models import Domain, DomainAlias, Proof
from panel.mailboxes.models import Credential, LoginEvent, Mailbox
from panel.operations import certificate
from panel.operations.models import Node
from panel.rules.addresses import Address
from panel.rules.status import Status
from panel.sending.hops import Hop
from panel.sending.models import Hold, Recipient
from panel.tenants.history import kept_words
from panel.tenants.models import Tenant, User
from panel.tenants.shown import moment

NAMED = 3  # of each kind; the rest is a number
MISSING = "missing"  # of a domain in warning: between "lapsed" and "pending", as it is in urgency
LOOKED_AT = 100  # rows of each kind
MANY_DEFERRED = 20  # recipients that one next hop put off
LATELY = timedelta(days=7)  # a frozen password
LOCKED_WITHIN = timedelta(hours=24)
ENDS_WITHIN = timedelta(days=3)  # a grace period
CERTIFICATE_WITHIN = timedelta(days=14)
SILENT_AFTER = timedelta(minutes=2)  # a mailserver writes when it was last seen more often than that
TAKEN_AWAY_AFTER = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Need:
    """`name` is what needs somebody, `sentence` why, as text or safe HTML; `url` shows it."""

    look: str  # bad or warn
    word: str
    name: str
    sentence: str
    url: str
    mono: bool = True
    is_rest: bool = False  # stands for those of its kind that aren't named


def of_queue(hops: Sequence[Hop]) -> Iterable[Need]:
    """What crashed workers, what can't be returned, and who puts a lot off. One question, if any does."""
    poison, undeliverable = (
        sum(hop.by_hold.get(hold, 0) for hop in hops) for hold in (Hold.POISON, Hold.UNDELIVERABLE)
    )
    if poison:
        yield Need("bad", _("stuck"), recipients(poison), _("crashed a worker again and again"),
                   listed(Recipient, holds="poison"), mono=False)
    if undeliverable:
        yield Need("bad", _("held"), recipients(undeliverable), _("can neither be delivered nor returned"),
                   listed(Recipient, holds="undeliverable"), mono=False)
    deferring = [hop for hop in hops if hop.deferred >= MANY_DEFERRED]
    tried = {hop.tried: hop.name for hop in deferring[:NAMED] if hop.tried is not None}
    replies = Recipient.objects.filter(pk__in=tried).values_list("pk", "last_reply") if tried else ()
    said = {tried[pk]: reply for pk, reply in replies if reply}
    for hop in deferring[:NAMED]:
        yield Need(
            "warn", _("defers"), hop.name,
            format_html(
                _("puts off {recipients}, the oldest from {when}{reply}"), recipients=recipients(hop.deferred),
                when=moment(hop.deferred_since) if hop.deferred_since else "",
                reply=format_html(': <span class="ph-mono">{}</span>', said[hop.name]) if hop.name in said else "",
            ),
            listed(Recipient, state__exact="waiting", hop=hop.name),
        )
    yield from rest(len(deferring), _("more next hops put off much"), listed(Recipient, state__exact="waiting"))


def of_domains(user: User) -> Iterable[Need]:
    columns = ("name", "pk", "proof", "kind_")
    rows = Domain.objects.for_user(user).exclude(proof=Proof.PROVED).exclude(status=Status.CLOSED).order_by()
    aliases = DomainAlias.objects.for_user(user).exclude(proof=Proof.PROVED).order_by()
    warned = Domain.objects.for_user(user).filter(proof=Proof.PROVED, latest_check__missing_since__isnull=False)
    warned = warned.exclude(status=Status.CLOSED).order_by().annotate(proof_=Value(MISSING, CharField()))
    found = list(
        rows.annotate(kind_=Value("domain", CharField())).values_list(*columns)
        .union(
            aliases.annotate(kind_=Value("domainalias", CharField())).values_list(*columns),
            warned.annotate(kind_=Value("domain", CharField())).values_list("name", "pk", "proof_", "kind_"), all=True,
        )
        .order_by("proof", "name")[: LOOKED_AT + 1]
    )
    for life, word, look, sentence, the_rest in (
        ("lapsed", _("lapsed"), "bad", _("lost its proof of ownership: nobody sends as it"), _("more are lapsed")),
        ("warning", _("warning"), "warn",
         _("has neither its proof nor its MX in the DNS any more: sending stops after 7 days"),
         _("more are in warning")),
        ("pending", _("pending"), "warn", _("is not proved to be its tenant's: its mail is not taken"),
         _("more are pending")),
    ):
        ours = [row for row in found if row[2] == (MISSING if life == "warning" else life)]
        for name, pk, _proof, kind in ours[:NAMED]:
            yield Need(look, word, name, sentence, page(f"domains_{kind}", pk))
        narrowed = listed(Domain, proof__exact="proved" if life == "warning" else life)
        if len(found) > LOOKED_AT and ours[-1:] == found[-1:]:  # not all were read: what stands last has more
            known = max(len(ours), NAMED + 1)
            yield from rest(known, the_rest, narrowed, known, look)
        else:
            yield from rest(len(ours), the_rest, narrowed, look=look)


def of_passwords(user: User, now: datetime) -> Iterable[Need]:
    found = Credential.objects.for_user(user).filter(frozen_at__isnull=False, frozen_at__gte=now - LATELY)
    # Columns, not instances: of a hundred rows with what stands beside them three are told.
    frozen = list(found.order_by("-frozen_at").values_list(
        "pk", "kind", "label", "frozen_at", "frozen_reason",
        "mailbox__address__local_part", "mailbox__address__domain__name",
    )[:LOOKED_AT])
    for pk, kind, label, frozen_at, reason, local_part, domain in frozen[:NAMED]:
        password = Credential(pk=pk, kind=kind, label=label)
        sentence = format_html(
            _("had its {password} frozen {when}: {reason}"), password=password.words, when=moment(frozen_at, now),
            reason=kept_words(reason),
        )
        yield Need("warn", _("frozen"), str(Address(local_part, domain)), sentence, page("mailboxes_credential", pk))
    yield from rest(len(frozen), _("more passwords were frozen in 7 days"), listed(Credential, frozen_at__isempty=0),
                    LOOKED_AT)


def of_lockouts(user: User, now: datetime) -> Iterable[Need]:
    rows = LoginEvent.objects.for_user(user).filter(outcome=LoginEvent.Outcome.LOCKED, last_at__gte=now - LOCKED_WITHIN)
    newest: dict[str, LoginEvent] = {}
    for event in rows.order_by("-last_at")[:LOOKED_AT]:
        newest.setdefault(event.login.lower(), event)
    for event in list(newest.values())[:NAMED]:
        sentence = format_html(
            _("was locked after wrong passwords {when}, from {place}"), when=moment(event.last_at, now),
            place=event.ip or _("many networks"),
        )
        yield Need("warn", _("locked"), event.login[:120], sentence, page("mailboxes_loginevent", event.pk))
    yield from rest(len(newest), _("more logins were locked in 24 hours"),
                     listed(LoginEvent, outcome__exact="locked", since="24"), LOOKED_AT)


def of_machines(nodes: Sequence[Node], now: datetime) -> Iterable[Need]:
    """One that was drained, or is silent for long while others go on, was taken away."""
    others = any(not is_silent(node, now) for node in nodes)
    for node in nodes:
        gone = node.draining or now - node.last_seen_at > TAKEN_AWAY_AFTER
        if is_silent(node, now) and not (others and gone):
            sentence = format_html(_("was last seen {}"), moment(node.last_seen_at, now))
            yield Need("bad", _("silent"), node.name, sentence, listed(Recipient, state__exact="waiting"))


def is_silent(node: Node, now: datetime) -> bool:
    return now - node.last_seen_at > SILENT_AFTER


def of_certificate(ends_at: datetime | None, why: str, nodes: Sequence[Node], now: datetime) -> Iterable[Need]:
    """The certificate of this machine; none at all is no matter where no mailserver runs."""
    path = str(settings.ENVIRONMENT.tls_cert)
    here = any(node.name == settings.ENVIRONMENT.node for node in nodes)
    if ends_at is None:
        if here or Path(path).exists():
            sentence = _("the certificate can't be loaded: {why}").format(why=why)
            yield Need("bad", _("broken"), path, sentence, "#certificate")
    elif ends_at - now <= CERTIFICATE_WITHIN:
        over = ends_at <= now
        words = _("the certificate expired {}") if over else _("the certificate expires {}")
        sentence = format_html(words, moment(ends_at, now))
        yield Need(
            "bad" if over else "warn", _("expired") if over else _("expires"), path, sentence, "#certificate"
        )


def of_hostname() -> Iterable[Need]:
    """A name that nobody else can look up: what domains are told to set would lead nowhere."""
    name = settings.ENVIRONMENT.hostname
    if "." not in name or name.rpartition(".")[2] in ("local", "localdomain", "internal", "lan"):
        yield Need("warn", _("host name"), name, _(
            "is this server's name, and none of the public DNS: the records that domains are told to set and the links "
            "in letters say it. Write the full name as POSTHOUSE_HOSTNAME"
        ), listed(Domain))


def read_certificate() -> tuple[datetime | None, str]:
    """When this machine's certificate ends; None and why not."""
    try:
        return certificate.ends_at(settings.ENVIRONMENT.tls_cert), ""
    except OSError as error:
        return None, error.strerror or _("it can't be read")
    except ValueError:
        return None, _("it is no certificate")


def of_closed(user: User, now: datetime) -> Iterable[Need]:
    """What is removed for good soon: one question over mailboxes, domains and tenants."""
    soon = {"status": Status.CLOSED, "grace_ends_at__isnull": False, "grace_ends_at__lte": now + ENDS_WITHIN}
    columns = ("grace_ends_at", "pk", "name_", "kind_")
    box_name = Concat("address__local_part", Value("@"), "address__domain__name", output_field=CharField())
    queries = [
        model.objects.for_user(user).filter(**soon).order_by()
        .annotate(name_=name, kind_=Value(kind, CharField())).values_list(*columns)
        for model, name, kind in (
            (Tenant, F("name"), "tenants_tenant"), (Domain, F("name"), "domains_domain"),
            (Mailbox, box_name, "mailboxes_mailbox"),
        )
    ]
    rows = list(queries[0].union(*queries[1:], all=True).order_by("grace_ends_at")[:LOOKED_AT])
    for ends_at, pk, name, kind in rows[:NAMED]:
        sentence = format_html(_("is closed, and removed for good {}"), moment(ends_at, now))
        yield Need("warn", _("ends"), name, sentence, page(kind, pk), mono=kind != "tenants_tenant")
    yield from rest(len(rows), _("more closed things are removed within 3 days"),
                     listed(Mailbox, status__exact=int(Status.CLOSED)), LOOKED_AT)


def rest(found: int, words: str, url: str, bound: int = 0, look: str = "warn") -> Iterable[Need]:
    """The line that stands for those that aren't named."""
    if found > NAMED:
        number = f"{found - NAMED:,}"
        if bound and found >= bound:
            number = _("at least {number}").format(number=number)
        yield Need(look, _("and"), number, words, url, mono=False, is_rest=True)


def listed(model: Any, **filters: Any) -> str:
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return f"{url}?{urlencode(filters)}" if filters else url


def page(view: str, pk: int) -> str:
    return reverse(f"admin:{view}_change", args=(pk,))


def recipients(number: int) -> str:
    return ngettext("{n:,} recipient", "{n:,} recipients", number).format(n=number)
