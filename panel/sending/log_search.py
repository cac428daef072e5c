"""A tenant's message log, searched: which recipients a query names among those that the tenant may see.

What of them may be seen says log.py; nothing is matched that it wouldn't show. The newest come first, by key.

An address or a client is found by its index, and so is what waits or failed, among all that there is. What no
index knows (a domain, words of a subject, how an address begins) is looked for in the tenant's own rows, so
many at a time, and it is told how far back that went: no search takes long, however large the log.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q, QuerySet, Subquery
from django.db.models.lookups import EndsWith, Exact

from panel.database import ids
from panel.database.indexed import Folded, Unindexed, begins_folded, fold, is_folded, within
from panel.rules.log_query import LogQuery, Party, Told
from panel.sending.log import SeenRecipient, as_seen_by
from panel.sending.models import Message, Recipient
from panel.tenants.models import Tenant

PAGE = 50
# Rows of the tenant's own that are looked at in one step, where no index knows the answer.
LOOKED_AT = 20_000
LOOKED_AT_WITH_MESSAGES = 4_000  # where each row's message has to be fetched too
ROUNDS = 4  # until there is a page of what may be told
WIDER = 5  # times as many rows in each round: of thousands behind another tenant's alias one line is told

State = Recipient.State
STATES = {
    Told.WAITING: State.WAITING, Told.HELD: State.WAITING, Told.DELIVERED: State.DELIVERED,
    Told.BOUNCED: State.FAILED, Told.GIVEN_UP: State.DISCARDED,
}
_TOLD = {State.WAITING: Told.WAITING, State.DELIVERED: Told.DELIVERED, State.FAILED: Told.BOUNCED,
         State.DISCARDED: Told.GIVEN_UP}
_SIDES = ("tenant", "recipient_tenant")

Key = tuple[int, int]  # message, recipient


@dataclass(frozen=True, slots=True)
class Page:
    """Recipients, newest first. `after`: where to go on, empty at the end of the log."""

    rows: list[SeenRecipient]
    after: str = ""
    until: datetime | None = None  # only so far back was looked; there is more before it


def told_of(seen: SeenRecipient) -> Told:
    """What is told of it."""
    return Told.HELD if seen.holds else _TOLD[State(seen.state)]


def find(tenant_id: int, query: LogQuery, after: str = "", most: int = PAGE) -> Page:
    """The first of the tenant's recipients that the query names, after this key."""
    key = read_key(after)
    found: list[SeenRecipient] = []
    for round_number in range(ROUNDS):
        left = most - len(found)
        looked = left * WIDER**round_number
        step = _step(tenant_id, query, key, looked + 1)
        more = len(step.rows) > looked
        rows = step.rows[:looked]
        told = [each for each in as_seen_by(rows, {tenant_id}, in_list=True) if _is_told(each, query)]
        found += told[:left]
        if len(told) > left:
            return Page(found, _written((found[-1].message_id, found[-1].id)))
        key = (rows[-1].message_id, rows[-1].pk) if more else step.floor
        if not more:
            until = datetime.fromtimestamp(ids.made_at_ms(key[1]) / 1000, UTC) if key else None
            return Page(found, _written(key), until)
        if len(found) == most:
            break
    else:
        if query.to and query.to.address:
            # Told where it goes on, one would know that so many hidden ways lead to this address.
            key = None
    return Page(found, _written(key))


def began_at(tenant_id: int) -> datetime | None:
    """When the oldest recipient came that the tenant's log holds; None without any."""
    oldest = [Recipient.objects.filter(**{side: tenant_id}).order_by("pk") for side in _SIDES]
    known = _ids_of(tenant_id, [rows.values("pk")[:1] for rows in oldest])
    return datetime.fromtimestamp(ids.made_at_ms(min(known)) / 1000, UTC) if known else None


def _ids_of(tenant_id: int, asked: "Sequence[QuerySet[Any, Any]]") -> list[int]:
    """The one id that each of these gives, if it does: one query for all."""
    row = Tenant.objects.filter(pk=tenant_id).order_by().values_list(*[Subquery(each) for each in asked]).first()
    return [pk for pk in row or () if pk is not None]


def read_key(text: str) -> Key | None:
    """The key that a page's address holds; None for anything else."""
    message, _, recipient = text[:40].partition(".")  # Python reads no number of some thousand digits
    if not (message.isascii() and message.isdigit() and recipient.isascii() and recipient.isdigit()):
        return None
    key = int(message), int(recipient)
    return key if max(key) < 1 << 63 else None


def _written(key: Key | None) -> str:
    return f"{key[0]}.{key[1]}" if key else ""


@dataclass(frozen=True, slots=True)
class _Step:
    rows: Sequence[Recipient]
    floor: Key | None = None  # below it nothing was looked at


def _step(tenant_id: int, query: LogQuery, key: Key | None, most: int) -> _Step:
    sides = [side for side in _SIDES if side == "tenant" or not _is_submitters(query)]
    if _by_message(query):
        pairs = _of_messages(tenant_id, sides, query, key, most)
        rows = Recipient.objects.in_bulk([pk for _, pk in pairs])
        return _Step([rows[pk] for _, pk in pairs if pk in rows])
    found: dict[int, Recipient] = {}
    floor = 0
    if _by_recipient(query):
        for condition in _conditions(query):
            rows_of = Recipient.objects.filter(condition, _is_tenants(tenant_id, sides))
            found |= _first(_narrowed(rows_of, query, tenant_id, key), most)
    else:
        own = [Recipient.objects.filter(**{side: tenant_id}) for side in sides]
        if not query.is_everything:
            looked = LOOKED_AT_WITH_MESSAGES if _needs_messages(query) else LOOKED_AT
            floor = max(_ids_of(tenant_id, [
                _within(each, query, key).order_by("-pk").values("pk")[looked:looked + 1] for each in own
            ]), default=0)
        for each in own:
            found |= _first(_narrowed(each.filter(pk__gte=floor) if floor else each, query, tenant_id, key), most)
    kept = [pk for pk in sorted(found, reverse=True) if pk >= floor][:most]
    return _Step([found[pk] for pk in kept], (floor, floor) if floor else None)


