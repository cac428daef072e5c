"""What a mailbox, a domain or a tenant may do now and why, in a sentence.

The strictest of it and of what stands above it holds, as on the wire (rules/status); said is
which one that is, who decided it, when, and why. Changing it is a service of operations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from panel.rules.status import Status
from panel.tenants.history import entries_of
from panel.tenants.models import Tenant, User
from panel.tenants.shown import moment

MOST_PARENTS = 3  # a tenant, its reseller, and theirs: as the mailserver looks

# What follows from it, for a mailbox and for what has several.
_MEANS = {
    Status.NO_SENDING: "Logging in and receiving go on; it may not send, and what it has in the queue waits.",
    Status.SUSPENDED: "Nobody logs in or sends; mail for it is still accepted, and what it has in the queue waits.",
    Status.CLOSED: "Nobody logs in or sends, and mail for it is refused.",
}
_ACT = {Status.NO_SENDING: "suspended", Status.SUSPENDED: "suspended", Status.CLOSED: "closed"}
_WORD = {Status.NO_SENDING: "Not allowed to send", Status.SUSPENDED: "Suspended", Status.CLOSED: "Closed"}
_LOOK = {Status.NO_SENDING: "warn", Status.SUSPENDED: "bad", Status.CLOSED: "off"}


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds, in a word and in sentences."""

    look: str  # good, warn, bad or off
    word: str
    sentence: SafeString | str
    may_log_in: bool = True


def with_parents(tenant: Tenant | None) -> Iterator[Tenant]:
    """The tenant and those above it; nothing for none. Select `parent__parent`, else each is a query."""
    for _ in range(MOST_PARENTS):
        if tenant is None:
            return
        yield tenant
        tenant = tenant.parent


def standing(subject: Any, above: Sequence[Any], reader: User, active: Standing) -> Standing:
    """Of `subject`, with what stands above it from the nearest up; `active` when none of them is in the way.

    One query where something is, to learn who decided it; else none.
    """
    holding = max([subject, *above], key=lambda row: row.status)  # of equals the nearest
    status = Status(holding.status)
    if status is Status.ACTIVE:
        return active
    decided = entries_of(holding, reader).filter(action=f"{holding._meta.model_name}.{_ACT[status]}").first()
    who = [
        format_html("{}", _WORD[status]),
        *([] if holding is subject else [format_html("with the {} {}", holding._meta.verbose_name, holding)]),
        *([format_html("by {} {}", decided.actor_name, moment(decided.at))] if decided else []),
    ]
    return Standing(_LOOK[status], status.words, format_html(
        "{}{}. {}{}", format_html_join(" ", "{}", ((each,) for each in who)), because(holding.status_reason),
        _MEANS[status], _until(holding),
    ), status.may_log_in)


def because(reason: str) -> SafeString | str:
    """The reason that somebody gave, as a sentence goes on with it; nothing for none."""
    return format_html(", because “{}”", reason.rstrip(".")) if reason else ""


def _until(holding: Any) -> str:
    if not holding.grace_ends_at:
        return ""
    end = f"{holding.grace_ends_at:%Y-%m-%d %H:%M} UTC"
    if holding.grace_ends_at <= timezone.now():
        return f" Its grace period ended on {end}: it is being removed."
    return f" Until {end} Restore undoes it; then it is removed for good."
