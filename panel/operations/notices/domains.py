"""What became of a domain, or of a name that stands for it, while nobody looked: to its owners and admins.

Its proof, its sending, its records.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db.models.lookups import IsNull
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.database.indexed import Unindexed
from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.language import language_of
from panel.operations.notices.readers import OWNERS_AND_ADMINS, readers
from panel.rules.domain_life import GRACE
from panel.rules.status import Status
from panel.rules.verdicts import Verdict
from panel.sending import letters
from panel.sending.letters import Aside, Due, Facts, Letter, Link, Purpose, Words
from panel.tenants.models import AuditEntry

MOST = 5000  # changes in one look
WITHIN = timedelta(days=2)

Name = Domain | DomainAlias

_VERDICTS: dict[str, Any] = {
    Verdict.SAME: gettext_lazy("right"), Verdict.DIFFERENT: gettext_lazy("different"),
    Verdict.NOTHING: gettext_lazy("missing"), Verdict.CONFLICTS: gettext_lazy("conflicting"),
}


def due(since: datetime, now: datetime) -> Iterator[Due]:
    """The letters about what the audit log says since then."""
    # By their time: those without an actor are many where much is done by the command line.
    entries = AuditEntry.objects.filter(
        IsNull(Unindexed("actor"), True), at__gt=since, action__in=_COMPOSED, tenant__isnull=False
    )
    found = list(entries.order_by("at")[:MOST])
    rows = _rows(found)
    for entry in found:
        named = rows.get((entry.subject_type, entry.subject_id or 0))
        tenant = _domain_of(named).tenant if named else None
        if named is None or tenant is None or tenant.pk != entry.tenant_id:
            continue  # gone or handed over meanwhile, or its people were told otherwise
        for person in readers(tenant, OWNERS_AND_ADMINS):
            yield partial(
                letters.send, str(person.email), language_of(person), partial(_COMPOSED[entry.action], named, entry),
                purpose=Purpose.DOMAIN, about=f"{entry.subject_type} {named.pk} {entry.pk}",
                once_within=letters.KEPT, now=now, within=WITHIN,
            )


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


def _records(domain: Name, entry: AuditEntry) -> Letter:
    name = letters.cleaned(domain.name, 253)
    facts = tuple(
        (str(key).partition("-")[0].upper()[:20], _("{before}, now {after}").format(
            before=_VERDICTS.get(str(entry.before.get(key)), "?"), after=_VERDICTS.get(str(verdict), "?")
        ))
        for key, verdict in sorted(entry.after.items())
    )
    return Letter(_("The DNS records of {domain} changed").format(domain=name), (
        Words(_("We look at the records of {domain} every day. Since the last look there is something new:").format(
            domain=name
        )),
        Facts(facts),
        Link(_("See the records"), page(domain)),
        Aside(_("If you changed them yourself, and they are right, you need not do anything.")),
    ))


_COMPOSED: dict[str, Callable[[Name, AuditEntry], Letter]] = {
    "domain.proof_missing": _missing, "domain.lapsed": _lapsed, "domain.proof_found": _back,
    "domain.proved": _proved, "domain.records_changed": _records,
    "domainalias.proof_missing": _missing, "domainalias.lapsed": _lapsed, "domainalias.proof_found": _back,
    "domainalias.proved": _proved,
}
