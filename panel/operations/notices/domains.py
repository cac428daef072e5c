"""What became of a domain, or of a name that stands for it, while nobody looked: to its owners and admins.

Its proof, its sending, its records. The first such thing is told at once; what comes to the same tenant
after it waits, the longer the more there was in a day, and stands in one letter: whoever has a thousand
domains hears of each, in a few letters.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.language import language_of
from panel.operations.notices.readers import OWNERS_AND_ADMINS, readers
from panel.operations.notices.told import Told
from panel.rules.domain_life import GRACE
from panel.rules.status import Status
from panel.rules.verdicts import Verdict
from panel.sending import letters
from panel.sending.letters import Aside, Facts, Letter, Link, Purpose, Words
from panel.sending.models import LetterSent, Message
from panel.tenants.changes import alone
from panel.tenants.models import AuditEntry, Tenant, Untold

MOST = 200  # changes that begin a letter, in one look
MOST_IN_LETTER = 500
MOST_NAMED = 50  # in one letter
WAIT = timedelta(hours=1)  # between letters of one kind to a tenant, for each in the day before
PUT_OFF = timedelta(hours=6)  # when each of its people had what one gets in a day
WITHIN = timedelta(days=2)

Name = Domain | DomainAlias
Change = tuple[Name, AuditEntry]

_VERDICTS: dict[str, Any] = {
    Verdict.SAME: gettext_lazy("right"), Verdict.DIFFERENT: gettext_lazy("different"),
    Verdict.NOTHING: gettext_lazy("missing"), Verdict.CONFLICTS: gettext_lazy("conflicting"),
}


def tell(told: Told) -> None:
    """The letters about what waits; what isn't reached is the next look's."""
    waiting = Untold.objects.filter(due_at__lte=told.now, entry__action__in=_ACTIONS)
    groups: dict[tuple[int, str], list[int]] = {}
    for pk, tenant, action in waiting.values_list("pk", "entry__tenant", "entry__action")[:MOST]:
        groups.setdefault((tenant or 0, action.partition(".")[2]), []).append(pk)
    tenants = Tenant.objects.select_related("parent__parent").in_bulk({tenant for tenant, _act in groups})
    for (tenant, act), entries in groups.items():
        if told.is_leaving():
            return
        if not told.each("domains", partial(_write, tenants.get(tenant), act, entries, told)):
            told.put_off(entries)


def _write(tenant: Tenant | None, act: str, entries: list[int], told: Told) -> list[Message]:
    """One letter to each reader about all of one kind that waits for this tenant."""
    alone("notices")
    if tenant is None:
        Untold.objects.filter(pk__in=entries).delete()
        return []
    rows = Untold.objects.filter(
        due_at__lte=told.now, entry__tenant=tenant, entry__action__in=[f"{model}.{act}" for model in _MODELS]
    )
    about = f"{act} of {tenant.pk}"
    if again_at := _again_at(about, told.now):
        Untold.objects.filter(pk__in=rows.values("pk")).update(due_at=again_at)
        return []
    found = [row.entry for row in rows.select_related("entry").order_by("pk")[:MOST_IN_LETTER]]
    changes = _changes(found, tenant)
    people = readers(tenant, OWNERS_AND_ADMINS) if changes else []
    sent = [
        letters.send(
            str(person.email), language_of(person), partial(_composed, act, changes, tenant), purpose=Purpose.DOMAIN,
            about=about, now=told.now, within=WITHIN,
        )
        for person in people
    ]
    # Of what is left: more than one letter holds, or all of it.
    mine = Untold.objects.filter(pk__in=[entry.pk for entry in found])
    if people and not any(sent):
        mine.update(due_at=told.now + PUT_OFF)
    else:
        mine.delete()
    return [each for each in sent if each]


def _again_at(about: str, now: datetime) -> datetime | None:
    """When the next letter of this kind may go to this tenant; None for now."""
    looks = LetterSent.objects.filter(about=about, at__gt=now - letters.DAY).order_by("-at")
    times = sorted(set(looks.values_list("at", flat=True)))
    due = times[-1] + WAIT * len(times) if times else now
    return due if due > now else None


def _changes(entries: Sequence[AuditEntry], tenant: Tenant) -> list[Change]:
    """The entries with what they are about, each once, by its latest; what is gone or was handed over is left out."""
    rows = _rows(entries)
    latest: dict[tuple[str, int], Change] = {}
    for entry in entries:
        key = entry.subject_type, entry.subject_id or 0
        named = rows.get(key)
        if named is not None and _domain_of(named).tenant_id == tenant.pk:
            latest[key] = named, entry
    return list(latest.values())


def _rows(entries: Sequence[AuditEntry]) -> dict[tuple[str, int], Name]:
    """What the entries are about, by their subjects, of domains that nobody stopped: two queries."""
    about: dict[str, list[int]] = {"domain": [], "domainalias": []}
    for each in entries:
        about[each.subject_type].append(each.subject_id or 0)
    domains = Domain.objects.filter(pk__in=about["domain"], status=Status.ACTIVE)
    aliases = DomainAlias.objects.filter(pk__in=about["domainalias"], domain__status=Status.ACTIVE)
    return {
        **{("domain", each.pk): each for each in domains.select_related("tenant__parent__parent")},
        **{("domainalias", each.pk): each for each in aliases.select_related("domain__tenant__parent__parent")},
    }


def _domain_of(named: Name) -> Domain:
    return named.domain if isinstance(named, DomainAlias) else named


def page(named: Name) -> str:
    """Of the console; in words, for the mailserver doesn't load the panel's addresses."""
    domain = _domain_of(named)
    names = "names/" if isinstance(named, DomainAlias) else ""
    return letters.url(f"/t/{domain.tenant_id}/domains/{domain.pk}/{names}")


def _missing(domain: Name, entry: AuditEntry) -> Letter:
    name = letters.cleaned(domain.name, 253)
    return Letter(_("Sending from {domain} will stop").format(domain=name), (
        Words(_(
            "Neither the record that proves {domain} to be yours nor an MX record to this server is in its DNS any "
            "more."
        ).format(domain=name)),
        Facts(((_("Domain"), name), (_("Sending stops"), f"{entry.at + GRACE:%Y-%m-%d %H:%M} UTC"))),
        Words(_(
            "Put one of them back before that, at whoever runs the domain's DNS. Until then everything works, and mail "
            "to it is taken in any case."
        )),
        Link(_("See the records"), page(domain)),
    ))


def _lapsed(domain: Name, entry: AuditEntry) -> Letter:
    name = letters.cleaned(domain.name, 253)
    return Letter(_("Sending from {domain} has stopped").format(domain=name), (
        Words(_(
            "For seven days neither the record that proves {domain} to be yours nor an MX record to this server was in "
            "its DNS. Nobody can send from it now; mail to it is still taken."
        ).format(domain=name)),
        Words(_("Put the proof's record back: sending goes on by itself once we have seen it.")),
        Link(_("See the records"), page(domain)),
    ))


def _back(domain: Name, entry: AuditEntry) -> Letter:
    name = letters.cleaned(domain.name, 253)
    return Letter(_("{domain} is all right again").format(domain=name), (
        Words(_("What was missing in the DNS of {domain} is there. Sending doesn't stop.").format(domain=name)),
        Link(_("See the records"), page(domain)),
    ))


def _proved(domain: Name, entry: AuditEntry) -> Letter:
    name = letters.cleaned(domain.name, 253)
    return Letter(_("{domain} is proved to be yours").format(domain=name), (
        Words(_("We found the record that proves it. Your mailboxes can send from {domain} now.").format(domain=name)),
        Link(_("See the records"), page(domain)),
    ))


def _verdicts(entry: AuditEntry) -> tuple[tuple[str, str], ...]:
    return tuple(
        (str(key).partition("-")[0].upper()[:20], _("{before}, now {after}").format(
            before=_VERDICTS.get(str(entry.before.get(key)), "?"), after=_VERDICTS.get(str(verdict), "?")
        ))
        for key, verdict in sorted(entry.after.items())
    )


def _records(domain: Name, entry: AuditEntry) -> Letter:
    name = letters.cleaned(domain.name, 253)
    return Letter(_("The DNS records of {domain} changed").format(domain=name), (
        Words(_("We look at the records of {domain} every day. Since the last look there is something new:").format(
            domain=name
        )),
        Facts(_verdicts(entry)),
        Link(_("See the records"), page(domain)),
        Aside(_("If you changed them yourself, and they are right, you need not do anything.")),
    ))


_MODELS = ("domain", "domainalias")
_COMPOSED: dict[str, Callable[[Name, AuditEntry], Letter]] = {
    "proof_missing": _missing, "lapsed": _lapsed, "proof_found": _back, "proved": _proved,
    "records_changed": _records,
}
_ACTIONS = [f"{model}.{act}" for model in _MODELS for act in _COMPOSED]


# Of several


def _composed(act: str, changes: Sequence[Change], tenant: Tenant) -> Letter:
    if len(changes) == 1:
        return _COMPOSED[act](*changes[0])
    subject, before, after = _OF_SEVERAL[act]()
    count, words = len(changes), _FACT.get(act, _life)
    facts = [(letters.cleaned(named.name, 253), words(entry)) for named, entry in changes[:MOST_NAMED]]
    if count > MOST_NAMED:
        facts.append(("…", _("and {count} more").format(count=count - MOST_NAMED)))
    return Letter(subject.format(count=count), (
        Words(before), Facts(tuple(facts)), *(Words(each) for each in after),
        Link(_("See your domains"), letters.url(f"/t/{tenant.pk}/domains/")),
    ))


def _life(entry: AuditEntry) -> str:
    return f"{entry.at:%Y-%m-%d %H:%M} UTC"


_FACT: dict[str, Callable[[AuditEntry], str]] = {
    "proof_missing": lambda entry: f"{entry.at + GRACE:%Y-%m-%d %H:%M} UTC",
    "records_changed": lambda entry: "; ".join(f"{name}: {what}" for name, what in _verdicts(entry)),
}
# The subject, what stands before the domains and what behind.
_OF_SEVERAL: dict[str, Callable[[], tuple[str, str, tuple[str, ...]]]] = {
    "proof_missing": lambda: (
        _("Sending from {count} domains will stop"),
        _(
            "Neither the record that proves these domains to be yours nor an MX record to this server is in their DNS "
            "any more. Sending stops at the time beside each:"
        ),
        (_(
            "Put one of them back before that, at whoever runs the domains' DNS. Until then everything works, and mail "
            "to them is taken in any case."
        ),),
    ),
    "lapsed": lambda: (
        _("Sending from {count} domains has stopped"),
        _(
            "For seven days neither the record that proves these domains to be yours nor an MX record to this server "
            "was in their DNS. Nobody can send from them now; mail to them is still taken."
        ),
        (_("Put the proofs' records back: sending goes on by itself once we have seen them."),),
    ),
    "proof_found": lambda: (
        _("{count} domains are all right again"),
        _("What was missing in the DNS of these domains is there. Sending doesn't stop."), (),
    ),
    "proved": lambda: (
        _("{count} domains are proved to be yours"),
        _("We found the records that prove it. Your mailboxes can send from these domains now."), (),
    ),
    "records_changed": lambda: (
        _("The DNS records of {count} domains changed"),
        _("We look at the records of your domains every day. Since the last look there is something new:"),
        (_("If you changed them yourself, and they are right, you need not do anything."),),
    ),
}