def _first(rows: "QuerySet[Recipient]", most: int) -> dict[int, Recipient]:
    return {row.pk: row for row in rows.order_by("-pk")[:most]}


def _by_message(query: LogQuery) -> bool:
    """Whether the messages' indexes find it."""
    if query.id:
        return True
    if query.to and query.to.address:
        return False
    one_client = query.network is not None and query.network.num_addresses == 1
    return one_client or bool(query.sender and query.sender.address)


def _by_recipient(query: LogQuery) -> bool:
    """Whether an index finds it among all recipients."""
    return bool(query.to and query.to.address) or query.status in (
        Told.WAITING, Told.HELD, Told.BOUNCED, Told.GIVEN_UP
    )


def _conditions(query: LogQuery) -> Iterator[Q]:
    """What the index is asked: each is a question of its own."""
    if query.to and query.to.address:
        yield is_folded("original", query.to.address)
        # What an address leads to is kept in its canonical form.
        yield Q(resolved=query.to.address)
    elif query.status:
        yield Q(state=STATES[query.status])


def _is_tenants(tenant_id: int, sides: Sequence[str], to_recipient: str = "") -> Q:
    """Whether a row that another index found is the tenant's."""
    found = Q()
    for side in sides:
        found |= Q(Exact(Unindexed(f"{to_recipient}{side}"), tenant_id))
    return found


def _of_messages(tenant_id: int, sides: Sequence[str], query: LogQuery, key: Key | None, most: int) -> list[Key]:
    asked = _is_tenants(tenant_id, sides, "recipients__")
    if query.id:
        try:
            asked &= Q(pk=ids.from_text(query.id))
        except ValueError:
            return []
    asked &= _terms(query, "recipients__", "", tenant_id)
    if query.after:
        asked &= Q(pk__gte=_id_at(query.after))
    if query.before:
        asked &= Q(pk__lt=_id_at(query.before))
    if key:
        asked &= Q(pk__lte=key[0]) & (Q(pk__lt=key[0]) | Q(recipients__pk__lt=key[1]))
    rows = Message.objects.filter(asked).order_by("-pk", "-recipients__pk")
    return list(rows.values_list("pk", "recipients__pk")[:most])


def _narrowed(rows: "QuerySet[Recipient]", query: LogQuery, tenant_id: int, key: Key | None) -> "QuerySet[Recipient]":
    return _within(rows, query, key).filter(_terms(query, "", "message__", tenant_id))


def _within(rows: "QuerySet[Recipient]", query: LogQuery, key: Key | None) -> "QuerySet[Recipient]":
    """Those after the key and between the times: by their ids, which rise with time."""
    below = [*([key[1]] if key else []), *([_id_at(query.before)] if query.before else [])]
    if below:
        rows = rows.filter(pk__lt=min(below))
    return rows.filter(pk__gte=_id_at(query.after)) if query.after else rows


def _terms(query: LogQuery, recipient: str, message: str, tenant_id: int) -> Q:
    """All that is asked for, as a condition; `recipient` and `message` lead to the columns of each."""
    asked = Q()
    if query.to:
        is_to = _is_party(f"{recipient}original", query.to)
        asked &= is_to | Q(**{f"{recipient}resolved": query.to.address}) if query.to.address else is_to
    if query.sender:
        asked &= _is_party(f"{message}reverse_path", query.sender)
    if query.domain:
        asked &= _is_at(f"{recipient}original", query.domain) | _is_at(f"{message}reverse_path", query.domain)
    if query.status:
        asked &= Q(**{f"{recipient}state": STATES[query.status]})
        if query.status is Told.HELD:
            asked &= Q(**{f"{recipient}holds__gt": 0})
    if _is_submitters(query):
        asked &= Q(Exact(Unindexed(f"{message}tenant"), tenant_id))
    for word in query.words:
        asked &= Q(**{f"{message}subject__icontains": word})
    if query.network is not None:
        there = within(f"{message}client_ip", query.network)
        asked &= there if there is not None else Q(pk__in=[])
    return asked


def _needs_messages(query: LogQuery) -> bool:
    return bool(query.sender or query.domain) or _is_submitters(query)


def _is_submitters(query: LogQuery) -> bool:
    """Whether it asks for what only the submitter of a message may know."""
    return bool(query.words) or query.network is not None


def _is_party(column: str, party: Party) -> Q:
    if party.address:
        return is_folded(column, party.address)
    if party.domain:
        return _is_at(column, party.domain)
    return begins_folded(column, party.begins) if party.begins else Q(**{column: ""})


def _is_at(column: str, domain: str) -> Q:
    """Whether the address in the column is in exactly this domain: its last @ stands before the whole name."""
    found = Q(EndsWith(Folded(column), f"@{domain}"))
    try:
        as_written = domain.encode("ascii").decode("idna")
    except UnicodeError:
        return found
    return found if as_written == domain else found | Q(EndsWith(Folded(column), f"@{as_written}"))


def _id_at(at: datetime) -> int:
    return ids.first_of_ms(int(at.timestamp() * 1000))


def _is_told(seen: SeenRecipient, query: LogQuery) -> bool:
    """Whether what may be told of it answers the query: not by what is hidden."""
    if query.status and told_of(seen) is not query.status:
        return False
    if query.to and query.to.address:
        return fold(query.to.address) == fold(seen.original) or query.to.address == seen.resolved
    return True
