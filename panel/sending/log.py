"""What a tenant may see of messages: the one place that decides it (DESIGN §4, Recipient).

Who caused a recipient sees the original address, the outcome and the replies of servers
elsewhere, never what another tenant's address leads to, nor how many it leads to: its
rows are shown as one. Whose address it is here sees the original and resolved address, the
reverse-path and the tries, never the credential, the client's address or other recipients.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from panel.database import ids
from panel.domains.models import Domain
from panel.mailboxes.models import Address, AliasTarget
from panel.sending.models import Attempt, Message, Recipient
from panel.tenants.models import Tenant

MOST_ROWS = 1000  # at one look

# What is said of an address of another tenant's, in place of what happened behind it.
NEUTRAL = {
    Recipient.State.WAITING: "not delivered yet",
    Recipient.State.DELIVERED: "delivered",
    Recipient.State.FAILED: "could not be delivered",
    Recipient.State.DISCARDED: "given up",
}
# Of several rows behind one address the first that is among them is told.
_TELLING = (
    Recipient.State.WAITING, Recipient.State.FAILED, Recipient.State.DISCARDED, Recipient.State.DELIVERED,
)


@dataclass(frozen=True, slots=True)
class SeenAttempt:
    """One try, as far as it may be seen."""

    at: datetime
    outcome: str
    host: str
    address: str
    tls: str
    reply: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class SeenRecipient:
    """One recipient of a message, as far as these tenants may see it. What they may not is empty."""

    id: int
    message_id: int
    accepted_at: datetime | None  # None: the message was pruned
    original: str
    resolved: str
    reverse_path: str  # empty: the null path, or pruned
    state: str
    due_at: datetime | None
    tries: int
    reply: str
    attempts: tuple[SeenAttempt, ...]
    # Of the message, for its submitter only.
    submitted: bool
    subject: str = ""
    header_from: str = ""
    credential: str = ""
    client_ip: str = ""
    facts: dict[str, Any] | None = None

    @property
    def queue_id(self) -> str:
        return ids.to_text(self.message_id)


def recipients_seen_by(
    tenants: Collection[int] | QuerySet[Tenant],
    *,
    message_id: int | None = None,
    states: Collection[str] = (),
    before: int | None = None,
    limit: int = 100,
) -> Iterable[SeenRecipient]:
    """What these tenants may see, newest first, at most `limit` rows: of one message, in these states.

    `before` is the id after which to go on. A constant number of queries, whatever the number of rows.
    """
    mine = frozenset(tenants if not isinstance(tenants, QuerySet) else tenants.values_list("pk", flat=True))
    narrowed = Recipient.objects.all() if message_id is None else Recipient.objects.filter(message=message_id)
    if before is not None:
        narrowed = narrowed.filter(pk__lt=before)
    limit = min(limit, MOST_ROWS)
    # Two questions, each answered by its own index.
    rows = {row.pk: row for row in _newest(narrowed.filter(tenant__in=mine), states, limit)}
    rows |= {row.pk: row for row in _newest(narrowed.filter(recipient_tenant__in=mine), states, limit)}
    chosen = [rows[pk] for pk in sorted(rows, reverse=True)[:limit]]
    return _seen(chosen, mine, states)


def _newest(rows: QuerySet[Recipient], states: Collection[str], limit: int) -> QuerySet[Recipient]:
    if states:
        rows = rows.filter(state__in=states)
    return rows.order_by("-pk")[:limit]


def _seen(rows: Sequence[Recipient], mine: Collection[int], states: Collection[str]) -> Iterable[SeenRecipient]:
    messages = Message.objects.in_bulk({row.message_id for row in rows})
    open_rows = {row.pk for row in rows if _is_open(row, mine)}
    known = _resolved_known([row for row in rows if row.pk in open_rows], mine)
    families = _families([row for row in rows if row.pk not in open_rows], mine)
    attempts: dict[int, list[SeenAttempt]] = {}
    for one in Attempt.objects.filter(recipient__in=open_rows).order_by("pk"):
        attempts.setdefault(one.recipient_id, []).append(
            SeenAttempt(one.at, one.outcome, one.host, one.address, one.tls, one.reply, one.duration_ms)
        )
    for row in rows:
        message = messages.get(row.message_id)
        if row.pk in open_rows and row.resolved in known:
            yield _one(row, message, mine, resolved=row.resolved, reply=row.last_reply, state=row.state,
                       attempts=tuple(attempts.get(row.pk, ())))
            continue
        family = families.get(_key(row), {row.pk: row.state})
        if row.pk not in open_rows and row.pk != min(family):
            continue
        found = {row.state} if row.pk in open_rows else set(family.values())
        state = next(one for one in _TELLING if one in found)
        if not states or state in states:
            yield _one(row, message, mine, resolved="", reply=NEUTRAL[state], state=state, attempts=())


def _one(
    row: Recipient, message: Message | None, mine: Collection[int], *, resolved: str, reply: str, state: str,
    attempts: tuple[SeenAttempt, ...],
) -> SeenRecipient:
    submitter: dict[str, Any] = {}
    if message and message.tenant_id in mine:
        submitter = {
            "subject": message.subject, "header_from": message.header_from, "credential": message.credential_text,
            "client_ip": message.client_ip or "", "facts": message.facts,
        }
    return SeenRecipient(
        id=row.pk, message_id=row.message_id, accepted_at=message.accepted_at if message else None,
        original=row.original, resolved=resolved, reverse_path=message.reverse_path if message else "", state=state,
        due_at=row.due_at if resolved and state == Recipient.State.WAITING else None,
        tries=row.tries if resolved else 0, reply=reply, attempts=attempts, submitted=bool(submitter), **submitter,
    )


def _is_open(row: Recipient, mine: Collection[int]) -> bool:
    """Whether what lies behind the address is no other tenant's."""
    return row.recipient_tenant_id in mine or (row.recipient_tenant_id is None and row.resolved == row.original)


