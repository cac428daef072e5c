"""What happened to one thing, by the audit log: read for the pages that show it.

Writing it is audit.py's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from panel.rules.status import Status
from panel.tenants.action_words import ACTIONS
from panel.tenants.models import AuditEntry, User
from panel.tenants.shown import moment, size

MOST_CHANGES = 8  # on an object's page
MOST_WORDS = 60  # of a value, in characters; the whole one stands in the history


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that changed, its values in short; one that only says which it was has no `after`."""

    field: str
    before: str
    after: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """An entry, as a list of changes shows it."""

    entry: AuditEntry
    words: str  # "suspended", "limit set"
    differences: Sequence[Difference]

    @property
    def when(self) -> str:
        return moment(self.entry.at)


def entries_of(subject: models.Model, reader: User) -> QuerySet[AuditEntry]:
    """All that was done to it and that this reader may see, the latest first."""
    found: QuerySet[AuditEntry] = AuditEntry.objects.for_user(reader).filter(
        subject_type=subject._meta.model_name, subject_id=subject.pk
    )
    return found


def latest(subject: models.Model, reader: User) -> list[Change]:
    """The latest of it, at most MOST_CHANGES: one query."""
    return [
        Change(entry, _words(entry.action, subject), tuple(_differences(entry)))
        for entry in entries_of(subject, reader)[:MOST_CHANGES]
    ]


def told(entry: AuditEntry) -> Change:
    """An entry by itself, in words that name what it was done to."""
    words = ACTIONS.get(entry.action) or entry.action.replace(".", " ", 1).replace("_", " ").strip()
    return Change(entry, str(words), tuple(_differences(entry)))


def _words(action: str, subject: models.Model) -> str:
    noun, _, done = action.partition(".")
    about_itself = noun in (subject._meta.model_name, str(subject._meta.verbose_name))
    return (done if about_itself and done else f"{noun} {done}").replace("_", " ").strip()


def _differences(entry: AuditEntry) -> Iterator[Difference]:
    for field in {**entry.before, **entry.after}:
        before, after = entry.before.get(field), entry.after.get(field)
        if _is_nothing(before) and _is_nothing(after):
            continue
        words = _size if field.endswith("_bytes") else _allowed if entry.subject_type == "plan" else _short
        words = _status if field == "status" else words
        name = field.removesuffix("_bytes").replace("_", " ")
        if field in entry.after:
            yield Difference(name, words(before) if field in entry.before else "", words(after))
        else:
            yield Difference(name, words(before))


def _is_nothing(value: Any) -> bool:
    """Whether it tells nothing where nothing was before or is after; a 0 does: a plan without a number has no limit."""
    return value is None or value is False or value in ("", [], {})


def _size(value: Any) -> str:
    return size(value) if isinstance(value, int) else _allowed(value)


def _status(value: Any) -> str:
    """Its name in the reader's language: standing.py has them for the catalogue."""
    return _(Status[value].words) if value in tuple(Status.__members__) else _short(value)


def _allowed(value: Any) -> str:
    """What allows so much; nothing is without a limit."""
    return "unlimited" if value is None else _short(value)


def _short(value: Any) -> str:
    """In a line: none for nothing, several with commas, and no longer than MOST_WORDS."""
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS - 1]}…"
