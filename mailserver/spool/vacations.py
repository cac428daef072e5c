"""Whom mailboxes have answered: once per sender and period, whoever asks at the same time.

What makes that exact is a unique row and a conditional upsert, in the transaction that
writes the answer itself. Whether there is to be an answer is decided in rules/filtering.
RFC 5230 §4.1.
"""

from datetime import datetime

from mailserver.envelope import VacationAnswer
from mailserver.spool import sql
from panel.mailboxes.models import VacationAnswer as Remembered

# Of a mailbox at a time; more senders than that in one period get no answer. Whoever sends with ever
# new forged senders makes a mailbox write to so many strangers, and fills no table.
MOST_REMEMBERED = 1000
_PRUNED = 1000  # rows at a time

_TABLE = Remembered._meta.db_table
_UPSERT = f"""
    INSERT INTO {_TABLE} (mailbox_id, sender, until)
    SELECT %s, %s, %s
    WHERE EXISTS (SELECT 1 FROM mailboxes_mailbox WHERE id = %s)
      AND (SELECT COUNT(*) FROM {_TABLE} WHERE mailbox_id = %s) < %s
    ON CONFLICT (mailbox_id, sender) DO UPDATE SET until = excluded.until WHERE {_TABLE}.until <= %s
"""


def remember(answer: VacationAnswer, now: datetime) -> bool:
    """Within a transaction: whether this answer is to be written; then no other is until it no longer counts."""
    sender, box = sql.clean(Remembered, "sender", answer.sender), answer.mailbox_id
    return sql.change(
        _UPSERT, [box, sender, sql.moment(answer.until), box, box, MOST_REMEMBERED, sql.moment(now)]
    ) == 1


def not_given(answer: VacationAnswer) -> None:
    """Within the same transaction: it isn't written after all, and the sender may be answered another time."""
    sender = sql.clean(Remembered, "sender", answer.sender)
    sql.change(f"DELETE FROM {_TABLE} WHERE mailbox_id = %s AND sender = %s", [answer.mailbox_id, sender])


def forget(now: datetime) -> int:
    """Delete what no longer counts, up to a bound; how many. Raises SpoolUnavailable."""
    skip = sql.for_update(" SKIP LOCKED")
    return sql.run(
        lambda: sql.change(
            f"DELETE FROM {_TABLE} WHERE id IN"
            f" (SELECT id FROM {_TABLE} WHERE until <= %s ORDER BY until LIMIT %s{skip})",
            [sql.moment(now), _PRUNED],
        )
    )
