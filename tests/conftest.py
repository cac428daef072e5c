"""The suite's database and data folder, set before Django reads its settings.

pyproject.toml names no DJANGO_SETTINGS_MODULE on purpose: pytest-django would read the
settings before this file, and the suite would run on the checkout's own var/.
"""

import atexit
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import django
import django.conf
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.migrated import Migrated
from tests.support.postgres import Postgres, programs

pytest_plugins = ["tests.support.fixtures", "tests.support.browser"]

# What a marked test runs. Without root tests/run can't install these.
NEEDS = {
    "postgresql": ("initdb",),
    "postfix": ("/usr/sbin/postfix",),
    "dovecot": (
        "/usr/sbin/dovecot", "/usr/lib/dovecot/imap", "/usr/lib/dovecot/pop3", "/usr/lib/dovecot/managesieve",
        "/usr/lib/dovecot/lmtp",
    ),
    "lua": ("lua5.4", "/usr/share/lua/5.4/socket.lua"),
    "clients": ("swaks", "curl", "msmtp"),
    "browser": ("/usr/bin/chromium",),
    "mbsync": ("/usr/sbin/dovecot", "mbsync"),
}
DATABASE = os.environ.get("POSTHOUSE_TEST_DATABASE", "sqlite")
if DATABASE not in ("sqlite", "postgresql"):
    sys.exit(f"POSTHOUSE_TEST_DATABASE={DATABASE!r} can't be used: write sqlite or postgresql.")
if DATABASE == "postgresql" and programs() is None:
    sys.exit("POSTHOUSE_TEST_DATABASE=postgresql needs PostgreSQL's programs: apt-get install postgresql.")
if os.environ.get("DJANGO_SETTINGS_MODULE"):
    sys.exit("DJANGO_SETTINGS_MODULE is set, so Django has read its settings too early: unset it, and use no --ds.")

DATA = Path(tempfile.mkdtemp(prefix="ph-"))


def _discard_data(owner: int = os.getpid()) -> None:
    # A fork of the tests that ends must not take their data with it.
    if os.getpid() == owner:
        shutil.rmtree(DATA, ignore_errors=True)


atexit.register(_discard_data)
# A CI that gives up sends SIGTERM: end as by Ctrl-C, so that nothing is left running.
signal.signal(signal.SIGTERM, signal.default_int_handler)

# Whether another run beside this one has the other database (tests/run).
BOTH = os.environ.get("POSTHOUSE_TEST_BOTH") == "yes"
# Where the run's processes share what has its tables; without it this process makes them itself.
MIGRATED = Migrated(Path(folder)) if (folder := os.environ.get("POSTHOUSE_TEST_MIGRATED")) else None
for name in [name for name in os.environ if name.startswith("POSTHOUSE_") and name != "POSTHOUSE_TEST_DATABASE"]:
    del os.environ[name]
os.environ.pop("DATABASE_URL", None)
os.environ["POSTHOUSE_DATA"] = str(DATA)
os.environ["POSTHOUSE_HOSTNAME"] = "mx.posthouse.test"
os.environ["DJANGO_SETTINGS_MODULE"] = "panel.settings"

CLUSTER: Postgres | None = None
if DATABASE == "postgresql":
    CLUSTER = Postgres(copied=MIGRATED.postgresql() if MIGRATED else None)
    CLUSTER.start()
    os.environ["DATABASE_URL"] = CLUSTER.url("posthouse")

django.setup()
importlib.import_module("panel.urls")  # which finds the admin's pages: some tests have a case for each
# Each test client else looks for all static files anew, which takes as long as a page.
django.conf.settings.WHITENOISE_AUTOREFRESH = True
# A hash takes as long as a page, and every account of a test has one. In this process they are the same in all but
# their cost; the programs that tests start have the product's.
hasher = importlib.import_module("panel.mailboxes.passwords").Argon2Hasher
hasher.time_cost, hasher.memory_cost = 1, 8


def pytest_report_header() -> str:
    return f"database: {DATABASE}"


def pytest_collection_finish() -> None:
    """What is there by now stays: looking through it again and again for garbage is a tenth of a suite's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark = item.get_closest_marker("django_db")
        if "transactional_db" in getattr(item, "fixturenames", ()) or (mark and mark.kwargs.get("transaction")):
            # All of them or none: what migrations seeded is put back after each, and a plain
            # transactional test's own clearing would make rows that collide with it.
            item.add_marker(pytest.mark.django_db(transaction=True, serialized_rollback=True), append=False)
    for item in items:
        once = item.get_closest_marker("once")
        if once and BOTH and once.args[0] != DATABASE:
            item.add_marker(pytest.mark.skip(reason=f"the same on either database; the run on {once.args[0]} has it"))
    for mark, wanted in NEEDS.items():
        missing = [program for program in wanted if not _is_there(program)]
        if missing:
            skip = pytest.mark.skip(reason=f"{', '.join(missing)} not installed")
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(skip)


def _is_there(program: str) -> bool:
    if program == "initdb":
        return programs() is not None
    return shutil.which(program) is not None or Path(program).is_file()


@pytest.fixture(scope="session")
def cluster() -> Postgres | None:
    """The PostgreSQL that the suite runs on; None on SQLite."""
    return CLUSTER


@pytest.fixture(scope="session")
def migrated_file() -> Path | None:
    """A SQLite database to copy, which has its tables; None on PostgreSQL, whose cluster has them, or by hand."""
    return MIGRATED.sqlite() if MIGRATED and DATABASE == "sqlite" else None


@pytest.fixture(scope="session")
def django_db_keepdb(migrated_file: Path | None) -> bool:
    """Whether the tests' database is there, with its tables."""
    from django.db import connections

    if migrated_file:
        shutil.copy(migrated_file, connections.settings["default"]["NAME"])
    elif CLUSTER and CLUSTER.copied:
        CLUSTER.create("posthouse")
    return MIGRATED is not None


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """The tests' database is the one that the environment names.

    So a program that a test starts reads the same rows; for SQLite that is a file, since
    a database in memory is this process's alone.
    """
    from django.db import connections

    database = connections.settings["default"]
    database["TEST"]["NAME"] = str(database["NAME"])


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """A transactional test's end takes a few milliseconds: what it has not touched is let be.

    Put back is what our own migrations seeded, without the 144 permissions and the content types, by which
    nobody has any right (User.has_perm) and which took 85 of 90 ms. And of the forty tables only those
    with rows are emptied: a TRUNCATE of PostgreSQL's makes new files for every one of them and its indexes.
    """
    from django.db import connection

    contents: str = getattr(connection, "_test_serialized_contents", "[]")  # only if such a test runs
    rows = [row for row in json.loads(contents) if row["model"] not in ("auth.permission", "contenttypes.contenttype")]
    connection._test_serialized_contents = json.dumps(rows)  # type: ignore[attr-defined]

    def sql_flush(style: object, tables: list[str], **_: object) -> list[str]:
        quoted = sorted(map(connection.ops.quote_name, tables))
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(
                f"SELECT {number} WHERE EXISTS (SELECT 1 FROM {name})" for number, name in enumerate(quoted)
            ))
            return [f"DELETE FROM {quoted[number]}" for (number,) in cursor.fetchall()]

    connection.ops.sql_flush = sql_flush  # type: ignore[method-assign]
