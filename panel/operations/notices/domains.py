"""What became of a domain while nobody looked: its proof, its sending, its records; to its owners and admins."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.domains.models import Domain
from panel.mailboxes.language import language_of
from panel.operations.notices.readers import OWNERS_AND_ADMINS, readers
from panel.rules.domain_life import GRACE
from panel.rules.status import Status
from panel.rules.verdicts import Verdict
from panel.sending import letters
from panel.sending.letters import Aside, Facts, Letter, Link, Purpose, Words
from panel.sending.models import Message
from panel.tenants.models import AuditEntry

MOST = 200  # changes in one look
WITHIN = timedelta(days=2)

_VERDICTS: dict[str, Any] = {
    Verdict.SAME: gettext_lazy("right"), Verdict.DIFFERENT: gettext_lazy("different"),
    Verdict.NOTHING: gettext_lazy("missing"), Verdict.CONFLICTS: gettext_lazy("conflicting"),
}


def tell(since: datetime, now: datetime) -> list[Message]:
    """The letters about what the audit log says since then."""
    entries = AuditEntry.objects.filter(at__gt=since, action__in=_COMPOSED, actor=None, tenant__isnull=False)
    found = list(entries.order_by("pk")[:MOST])
    named = Domain.objects.filter(pk__in=[each.subject_id for each in found], status=Status.ACTIVE)
    rows = {each.pk: each for each in named.select_related("tenant__parent__parent")}
    sent = []
    for entry in found:
        domain = rows.get(entry.subject_id or 0)
        if domain is None or domain.tenant is None or domain.tenant_id != entry.tenant_id:
            continue  # gone or handed over meanwhile, or its people were told otherwise
        for person in readers(domain.tenant, OWNERS_AND_ADMINS):
            letter = letters.send(
                str(person.email), language_of(person), partial(_COMPOSED[entry.action], domain, entry),
                purpose=Purpose.WARNING, about=f"domain {domain.pk} {entry.pk}", once_within=letters.KEPT, now=now,
                within=WITHIN,
            )
            if letter:
                sent.append(letter)
    return sent


def page(domain: Domain) -> str:
    """Of the console; in words, for the mailserver doesn't load the panel's addresses."""
    return letters.url(f"/t/{domain.tenant_id}/domains/{domain.pk}/")


def _missing(domain: Domain, entry: AuditEntry) -> Letter:
    name = letters.cleaned(domain, 253)
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


def _lapsed(domain: Domain, entry: AuditEntry) -> Letter:
    name = letters.cleaned(domain, 253)
    return Letter(_("Sending from {domain} has stopped").format(domain=name), (
        Words(_(
            "For seven days neither the record that proves {domain} to be yours nor an MX record to this server was in "
            "its DNS. Nobody can send from it now; mail to it is still taken."
        ).format(domain=name)),
        Words(_("Put the proof's record back: sending goes on by itself once we have seen it.")),
        Link(_("See the records"), page(domain)),
    ))


def _back(domain: Domain, entry: AuditEntry) -> Letter:
    name = letters.cleaned(domain, 253)
    return Letter(_("{domain} is all right again").format(domain=name), (
        Words(_("What was missing in the DNS of {domain} is there. Sending doesn't stop.").format(domain=name)),
        Link(_("See the records"), page(domain)),
    ))


def _proved(domain: Domain, entry: AuditEntry) -> Letter:
    name = letters.cleaned(domain, 253)
    return Letter(_("{domain} is proved to be yours").format(domain=name), (
        Words(_("We found the record that proves it. Your mailboxes can send from {domain} now.").format(domain=name)),
        Link(_("See the records"), page(domain)),
    ))


def _records(domain: Domain, entry: AuditEntry) -> Letter:
    name = letters.cleaned(domain, 253)
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


_COMPOSED: dict[str, Callable[[Domain, AuditEntry], Letter]] = {
    "domain.proof_missing": _missing, "domain.lapsed": _lapsed, "domain.proof_found": _back,
    "domain.proved": _proved, "domain.records_changed": _records,
}
