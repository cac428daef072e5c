"""The simple rules of mailboxes: block, junk, forward, vacation. Facts in, deliveries and answers out.

Decides, before anything is stored and whoever stores it, where mail goes for a recipient on
whose way a mailbox has rules, and whether a mailbox answers its sender. In this order: what
a mailbox blocks ends there; what is marked as junk goes into Junk, where the mailbox wants
that, and no further; the rest is forwarded, kept, and answered. RFC 5230 §4 (vacation),
RFC 3834 §2 (who is answered, and when), RFC 2919 and 2369 (List- fields).

Forwarding follows the rules of aliases: the same envelope, the same charges, the same reports.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import date

from panel.rules import headers
from panel.rules.addresses import Address
from panel.rules.facts import Delivery, LocalMailbox, MailRules, Resolution, Step, Vacation, Verdict
from panel.rules.headers import BadHeader, Field

# A field and how its value begins when a spam filter calls a message junk; in small letters.
JUNK_MARKS = (("x-spam-flag", "yes"), ("x-spam", "yes"), ("x-spam-status", "yes"))
JUNK_FOLDER = "Junk"

# RFC 5230 §4.6, and those who say that they don't read.
_NO_PERSONS = frozenset({
    "mailer-daemon", "listserv", "majordomo", "bounce", "bounces", "no-reply", "noreply", "do-not-reply", "donotreply",
})
_NAMES_RECIPIENTS = frozenset({b"to", b"cc", b"bcc", b"resent-to", b"resent-cc", b"resent-bcc"})  # RFC 5230 §4.5


@dataclass(frozen=True, slots=True)
class Mail:
    """What of a message decides. At RCPT only the sender is known."""

    sender: Address | None  # the reverse-path; None: the null path
    authors: tuple[Address, ...] = ()  # From
    is_junk: bool = False
    came_back: frozenset[int] = frozenset()  # ids of mailboxes that have forwarded it already


@dataclass(frozen=True, slots=True)
class Answering:
    """A mailbox that would answer, and the addresses by which the mail came to it: its own and aliases."""

    mailbox: LocalMailbox
    vacation: Vacation
    known: frozenset[Address]  # canonical


@dataclass(frozen=True, slots=True)
class Way:
    """Where a message goes for one recipient. Without deliveries everybody whom it leads to blocks it."""

    deliveries: tuple[Delivery, ...]
    answering: tuple[Answering, ...] = ()
    forwarded: tuple[LocalMailbox, ...] = ()


def follow(steps: Sequence[Step], mail: Mail) -> Way:
    """Where `mail` goes from the first step. Each place is visited once, so that a circle ends.

    A mailbox that forwards without keeping a copy keeps it when its forward leads to nobody who
    gets one, or when its own forward brought it back: forwarding never loses mail.
    """
    found: dict[tuple[Address, bool], Delivery] = {}
    answering: list[Answering] = []
    forwarded: list[LocalMailbox] = []
    passed_on: dict[int, Delivery] = {}  # by step
    onward: dict[int, tuple[int, ...]] = {}  # the steps that the mail went through, and where it went on to
    ends: set[int] = set()  # the steps from which somebody has it
    seen: set[int] = set()
    waiting: list[tuple[int, frozenset[Address]]] = [(0, frozenset())]
    later: list[tuple[int, frozenset[Address]]] = []  # behind forwards: first the ways by which the mail was addressed

    def take(delivery: Delivery) -> None:
        found.setdefault((delivery.resolved, delivery.mailbox is None), delivery)

    while waiting or later:
        at, known = (waiting or later).pop()
        if at in seen:
            continue
        seen.add(at)
        step = steps[at]
        known |= {step.address.canonical}
        box = step.mailbox
        if box is not None:
            rules = box.rules or MailRules()
            if is_blocked(rules, mail):
                continue
            junk = mail.is_junk and rules.junk
            own = Delivery(box.address, box, junk=junk)
            came_back = box.mailbox_id in mail.came_back
            if rules.vacation and not junk and not came_back:
                answering.append(Answering(box, rules.vacation, known | {box.address.canonical}))
            if not rules.forwards or junk or came_back:
                take(own)
                ends.add(at)
                continue
            forwarded.append(box)
            if rules.keeps:
                take(own)
                ends.add(at)
            else:
                passed_on[at] = own
            known = frozenset()  # Who is forwarded to is not who was written to.
        for delivery in step.outside:
            take(delivery)
            ends.add(at)
        onward[at] = step.next
        (later if box else waiting).extend((number, known) for number in reversed(step.next))
    for own in [own for number, own in passed_on.items() if not _reaches(number, onward, ends)]:
        take(own)
    return Way(tuple(found.values()), tuple(answering), tuple(forwarded))


def _reaches(start: int, onward: Mapping[int, tuple[int, ...]], ends: Set[int]) -> bool:
    """Whether one of the `ends` is `start`, or on the way from it."""
    waiting, seen = [start], {start}
    while waiting:
        at = waiting.pop()
        if at in ends:
            return True
        following = set(onward.get(at, ())) - seen
        seen |= following
        waiting += following
    return False


def at_rcpt(resolution: Resolution, sender: Address | None) -> Resolution:
    """The resolution for this envelope sender: BLOCKED when all whom it leads to block it."""
    if not resolution.steps or resolution.verdict is not Verdict.HERE:
        return resolution
    deliveries = follow(resolution.steps, Mail(sender)).deliveries
    return replace(resolution, deliveries=deliveries, verdict=Verdict.HERE if deliveries else Verdict.BLOCKED)


def is_blocked(rules: MailRules, mail: Mail) -> bool:
    """Whether the mailbox takes nothing from the message's envelope sender or an author in its From."""
    if not rules.blocked:
        return False
    senders = mail.authors if mail.sender is None else (mail.sender, *mail.authors)
    return any(_is_on(rules.blocked, sender.canonical) for sender in senders)


