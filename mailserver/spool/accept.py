"""accept: limits, Message, Recipients and Content of a batch in one transaction.

Decides which message of a batch is taken, in the order of arrival, and writes it. Does
not stage or publish local copies (intake). DESIGN §5; RECIPES, "Reserving limits".
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mailserver import log
from mailserver.envelope import (
    Accepted,
    Claimed,
    ClaimedMessage,
    Incoming,
    Lease,
    NewRecipient,
    Refused,
    VacationAnswer,
)
from mailserver.spool import sql, vacations
from panel.rules import limits, policy, reply
from panel.sending.models import Content, Counter, Message, Recipient

LIFE = timedelta(days=5)  # RFC 5321 §4.5.4.1: 4 to 5 days
LOCAL = "local"
LMTP = "lmtp"  # the next hop of mailboxes here that Dovecot stores

Key = tuple[limits.Kind, int]
Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A message with the rows that it needs.

    `key` names the body's file in the content store; without one a kept body is inline.
    `lease`: who delivers what is stored by LMTP, at once and without claiming it.
    """

    incoming: Incoming
    recipients: tuple[NewRecipient, ...]
    keep_content: bool
    key: str = ""
    lease: Lease | None = None


def recipients_of(incoming: Incoming, next_id: Callable[[], int], *, staged: bool) -> tuple[NewRecipient, ...]:
    """The message's Recipient rows: once for each resolved address and tenant, the first original wins.

    What a sender wrote twice is delivered once; but two tenants whose addresses lead to one
    place each see their own. `staged`: copies for our Maildirs are, so they are written as delivered,
    unless their mailbox is full.
    """
    rows: dict[tuple[object, int | None], NewRecipient] = {}
    for recipient in incoming.recipients:
        for delivery in recipient.deliveries:
            box = delivery.mailbox
            local = box is not None
            ours = box is not None and box.store != LMTP
            # Elsewhere upper and lower case may be two people (RFC 5321 §2.4).
            once = (delivery.resolved.canonical if local else delivery.resolved, recipient.tenant_id)
            if once in rows:
                continue
            rows[once] = NewRecipient(
                id=next_id(),
                original=str(recipient.original),
                resolved=str(delivery.resolved),
                tenant_id=_causing(incoming, recipient.tenant_id),
                recipient_tenant_id=recipient.tenant_id,
                next_hop=LOCAL if ours else LMTP if local else delivery.resolved.domain,
                local=box is not None and ours and staged and box.mailbox_id not in incoming.full,
                notify=recipient.notify,
                orcpt=recipient.orcpt,
            )
        if recipient.refusal:
            name = str(recipient.original)
            rows[name, recipient.tenant_id] = NewRecipient(
                id=next_id(), original=name, resolved=name, tenant_id=_causing(incoming, recipient.tenant_id),
                recipient_tenant_id=recipient.tenant_id, next_hop=LOCAL, local=False, notify=recipient.notify,
                orcpt=recipient.orcpt, refusal=recipient.refusal,
            )
    return tuple(rows.values())


def _causing(incoming: Incoming, holder: int | None) -> int | None:
    """Whose mail it is: the submitter's, or theirs for whom it was made; else theirs whose address it came to."""
    if incoming.login:
        return incoming.login.tenant_id
    return holder if incoming.caused_by is None else incoming.caused_by


