"""The messages and recipients that a searched text names: each by an index, and never more than a bound.

A whole address is found as it was written, in whatever case, and as what it led to; a part of one as
the beginning of it. The newest come first where an index has them in that order: of one address, of one
client, of one Message-ID.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import Q, QuerySet

from panel.database import ids
from panel.database.indexed import Folded, begins_folded, fold, within
from panel.rules.searched import Searched
from panel.sending.models import Message, Recipient


@dataclass(frozen=True, slots=True)
class Found:
    """Primary keys, newest first. `more`: there are further ones than these."""

    pks: list[int]
    more: bool = False


def messages(rows: QuerySet[Message], searched: Searched, most: int) -> Found:
    """Those of `rows` with this queue id, Message-ID or client, or from an address that begins so."""
    return _newest(_messages(rows, searched, most), most)


def recipients(rows: QuerySet[Recipient], searched: Searched, most: int) -> Found:
    """Those of `rows` with this id, of a message with this id, or to an address that begins so."""
    return _newest(_recipients(rows, searched, most), most)


def messages_to(rows: QuerySet[Recipient], searched: Searched, most: int) -> Found:
    """The messages of those recipients."""
    return _newest(_recipients(rows, searched, most, "message_id"), most)


def _messages(rows: QuerySet[Message], searched: Searched, most: int) -> Iterator[list[int]]:
    number = number_of(searched)
    if number is not None:
        yield _pks(rows.filter(pk=number), 1)
    if searched.network is not None:
        there = within("client_ip", searched.network)
        if there is not None:
            one = searched.network.num_addresses == 1
            yield _pks(rows.filter(there).order_by(*(["-pk"] if one else [])), most)
    if searched.message_ids:
        yield _pks(rows.filter(message_id__in=searched.message_ids).order_by("-pk"), most)
    if searched.begins:
        yield _addressed(rows, "reverse_path", searched, most, "pk")


def _recipients(
    rows: QuerySet[Recipient], searched: Searched, most: int, pk: str = "pk"
) -> Iterator[list[int]]:
    number = number_of(searched)
    if number is not None:
        yield _pks(rows.filter(Q(message=number) | Q(pk=number)).order_by(), most, pk)
    if searched.begins:
        yield _addressed(rows, "original", searched, most, pk)
    if searched.address:
        # What an address leads to is kept in its canonical form.
        yield _pks(rows.filter(resolved=searched.address).order_by("-pk"), most, pk)
    elif searched.begins and ("." in searched.begins or ":" in searched.begins):
        yield _pks(rows.filter(state=Recipient.State.WAITING, next_hop=searched.domain or searched.begins), most, pk)


def number_of(searched: Searched) -> int | None:
    """The queue id that the text is."""
    try:
        return ids.from_text(searched.text)
    except ValueError:
        return None


def _addressed(rows: QuerySet, column: str, searched: Searched, most: int, pk: str) -> list[int]:
    """Of a whole address its own rows; of what begins so, in the order of the addresses."""
    asked = rows.filter(begins_folded(column, searched.begins)).annotate(folded=Folded(column))
    found = list(asked.order_by("folded", "-pk").values_list("folded", pk)[: most + 1])
    exact = fold(searched.address)
    if found and found[0][0] == exact:
        found = [row for row in found if row[0] == exact]
    return [number for _, number in found]


def _pks(rows: QuerySet, most: int, pk: str = "pk") -> list[int]:
    return list(rows.values_list(pk, flat=True)[: most + 1])


def _newest(found: Iterator[list[int]], most: int) -> Found:
    pks = sorted({pk for each in found for pk in each}, reverse=True)
    return Found(pks[:most], len(pks) > most)
