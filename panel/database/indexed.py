"""Conditions that an index answers, on SQLite and PostgreSQL alike.

`LIKE` doesn't: on SQLite it reads the whole table, and an order by the database's own collation is no
order of prefixes. A prefix is a range here: from the text itself to the text with the last character of
Unicode behind it.
"""

import ipaddress
from typing import Any

from django.db import connection
from django.db.models import BigIntegerField, CharField, Func, Q
from django.db.models.lookups import Exact, GreaterThanOrEqual, LessThan

LAST = "\U0010ffff"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Folded(Func):
    """A column with its ASCII letters in lower case, ordered by bytes: what an index of it is asked by."""

    function = "LOWER"
    arity = 1
    output_field = CharField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template='LOWER((%(expressions)s) COLLATE "C")', **context)


class Unindexed(Func):
    """A foreign key's or a number's column, by which SQLite is not to look for an index: it keeps no figures that
    tell which of several holds fewer rows. PostgreSQL does, and chooses.
    """

    arity = 1
    output_field = BigIntegerField()
    template = "%(expressions)s"

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="+%(expressions)s", **context)


def fold(text: str) -> str:
    """The text as `Folded` gives it."""
    return "".join(each.lower() if each.isascii() else each for each in text)


def is_folded(column: str, text: str) -> Q:
    return Q(Exact(Folded(column), fold(text)))


def begins_folded(column: str, text: str) -> Q:
    """Whether the column begins with the text, in whatever case; by an index of Folded(column)."""
    low = fold(text)
    return Q(GreaterThanOrEqual(Folded(column), low)) & Q(LessThan(Folded(column), low + LAST))


def begins(column: str, text: str) -> Q:
    """Whether the column begins with exactly this text; by its index, on PostgreSQL that of varchar_pattern_ops."""
    if connection.vendor == "postgresql":
        return Q(**{f"{column}__startswith": text})
    return Q(**{f"{column}__gte": text, f"{column}__lt": text + LAST})


def within(column: str, network: Network) -> Q | None:
    """Whether the address in the column is in the network; None when no index says so.

    PostgreSQL knows addresses. On SQLite they are text, and a network is the beginnings of its addresses:
    that works for every IPv4 network, and for an IPv6 one of whole groups without a zero group in them.
    """
    if network.num_addresses == 1:
        return Q(**{column: str(network.network_address)})
    if connection.vendor == "postgresql":
        return Q(**{f"{column}__gte": str(network[0]), f"{column}__lte": str(network[-1])})
    if isinstance(network, ipaddress.IPv6Network):
        groups = network.network_address.exploded.split(":")[: network.prefixlen // 16]
        if network.prefixlen % 16 or not groups or "0000" in groups:
            return None
        return begins(column, "".join(f"{int(group, 16):x}:" for group in groups))
    if network.prefixlen > 24:
        return Q(**{f"{column}__in": [str(address) for address in network]})
    if network.prefixlen == 0:
        return None
    octets = -(-network.prefixlen // 8)
    found = Q()
    for each in network.subnets(new_prefix=8 * octets):
        found |= begins(column, "".join(f"{octet}." for octet in str(each.network_address).split(".")[:octets]))
    return found
