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

from django.conf import settings
from django.db.models import CharField, Q, QuerySet, Value
from django.db.models.lookups import In
from django.utils import timezone

from panel.database import ids
from panel.database.indexed import Unindexed
from panel.domains.models import Domain
from panel.mailboxes.loops import onward_at
from panel.mailboxes.models import Address, Mailbox
from panel.sending.models import Attempt, Message, Recipient
from panel.sending.selection import HERE
from panel.tenants.models import Tenant

MOST_ROWS = 1000  # at one look
ROWS_A_LINE = 5  # that are looked through for each line of the latest
MOST_NESTING = 10  # aliases behind one another, as the mailserver follows them

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
    # Where its way may be seen.
    settled_at: datetime | None = None
    expires_at: datetime | None = None  # while it waits
    here: bool = False  # it goes into a mailbox here
    on_the_way: bool = False  # just now
    # These tenants caused it, and its way may be seen: theirs to try again and to give up.
    caused: bool = False
    holds: int = 0  # bits of Hold, for whoever caused it

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

    `before` is the id after which to go on: the last one's. The number of queries doesn't grow with the rows.
    """
    mine = frozenset(tenants if not isinstance(tenants, QuerySet) else tenants.values_list("pk", flat=True))
    rows = Recipient.objects.all() if message_id is None else Recipient.objects.filter(message=message_id)
    if states:
        rows = rows.filter(state__in=states)
    limit = min(limit, MOST_ROWS)
    left = limit
    while left > 0:
        chosen = _newest(rows if before is None else rows.filter(pk__lt=before), mine, limit)
        for seen in as_seen_by(chosen, mine):
            if left and (not states or seen.state in states):
                left -= 1
                yield seen
        if len(chosen) < limit:
            return
        before = chosen[-1].pk


@dataclass(frozen=True, slots=True)
class SeenLine:
    """An address that a message went to, in a line: what became of all that is behind it."""

    message_id: int
    accepted_at: datetime | None  # None: the message was pruned
    original: str
    state: str
    submitted: bool
    subject: str  # for the submitter only
    others: int = 0  # further addresses that it went to
    sender: str = ""  # the reverse-path, of what came; empty also for the null path

    @property
    def queue_id(self) -> str:
        return ids.to_text(self.message_id)


def latest_seen_by(tenants: Collection[int], limit: int) -> list[SeenLine]:
    """The newest that these tenants may see, at most `limit` lines: four queries.

    All rows behind one address are one line, whoever's they are, so it tells less than
    `recipients_seen_by` and needn't ask how the address was reached.
    """
    mine = frozenset(tenants)
    newest = _newest(Recipient.objects.all(), mine, min(ROWS_A_LINE * limit, MOST_ROWS))
    keys = list(dict.fromkeys(map(_key, newest)))[:limit]
    states: dict[tuple[int, str], set[str]] = {}
    behind = Recipient.objects.filter(
        _known_to(mine), message__in={message for message, _ in keys},
        original__in={original for _, original in keys},
    )
    for message, original, state in behind.order_by().values_list("message_id", "original", "state").distinct():
        states.setdefault((message, original), set()).add(state)
    messages = Message.objects.in_bulk({message for message, _ in keys})
    lines = []
    for key in keys:
        found = messages.get(key[0])
        submitted = found is not None and found.tenant_id in mine
        told = next(state for state in _TELLING if state in states[key])
        lines.append(SeenLine(
            key[0], found.accepted_at if found else None, key[1], told, submitted,
            found.subject if found and submitted else "",
            sender=found.reverse_path if found and not submitted else "",
        ))
    return lines


def _newest(rows: QuerySet[Recipient], mine: Collection[int], limit: int) -> Sequence[Recipient]:
    """The newest rows that either tenant column makes visible: two questions, each with its own index."""
    found = {row.pk: row for row in rows.filter(tenant__in=mine).order_by("-pk")[:limit]}
    found |= {row.pk: row for row in rows.filter(recipient_tenant__in=mine).order_by("-pk")[:limit]}
    return [found[pk] for pk in sorted(found, reverse=True)[:limit]]


def as_seen_by(
    rows: Sequence[Recipient], mine: Collection[int], *, in_list: bool = False,
    messages: dict[int, Message] | None = None,
) -> Iterable[SeenRecipient]:
    """What of these rows, which are these tenants' by either column, they may see; see the head of this module.

    In a list, which has the newest first, without tries and deciding facts, and with fewer queries. `messages`
    are the rows' own, if at hand.
    """
    if messages is None:
        messages = Message.objects.in_bulk({row.message_id for row in rows})
    own = set() if in_list else _own_subjects(messages.values(), mine)
    for message_of in messages.values():
        charged = message_of.facts.get("charged")
        if charged:
            message_of.facts["charged"] = [each for each in charged if (each.get("kind"), each.get("id")) in own]
    hidden = _hidden(rows, mine)
    attempts: dict[int, list[SeenAttempt]] = {}
    shown = [row.pk for row in rows if row.pk not in hidden]
    for one in () if in_list else Attempt.objects.filter(recipient__in=shown).order_by("pk"):
        attempts.setdefault(one.recipient_id, []).append(
            SeenAttempt(one.at, one.outcome, one.host, one.address, one.tls, one.reply, one.duration_ms)
        )
    behind: dict[tuple[int, str], list[Recipient]] = {}
    for row in hidden.values():
        behind.setdefault(_key(row), []).append(row)
    # One row stands for all: of those in the state that is told, the one that comes first.
    first, standing_for = max if in_list else min, {}
    for key, together in behind.items():
        told = next(state for state in _TELLING if any(one.state == state for one in together))
        standing_for[key] = first(one.pk for one in together if one.state == told)
    for row in rows:
        message = messages.get(row.message_id)
        if row.pk not in hidden:
            yield _one(row, message, mine, attempts=tuple(attempts.get(row.pk, ())))
            continue
        if row.pk == standing_for[_key(row)]:
            yield _one(row, message, mine, attempts=None)


def _own_subjects(messages: Iterable[Message], mine: Collection[int]) -> set[tuple[str, int]]:
    """Of what the messages were charged to, what is these tenants'.

    An address of another tenant's that leads outside is charged to that tenant as well:
    its name, its limit and what it used of it are not the submitter's to see.
    """
    asked: dict[str, set[int]] = {"credential": set(), "mailbox": set(), "domain": set()}
    for message in messages:
        for each in message.facts.get("charged", ()):
            asked.setdefault(each.get("kind"), set()).add(each.get("id"))
    rows: dict[str, QuerySet[Any]] = {
        "mailbox": Mailbox.objects.filter(pk__in=asked["mailbox"], tenant__in=mine),
        "domain": Domain.objects.filter(pk__in=asked["domain"], tenant__in=mine),
    }
    own = {(kind, pk) for kind, found in rows.items() if asked[kind] for pk in found.values_list("pk", flat=True)}
    # Only the submitter's own login is charged, also when it was revoked since.
    return own | {("tenant", pk) for pk in mine} | {("credential", pk) for pk in asked["credential"]}


def _one(
    row: Recipient, message: Message | None, mine: Collection[int], *, attempts: tuple[SeenAttempt, ...] | None
) -> SeenRecipient:
    """The row as it may be seen; without attempts, what lies behind its address stays hidden."""
    submitter: dict[str, Any] = {}
    if message and message.tenant_id in mine:
        submitter = {
            "subject": message.subject, "header_from": message.header_from, "credential": message.credential_text,
            "client_ip": message.client_ip or "", "facts": message.facts,
        }
    shown = attempts is not None
    waits = row.state == Recipient.State.WAITING
    way: dict[str, Any] = {}
    if shown:
        caused = row.tenant_id in mine
        way = {
            "settled_at": row.settled_at, "here": row.next_hop in HERE, "caused": caused,
            "expires_at": row.expires_at if waits else None, "holds": row.holds if caused and waits else 0,
            "on_the_way": waits and row.lease_until is not None and row.lease_until > timezone.now(),
        }
    return SeenRecipient(
        id=row.pk, message_id=row.message_id, accepted_at=message.accepted_at if message else None,
        original=row.original, resolved=row.resolved if shown else "",
        reverse_path=message.reverse_path if message else "", state=row.state,
        due_at=row.due_at if shown and waits else None,
        tries=row.tries if shown else 0, reply=row.last_reply if shown else NEUTRAL[Recipient.State(row.state)],
        attempts=attempts or (), submitted=bool(submitter), **submitter, **way,
    )


def _hidden(rows: Sequence[Recipient], mine: Collection[int]) -> dict[int, Recipient]:
    """Of these rows, and those beside them behind the same address, the ones whose way may not be seen.

    Seen are rows of an address of the tenants' or of nobody's here, when they also know
    what it resolved to: it is the address itself, theirs, or reached by their own aliases.
    An own alias may lead through another tenant's, whose targets stay hidden.
    """
    doubtful = [row for row in rows if not (_is_theirs_or_nobodys(row, mine) and row.resolved == row.original)]
    if not doubtful:
        return {}
    beside = Recipient.objects.filter(
        _known_to(mine), message__in={row.message_id for row in doubtful},
        original__in={row.original for row in doubtful},
    )
    together = {row.pk: row for row in (*beside, *doubtful)}
    asked = [row for row in together.values() if _is_theirs_or_nobodys(row, mine)]
    theirs = _addresses_of(mine, {row.resolved for row in asked})
    seen = {row.pk for row in asked if row.resolved == row.original or row.resolved in theirs}
    wanted: dict[str, set[str]] = {}
    for row in asked:
        if row.pk not in seen:
            wanted.setdefault(row.original, set()).add(row.resolved)
    reached = _reached(wanted, mine)
    seen |= {row.pk for row in asked if row.pk not in seen and row.resolved in reached[row.original]}
    return {pk: row for pk, row in together.items() if pk not in seen}


def _is_theirs_or_nobodys(row: Recipient, mine: Collection[int]) -> bool:
    return row.recipient_tenant_id is None or row.recipient_tenant_id in mine


def _known_to(mine: Collection[int]) -> Q:
    """Of messages that are named: by these they are found, not by the tenant, which has many more."""
    return Q(In(Unindexed("tenant"), mine)) | Q(In(Unindexed("recipient_tenant"), mine))


def _key(row: Recipient) -> tuple[int, str]:
    return row.message_id, row.original


def _addresses_of(mine: Collection[int], asked: Collection[str]) -> set[str]:
    """Those of the addresses that are these tenants'."""
    parts = {text: text.rpartition("@") for text in asked}
    names = {domain for _, _, domain in parts.values()}
    if not parts:
        return set()
    # One question for both: a domain is told from its catch-all by the third column.
    domains = Domain.objects.filter(tenant__in=mine, name__in=names).order_by()
    held = Address.objects.filter(
        tenant__in=mine, local_part__in={local for local, _, _ in parts.values()}, domain__name__in=names
    ).order_by()
    own = set(
        domains.annotate(local=Value("", CharField()), kind_=Value(0)).values_list("local", "name", "kind_").union(
            held.annotate(kind_=Value(1)).values_list("local_part", "domain__name", "kind_"), all=True
        )
    )
    return {text for text, (local, _, domain) in parts.items() if ("", domain, 0) in own or (local, domain, 1) in own}


def _reached(wanted: dict[str, set[str]], mine: Collection[int]) -> dict[str, set[str]]:
    """What these tenants' own aliases and forwards, one behind the other, make of each address, as far as is wanted."""
    reached: dict[str, set[str]] = {original: set() for original in wanted}
    level = {original: {original} for original in wanted}
    for _ in range(MOST_NESTING):
        if all(texts <= reached[original] for original, texts in wanted.items()):
            break
        found = onward_at(set().union(*level.values()), settings.ENVIRONMENT.separator)
        own = {text: onward.targets for text, onward in found.items() if onward.address.tenant_id in mine}
        if not own:
            break
        for original, texts in level.items():
            after: set[str] = set().union(*(own[text] for text in texts if text in own))
            level[original] = after - reached[original]
            reached[original] |= after
    return reached
