"""claim: lease what is due, tenants in turn; and what the queue reads and puts back.

A lease that has run out can be claimed again. Who suspended tenants are, which way a
message goes and how it is delivered is the dispatcher's and the carrier's. DESIGN §5, "Queue".
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mailserver import log
from mailserver.envelope import Body, Claimed, ClaimedMessage, Hold, StoredContent
from mailserver.spool import sql
from mailserver.spool.accept import LMTP
from panel.database import ids as id_text
from panel.sending.models import Content

# Written out, not as parameters, so that PostgreSQL uses the partial index recipient_due.
_WAITING = "state = 'waiting' AND holds = 0"
_CLAIMABLE = f"{_WAITING} AND due_at <= %s AND (lease_until IS NULL OR lease_until < %s)"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)  # no lease ran out before that
# Of so many due rows for each that is wanted, tenants are served in turn: bounds what a claim reads.
_READ_AHEAD = 20
_TRY_SUSPENDED = 500
_CLAIMED = (
    "id", "message_id", "original", "resolved", "tenant_id", "recipient_tenant_id", "next_hop", "tries",
    "expires_at", "staged", "notify", "orcpt", "delay_reported", "lease_until",
)

_LEASE_UNTIL = _CLAIMED.index("lease_until")


def claim(
    *, now: datetime, lease_by: str, lease_s: float, limit: int, node: int | None = None, lapsed: bool = True
) -> list[ClaimedMessage]:
    """Lease up to `limit` due recipients for `lease_s` seconds, grouped by message and next hop.

    Nothing when the node (its number) is draining. `lease_by` must be the claimer's alone:
    settle and release ask for it. Without `lapsed` leases that ran out are left alone.
    Raises SpoolUnavailable.
    """
    if not 0 < len(lease_by) <= 60:
        raise ValueError(f"lease_by {lease_by!r} is empty or longer than its column")
    moments = (now, now if lapsed else _LONG_AGO)
    with sql.usable_connection():
        ids = _candidates(moments, limit, node)
    if not ids:
        return []
    return sql.run(lambda: _lease(ids, moments, lease_by, now + timedelta(seconds=lease_s), limit))


def try_suspended(now: datetime, *, held_before: datetime) -> int:
    """Make due what was last held as suspended before a moment, up to a bound; how many.

    The claimer asks again whether it may go, and holds it anew. Resuming lifts holds by
    itself, but not the one that a claimer, still sure that the sender is suspended, writes
    in that very moment. Raises SpoolUnavailable.
    """
    skip = sql.for_update(" SKIP LOCKED")
    return sql.run(
        lambda: sql.change(
            "UPDATE sending_recipient SET holds = 0, due_at = %s WHERE id IN (SELECT id FROM sending_recipient"
            # "> 0" is the partial index's condition.
            " WHERE state = 'waiting' AND holds > 0 AND holds = %s AND due_at < %s"
            f" ORDER BY due_at LIMIT %s{skip})",
            [sql.moment(now), int(Hold.SUSPENDED), sql.moment(held_before), _TRY_SUSPENDED],
        )
    )


def next_due(now: datetime) -> datetime | None:
    """When the next recipient can be claimed: `now` if one can be already, None if none waits."""
    with sql.usable_connection():
        [(due,)] = sql.fetch(
            f"SELECT MIN(due_at) FROM sending_recipient WHERE {_WAITING}"
            " AND (lease_until IS NULL OR lease_until < %s)",
            [sql.moment(now)],
        )
        [(lapses,)] = sql.fetch(
            f"SELECT MIN(lease_until) FROM sending_recipient WHERE {_WAITING} AND lease_until >= %s",
            [sql.moment(now)],
        )
    moments = [sql.read_moment(value) for value in (due, lapses) if value is not None]
    return max(now, min(moments)) if moments else None


def count_waiting() -> int:
    """Recipients in the queue, held ones included."""
    with sql.usable_connection():
        return sql.fetch("SELECT COUNT(*) FROM sending_recipient WHERE state = 'waiting'")[0][0]


def read_content(message_id: int, *, folder: Path) -> StoredContent | None:
    """The message's bytes, or where they are under `folder` (the content store's); None if they are gone."""
    with sql.usable_connection():
        rows = sql.fetch(
            'SELECT prefix, "where", body, "key", size, sha256 FROM sending_content WHERE message_id = %s',
            [message_id],
        )
    if not rows:
        return None
    [(prefix, where, body, key, size, sha256)] = rows
    if where == Content.Where.FILE:
        return StoredContent(bytes(prefix), Body(size, sha256, None, folder / key))
    return StoredContent(bytes(prefix), Body(size, sha256, bytes(body), None))


def release(recipient_ids: Sequence[int], *, lease_by: str) -> None:
    """Give leases back untried, those that are still held by `lease_by`."""
    if not recipient_ids:
        return
    sql.run(
        lambda: sql.change(
            "UPDATE sending_recipient SET lease_until = NULL, lease_by = ''"
            f" WHERE id IN ({sql.places(recipient_ids)}) AND lease_by = %s AND state = 'waiting'",
            [*recipient_ids, lease_by],
        )
    )


def release_all_but(recipient_ids: Sequence[int], *, lease_by: str) -> int:
    """Give all leases of `lease_by` back untried, but of those that it has in hand; how many there were.

    Those for an LMTP store stay: intake leases them as it commits, before anybody has them in hand.
    """
    kept = f" AND id NOT IN ({sql.places(recipient_ids)})" if recipient_ids else ""
    return sql.run(
        lambda: sql.change(
            "UPDATE sending_recipient SET lease_until = NULL, lease_by = ''"
            f" WHERE lease_by = %s AND state = 'waiting' AND next_hop <> %s{kept}",
            [lease_by, LMTP, *recipient_ids],
        )
    )


def take_back(name: str, *, but: str, now: datetime) -> int:
    """Let the leases run out now of workers that died: those whose `lease_by` begins with `name` and "-".

    How many recipients that is. The caller knows that these workers are dead; `but` is its own
    `lease_by`.
    """
    at = sql.moment(now - timedelta(seconds=1))
    return sql.run(
        lambda: sql.change(
            "UPDATE sending_recipient SET lease_until = %s"
            " WHERE state = 'waiting' AND lease_until > %s AND lease_by <> %s AND SUBSTR(lease_by, 1, %s) = %s",
            [at, at, but, len(name) + 1, f"{name}-"],
        )
    )


def mark_staged(recipient_id: int, *, lease_by: str, take_name: Callable[[], object]) -> bool:
    """Note that its file lies in staging/; what is no longer there from now on was published.

    False, and nothing was done, if it is no longer leased by `lease_by`. `take_name` makes
    the file the recipient's, durably: called under the row's lock, so that of two who have
    staged the same recipient only the one that holds the lease leaves a file. It may be
    called twice, and what it raises passes through.
    """

    def work() -> bool:
        if not held([recipient_id], lease_by):
            return False
        take_name()
        sql.change("UPDATE sending_recipient SET staged = %s WHERE id = %s", [True, recipient_id])
        return True

    return sql.run(work)


def republish(recipient_ids: Sequence[int], now: datetime) -> int:
    """Queue staged recipients whose file was not renamed; how many of them were taken for delivered."""
    if not recipient_ids:
        return 0
    return sql.run(
        lambda: sql.change(
            "UPDATE sending_recipient SET state = 'waiting', due_at = %s, settled_at = NULL, last_reply = ''"
            f" WHERE id IN ({sql.places(recipient_ids)}) AND staged AND state = 'delivered'",
            [sql.moment(now), *recipient_ids],
        )
    )


def which_exist(recipient_ids: Sequence[int]) -> dict[int, str]:
    """The state of those that have a row."""
    if not recipient_ids:
        return {}
    with sql.usable_connection():
        return dict(
            sql.fetch(
                f"SELECT id, state FROM sending_recipient WHERE id IN ({sql.places(recipient_ids)})",
                list(recipient_ids),
            )
        )


def spool_keys_in_use(keys: Sequence[str]) -> set[str]:
    """Those of the content store's keys that a Content row names; a key is its message's id as text."""
    # By the primary key: there is no index on the keys themselves.
    numbers = [number for key in keys if (number := _id_of(key)) is not None]
    if not numbers:
        return set()
    with sql.usable_connection():
        rows = sql.fetch(
            f'SELECT "key" FROM sending_content WHERE message_id IN ({sql.places(numbers)})', numbers
        )
    return {key for (key,) in rows} & set(keys)


def held(recipient_ids: Sequence[int], lease_by: str) -> list[int]:
    """Within a transaction: lock those that wait and are leased by `lease_by`, in the order of their ids."""
    rows = sql.fetch(
        f"SELECT id FROM sending_recipient WHERE id IN ({sql.places(recipient_ids)})"
        f" AND lease_by = %s AND state = 'waiting' ORDER BY id{sql.for_update()}",
        [*recipient_ids, lease_by],
    )
    return [number for (number,) in rows]


def _id_of(key: str) -> int | None:
    try:
        return id_text.from_text(key)
    except ValueError:
        return None


def _candidates(moments: tuple[datetime, datetime], limit: int, node: int | None) -> list[int]:
    """Due recipients, each tenant's first before any tenant's second."""
    rows = sql.fetch(
        "SELECT id FROM (SELECT id, due_at, ROW_NUMBER() OVER (PARTITION BY tenant_id ORDER BY due_at, id) AS turn"
        f" FROM (SELECT id, due_at, tenant_id FROM sending_recipient WHERE {_CLAIMABLE} AND NOT EXISTS"
        " (SELECT 1 FROM operations_node WHERE number = %s AND draining)"
        " ORDER BY due_at LIMIT %s) AS due) AS turns ORDER BY turn, due_at, id LIMIT %s",
        [*map(sql.moment, moments), -1 if node is None else node, limit * _READ_AHEAD, limit * 4],
    )
    return [number for (number,) in rows]


def _lease(
    ids: Sequence[int], moments: tuple[datetime, datetime], lease_by: str, until: datetime, limit: int
) -> list[ClaimedMessage]:
    columns = ", ".join(_CLAIMED)
    turns = ", ".join(["(%s, %s)"] * len(ids))
    # Others claim at the same time: what they hold is skipped, or is no longer claimable.
    rows = sql.fetch(
        f"SELECT {columns} FROM sending_recipient JOIN (VALUES {turns}) AS turns ON id = turns.column1"
        f" WHERE {_CLAIMABLE} ORDER BY turns.column2 LIMIT %s"
        + sql.for_update(" OF sending_recipient SKIP LOCKED"),
        [*(value for turn, number in enumerate(ids) for value in (number, turn)), *map(sql.moment, moments), limit],
    )
    if not rows:
        return []
    leased = [row[0] for row in rows]
    sql.change(
        # A lease that ran out was a try as well: its worker crashed, or hung.
        "UPDATE sending_recipient SET tries = tries + CASE WHEN lease_until IS NULL THEN 0 ELSE 1 END,"
        f" lease_until = %s, lease_by = %s WHERE id IN ({sql.places(leased)})",
        [sql.moment(until), lease_by, *leased],
    )
    return _messages(rows, _settled_tries([row[0] for row in rows if row[_LEASE_UNTIL] is not None]))


def _settled_tries(ids: Sequence[int]) -> dict[int, int]:
    """How many tries of each came to an end; asked only of those whose lease ran out."""
    if not ids:
        return {}
    ended = dict(
        sql.fetch(
            f"SELECT recipient_id, COUNT(*) FROM sending_attempt WHERE recipient_id IN ({sql.places(ids)})"
            " GROUP BY recipient_id",
            list(ids),
        )
    )
    return {number: ended.get(number, 0) for number in ids}


def _messages(rows: Sequence[tuple], settled: dict[int, int]) -> list[ClaimedMessage]:
    """The leased rows with their messages, one for each message and next hop, in the order of the rows."""
    message_ids = list(dict.fromkeys(row[1] for row in rows))
    messages = {
        row[0]: row
        for row in sql.fetch(
            "SELECT id, accepted_at, reverse_path, direction, tenant_id, credential_id, smtputf8, body, ret, envid,"
            f" size FROM sending_message WHERE id IN ({sql.places(message_ids)})",
            message_ids,
        )
    }
    groups: dict[tuple[int, str], list[Claimed]] = defaultdict(list)
    for row in rows:
        of = dict(zip(_CLAIMED, row, strict=True))
        if of["message_id"] not in messages:
            # Pruned by hand: left leased, and logged at each claim, rather than lost without a word.
            log.warning("a waiting recipient has no message", recipient=of["id"], message=of["message_id"])
            continue
        ran_out = of["lease_until"] is not None
        tries = of["tries"] + ran_out
        groups[of["message_id"], of["next_hop"]].append(
            Claimed(
                id=of["id"], original=of["original"], resolved=of["resolved"], tenant_id=of["tenant_id"],
                recipient_tenant_id=of["recipient_tenant_id"], next_hop=of["next_hop"], tries=tries,
                accepted_at=sql.read_moment(messages[of["message_id"]][1]),
                expires_at=sql.read_moment(of["expires_at"]), staged=bool(of["staged"]), notify=of["notify"],
                orcpt=of["orcpt"], delay_reported=bool(of["delay_reported"]),
                lost_leases=max(0, tries - settled[of["id"]]) if ran_out else 0,
            )
        )
    return [_message(messages[message_id], recipients) for (message_id, _), recipients in groups.items()]


def _message(row: tuple, recipients: Sequence[Claimed]) -> ClaimedMessage:
    number, _, reverse_path, direction, tenant_id, credential_id, smtputf8, body, ret, envid, size = row
    return ClaimedMessage(
        id=number, reverse_path=reverse_path, direction=direction, tenant_id=tenant_id, credential_id=credential_id,
        smtputf8=bool(smtputf8), body_type=body, ret=ret, envid=envid, size=size, recipients=tuple(recipients),
    )
