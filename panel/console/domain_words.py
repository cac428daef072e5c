"""How a domain stands, as a tenant's pages say it: a state, a sentence, and what to do."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from panel.console.log_words import utc
from panel.domains.checks import Shown
from panel.domains.models import Domain
from panel.rules.records import Record
from panel.rules.status import Status
from panel.rules.verdicts import Row, Sentence, Verdict

DRAWINGS = {"good": "circle-check-filled", "warn": "alert-triangle-filled", "bad": "circle-x-filled"}
_COUNTED = {
    Verdict.SAME: "right", Verdict.DIFFERENT: "change", Verdict.CONFLICTS: "change", Verdict.NOTHING: "add",
    Verdict.UNREACHABLE: "unanswered", Verdict.UNKNOWN: "unknown",
}
_CHIPS = {"good": "check", "warn": "alert-triangle", "bad": "x"}


@dataclass(frozen=True, slots=True)
class Told:
    """`look` is good, warn, bad or plain; `sentence` may be empty."""

    look: str
    words: str
    sentence: str
    drawing: str


@dataclass(frozen=True, slots=True)
class Chip:
    """A required record in a list of domains; `words` are for readers."""

    look: str
    label: str
    words: str
    drawing: str


@dataclass(frozen=True, slots=True)
class Next:
    """What happens next, in a banner."""

    look: str
    bold: str
    rest: str = ""


def said(sentence: Sentence) -> str:
    """In the reader's language; nothing for no sentence (gettext would answer with its catalogue's head)."""
    return sentence.said(_) if sentence.text else ""


def told(domain: Domain, shown: Shown, above: Status = Status.ACTIVE) -> Told:
    """`above`: the strictest status of the tenant and of what stands above it."""
    status = Status(domain.status)
    if status is Status.CLOSED:
        return Told("", _("Closed"), _until(domain), "lock")
    if status is not Status.ACTIVE:
        return _told("bad", _word(status), because(domain.status_reason))
    if above is not Status.ACTIVE:
        return _told("bad", _word(above), _("So is the whole organisation."))
    overall = shown.overall
    if shown.life == "warning" and shown.sending_ends_at:
        return _told("warn", said(overall.words), _("Sending stops on {day}.").format(day=day(shown.sending_ends_at)))
    return _told(overall.look, said(overall.words), said(overall.sentence))


def coming(
    domain: Domain, shown: Shown, told: Told, *, is_held: bool, above: Status = Status.ACTIVE
) -> Next | None:
    """The banner over a domain's records; none where everything is right. `is_held`: by somebody above its people."""
    if domain.status == Status.CLOSED:
        return Next("warn", _("Nobody logs in or sends, and mail for it is refused."), " ".join(filter(None, (
            _kept_until(domain),
            _("It was closed from above: ask your provider.") if is_held else "",
        ))))
    if domain.status != Status.ACTIVE:
        return Next("bad", f"{told.words}.", " ".join(filter(None, (told.sentence, _means(Status(domain.status))))))
    if above is not Status.ACTIVE:
        return Next("bad", _("{state}, with the whole organisation.").format(state=told.words), _means(above))
    if shown.life == "pending":
        if told.look == "bad":
            return Next("bad", told.words + ".", told.sentence)
        return Next("warn", _("Add the TXT record below: it proves that the domain is yours."), _(
            "Until we find it, nobody sends as this domain and its mail isn't taken here. We look again by ourselves."
        ))
    if shown.life == "warning" and shown.sending_ends_at:
        return Next("warn", _("Put the proof back before {day}.").format(day=day(shown.sending_ends_at)), _(
            "Until then everything works. After that we stop sending for this domain; mail for it still arrives."
        ))
    if told.look in ("warn", "bad"):
        receives = told.look == "warn" and "records" in shown.overall.sentence.facts
        return Next(told.look, told.sentence or f"{told.words}.", _(
            "Mail for it arrives. What it sends may be refused or taken for junk until they are right."
        ) if receives else "")
    return None


def chips(shown: Shown) -> list[Chip]:
    return [
        Chip("" if row.look == "off" else row.look, record_label(row.record), verdict(row.verdict),
             _CHIPS.get(row.look, "minus"))
        for row in shown.chips
    ]


def verdict(verdict: Verdict) -> str:
    return {
        Verdict.SAME: _("right"), Verdict.DIFFERENT: _("different"), Verdict.NOTHING: _("missing"),
        Verdict.UNREACHABLE: _("no answer"), Verdict.CONFLICTS: _("conflicting"),
        Verdict.UNKNOWN: _("not looked up yet"),
    }[verdict]


def counted(rows: Sequence[Row]) -> str:
    """Such as "2 right, 1 to change, 1 to add"."""
    numbers = Counter(_COUNTED[row.verdict] for row in rows)
    words = {
        "right": _("{count} right"), "change": _("{count} to change"), "add": _("{count} to add"),
        "unanswered": _("{count} without an answer"), "unknown": _("{count} not looked up yet"),
    }
    return _(", ").join(text.format(count=numbers[what]) for what, text in words.items() if numbers[what])


def record_label(record: Record) -> str:
    """"MX"; of the names of records only the proof's is a word."""
    return _("Proof") if record.key == "proof" else record.label


def because(reason: str) -> str:
    """As a sentence: another may follow."""
    if not reason:
        return ""
    return _("Reason: {reason}").format(reason=reason if reason.endswith((".", "!", "?", "。")) else f"{reason}.")


def day(at: Any) -> str:
    return utc(at)


def _told(look: str, words: str, sentence: str) -> Told:
    return Told("" if look == "off" else look, words, sentence, DRAWINGS.get(look, "clock"))


def _word(status: Status) -> str:
    return _("May not send") if status is Status.NO_SENDING else (
        _("Closed") if status is Status.CLOSED else _("Suspended")
    )


def _means(status: Status) -> str:
    if status is Status.NO_SENDING:
        return _("Mail for it still arrives; what it has in the queue waits.")
    if status is Status.CLOSED:
        return _("Nobody logs in or sends, and mail for it is refused.")
    return _("Nobody logs in or sends. Mail for it still arrives; what it has in the queue waits.")


def _kept_until(domain: Domain) -> str:
    if domain.grace_ends_at is None:
        return ""
    if domain.grace_ends_at <= timezone.now():
        return " ".join(filter(None, (because(domain.status_reason), _("It is being removed."))))
    return _("Everything is kept until {day}; then it is removed for good.").format(day=day(domain.grace_ends_at))


def _until(domain: Domain) -> str:
    if domain.grace_ends_at is None:
        return ""
    if domain.grace_ends_at <= timezone.now():
        return _("It is being removed.")
    return _("It can be restored until {day}.").format(day=day(domain.grace_ends_at))
