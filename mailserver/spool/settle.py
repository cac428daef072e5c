"""settle: write how tries ended, with their Attempts and DSNs, in one transaction.

Whether a recipient is tried again, and who gets a DSN, is the judge's. DESIGN §5.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailserver import log
from mailserver.envelope import Attempt, Settlement
from mailserver.spool import sql
from mailserver.spool.accept import LIFE, Entry, inserts, message_rows, recipients_of
from mailserver.spool.claim import held
from panel.sending import models


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a batch.

    `unlink`: keys of the content store that nothing needs any more. `lost`: recipients
    whose lease was no longer ours, so that another one settles them. `failed`: recipients
    whose settlement the database refused; they stay leased, and are tried again.
    """

    unlink: tuple[str, ...] = ()
    lost: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()

    def __add__(self, other: "Settled") -> "Settled":
        return Settled(self.unlink + other.unlink, self.lost + other.lost, self.failed + other.failed)


def settle(
    batch: Sequence[Settlement],
    *,
    now: datetime,
    lease_by: str,
    next_id: Callable[[], int],
    life: timedelta = LIFE,
) -> Settled:
    """Write the batch; `next_id` numbers the recipients of DSNs. Raises SpoolUnavailable, nothing written."""
    if not batch:
        return Settled()
    ready: list[_Ready] = []
    failed: list[int] = []
    for settlement in batch:
        try:
            ready.append(_Ready.of(settlement, now, next_id, life))
        except (ValueError, TypeError, AttributeError):
            log.fault("settlement can't be written", recipient=settlement.recipient_id)
            failed.append(settlement.recipient_id)
    return _settle(ready, now, lease_by) + Settled(failed=tuple(failed))


@dataclass(frozen=True, slots=True)
class _Ready:
    """A settlement's values as the database takes them."""

    recipient_id: int
    message_id: int
    ends: bool
    recipient: tuple[object, ...]
    attempt: tuple[object, ...] | None
    dsn: tuple | None

    @classmethod
    def of(cls, settlement: Settlement, now: datetime, next_id: Callable[[], int], life: timedelta) -> "_Ready":
        state = models.Recipient.State(settlement.state)
        ends = state is not models.Recipient.State.WAITING
        if not ends and settlement.due_at is None:
            raise sql.BadValue("a recipient that waits has no moment when it is due")
        dsn = settlement.dsn
        return cls(
            settlement.recipient_id,
            settlement.message_id,
            ends,
            (
                state.value, sql.moment(settlement.due_at or now), settlement.tries, settlement.holds,
                settlement.delay_reported, sql.clean(models.Recipient, "last_reply", settlement.reply),
                sql.moment(now) if ends else None, settlement.recipient_id,
            ),
            _attempt_row(settlement, settlement.attempt) if settlement.attempt else None,
            message_rows(Entry(dsn, recipients_of(dsn, next_id, staged=False), keep_content=True), now, life)
            if dsn else None,
        )


def _attempt_row(settlement: Settlement, attempt: Attempt) -> tuple[object, ...]:
    def text(column: str, value: str) -> str:
        return sql.clean(models.Attempt, column, value)

    outcome = attempt.outcome
    return (
        attempt.id, settlement.recipient_id, settlement.tenant_id, settlement.recipient_tenant_id,
        sql.moment(attempt.at), text("outcome", outcome.disposition.value), text("host", outcome.host),
        text("address", outcome.address), text("tls", outcome.tls), text("reply", str(outcome.reply)),
        min(max(outcome.duration_ms, 0), 2**31 - 1),
    )


def _settle(ready: Sequence[_Ready], now: datetime, lease_by: str) -> Settled:
    if not ready:
        return Settled()
    try:
        return sql.run(lambda: _write(ready, lease_by))
    except sql.SpoolUnavailable:
        raise
    except Exception as error:
        if len(ready) == 1:
            log.fault("settlement can't be written", recipient=ready[0].recipient_id, because=error)
            return Settled(failed=(ready[0].recipient_id,))
    # One of them fails the batch: alone, each shows whether it is the one.
    return sum((_settle([each], now, lease_by) for each in ready), Settled())


def _write(ready: Sequence[_Ready], lease_by: str) -> Settled:
    ended = sorted({each.message_id for each in ready if each.ends})
    if ended:
        # First, and in order: of two that end a message's last recipients at once, the second
        # must see what the first did, or neither deletes the content.
        sql.fetch(
            f"SELECT message_id FROM sending_content WHERE message_id IN ({sql.places(ended)})"
            f" ORDER BY message_id{sql.for_update()}",
            ended,
        )
    ours = set(held([each.recipient_id for each in ready], lease_by))
    going = [each for each in ready if each.recipient_id in ours]
    sql.write(
        [
            sql.Statement(
                "UPDATE sending_recipient SET state = %s, due_at = %s, tries = %s, holds = %s, delay_reported = %s,"
                " last_reply = %s, settled_at = %s, lease_until = NULL, lease_by = '' WHERE id = %s",
                [each.recipient for each in going],
            ),
            sql.insert(models.Attempt, sql.ATTEMPT, [each.attempt for each in going if each.attempt]),
            *inserts([((*message, "{}"), rows, content) for message, rows, content in
                      (each.dsn for each in going if each.dsn)]),
        ]
    )
    lost = tuple(each.recipient_id for each in ready if each.recipient_id not in ours)
    return Settled(unlink=_delete_content(ended), lost=lost)


def _delete_content(message_ids: Sequence[int]) -> tuple[str, ...]:
    """Of messages that nobody waits for any more. The keys of their files."""
    if not message_ids:
        return ()
    rows = sql.fetch(
        f"DELETE FROM sending_content WHERE message_id IN ({sql.places(message_ids)}) AND NOT EXISTS"
        " (SELECT 1 FROM sending_recipient WHERE sending_recipient.message_id = sending_content.message_id"
        " AND state = 'waiting') RETURNING \"key\"",
        message_ids,
    )
    return tuple(key for (key,) in rows if key)
