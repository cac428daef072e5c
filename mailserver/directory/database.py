"""A thread's own connection to the database: look-ups run on it, a broken one is replaced."""

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import DatabaseError, InterfaceError, connection

T = TypeVar("T")


class DirectoryUnavailable(Exception):
    """The database can't be asked just now; callers answer 4xx."""


def on_connection(look_up: Callable[..., T], *args: Any) -> T:
    """Run a look-up on this thread's connection; a broken one is closed, so that the next call reconnects.

    Raises DirectoryUnavailable for whatever the database refuses.
    """
    try:
        connection.close_if_unusable_or_obsolete()
        return look_up(*args)
    except (DatabaseError, InterfaceError) as error:
        close_connection()
        raise DirectoryUnavailable(str(error)) from error


def close_connection() -> None:
    """Close this thread's connection, broken or not."""
    try:
        connection.close()
    except (DatabaseError, InterfaceError):
        pass  # it was broken already
