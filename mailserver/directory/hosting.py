"""What the name of a domain means: hosted here, by itself or as an alias of one, or the way to it.

Pending domains and aliases don't exist here (DESIGN §4).
"""

from collections.abc import Collection
from dataclasses import dataclass

from mailserver.directory.found import Found
from mailserver.directory.statuses import domain_status
from panel.domains import models as domains
from panel.rules.facts import HostedDomain, Proof, Route
from panel.sending.models import OutboundRoute


@dataclass(frozen=True, slots=True)
class Hosted:
    """A domain that the wire sees, and the proof of the name by which it was asked."""

    row: domains.Domain
    proof: Proof


def find_hosted(names: Collection[str]) -> dict[str, Hosted]:
    """The names that are hosted here, as a domain or an alias of one; pending ones don't exist."""
    found: dict[str, Hosted] = {}
    if not names:
        return found
    seen = domains.Domain.objects.exclude(proof=domains.Proof.PENDING).select_related(
        "tenant__parent__parent"
    )
    for row in seen.filter(name__in=names):
        found[row.name] = Hosted(row, Proof(row.proof))
    others = [name for name in names if name not in found]
    if others:
        aliases = (
            domains.DomainAlias.objects.filter(name__in=others)
            .exclude(proof=domains.Proof.PENDING)
            .exclude(domain__proof=domains.Proof.PENDING)
            .select_related("domain__tenant__parent__parent")
        )
        for alias in aliases:
            lapsed = domains.Proof.LAPSED in (alias.proof, alias.domain.proof)
            found[alias.name] = Hosted(alias.domain, Proof.LAPSED if lapsed else Proof.PROVED)
    return found


def domain(name: str) -> Found[HostedDomain | None]:
    """The hosted domain of that name, or the one that a domain alias of that name leads to."""
    hosted = find_hosted([name]).get(name)
    if hosted is None:
        return Found(None, frozenset({name}))
    row = hosted.row
    fact = HostedDomain(row.name, row.pk, row.tenant_id, domain_status(row), hosted.proof)
    return Found(fact, frozenset({name, row.name}))


def route(name: str) -> Found[Route | None]:
    """The way to a destination: its own row, else the default one."""
    row = OutboundRoute.objects.filter(domain__in=[name, ""]).order_by("-domain").first()
    return Found(Route(row.host, row.port, row.tls) if row else None, frozenset({name}))
