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
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.rules.status import Status
from panel.tenants.history import entries_of, kept_words
from panel.tenants.models import Tenant, User
from panel.tenants.shown import moment

MOST_PARENTS = 3  # a tenant, its reseller, and theirs: as the mailserver looks

# What follows from it, for a mailbox and for what has several.
_MEANS: dict[Status, Any] = {
    Status.NO_SENDING: gettext_lazy(
        "Logging in and receiving go on; it may not send, and what it has in the queue waits."
    ),
    Status.SUSPENDED: gettext_lazy(
        "Nobody logs in or sends; mail for it is still accepted, and what it has in the queue waits."
    ),
    Status.CLOSED: gettext_lazy("Nobody logs in or sends, and mail for it is refused."),
}
_ACT = {Status.NO_SENDING: "suspended", Status.SUSPENDED: "suspended", Status.CLOSED: "closed"}
_DONE: dict[Status, Any] = {
    Status.NO_SENDING: gettext_lazy("Not allowed to send"), Status.SUSPENDED: gettext_lazy("Suspended"),
    Status.CLOSED: gettext_lazy("Closed"),
}
# By the model that stands above.
_WITH: dict[str, Any] = {
    "domain": gettext_lazy("with the domain {name}"), "tenant": gettext_lazy("with the tenant {name}"),
}
_WORDS: dict[Status, Any] = {
    Status.ACTIVE: gettext_lazy("active"), Status.NO_SENDING: gettext_lazy("no sending"),
    Status.SUSPENDED: gettext_lazy("suspended"), Status.CLOSED: gettext_lazy("closed"),
}
_LOOK = {Status.NO_SENDING: "warn", Status.SUSPENDED: "bad", Status.CLOSED: "off"}


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds, in a word and in sentences."""

    look: str  # good, warn, bad or off
    word: str
    sentence: SafeString | str
    may_log_in: bool = True


def status_words(status: int) -> str:
    """As Status.words, in the reader's language."""
    return str(_WORDS[Status(status)])


def with_parents(tenant: Tenant | None) -> Iterator[Tenant]:
    """The tenant and those above it; nothing for none. Select `parent__parent`, else each is a query."""
    for _level in range(MOST_PARENTS):
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
        format_html("{}", str(_DONE[status])),
        *([] if holding is subject else [format_html(str(_WITH[holding._meta.model_name]), name=holding)]),
        *([format_html(_("by {who} {when}"), who=decided.actor_name, when=moment(decided.at))] if decided else []),
    ]
    return Standing(_LOOK[status], status_words(status), format_html(
        _("{done}{because}. {means}{until}"), done=format_html_join(" ", "{}", ((each,) for each in who)),
        because=because(holding.status_reason), means=str(_MEANS[status]), until=_until(holding),
    ), status.may_log_in)


def because(reason: str) -> SafeString | str:
    """The reason that somebody gave, as a sentence goes on with it; nothing for none."""
    return format_html(_(", because “{reason}”"), reason=kept_words(reason).rstrip(".")) if reason else ""


def _until(holding: Any) -> str:
    if not holding.grace_ends_at:
        return ""
    end = f"{holding.grace_ends_at:%Y-%m-%d %H:%M} UTC"
    if holding.grace_ends_at <= timezone.now():
        return _(" Its grace period ended on {end}: it is being removed.").format(end=end)
    return _(" Until {end} Restore undoes it; then it is removed for good.").format(end=end)
