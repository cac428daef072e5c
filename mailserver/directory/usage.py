"""What mailboxes hold, as the database knows it: read, written in batches, and which to count next.

Synchronous, on a thread's own connection (database.py). Never a DirectoryChange: nothing that
the directory's caches keep has changed. What is known in the process is mailserver/usage.py's.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.db.models import F

from panel.mailboxes.models import Mailbox, MailboxUsage
from panel.rules import quota
from panel.rules.addresses import Address

BATCH = 500  # rows a transaction
_TABLE = MailboxUsage._meta.db_table
# Never below nothing: what was removed may never have been added.
_ADD = (
    f"UPDATE {_TABLE} SET used_bytes = CASE WHEN used_bytes + %s < 0 THEN 0 ELSE used_bytes + %s END,"  # noqa: S608
    " messages = CASE WHEN messages + %s < 0 THEN 0 ELSE messages + %s END, known_at = %s WHERE mailbox_id = %s"
)


@dataclass(frozen=True, slots=True)
class UsageFact:
    """What a mailbox holds."""

    used_bytes: int
    messages: int


@dataclass(frozen=True, slots=True)
class UsageChange:
    """How it changed: by `used_bytes` and `messages`, on top of `whole` if all that it holds was told."""

    mailbox_id: int
    used_bytes: int
    messages: int
    whole: UsageFact | None = None
    is_counted: bool = False  # `whole` comes from its files, or from nobody: it was just its turn


@dataclass(frozen=True, slots=True)
class Crossing:
    """A mailbox that has just reached a threshold of its quota."""

    mailbox_id: int
    address: Address
    percent: int  # the threshold
    used_bytes: int
    quota_bytes: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the rows say after a batch, and whose owners are to be warned."""

    facts: Mapping[int, UsageFact]
    crossings: tuple[Crossing, ...]


@dataclass(frozen=True, slots=True)
class Uncounted:
    """A mailbox whose files have not been counted for long. `store`: who puts mail there; empty: the setting's."""

    mailbox_id: int
    opaque_id: str
    store: str


def read(mailbox_ids: Collection[int]) -> dict[int, UsageFact]:
    """What these hold; nothing for one without a row."""
    rows = MailboxUsage.objects.filter(pk__in=list(mailbox_ids)).values_list("pk", "used_bytes", "messages")
    found = {number: UsageFact(used_bytes, messages) for number, used_bytes, messages in rows}
    return {number: found.get(number, UsageFact(0, 0)) for number in mailbox_ids}


def record(changes: Sequence[UsageChange], now: datetime) -> Recorded:
    """Write at most BATCH changes, a mailbox each, in one transaction; mailboxes that are gone are left out."""
    with transaction.atomic():
        known = Mailbox.objects.filter(pk__in=[change.mailbox_id for change in changes]).order_by()
        there = set(known.values_list("pk", flat=True))
        # In order of id, as everybody who locks several rows.
        going = sorted((each for each in changes if each.mailbox_id in there), key=lambda each: each.mailbox_id)
        MailboxUsage.objects.bulk_create(
            [MailboxUsage(mailbox_id=each.mailbox_id) for each in going], ignore_conflicts=True
        )
        for each in going:
            if each.whole is not None or each.is_counted:
                MailboxUsage.objects.filter(pk=each.mailbox_id).update(**_whole(each, now))
        at = connection.ops.adapt_datetimefield_value(now)
        added = [
            (each.used_bytes, each.used_bytes, each.messages, each.messages, at, each.mailbox_id)
            for each in going
            if each.whole is None and (each.used_bytes or each.messages)
        ]
        if added:
            with connection.cursor() as cursor:
                cursor.executemany(_ADD, added)
        return _recorded([each.mailbox_id for each in going])


def _whole(change: UsageChange, now: datetime) -> dict[str, object]:
    values: dict[str, object] = {"counted_at": now} if change.is_counted else {}
    if change.whole is not None:
        values |= {
            "used_bytes": max(0, change.whole.used_bytes + change.used_bytes),
            "messages": max(0, change.whole.messages + change.messages),
            "known_at": now,
        }
    return values


def _recorded(mailbox_ids: Sequence[int]) -> Recorded:
    rows = MailboxUsage.objects.filter(pk__in=mailbox_ids).order_by().values_list(
        "pk", "used_bytes", "messages", "warned_percent", "mailbox__quota_bytes", "mailbox__address__local_part",
        "mailbox__address__domain__name",
    )
    facts, crossings = {}, []
    for number, used, messages, warned, most, local_part, domain in rows:
        facts[number] = UsageFact(used, messages)
        reached = quota.level(used, most)
        # Whoever changes the level tells: of several nodes one.
        if reached != warned and MailboxUsage.objects.filter(pk=number, warned_percent=warned).update(
            warned_percent=reached
        ) and reached > warned and most:
            crossings.append(Crossing(number, Address(local_part, domain), reached, used, most))
    return Recorded(facts, tuple(crossings))


def next_uncounted(before: datetime, limit: int) -> list[Uncounted]:
    """Mailboxes last counted before that, never counted ones first, then those longest ago."""
    values = ("pk", "opaque_id", "address__domain__store")
    never = Mailbox.objects.filter(usage__counted_at__isnull=True).order_by("pk").values_list(*values)[:limit]
    found = list(never)
    if not found:
        old = Mailbox.objects.filter(usage__counted_at__lt=before).order_by(F("usage__counted_at"))
        found = list(old.values_list(*values)[:limit])
    return [Uncounted(*row) for row in found]


def places(mailbox_ids: Collection[int]) -> list[Uncounted]:
    """Where these mailboxes lie."""
    rows = Mailbox.objects.filter(pk__in=list(mailbox_ids)).order_by("pk")
    return [Uncounted(*row) for row in rows.values_list("pk", "opaque_id", "address__domain__store")]


def was_counted(mailbox_id: int, since: datetime) -> bool:
    """Whether it has been counted since then: by another node."""
    return MailboxUsage.objects.filter(pk=mailbox_id, counted_at__gte=since).exists()