def _resolved_known(rows: Iterable[Recipient], mine: Collection[int]) -> set[str]:
    """Of the addresses that these rows resolve to, those that the tenants know anyway.

    Theirs, the address that was asked for, and what an alias of theirs names. An alias of
    theirs may lead through another tenant's, whose targets stay hidden.
    """
    known = {row.resolved for row in rows if row.resolved == row.original}
    asked = {row.resolved for row in rows} - known
    if not asked:
        return known
    named = AliasTarget.objects.filter(target__in=asked, alias__address__tenant__in=mine)
    known |= set(named.values_list("target", flat=True))
    parts = {text: text.rpartition("@") for text in asked}
    own = set(
        Domain.objects.filter(tenant__in=mine, name__in={domain for _, _, domain in parts.values()})
        .values_list("name", flat=True)
    )
    held = Address.objects.filter(
        tenant__in=mine, local_part__in={local for local, _, _ in parts.values()},
        domain__name__in={domain for _, _, domain in parts.values()},
    ).values_list("local_part", "domain__name")
    addresses = set(held)
    known |= {text for text, (local, _, domain) in parts.items() if domain in own or (local, domain) in addresses}
    return known


def _key(row: Recipient) -> tuple[int, str]:
    return row.message_id, row.original


def _families(rows: Iterable[Recipient], mine: Collection[int]) -> dict[tuple[int, str], dict[int, str]]:
    """For each address behind which nothing may be seen: the states of all its rows by their ids."""
    keys = {_key(row) for row in rows}
    if not keys:
        return {}
    together = Recipient.objects.filter(
        Q(tenant__in=mine), message__in={message for message, _ in keys}, original__in={text for _, text in keys}
    ).exclude(recipient_tenant__in=mine)
    families: dict[tuple[int, str], dict[int, str]] = {}
    for row in together:
        families.setdefault(_key(row), {})[row.pk] = row.state
    return families