def leased(entry: Entry, *, now: datetime, life: timedelta = LIFE) -> ClaimedMessage:
    """The accepted message with those of its recipients that the entry's lease holds, as if it had been claimed."""
    incoming, login = entry.incoming, entry.incoming.login
    return ClaimedMessage(
        id=incoming.id, reverse_path=str(incoming.reverse_path or ""), direction=incoming.direction,
        tenant_id=login.tenant_id if login else None, credential_id=login.credential_id if login else None,
        smtputf8=incoming.smtputf8, body_type=incoming.body_type, ret=incoming.ret, envid=incoming.envid,
        size=len(incoming.prefix) + incoming.body.size,
        recipients=tuple(
            Claimed(
                id=row.id, original=row.original, resolved=row.resolved, tenant_id=row.tenant_id,
                recipient_tenant_id=row.recipient_tenant_id, next_hop=row.next_hop, tries=0,
                accepted_at=incoming.received_at, expires_at=now + life, staged=False, notify=row.notify,
                orcpt=row.orcpt, delay_reported=False,
            )
            for row in entry.recipients
            if row.next_hop == LMTP
        ),
    )


def accept(
    batch: Sequence[Entry], *, now: datetime, life: timedelta = LIFE, time_s: Callable[[], float] | None = None,
    next_id: Callable[[], int] | None = None,
) -> list[Accepted | Refused]:
    """Take the batch's messages; one answer each, in the same order. Never raises for one of them.

    `time_s` tells the time of the charges, asked under the counters' lock: whoever waited
    for it must not be charged for an earlier minute, and be free before its hour is over.
    `next_id` numbers the recipients of automatic answers; without it none is written, nor over a limit.
    Over a limit: refused, nothing charged. A message that the database won't hold is refused
    alone, 451. Database lost: 451 for each.
    """
    answers: dict[int, Accepted | Refused] = {}
    ready: list[_Ready] = []
    for entry in batch:
        try:
            ready.append(_Ready.of(entry, now, life, next_id))
        except (ValueError, TypeError, AttributeError):
            log.fault("message can't be written", message=entry.incoming.id)
            answers[entry.incoming.id] = Refused(entry.incoming.id, reply.INTERNAL_ERROR)
    answers |= _take(ready, time_s or now.timestamp, now)
    return [answers[entry.incoming.id] for entry in batch]


