"""The suite's database and data folder, set before Django reads its settings."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.postgres import Postgres

DATA = Path(tempfile.mkdtemp(prefix="ph-"))
atexit.register(shutil.rmtree, DATA, ignore_errors=True)
DATABASE = os.environ.get("POSTHOUSE_TEST_DATABASE", "sqlite")

for name in [name for name in os.environ if name.startswith("POSTHOUSE_") and name != "POSTHOUSE_TEST_DATABASE"]:
    del os.environ[name]
os.environ["POSTHOUSE_DATA"] = str(DATA)
os.environ["POSTHOUSE_HOSTNAME"] = "mx.posthouse.test"
os.environ["DJANGO_SETTINGS_MODULE"] = "panel.settings"

CLUSTER: Postgres | None = None
if DATABASE == "postgresql":
    CLUSTER = Postgres()
    atexit.register(CLUSTER.discard)
    CLUSTER.start()
    os.environ["DATABASE_URL"] = CLUSTER.create("posthouse")
elif DATABASE == "sqlite":
    os.environ.pop("DATABASE_URL", None)
else:
    sys.exit(f"POSTHOUSE_TEST_DATABASE={DATABASE!r} can't be used: write sqlite or postgresql.")


def pytest_report_header() -> str:
    return f"database: {DATABASE}"


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """A file, also for SQLite: threads and other processes read it."""
    from django.db import connections

    if DATABASE == "sqlite":
        connections["default"].settings_dict["TEST"]["NAME"] = str(DATA / "test.sqlite3")