def _is_on(blocked: frozenset[str], sender: Address) -> bool:
    if str(sender) in blocked:
        return True
    labels = sender.domain.split(".")
    return any(".".join(labels[at:]) in blocked for at in range(len(labels)))


def is_marked_as_junk(fields: Iterable[Field]) -> bool:
    """Whether a spam filter on the way called it junk. A sender who forges that harms only this one message."""
    marks = dict(JUNK_MARKS)
    for field in fields:
        begins = marks.get(field.name.lower().decode("ascii", "replace"))
        if begins and headers.unfold(field.raw).lower().startswith(begins.encode()):
            return True
    return False


def sieve_for_junk() -> str:
    """The same rule as a Sieve script (RFC 5228), for mail that Dovecot stores.

    It runs for everybody: whether a mailbox wants it, authd says with the mailbox's place (`sieve_env_junk`).
    """
    tests = ",\n    ".join(f'header :matches "{name}" "{begins}*"' for name, begins in JUNK_MARKS)
    return (
        'require ["fileinto", "mailbox", "environment", "vnd.dovecot.environment"];\n\n'
        f'if allof (\n  environment :is "vnd.dovecot.config.junk" "yes",\n  anyof (\n    {tests}\n  )\n) {{\n'
        f'  fileinto :create "{JUNK_FOLDER}";\n  stop;\n}}\n'
    )


def why_no_answer(
    answering: Answering, mail: Mail, fields: Sequence[Field], *, today: date, separator: str
) -> str:
    """Why the mailbox doesn't answer this message; empty when it does. For the log."""
    vacation, sender = answering.vacation, mail.sender
    if (vacation.first and today < vacation.first) or (vacation.last and today > vacation.last):
        return "not away today"
    if sender is None or not sender.domain:
        return "the null path"
    if mail.is_junk:
        return "junk"
    if _is_no_person(sender.canonical.local_part):
        return "a sender that is no person"
    automatic = _automatic(fields)
    if automatic:
        return automatic
    known = {address.without_subaddress(separator) for address in answering.known}
    if sender.canonical.without_subaddress(separator) in known:
        return "its own mail"
    named = {address.canonical.without_subaddress(separator) for address in _recipients(fields)}
    return "" if known & named else "not addressed in To or Cc"


def _is_no_person(local_part: str) -> bool:
    plain = local_part.partition("+")[0]
    return plain in _NO_PERSONS or plain.startswith("owner-") or plain.endswith(("-request", "-owner", "-bounces"))


def _automatic(fields: Iterable[Field]) -> str:
    """Which field says that a program wrote it, or that it came by a list (RFC 3834 §2, RFC 5230 §4.6)."""
    for field in fields:
        name = field.name.lower()
        if name.startswith(b"list-"):
            return "from a mailing list"
        if name not in (b"precedence", b"auto-submitted", b"x-auto-response-suppress"):
            continue
        value = headers.unfold(field.raw).lower()
        word = value.partition(b";")[0].partition(b"(")[0].strip()
        if name == b"precedence" and word in (b"bulk", b"list", b"junk"):
            return "bulk mail"
        if name == b"auto-submitted" and word != b"no":
            return "written by a program"
        # Exchange's word for the same: no automatic answers, please.
        words = {each.strip() for each in value.split(b",")}
        if name == b"x-auto-response-suppress" and words & {b"all", b"oof", b"autoreply"}:
            return "no answer is wanted"
    return ""


def _recipients(fields: Iterable[Field]) -> set[Address]:
    """The addresses that the header names as recipients; a field that has no one reading names none."""
    found: set[Address] = set()
    for field in fields:
        if field.name.lower() in _NAMES_RECIPIENTS:
            try:
                found.update(headers.mailboxes(headers.unfold(field.raw)))
            except BadHeader:
                continue
    return found
