"""What changed in the directory since the last poll: DirectoryChange rows as what kept answers depend on."""

from dataclasses import dataclass

from django.db import connection

from mailserver.directory.found import ANY_CHANGE, EVERY_TENANT, Dependency
from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.models import Address

MOST_CHANGES = 1000  # at one poll; above it everything is dropped (and of tenants touched: every tenant)


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since the last poll. `seen` is where the next one starts.

    `dropped` None means everything.
    """

    seen: str
    dropped: frozenset[Dependency] | None


def changes(seen: str | None) -> Changes:
    """The directory's changes after `seen`; with None only where to start from.

    SQLite has one writer, so ids appear in order. On PostgreSQL they become visible out
    of order, and a sequence moves before its row is there: rows are asked for by snapshot
    (each keeps its transaction's id), which misses none and gives none twice.
    """
    names, now_seen = _by_snapshot(seen) if connection.vendor == "postgresql" else _by_id(seen)
    if seen is None or names == []:
        return Changes(now_seen, frozenset())
    if names is None or "" in names or len(names) > MOST_CHANGES:
        return Changes(now_seen, None)
    return Changes(now_seen, _touched(set(names)))


def _by_id(seen: str | None) -> tuple[list[str] | None, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT MAX(id) FROM tenants_directorychange")
        last = cursor.fetchone()[0] or 0
        if seen is None or last == int(seen):
            return [], str(last)
        if last < int(seen):
            return None, str(last)  # another database than before: restored, or pruned empty
        cursor.execute(
            "SELECT domain FROM tenants_directorychange WHERE id > %s AND id <= %s LIMIT %s",
            [int(seen), last, MOST_CHANGES + 1],
        )
        return [row[0] for row in cursor.fetchall()], str(last)


def _by_snapshot(seen: str | None) -> tuple[list[str] | None, str]:
    with connection.cursor() as cursor:
        if seen is None:
            cursor.execute("SELECT pg_current_snapshot()::text")
            return [], cursor.fetchone()[0]
        # One statement, so that both come from one snapshot. The last condition leaves out rows
        # of a restored dump, whose transaction ids may lie in this cluster's future for ever.
        cursor.execute(
            """
            SELECT pg_current_snapshot()::text, ARRAY(
                SELECT domain FROM tenants_directorychange
                WHERE xid >= pg_snapshot_xmin(%s::pg_snapshot)
                  AND NOT pg_visible_in_snapshot(xid, %s::pg_snapshot)
                  AND pg_visible_in_snapshot(xid, pg_current_snapshot())
                LIMIT %s)
            """,
            [seen, seen, MOST_CHANGES + 1],
        )
        now_seen, names = cursor.fetchone()
        return list(names), now_seen


def _touched(names: set[str]) -> frozenset[Dependency]:
    """The names, the domains that they are aliases of, and the tenants that a change there can give a right.

    A tenant's new alias makes a sender right of a login in another domain: logins
    depend on their tenant for that.
    """
    names = names | set(
        DomainAlias.objects.filter(name__in=names).values_list("domain__name", flat=True)
    )
    owners = Domain.objects.filter(name__in=names, tenant__isnull=False).values_list(
        "tenant_id", flat=True
    )
    holders = Address.objects.filter(alias__isnull=False, domain__name__in=names).order_by()
    tenants = {*owners, *holders.values_list("tenant_id", flat=True).distinct()[: MOST_CHANGES + 1]}
    return frozenset({ANY_CHANGE, *names, *(tenants if len(tenants) <= MOST_CHANGES else {EVERY_TENANT})})