@dataclass(frozen=True, slots=True)
class _Ready:
    """A message's rows as the database takes them, but for the facts of its charges."""

    entry: Entry
    message: Row
    recipients: tuple[Row, ...]
    content: Row | None
    answers: "tuple[_Answer, ...]" = ()

    @classmethod
    def of(cls, entry: Entry, now: datetime, life: timedelta, next_id: Callable[[], int] | None) -> "_Ready":
        answers = entry.incoming.answers if next_id else ()
        return cls(
            entry, *message_rows(entry, now, life),
            tuple(made for each in answers if (made := _Answer.of(each, now, life, next_id))),  # type: ignore[arg-type]
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """An automatic answer with its rows."""

    remembered: VacationAnswer
    rows: tuple[Row, tuple[Row, ...], Row | None]

    @classmethod
    def of(
        cls, answer: VacationAnswer, now: datetime, life: timedelta, next_id: Callable[[], int]
    ) -> "_Answer | None":
        """None for one that can't be written: the message that it answers goes on."""
        letter = answer.letter
        try:
            recipients = recipients_of(letter, next_id, staged=False)
            return cls(answer, message_rows(Entry(letter, recipients, keep_content=True), now, life))
        except (ValueError, TypeError, AttributeError):
            log.fault("an answer can't be written", message=letter.id)
            return None


def message_rows(entry: Entry, now: datetime, life: timedelta) -> tuple[Row, tuple[Row, ...], Row | None]:
    """The Message row (without its last column, facts), the Recipient rows and the Content row.

    Raises sql.BadValue for what can neither be stored nor shortened.
    """
    incoming, login, client = entry.incoming, entry.incoming.login, entry.incoming.client

    def text(column: str, value: str) -> str:
        return sql.clean(Message, column, value)

    if not 0 < incoming.id <= sql.LARGEST_ID:
        raise sql.BadValue(f"id {incoming.id}")
    reverse_path = sql.address(str(incoming.reverse_path)) if incoming.reverse_path else ""
    message = (
        incoming.id, sql.moment(incoming.received_at), text("direction", incoming.direction),
        login.tenant_id if login else None, reverse_path, text("subject", incoming.subject),
        text("message_id", incoming.message_id), text("header_from", incoming.header_from),
        login.credential_id if login else None,
        text("credential_text", f"{login.name}, {login.credential}") if login else "",
        sql.ip(client.ip), text("client_name", client.name), text("tls", client.tls),
        len(entry.incoming.prefix) + incoming.body.size, incoming.smtputf8, text("body", incoming.body_type),
        text("ret", incoming.ret), text("envid", incoming.envid),
    )
    recipients = tuple(_recipient_row(row, incoming.id, now, life, entry.lease) for row in entry.recipients)
    return message, recipients, _content_row(entry) if entry.keep_content else None


def _recipient_row(
    row: NewRecipient, message_id: int, now: datetime, life: timedelta, lease: Lease | None
) -> Row:
    def text(column: str, value: str) -> str:
        return sql.clean(Recipient, column, value)

    state = Recipient.State.DELIVERED if row.local else Recipient.State.WAITING
    said = reply.DELIVERED_HERE if row.local else None
    if row.refusal:
        state, said = Recipient.State.DISCARDED, row.refusal
    at = sql.moment(now)
    held = lease if row.next_hop == LMTP else None
    return (
        row.id, message_id, row.tenant_id, row.recipient_tenant_id, sql.address(row.original),
        sql.address(row.resolved), text("next_hop", row.next_hop), state.value, 0, at,
        sql.moment(held.until) if held else None, held.by if held else "", 0,
        sql.moment(now + life), row.local, text("notify", row.notify), text("orcpt", row.orcpt), False,
        text("last_reply", str(said)) if said else "", at if said else None,
    )


def _content_row(entry: Entry) -> Row:
    body = entry.incoming.body
    if not entry.key and body.data is None:
        raise sql.BadValue("a body that is neither in memory nor in the content store")
    where = Content.Where.FILE if entry.key else Content.Where.INLINE
    return (
        entry.incoming.id, entry.incoming.prefix, where.value, None if entry.key else body.data,
        sql.clean(Content, "key", entry.key), body.size, sql.clean(Content, "sha256", body.sha256),
    )


def inserts(messages: Sequence[tuple[Row, Sequence[Row], Row | None]]) -> list[sql.Statement]:
    """The INSERTs of whole messages: each a Message row with its Recipient rows and its Content row."""
    return [
        sql.insert(Message, sql.MESSAGE, [message for message, _, _ in messages]),
        sql.insert(Recipient, sql.RECIPIENT, [row for _, recipients, _ in messages for row in recipients]),
        sql.insert(Content, sql.CONTENT, [content for _, _, content in messages if content]),
    ]


def _take(
    ready: Sequence[_Ready], time_s: Callable[[], float], now: datetime
) -> Mapping[int, Accepted | Refused]:
    if not ready:
        return {}
    try:
        return commit(ready, time_s, now)
    except sql.SpoolUnavailable as error:
        log.warning("database unavailable", because=error, messages=len(ready))
        return {
            each.entry.incoming.id: Refused(each.entry.incoming.id, reply.UNAVAILABLE, error.in_doubt)
            for each in ready
        }
    except Exception as error:
        if len(ready) == 1 and ready[0].answers:
            log.fault("answers can't be written", message=ready[0].entry.incoming.id, because=error)
            return _take([replace(ready[0], answers=())], time_s, now)
        if len(ready) == 1:
            log.fault("message can't be written", message=ready[0].entry.incoming.id, because=error)
            return {ready[0].entry.incoming.id: Refused(ready[0].entry.incoming.id, reply.INTERNAL_ERROR)}
    # One of them fails the batch: alone, each shows whether it is the one.
    answers: dict[int, Accepted | Refused] = {}
    for each in ready:
        answers |= _take([each], time_s, now)
    return answers


def commit(ready: Sequence[_Ready], time_s: Callable[[], float], now: datetime) -> Mapping[int, Accepted | Refused]:
    """Reserve, write and commit; the step that fault tests stop at."""
    keys = sorted({
        (subject.kind, subject.id)
        for each in ready
        for letter in (each.entry.incoming, *(answer.remembered.letter for answer in each.answers))
        for subject, _ in letter.charges
    })
    for _ in range(3):
        try:
            return sql.run(lambda: _reserve_and_write(ready, keys, time_s, now))
        except _MissingCounters as missing:
            _create_counters(missing.keys)
    raise RuntimeError("counters vanish as fast as they are made")


def _reserve_and_write(
    ready: Sequence[_Ready], keys: Sequence[Key], time_s: Callable[[], float], now: datetime
) -> dict[int, Accepted | Refused]:
    packed = _lock_counters(keys) if keys else {}
    now_s = time_s()
    rings = {key: limits.Rings.of(raw) for key, raw in packed.items()}
    answers: dict[int, Accepted | Refused] = {}
    taken: list[tuple[Row, Sequence[Row], Row | None]] = []
    to_answer: list[_Answer] = []
    charged: set[Key] = set()
    for each in ready:
        incoming = each.entry.incoming
        facts: dict[str, object] = {}
        if incoming.charges:
            result = limits.reserve(rings, incoming.charges, now_s)
            if isinstance(result, limits.OverLimit):
                answers[incoming.id] = Refused(incoming.id, policy.over_limit(result, incoming.login))
                continue
            charged.update((subject.kind, subject.id) for subject, _ in incoming.charges)
            facts["charged"] = limits.charge_facts(result)
        answers[incoming.id] = Accepted(incoming.id)
        taken.append(((*each.message, json.dumps(facts)), each.recipients, each.content))
        to_answer += each.answers
    # In order, as everybody who locks several rows.
    for answer in sorted(to_answer, key=lambda each: (each.remembered.mailbox_id, each.remembered.sender)):
        given = answer.remembered
        if not vacations.remember(given, now):
            continue
        if isinstance(limits.reserve(rings, given.letter.charges, now_s), limits.OverLimit):
            vacations.not_given(given)
            continue
        charged.update((subject.kind, subject.id) for subject, _ in given.letter.charges)
        message, recipients, content = answer.rows
        taken.append(((*message, "{}"), recipients, content))
    counters = sql.Statement(
        f"UPDATE sending_counter SET rings = {sql.bytes_place()} WHERE kind = %s AND subject = %s",
        [(rings[key].pack(), int(key[0]), key[1]) for key in sorted(charged)],
    )
    sql.write([counters, *inserts(taken)])
    return answers


class _MissingCounters(Exception):
    def __init__(self, keys: Sequence[Key]) -> None:
        super().__init__(f"{len(keys)} counters are missing")
        self.keys = keys


def _lock_counters(keys: Sequence[Key]) -> dict[Key, bytes]:
    pairs = ", ".join(["(%s, %s)"] * len(keys))
    rows = sql.fetch(
        f"SELECT kind, subject, rings FROM sending_counter WHERE (kind, subject) IN (VALUES {pairs})"
        f" ORDER BY kind, subject{sql.for_update()}",
        [value for kind, subject in keys for value in (int(kind), subject)],
    )
    found = {(limits.Kind(kind), subject): bytes(rings) for kind, subject, rings in rows}
    missing = [key for key in keys if key not in found]
    if missing:
        raise _MissingCounters(missing)
    return found


def _create_counters(keys: Sequence[Key]) -> None:
    """In a transaction of their own, sorted: no lock of theirs is held when the rows are locked in order."""
    rows = [(int(kind), subject, b"") for kind, subject in keys]
    statement = sql.insert(Counter, ("kind", "subject", "rings"), rows, " ON CONFLICT (kind, subject) DO NOTHING")
    sql.run(lambda: sql.write([statement]))
