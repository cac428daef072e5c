"""What the parts of the mailserver hand each other: frozen facts, no behaviour."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntFlag
from pathlib import Path

from panel.rules.addresses import Address
from panel.rules.facts import Delivery, LocalMailbox, Login
from panel.rules.limits import Subject
from panel.rules.reply import Reply


class Listener(Enum):
    """What a port is for."""

    MX = "mx"  # mail from other servers, no logins
    SUBMISSION = "submission"  # mail clients, STARTTLS and AUTH first
    SUBMISSIONS = "submissions"  # mail clients, TLS from the first byte, AUTH first


class Disposition(Enum):
    """How a try ended for one recipient."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    FAILED = "failed"


class Hold(IntFlag):
    """Why a waiting recipient does not go: the bits of sending.models.Hold, without Django."""

    SUSPENDED = 1
    UNDELIVERABLE = 2
    POISON = 4


@dataclass(frozen=True, slots=True)
class Client:
    """Who is on the other end of a session."""

    ip: str
    port: int
    name: str  # from EHLO, clamped
    tls: str  # such as "TLSv1.3 TLS_AES_256_GCM_SHA384"; empty: plain
    esmtp: bool


@dataclass(frozen=True, slots=True)
class Body:
    """A message's bytes as they came: without dot stuffing, ending in CRLF, its header block included.

    In `data`, or when larger than 64 KiB in the file `path` under spool/ (`data` is then None).
    """

    size: int
    sha256: str  # hex
    data: bytes | None
    path: Path | None


@dataclass(frozen=True, slots=True)
class IncomingRecipient:
    """One recipient as accepted at RCPT, with where it leads. With a `refusal` nothing is delivered to it."""

    original: Address
    deliveries: tuple[Delivery, ...]
    tenant_id: int | None  # who holds the address here; None elsewhere
    notify: str = ""
    orcpt: str = ""
    refusal: Reply | None = None


@dataclass(frozen=True, slots=True)
class VacationAnswer:
    """What a mailbox answers to `sender`, unless it has answered it before and that still counts."""

    mailbox_id: int
    sender: str  # canonical
    until: datetime  # this one counts
    letter: "Incoming"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A whole message between its final dot and the reply: what intake takes.

    `message_id` (ours) and `received_at` are made before; `prefix` is complete.
    `charges` are the subjects with the number of recipients that each pays. `caused_by` is
    the tenant on whose behalf it was made here; its answers are written with its rows.
    `full` are the mailboxes without room for it: their copies wait in the queue.
    """

    id: int
    received_at: datetime
    direction: str  # submission, inbound, internal, answer
    login: Login | None
    client: Client
    reverse_path: Address | None  # None: the null path
    recipients: tuple[IncomingRecipient, ...]
    prefix: bytes
    body: Body
    subject: str
    message_id: str
    header_from: str
    smtputf8: bool
    body_type: str  # "", 7BIT, 8BITMIME
    ret: str
    envid: str
    charges: tuple[tuple[Subject, int], ...] = ()
    caused_by: int | None = None
    answers: tuple[VacationAnswer, ...] = ()
    full: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Staged:
    """A local copy in mail/staging/, fsynced, not yet published."""

    recipient_id: int
    mailbox: LocalMailbox
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Who has a waiting recipient in hand, and until when nobody else takes it."""

    by: str
    at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class NewRecipient:
    """A Recipient row to be written by accept."""

    id: int
    original: str
    resolved: str
    tenant_id: int | None
    recipient_tenant_id: int | None
    next_hop: str
    local: bool  # staged: written as delivered, published after the commit
    notify: str
    orcpt: str
    refusal: Reply | None = None  # written as discarded

    @property
    def waits(self) -> bool:
        """Whether the queue has it."""
        return not self.local and self.refusal is None


@dataclass(frozen=True, slots=True)
class Accepted:
    """accept took the message."""

    id: int


@dataclass(frozen=True, slots=True)
class Refused:
    """accept did not take the message; nothing was charged or written.

    `in_doubt`: the database was lost while it committed, so that all of it may be there.
    """

    id: int
    reply: Reply
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class StoredContent:
    """What the queue sends: the headers that we add, and the body as it came."""

    prefix: bytes
    body: Body


@dataclass(frozen=True, slots=True)
class Claimed:
    """One recipient leased from the queue."""

    id: int
    original: str
    resolved: str
    tenant_id: int | None
    recipient_tenant_id: int | None
    next_hop: str
    tries: int  # before this one
    accepted_at: datetime
    expires_at: datetime
    staged: bool
    notify: str
    orcpt: str
    delay_reported: bool
    lost_leases: int = 0  # that ran out without a word since: its worker crashed


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """A message with the leased recipients of one next hop; its content is read when it is needed."""

    id: int
    reverse_path: str
    direction: str
    tenant_id: int | None
    credential_id: int | None
    smtputf8: bool
    body_type: str
    ret: str
    envid: str
    size: int
    recipients: tuple[Claimed, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a transport says of one recipient. `reply` is what the remote said, or ours."""

    recipient_id: int
    disposition: Disposition
    reply: Reply
    host: str = ""
    address: str = ""
    tls: str = ""
    duration_ms: int = 0
    dsn_passed_on: bool = False  # the next hop offers DSN: success is its to report


@dataclass(frozen=True, slots=True)
class Attempt:
    """An Attempt row to be written by settle."""

    id: int
    at: datetime
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one recipient goes on: settle writes it, its Attempt and its DSN in one transaction.

    state: waiting (with due_at), delivered or failed. `dsn` is a whole new message, or None.
    """

    recipient_id: int
    message_id: int
    tenant_id: int | None
    recipient_tenant_id: int | None
    state: str
    due_at: datetime | None
    tries: int
    holds: int
    delay_reported: bool
    reply: str
    attempt: Attempt | None
    dsn: "Incoming | None" = None
