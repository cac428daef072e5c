"""Where one message is, as a tenant may see it: its recipients, those that wait first, and what may be done.

What may be seen says log.py. Bounded, whatever the number of recipients.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Case, Q, Value, When
from django.db.models.lookups import Exact
from django.utils import timezone

from panel.database.indexed import Unindexed
from panel.sending.log import SeenRecipient, as_seen_by
from panel.sending.models import Hold, Message, Recipient

MOST = 100
SOON = timedelta(minutes=1)
BETWEEN_TRIES = timedelta(minutes=1)

State = Recipient.State


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A message's recipients; `more`: there are further ones than these."""

    message_id: int
    message: Message | None  # all of it, for its submitter only
    accepted_at: datetime | None
    reverse_path: str
    recipients: list[SeenRecipient]
    more: bool

    @property
    def waiting(self) -> list[SeenRecipient]:
        return [each for each in self.recipients if each.state == State.WAITING]

    @property
    def next(self) -> SeenRecipient | None:
        """Whose turn is first, of those whose turn may be known; else one that is held."""
        going = [each for each in self.waiting if each.due_at and not each.holds]
        held = [each for each in self.waiting if each.holds]
        return min(going, key=lambda each: (not each.on_the_way, each.due_at), default=held[0] if held else None)

    @property
    def to_try(self) -> list[SeenRecipient]:
        """What may be tried now."""
        return [each for each in self.waiting if each.caused and not each.holds and not each.on_the_way]

    @property
    def to_give_up(self) -> list[SeenRecipient]:
        """What may be given up: not what the provider is to look at."""
        return [each for each in self.waiting
                if each.caused and not each.on_the_way and not each.holds & ~Hold.SUSPENDED]

    def is_soon(self, now: datetime) -> bool:
        """Whether something happens to it within a minute."""
        return any(each.on_the_way or (each.due_at is not None and not each.holds and each.due_at <= now + SOON)
                   for each in self.waiting)


def of(tenant_id: int, message_id: int) -> Whereabouts | None:
    """None: the tenant sees nothing of it, which is also so when there is no such message."""
    theirs = Q(Exact(Unindexed("tenant"), tenant_id)) | Q(Exact(Unindexed("recipient_tenant"), tenant_id))
    first = Case(
        # As log.py tells one of several rows behind an address: its row is then among the first.
        When(state=State.WAITING, then=Value(0)), When(state=State.FAILED, then=Value(1)),
        When(state=State.DISCARDED, then=Value(2)), default=Value(3),
    )
    every = Recipient.objects.filter(theirs, message=message_id)
    rows = list(every.order_by(first, "pk")[: MOST + 1])
    if not rows:
        return None
    messages = Message.objects.in_bulk([message_id])
    seen = list(as_seen_by(rows[:MOST], {tenant_id}, messages=messages))
    message = messages.get(message_id)
    own = message if message and message.tenant_id == tenant_id else None
    accepted_at, reverse_path = (seen[0].accepted_at, seen[0].reverse_path) if seen else (None, "")
    more = len(rows) > MOST
    if more and len(seen) < MOST:
        # What isn't shown because it is behind another tenant's address isn't counted either.
        hidden = {each.original for each in seen if not each.resolved}
        more = every.exclude(pk__in=[row.pk for row in rows[:MOST]]).exclude(original__in=hidden).exists()
    return Whereabouts(message_id, own, accepted_at, reverse_path, seen, more)


def tried_lately(recipients: list[SeenRecipient]) -> bool:
    """Whether one of them was tried less than a minute ago: the other server is to have its rest."""
    since = timezone.now() - BETWEEN_TRIES
    return any(each.attempts and each.attempts[-1].at > since for each in recipients)
