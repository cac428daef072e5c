"""The two dialects, and what every statement of the spool goes through.

The ORM costs 1.7 ms a message in batches of 8 to 16, this 0.1 (measured). Rows are
tuples in the order of the column lists here; a test compares what is written with what
the ORM reads. Each thread has Django's own connection of that thread.
"""

import contextlib
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import psycopg
from django.db import Error, InterfaceError, OperationalError, connection, models, transaction
from psycopg.rows import tuple_row

from panel.mailboxes.models import VacationAnswer
from panel.operations.models import Node
from panel.sending.models import Attempt, Content, Counter, Message, Recipient

Row = Sequence[Any]
Value = TypeVar("Value")

LARGEST_ID = (1 << 63) - 1

MESSAGE = (
    "id", "accepted_at", "direction", "tenant_id", "reverse_path", "subject", "message_id", "header_from",
    "credential_id", "credential_text", "client_ip", "client_name", "tls", "size", "smtputf8", "body", "ret",
    "envid", "facts",
)
RECIPIENT = (
    "id", "message_id", "tenant_id", "recipient_tenant_id", "original", "resolved", "next_hop", "state", "holds",
    "due_at", "lease_until", "lease_by", "tries", "expires_at", "staged", "notify", "orcpt", "delay_reported",
    "last_reply", "settled_at",
)
CONTENT = ("message_id", "prefix", "where", "body", "key", "size", "sha256")
ATTEMPT = (
    "id", "recipient_id", "tenant_id", "recipient_tenant_id", "at", "outcome", "host", "address", "tls", "reply",
    "duration_ms",
)

_TABLES: tuple[type[models.Model], ...] = (Message, Recipient, Content, Attempt, Counter, Node, VacationAnswer)
_LENGTHS = {
    (model, field.attname): field.max_length
    for model in _TABLES
    for field in model._meta.concrete_fields
    if isinstance(field, models.CharField)
}
_BYTES = {
    (model, field.attname)
    for model in _TABLES
    for field in model._meta.concrete_fields
    if isinstance(field, models.BinaryField)
}


class SpoolUnavailable(Exception):
    """The database can't be reached or used just now.

    `in_doubt`: it was lost while it committed, so that the rows may be there or not.
    """

    def __init__(self, because: object, *, in_doubt: bool = False) -> None:
        super().__init__(str(because))
        self.in_doubt = in_doubt


class BadValue(ValueError):
    """A value that must not be written, nor shortened."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement for many rows."""

    sql: str
    rows: Sequence[Row]


def insert(
    model: type[models.Model], columns: Sequence[str], rows: Sequence[Row], ending: str = ""
) -> Statement:
    """The INSERT of rows whose values stand in the order of `columns`."""
    names = ", ".join(f'"{name}"' for name in columns)
    marks = ", ".join(bytes_place() if (model, name) in _BYTES else "%s" for name in columns)
    return Statement(f"INSERT INTO {model._meta.db_table} ({names}) VALUES ({marks}){ending}", rows)


def bytes_place() -> str:
    """The placeholder of bytes for `write`: as they are. Django's own cursor writes them as hexadecimal text."""
    return "%b" if connection.vendor == "postgresql" else "%s"


def write(statements: Sequence[Statement]) -> None:
    """Run them in this order within the open transaction; on PostgreSQL in one round trip."""
    if connection.vendor == "postgresql":
        with connection.wrap_database_errors:
            raw = connection.connection
            with raw.pipeline(), psycopg.Cursor(raw) as cursor:
                for statement in statements:
                    if statement.rows:
                        cursor.executemany(statement.sql, statement.rows)
        return
    with connection.cursor() as cursor:
        for statement in statements:
            if statement.rows:
                cursor.executemany(statement.sql, statement.rows)


def fetch(sql: str, values: Row = ()) -> list[tuple[Any, ...]]:
    """All rows of a query; outside a transaction it is asked again if its connection was lost."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall()
    for _ in range(2):
        connection.ensure_connection()
        try:
            with connection.wrap_database_errors:
                with psycopg.Cursor(connection.connection, row_factory=tuple_row) as cursor:
                    return cursor.execute(sql, values, binary=True).fetchall()
        except (OperationalError, InterfaceError) as error:
            if connection.in_atomic_block or connection.is_usable():
                raise
            lost = error
            connection.close()
    raise lost


def change(sql: str, values: Row = ()) -> int:
    """How many rows an UPDATE, INSERT or DELETE touched."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.rowcount


def places(values: Sequence[object]) -> str:
    """Placeholders for an IN list."""
    return ", ".join(["%s"] * len(values))


def for_update(extra: str = "") -> str:
    """The row lock; SQLite has locked the whole database already."""
    return f" FOR UPDATE{extra}" if connection.vendor == "postgresql" else ""


def lock_table(name: str) -> None:
    """Within a transaction: alone with this table until it ends."""
    if connection.vendor == "postgresql":
        change(f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE")


def moment(value: datetime | None) -> object:
    """A moment as this database takes it."""
    return connection.ops.adapt_datetimefield_value(value)


def read_moment(value: Any) -> datetime:
    """A moment as this database gives it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return datetime.fromisoformat(value).replace(tzinfo=UTC)


def clean(model: type[models.Model], column: str, text: str) -> str:
    """Text as the column can hold it: no NUL, no surrogates, cut to its length."""
    return _storable(text)[: _LENGTHS[model, column]]


def address(text: str) -> str:
    """An address for a column. Raises BadValue: shortened or mended, it would be somebody else's."""
    if len(text) > 320 or _storable(text) != text:
        raise BadValue(f"address {text[:400]!r} can't be stored")
    return text


def ip(text: str) -> str | None:
    """A client's address as both databases hold it; None for what is none."""
    try:
        value = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(value, "ipv4_mapped", None) or value)


def _storable(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if not text.isascii():
        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text


def close_connection() -> None:
    """Close this thread's connection; for a thread that ends."""
    connection.close()


@contextlib.contextmanager
def usable_connection() -> Iterator[None]:
    """Turn a lost or locked database into SpoolUnavailable, and let the next call connect again."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        if is_poison(error):
            raise
        raise SpoolUnavailable(error) from error
    finally:
        # Only then: asked at each call, whether it is usable would cost a round trip.
        if connection.errors_occurred and not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def run(work: Callable[[], Value]) -> Value:
    """`work` in one transaction; a second time if it was a deadlock's victim or had lost its connection.

    Raises SpoolUnavailable, in doubt if the connection broke while it committed. Errors
    of the values themselves pass through: they would come again.
    """
    with usable_connection():
        for last in (False, True):
            committing, used = False, None
            try:
                with transaction.atomic():
                    used = connection.connection
                    value = work()
                    committing = True
                return value
            except (OperationalError, InterfaceError) as error:
                if is_poison(error):
                    raise
                state = _sqlstate(error)
                if committing and (state is None or state[:2] in ("08", "57", "58")):
                    raise SpoolUnavailable(error, in_doubt=True) from error
                connection.close_if_unusable_or_obsolete()
                # Django may have connected again by now.
                lost = used is not None and connection.connection is not used
                if last or connection.in_atomic_block or not (lost or state in ("40P01", "40001")):
                    raise
    raise AssertionError("unreachable")


def is_poison(error: BaseException) -> bool:
    """Whether the values are at fault and not the database: repeated, it would fail again."""
    if isinstance(error, (OperationalError, InterfaceError)):
        return (_sqlstate(error) or "").startswith("54")  # program limits, such as a row too large
    return isinstance(error, (Error, ValueError, TypeError, OverflowError))


def _sqlstate(error: BaseException) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)
