"""What a start asks of the database: its tables, and the number of this machine.

A node's number is part of every id that it makes.
"""

from datetime import datetime

from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from mailserver.spool import sql
from panel.database import ids
from panel.operations.models import Node


class NoFreeNumber(Exception):
    """All numbers are given; the text is a sentence for the operator."""


def has_pending_migrations() -> bool:
    """Whether the tables are older than this program. Raises SpoolUnavailable."""
    with sql.usable_connection():
        executor = MigrationExecutor(connection)
        return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def register_node(name: str, version: str, now: datetime) -> int:
    """This node's number: the one that its name had before, or the lowest free one.

    Raises NoFreeNumber, and SpoolUnavailable.
    """
    name, version = sql.clean(Node, "name", name), sql.clean(Node, "version", version)

    def work() -> int:
        # No two may read the same lowest number; SQLite's transactions take turns anyway.
        sql.lock_table("operations_node")
        at = sql.moment(now)
        numbers = {known: number for number, known in sql.fetch("SELECT number, name FROM operations_node")}
        if name in numbers:
            sql.change(
                "UPDATE operations_node SET version = %s, started_at = %s, last_seen_at = %s WHERE name = %s",
                [version, at, at, name],
            )
            return numbers[name]
        free = sorted(set(range(ids.NODES)) - set(numbers.values()))
        if not free:
            raise NoFreeNumber(
                f"The database knows {ids.NODES} nodes, no number is left for {name}: remove one that is gone for "
                "good, or set POSTHOUSE_NODE to the name of the one that this machine takes over from."
            )
        sql.change(
            "INSERT INTO operations_node (number, name, version, started_at, last_seen_at, draining)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [free[0], name, version, at, at, False],
        )
        return free[0]

    return sql.run(work)


def seen(node: int, now: datetime) -> None:
    """Note that the node is alive."""
    sql.run(
        lambda: sql.change(
            "UPDATE operations_node SET last_seen_at = %s WHERE number = %s", [sql.moment(now), node]
        )
    )
