"""The suite's own database, taken away for a while."""

import contextlib
from collections.abc import Iterator

import pytest
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from tests.support.postgres import Postgres


@contextlib.contextmanager
def database_gone(cluster: Postgres | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing reaches the database: PostgreSQL is killed; on SQLite, which has no server, cursors fail."""
    if cluster is not None:
        cluster.kill()
        try:
            yield
        finally:
            cluster.start()
        return

    def cursor(self: BaseDatabaseWrapper) -> None:
        raise OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(BaseDatabaseWrapper, "cursor", cursor)
        yield
