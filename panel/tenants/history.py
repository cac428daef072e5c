"""What happened to one thing, by the audit log: read for the pages that show it.

Writing it is audit.py's.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.db import models
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from panel.tenants.action_words import ACTIONS
from panel.tenants.audit import BY_TIE
from panel.tenants.credential_words import credential_words
from panel.tenants.field_words import field_words
from panel.tenants.models import AuditEntry, User
from panel.tenants.roles import ROLES
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
class Told:
    """An entry, with who did it and why in the reader's language."""

    entry: AuditEntry

    @property
    def subject(self) -> str:
        return subject_words(self.entry)

    @property
    def who(self) -> str:
        return actor_words(self.entry.actor_name)

    @property
    def reason(self) -> str:
        return kept_words(self.entry.reason)


@dataclass(frozen=True, slots=True)
class Change(Told):
    """As a list of changes shows it."""

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
    return Change(entry, action_words(entry.action), tuple(_differences(entry)))


def action_words(action: str) -> str:
    """"mailbox suspended" for mailbox.suspended, in the reader's language."""
    return str(ACTIONS.get(action) or action.replace(".", " ", 1).replace("_", " ").strip())


def _words(action: str, subject: models.Model) -> str:
    """Without what it was done to, in a language that says that first, and apart."""
    words = action_words(action)
    noun = action.partition(".")[0]
    about_itself = noun in (subject._meta.model_name, str(subject._meta.verbose_name))
    return words.removeprefix(f"{noun} ".replace("_", " ")) if about_itself else words


def _differences(entry: AuditEntry) -> Iterator[Difference]:
    for field in {**entry.before, **entry.after}:
        before, after = entry.before.get(field), entry.after.get(field)
        if _is_nothing(before) and _is_nothing(after):
            continue
        words = (
            _size if field.endswith("_bytes") else _allowed if entry.subject_type == "plan"
            else partial(_short, field=field)
        )
        name = _name(entry, field)
        if field in entry.after:
            yield Difference(name, words(before) if field in entry.before else "", words(after))
        else:
            yield Difference(name, words(before))


def _name(entry: AuditEntry, field: str) -> str:
    """What the field is called; a limit's is its window."""
    if entry.action in ("limit.set", "limit.inherited") and field in _WINDOWS:
        return str(_WINDOWS[field])
    return field_words(field)


def _is_nothing(value: Any) -> bool:
    """Whether it tells nothing where nothing was before or is after; a 0 does: a plan without a number has no limit."""
    return value is None or value is False or value in ("", [], {})


def _size(value: Any) -> str:
    return size(value) if isinstance(value, int) else _allowed(value)


def _allowed(value: Any) -> str:
    """What allows so much; nothing is without a limit."""
    return _("unlimited") if value is None else _short(value)


@dataclass(frozen=True, slots=True)
class Written(Told):
    """As the history shows it: every field with its whole value."""

    before: Sequence[tuple[str, str]]
    after: Sequence[tuple[str, str]]

    @property
    def words(self) -> str:
        return action_words(self.entry.action)


def written(entry: AuditEntry) -> Written:
    return Written(entry, *(
        tuple((_name(entry, field), _whole(entry, field, value)) for field, value in values.items())
        for values in (entry.before, entry.after)
    ))


def _whole(entry: AuditEntry, field: str, value: Any) -> str:
    if value is None and (entry.subject_type == "plan" or field == "quota_bytes"):
        return _("unlimited")
    return size(value) if field.endswith("_bytes") and isinstance(value, int) else _in_words(value, field)


# As Membership and Invitation call themselves; an address holds no space.
_MEMBER = re.compile(rf"(?P<account>\S+) in (?P<tenant>.+) \((?P<role>{'|'.join(ROLES)})\)", re.DOTALL)

