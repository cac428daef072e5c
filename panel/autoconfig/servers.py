"""Which domains are answered, and the servers that a mail client is told of."""

from dataclasses import dataclass

from django.db.models import Q

from panel.domains.models import Domain, DomainAlias, Proof
from panel.environment import Environment
from panel.rules.addresses import Address, BadAddress, canonical_domain, parse_address
from panel.rules.status import Status

POLICY_HOST = "mta-sts."  # RFC 8461 §3.2
PREFIXES = ("autoconfig.", "autodiscover.", POLICY_HOST)
MOST_ADDRESS = 1000  # characters looked at; an address has at most 254 bytes


@dataclass(frozen=True, slots=True)
class Server:
    """A service that a client may use. `protocol`: imap, pop3 or smtp; `starttls`: else TLS from the first byte."""

    protocol: str
    host: str
    port: int
    starttls: bool = False


def servers(environment: Environment) -> tuple[Server, ...]:
    """What is offered, the preferred first (RFC 8314 §3: TLS from the first byte)."""
    offered = (
        ("imap", "imaps", False),
        ("pop3", "pop3s", False),
        ("smtp", "submissions", False),
        ("smtp", "submission", True),
    )
    return tuple(
        Server(protocol, environment.hostname, port, starttls)
        for protocol, service, starttls in offered
        if (port := environment.public_port(service))
    )


def is_answered(domain: str) -> bool:
    """Whether this canonical name is a proved domain or domain alias that isn't closed."""
    proved = Domain.objects.filter(proof=Proof.PROVED, status__lt=Status.CLOSED)
    alias = DomainAlias.objects.filter(
        Q(name=domain, proof=Proof.PROVED, domain__proof=Proof.PROVED, domain__status__lt=Status.CLOSED)
    )
    return proved.filter(name=domain).exists() or alias.exists()


def read_address(text: str) -> Address | None:
    """The address in the form that is used to log in, if it is one and its domain is answered."""
    if len(text) > MOST_ADDRESS:
        return None
    try:
        address = parse_address(text)
    except BadAddress:
        return None
    return address if is_answered(address.domain) else None


def read_domain(text: str) -> str | None:
    """The canonical name of an answered domain, from a host: what stands in `PREFIXES` belongs to none."""
    try:
        name = canonical_domain(text)
    except BadAddress:
        return None
    for prefix in PREFIXES:
        if name.startswith(prefix) and is_answered(name.removeprefix(prefix)):
            return name.removeprefix(prefix)
    return name if is_answered(name) else None
