"""What a mailbox sent, and where each message is, as its person may see it.

A message is the mailbox's when one of its passwords logged in for it: never by what stands in its
reverse-path or header. Of a recipient the person sees what the tenant sees (log.py), and less: what
an alias leads to is its tenant's affair, so only an address that leads to itself shows its tries.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _

from panel.database import ids
from panel.mailboxes.models import Credential, LoginEvent, Mailbox
from panel.sending.log import NEUTRAL, SeenAttempt, SeenRecipient, recipients_seen_by
from panel.sending.models import Message, Recipient
from panel.tenants.shown import moment

SEARCHED = 2000  # of the newest messages: of subjects and parts of addresses there is no index
MOST_WAYS = 100  # recipients on a message's page
EVENTS = 1000  # of the newest logins, looked through for passwords that are revoked
State = Recipient.State
# Whose way isn't hidden behind an address: the others' replies and times are not told.
_OPEN = Q(recipient_tenant=None, resolved=F("original"))
# What is told of several rows behind one address is the first of these.
_TELLING = (State.WAITING, State.FAILED, State.DISCARDED, State.DELIVERED)
_LOOKS = {State.WAITING: ("", "clock"), State.FAILED: ("bad", ""), State.DISCARDED: ("", "x"),
          State.DELIVERED: ("good", "")}


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that the mailbox sent, in a line."""

    message: Message
    first: str  # of the recipients, as it was addressed; empty: none is here any more
    others: int  # further addresses
    look: str  # good, bad or plain
    words: str
    icon: str


@dataclass(frozen=True, slots=True)
class Way:
    """An address that a message went to, as far as it went. `attempts`: the newest first; none where it is hidden."""

    original: str
    state: str
    words: str
    look: str
    icon: str
    reply: str
    due_at: datetime | None
    attempts: tuple[SeenAttempt, ...]


def sent_by(mailbox: Mailbox) -> QuerySet[Message]:
    """All that was sent by logging in to it. Two queries here, for its passwords."""
    own = Credential.objects.filter(mailbox=mailbox).values_list("pk", flat=True)
    # A revoked password is gone from its table; the login history still knows whose it was.
    used = LoginEvent.objects.filter(mailbox=mailbox).order_by("-pk").values_list("credential", flat=True)[:EVENTS]
    return sent_with({*own, *used})


def sent_with(credentials: Collection[int | None]) -> QuerySet[Message]:
    """All that was sent by logging in with one of these."""
    return Message.objects.filter(credential__in={each for each in credentials if each is not None})


def search(rows: QuerySet[Message], typed: str) -> QuerySet[Message]:
    """Those of the newest SEARCHED with this in their subject or in a recipient's address; and by queue id."""
    newest = rows.order_by("-pk").values("pk")[:SEARCHED]
    to = Recipient.objects.filter(message=OuterRef("pk"), original__icontains=typed)
    found = Q(pk__in=newest) & (Q(subject__icontains=typed) | Exists(to) | Q(message_id__in=[typed, f"<{typed}>"]))
    try:
        found |= Q(pk=ids.from_text(typed))
    except ValueError:
        pass
    return rows.filter(found)


def listed(messages: Sequence[Message]) -> list[Sent]:
    """Each with where it is: two queries, however many they and their recipients are."""
    rows = Recipient.objects.filter(message__in=[each.pk for each in messages]).order_by()
    whole: dict[Any, Any] = {
        each["message"]: each for each in rows.values("message").annotate(
            addresses=Count("original", distinct=True), first=Min("original"), due=Min("due_at", filter=_OPEN),
        )
    }
    states: dict[Any, dict[str, Any]] = {}
    for each in rows.values("message", "state").annotate(
        addresses=Count("original", distinct=True), reply=Max("last_reply", filter=_OPEN), tries=Max("tries"),
    ):
        states.setdefault(each["message"], {})[each["state"]] = each
    return [_sent(each, whole.get(each.pk), states.get(each.pk, {})) for each in messages]


def _sent(message: Message, whole: Any, states: dict[str, Any]) -> Sent:
    if whole is None:
        return Sent(message, "", 0, "", _("No longer known"), "history")
    told = next(state for state in _TELLING if state in states)
    look, icon = _LOOKS[told]
    total, count = whole["addresses"], states[told]["addresses"]
    if told == State.DELIVERED:
        words = _("Delivered") if total == 1 else _("Delivered to all {total:,}").format(total=total)
    elif told == State.WAITING and total == 1 and whole["due"] and states[told]["tries"]:
        words = _("Tried again {when}").format(when=moment(whole["due"], plain=True))
    elif total == 1:
        words = _why(states[told]["reply"] or "") if told == State.FAILED else state_words(told)
    else:
        words = _("{state}: {count:,} of {total:,}").format(state=state_words(told), count=count, total=total)
    return Sent(message, whole["first"], total - 1, look, words, icon)


def state_words(state: str) -> str:
    return {
        State.WAITING: _("Waiting"), State.DELIVERED: _("Delivered"), State.FAILED: _("Bounced"),
        State.DISCARDED: _("Given up"),
    }[State(state)]


def _why(reply: str) -> str:
    """Why it bounced, in words, by the enhanced code of the reply (RFC 3463)."""
    told = {"5.1.1": _("No such address there"), "5.2.2": _("Their mailbox is full"), "5.1.2": _("No such domain")}
    return next((words for code, words in told.items() if code in reply), _("Bounced"))


def ways(mailbox: Mailbox, message: Message) -> tuple[list[Way], bool]:
    """Where it is, those that wait first; and whether there are more recipients than these."""
    seen = list(recipients_seen_by([mailbox.address.tenant_id], message_id=message.pk, limit=MOST_WAYS + 1))
    together: dict[str, list[SeenRecipient]] = {}
    for each in reversed(seen):
        together.setdefault(each.original, []).append(each)
    found = [_way(original, rows) for original, rows in together.items()]
    found.sort(key=lambda way: _TELLING.index(State(way.state)))
    return found[:MOST_WAYS], len(seen) > MOST_WAYS


def _way(original: str, rows: Sequence[SeenRecipient]) -> Way:
    told = next(state for state in _TELLING if any(row.state == state for row in rows))
    look, icon = _LOOKS[told]
    if len(rows) == 1 and rows[0].resolved == original:
        only = rows[0]
        return Way(original, told, state_words(told), look, icon, only.reply, only.due_at, only.attempts[::-1])
    return Way(original, told, state_words(told), look, icon, NEUTRAL[told], None, ())


def standing(found: Iterable[Way]) -> tuple[str, str, str]:
    """Of a message with these ways: look, words, icon."""
    states = [State(each.state) for each in found]
    if not states:
        return "", _("No longer known"), "history"
    told = next(state for state in _TELLING if state in states)
    look, icon = _LOOKS[told]
    delivered = states.count(State.DELIVERED)
    if len(states) == 1:
        return look, state_words(told), icon
    if delivered == len(states):
        return look, _("Delivered to all {total:,}").format(total=delivered), icon
    return look, _("Delivered to {count:,} of {total:,}").format(count=delivered, total=len(states)), icon
