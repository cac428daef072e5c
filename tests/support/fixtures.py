"""Fixtures of the tests that run the real programs against each other."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.dns import DnsServer
from tests.support.dovecot import Dovecot, prepare
from tests.support.installation import Installation, Template
from tests.support.postfix import PROGRAM, Postfix
from tests.support.postgres import Postgres


@pytest.fixture(scope="session")
def template(
    tmp_path_factory: pytest.TempPathFactory, cluster: Postgres | None, migrated_file: Path | None
) -> Template:
    return Template(tmp_path_factory.mktemp("template"), cluster, migrated_file)


@pytest.fixture
def installation(template: Template, tmp_path: Path) -> Iterator[Installation]:
    """The demo's tenant on a mailserver of its own, not started yet."""
    made = Installation(template, tmp_path / "data")
    yield made
    made.kill()
    shutil.rmtree(made.data, ignore_errors=True)


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that every user can enter, with a short path; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="ph-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with folder_for_all() as folder:
        yield folder


@pytest.fixture
def posthouse(installation: Installation) -> Installation:
    """The same, running."""
    installation.start()
    return installation


@contextmanager
def read_by_dovecot(template: Template, folder: Path) -> Iterator[Dovecot]:
    """The demo's tenant on a running mailserver, and a Dovecot that lets its people read.

    It stores as well, by LMTP, for the domains that say so.
    """
    # A name that a configuration must quote.
    installation = Installation(template, folder / "shop's data")
    made = Dovecot(installation)
    installation.environment["POSTHOUSE_STORE"] = f"maildir,lmtp:{made.lmtp_socket}"
    try:
        installation.start(module=prepare(installation))
        made.start()
        yield made
    finally:
        made.stop()
        installation.kill()


@pytest.fixture
def reading(template: Template, open_folder: Path) -> Iterator[Dovecot]:
    with read_by_dovecot(template, open_folder) as made:
        yield made


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    server = DnsServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    """A Postfix for elsewhere.test, where bob has a mailbox; not started yet."""
    if not PROGRAM.exists():
        pytest.skip("Postfix isn't installed: apt-get install postfix")
    made = Postfix("elsewhere.test")
    yield made
    made.discard()
