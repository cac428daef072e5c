"""What the rules decide by: frozen facts that the directory gathers and policy reads."""

import ipaddress
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum

from panel.rules.addresses import Address
from panel.rules.limits import Subject
from panel.rules.status import Status


class Proof(Enum):
    """Whether a domain's owner proved it (domains.Proof, without Django)."""

    PENDING = "pending"
    PROVED = "proved"
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True)
class SenderRights:
    """The addresses that a mailbox may send as.

    Its own local part, with any subaddress, in its domain and that domain's aliases;
    and each alias of its own tenant that names it directly. Never by catch-all,
    nested alias, wildcard or another tenant's alias.
    """

    local_part: str  # canonical
    domains: frozenset[str]
    aliases: frozenset[Address]  # canonical
    separator: str = "+"

    def __contains__(self, sender: Address) -> bool:
        address = sender.canonical
        if address in self.aliases:
            return True
        return address.domain in self.domains and self.local_part in (
            address.local_part, address.without_subaddress(self.separator).local_part
        )


@dataclass(frozen=True, slots=True)
class Login:
    """An authenticated credential and all that decides what it may do; as fresh as the directory."""

    credential_id: int
    credential: str  # in words: "main password" or 'app password "web shop"'
    mailbox_id: int
    address: Address
    tenant_id: int
    domain: str
    status: Status  # the strictest of mailbox, domain and tenant
    suspended: str  # whose that is: "shop@demo.test", "demo.test" or "the tenant Demo"; empty when active
    proof: Proof  # of its domain
    # Not frozen, not expired when this was read, and no main password whose person has a second factor.
    usable: bool
    scopes: frozenset[str]
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]  # empty: from anywhere
    may_send_as: SenderRights
    # Who is charged: mailbox and tenant always (their usage is shown), credential and domain if limited.
    limits: tuple[Subject, ...]
    expires_at: datetime | None = None
    fingerprint: str = ""  # of the stored password: another one after a change
    has_factor: bool = False  # a main password that is not usable for the second factor alone

    @property
    def name(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class Vacation:
    """What a mailbox answers while its owner is away."""

    text: str
    subject: str = ""  # empty: that of the message which is answered
    name: str = ""  # who answers
    days: int = 7  # in which a sender is answered once
    first: date | None = None  # days in UTC, both included; None: no bound
    last: date | None = None
    charged: tuple[Subject, ...] = ()  # for each answer: the mailbox, its tenant, and its domain if that has a limit


@dataclass(frozen=True, slots=True)
class MailRules:
    """What a mailbox does with its mail before it is stored."""

    vacation: Vacation | None = None
    junk: bool = False  # what is marked as junk goes into the folder Junk, and nowhere else
    forwards: bool = False  # to where Resolution.steps go on
    keeps: bool = True  # a copy of what is forwarded
    blocked: frozenset[str] = frozenset()  # canonical addresses, and domains with all below them


@dataclass(frozen=True, slots=True)
class LocalMailbox:
    """A mailbox that mail can be put into."""

    mailbox_id: int
    opaque_id: str
    tenant_id: int
    address: Address
    quota_bytes: int | None
    store: str = "maildir"  # who puts it there: we, or Dovecot by "lmtp"
    rules: MailRules | None = None
    language: str = ""  # of what its person is told; empty: the installation's


@dataclass(frozen=True, slots=True)
class Delivery:
    """One place where an accepted recipient's mail goes.

    `mailbox` is None when `resolved` is elsewhere: then it goes by MX or route.
    `charged` are those whom an address outside costs when an alias or a mailbox's forward
    led there: the tenant whose it is, and its domain if that has a limit. Empty otherwise.
    """

    resolved: Address
    mailbox: LocalMailbox | None
    charged: tuple[Subject, ...] = ()
    junk: bool = False  # into the mailbox's folder Junk


@dataclass(frozen=True, slots=True)
class Step:
    """A place on a recipient's way: an alias, or a mailbox with where it forwards to."""

    address: Address  # as it is asked for there
    mailbox: LocalMailbox | None  # None: an alias
    outside: tuple[Delivery, ...] = ()  # where it leads out of the house
    next: tuple[int, ...] = ()  # where it goes on here: indexes of other steps


class Verdict(Enum):
    """What the directory knows of an address."""

    HERE = "here"  # deliveries say where
    UNKNOWN = "unknown"  # its domain is hosted here, it isn't; also a closed one
    ELSEWHERE = "elsewhere"  # its domain is not hosted here, or pending
    LOOPS = "loops"
    BLOCKED = "blocked"  # by all whom it leads to: only of one sender, never kept


@dataclass(frozen=True, slots=True)
class Resolution:
    """What became of one recipient address."""

    asked: Address
    verdict: Verdict
    tenant_id: int | None = None  # who holds the address here
    deliveries: tuple[Delivery, ...] = ()
    domains: frozenset[str] = frozenset()  # whose change makes this stale
    # The way there, beginning with `asked`; only where a mailbox on it has rules. `deliveries` are then
    # those of mail that no rule but forwarding touches (rules/filtering).
    steps: tuple[Step, ...] = ()

    @property
    def is_charged(self) -> bool:
        """Whether its mail costs somebody here, and so can be over a limit."""
        return any(d.charged for d in self.deliveries)


@dataclass(frozen=True, slots=True)
class Recipients:
    """What a transaction's recipients so far have to do with the next one."""

    count: int = 0
    tenants: frozenset[int | None] = frozenset()  # who hold the addresses; None: nobody here
    any_charged: bool = False

    def plus(self, accepted: Resolution) -> "Recipients":
        tenants = self.tenants if accepted.tenant_id in self.tenants else self.tenants | {accepted.tenant_id}
        return Recipients(self.count + 1, tenants, self.any_charged or accepted.is_charged)


@dataclass(frozen=True, slots=True)
class HostedDomain:
    """A domain as the wire sees it (pending ones are not seen)."""

    name: str
    domain_id: int
    tenant_id: int | None  # None: shared
    status: Status  # the strictest of domain and tenant
    proof: Proof


@dataclass(frozen=True, slots=True)
class Route:
    """The provider's way to a destination in place of its MX."""

    host: str
    port: int
    tls: str  # opportunistic, required, none