# Who acts and why where no person does or says it: kept in English.
_KEPT: dict[str, Any] = {
    "command line": gettext_lazy("command line"), "DNS check": gettext_lazy("DNS check"),
    "end of the grace period": gettext_lazy("end of the grace period"), "imported": gettext_lazy("imported"),
    "notes changed": gettext_lazy("notes changed"),
    "by a link sent to its address": gettext_lazy("by a link sent to its address"),
    "by a link sent to its recovery address": gettext_lazy("by a link sent to its recovery address"),
    "its domain is hosted here": gettext_lazy("its domain is hosted here"),
    "its password was changed": gettext_lazy("its password was changed"),
    "another proved that the domain is theirs": gettext_lazy("another proved that the domain is theirs"),
    "the queue": gettext_lazy("the queue"), "frozen by its owner": gettext_lazy("frozen by its owner"),
}


def subject_words(entry: AuditEntry) -> str:
    """What it was done to, as it was called then: of what the panel names itself in the reader's language."""
    if entry.subject_type == "credential":
        return credential_words(entry.subject_name)
    found = _MEMBER.fullmatch(entry.subject_name) if entry.subject_type in ("membership", "invitation") else None
    if found:
        return _("{account} in {tenant} ({role})").format(
            account=found["account"], tenant=found["tenant"], role=ROLES[found["role"]][0]
        )
    return kept_words(entry.subject_name)


def actor_words(name: str) -> str:
    """Who did it, as the audit log names it."""
    if name.endswith(BY_TIE):
        return _("{account} as the mailbox's person").format(account=name.removesuffix(BY_TIE))
    return kept_words(name)


def kept_words(text: str) -> str:
    """A name or a reason of the audit log; what a person wrote stays as it is."""
    return str(_KEPT.get(text, text))


_WINDOWS: dict[str, Any] = {
    "hour": gettext_lazy("recipients in 1 hour"), "day": gettext_lazy("recipients in 24 hours"),
}

# What values are called that the audit log keeps by their names.
_VALUES: dict[str, Any] = {
    "ACTIVE": gettext_lazy("active"), "NO_SENDING": gettext_lazy("no sending"),
    "SUSPENDED": gettext_lazy("suspended"), "CLOSED": gettext_lazy("closed"),
    "pending": gettext_lazy("pending"), "proved": gettext_lazy("proved"), "lapsed": gettext_lazy("lapsed"),
    "unlimited": gettext_lazy("unlimited"), "inherit": gettext_lazy("none of its own"),
    "opportunistic": gettext_lazy("when offered"), "required": gettext_lazy("required, certificate checked"),
    "left": pgettext_lazy("whoever looked into a tenant", "left"), "signed out": gettext_lazy("signed out"),
    "looked into another tenant": gettext_lazy("looked into another tenant"),
    "its hour was over": gettext_lazy("its hour was over"),
    "checked by us": gettext_lazy("checked by us"), "by TXT record": gettext_lazy("by TXT record"),
}


# … and in some fields: elsewhere such a word may be somebody's own.
_OF_FIELD: dict[str, dict[str, Any]] = {
    "role": {role: word for role, (word, _may) in ROLES.items()},
    "kind": {"own": gettext_lazy("a tenant's own"), "shared": gettext_lazy("shared (the provider's)"),
             "main": gettext_lazy("main password"), "app": gettext_lazy("app password")},
    "scopes": {
        "submission": gettext_lazy("send"), "imap": gettext_lazy("read"), "pop3": gettext_lazy("read by POP3"),
        "sieve": gettext_lazy("filters"),
    },
}


def _known(value: str, field: str) -> str:
    """The value in the reader's language."""
    words = _OF_FIELD.get(field, {}).get(value) or _VALUES.get(value)
    return value if words is None else str(words)


_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+\d\d:\d\d")  # as audit.record keeps a time


def _short(value: Any, field: str = "") -> str:
    """In a line, and no longer than MOST_WORDS."""
    text = " ".join(_in_words(value, field).split())
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS - 1]}…"


def _in_words(value: Any, field: str = "") -> str:
    """None for nothing, several with commas."""
    if value is None or value in ("", [], {}):
        return _("none")
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str) and _AT.fullmatch(value):
        return f"{datetime.fromisoformat(value).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if isinstance(value, list):
        # Only where the field says what its words are: a list of names may hold any.
        known = _OF_FIELD.get(field, {})
        return ", ".join(str(known.get(str(each), each)) for each in value)
    return _known(str(value), field)
