"""What the rules of mailboxes make of a whole message, at the end of DATA.

Gathers the facts (header, date, where the sender's mail goes) that rules/filtering decides
by, and builds what follows: narrowed recipients, automatic answers, the mark of a forward.
For both ways of storing, and before either. Recipients without rules pass untouched.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mailserver import log, vacation
from mailserver.directory import Directory, DirectoryUnavailable
from mailserver.envelope import VacationAnswer
from mailserver.trace import FORWARDED
from panel.database import ids
from panel.database.ids import IdMaker
from panel.rules import filtering, headers
from panel.rules.addresses import Address
from panel.rules.facts import Delivery, LocalMailbox, Resolution, Verdict
from panel.rules.filtering import Answering, Mail, Way
from panel.rules.headers import Field

MOST_ANSWERS = 20  # to one message: an alias of many who are away would be answered by them all
_MOST_MARKS = 100


@dataclass(frozen=True, slots=True)
class Arrived:
    """A whole message."""

    id: int
    at: datetime
    sender: Address | None  # the reverse-path
    authors: tuple[Address, ...]  # From
    fields: Sequence[Field]
    message_id: str


@dataclass(frozen=True, slots=True)
class Disposed:
    """The recipients as the rules leave them (BLOCKED: nothing is delivered), and what is added.

    `prefix`: marks above the copies that are forwarded out of the house.
    """

    resolutions: tuple[Resolution, ...]
    answers: tuple[VacationAnswer, ...] = ()
    prefix: bytes = b""


async def dispose(
    resolutions: Sequence[Resolution], arrived: Arrived, *, directory: Directory, next_ids: IdMaker, separator: str
) -> Disposed:
    """Apply the rules of all mailboxes on the recipients' ways. Raises DirectoryUnavailable."""
    if not any(resolution.steps for resolution in resolutions):
        return Disposed(tuple(resolutions))
    mail = Mail(
        arrived.sender, arrived.authors, filtering.is_marked_as_junk(arrived.fields), _came_back(resolutions, arrived)
    )
    narrowed: list[Resolution] = []
    ways: list[Way] = []
    for resolution in resolutions:
        if resolution.steps:
            way = filtering.follow(resolution.steps, mail)
            ways.append(way)
            verdict = Verdict.HERE if way.deliveries else Verdict.BLOCKED
            resolution = replace(resolution, deliveries=way.deliveries, verdict=verdict)
        narrowed.append(resolution)
    answering = {each.mailbox.mailbox_id: each for way in ways for each in way.answering}
    answers = await _answers(list(answering.values()), mail, arrived, directory, next_ids, separator)
    leave = any(delivery.mailbox is None for way in ways if way.forwarded for delivery in way.deliveries)
    marks = {box.opaque_id: box for way in ways for box in way.forwarded} if leave else {}
    prefix = "".join(f"{FORWARDED}: {_mark(arrived.id, box)}\r\n" for box in marks.values())
    return Disposed(tuple(narrowed), answers, prefix.encode())


def _mark(message_id: int, mailbox: LocalMailbox) -> str:
    """What says that the mailbox has forwarded a message: to nobody but this installation.

    Only what is forwarded has it (trace.without_marks); to who reads it there it names no mailbox,
    and it is another one for each message.
    """
    number = ids.to_text(message_id)
    return f"{number} {hashlib.sha256(f'{number} {mailbox.opaque_id}'.encode()).hexdigest()[:24]}"


def _came_back(resolutions: Sequence[Resolution], arrived: Arrived) -> frozenset[int]:
    """The mailboxes whose own forward brought the message back to them."""
    marks = [
        headers.unfold(field.raw).decode("ascii", "replace")
        for field in arrived.fields if field.is_named(FORWARDED.encode())
    ][:_MOST_MARKS]
    if not marks:
        return frozenset()
    forwarding = {
        step.mailbox.mailbox_id: step.mailbox
        for resolution in resolutions for step in resolution.steps
        if step.mailbox and step.mailbox.rules and step.mailbox.rules.forwards
    }
    return frozenset(
        number for number, box in forwarding.items() if any(_is_mark_of(mark, box) for mark in marks)
    )


def _is_mark_of(mark: str, mailbox: LocalMailbox) -> bool:
    try:
        number = ids.from_text(mark.partition(" ")[0])
    except ValueError:
        return False
    return mark == _mark(number, mailbox)


async def _answers(
    answering: Sequence[Answering], mail: Mail, arrived: Arrived, directory: Directory, next_ids: IdMaker,
    separator: str,
) -> tuple[VacationAnswer, ...]:
    found: list[VacationAnswer] = []
    for each in answering[:MOST_ANSWERS]:
        why = filtering.why_no_answer(
            each, mail, arrived.fields, today=arrived.at.date(), separator=separator
        )
        if why or mail.sender is None:
            continue
        answer = await _answer(each, mail.sender, arrived, directory, next_ids)
        if answer:
            log.answered(arrived.id, by=each.mailbox.address, to=mail.sender, as_=answer.letter.id)
            found.append(answer)
    return tuple(found)


async def _answer(
    answering: Answering, sender: Address, arrived: Arrived, directory: Directory, next_ids: IdMaker
) -> VacationAnswer | None:
    """The answer to `sender`; None where its mail leads nowhere or back to the mailbox itself."""
    box = answering.mailbox
    try:
        to = filtering.at_rcpt(await directory.resolve(sender), box.address)
    except DirectoryUnavailable:
        return None  # The mail itself needs no more of it.
    if to.verdict not in (Verdict.HERE, Verdict.ELSEWHERE):
        return None
    if any(delivery.mailbox and delivery.mailbox.mailbox_id == box.mailbox_id for delivery in to.deliveries):
        return None
    letter = vacation.incoming(
        answering.vacation, mailbox=box.address, tenant_id=box.tenant_id, sender=sender, fields=arrived.fields,
        message_id=arrived.message_id, number=next_ids.next(), at=arrived.at,
        deliveries=to.deliveries or (Delivery(sender, None),), sender_tenant_id=to.tenant_id,
    )
    until = arrived.at + timedelta(days=answering.vacation.days)
    return VacationAnswer(box.mailbox_id, str(sender.canonical), until, letter)
