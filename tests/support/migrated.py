"""The tables, made once a run for each kind of database: all processes of `tests/run` copy them.

To make them takes as long as a hundred tests: whoever comes first does, the others wait for it.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.postgres import TEMPLATE, Postgres

ROOT = Path(__file__).resolve().parent.parent.parent


class Migrated:
    """In a folder that the run's processes share, and that is thrown away with the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sqlite(self) -> Path:
        """A database file."""
        return self._once("sqlite", lambda made: self._migrate(POSTHOUSE_DATA=str(made))) / "db.sqlite3"

    def postgresql(self) -> Path:
        """The data folder of a cluster that stands still, with the database TEMPLATE."""
        return self._once("postgresql", self._make_cluster)

    def _make_cluster(self, made: Path) -> None:
        cluster = Postgres()
        try:
            cluster.start()
            self._migrate(POSTHOUSE_DATA=str(made.with_suffix(".data")), DATABASE_URL=cluster.create(TEMPLATE))
            cluster.stop()
            subprocess.run(["cp", "-a", cluster.folder / "data", made], check=True)
        finally:
            cluster.discard()

    def _once(self, name: str, make: Callable[[Path], None]) -> Path:
        done = self.folder / name
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                made = self.folder / f"{name}.made"
                make(made)
                made.rename(done)
        return done

    @staticmethod
    def _migrate(**environment: str) -> None:
        """Every migration, as an installation's first start runs them."""
        Path(environment["POSTHOUSE_DATA"]).mkdir()
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=ROOT, env=os.environ | environment,
            check=True,
        )
