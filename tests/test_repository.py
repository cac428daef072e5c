"""The repository itself: locks, commands, and what must not stand in it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from panel import environment

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ["requirements.lock", "requirements-test.lock"]


# deploy/venv.sh in a folder of its own; the two steps that take long are told, not done.
VENV = """
set -euo pipefail
. {root}/deploy/venv.sh
make_venv() {{ mkdir -p .venv/bin; ln -sf "$(command -v "$1")" .venv/bin/python; }}
install_lock() {{ echo "installed $(cat "$2")"; ! grep -q broken "$2" || fail "broken"; }}
{commands}
"""


def tracked() -> list[Path]:
    """The repository's files. Asks git; in an unpacked archive, what doesn't look made here."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        made = {".git", ".venv", "var", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}
        paths = [path for path in ROOT.rglob("*") if made.isdisjoint(path.relative_to(ROOT).parts)]
    else:
        paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def install(folder: Path, lock: str, content: str) -> list[str]:
    """Write `lock` and run use_venv on it; what was installed."""
    (folder / lock).write_text(content)
    script = VENV.format(root=shlex.quote(str(ROOT)), commands=f"use_venv {lock}")
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return [line for line in done.stdout.splitlines() if line.startswith("installed ")]


def locked(name: str) -> dict[str, str]:
    """Package to its entry."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    return {re.split(r"[=\[]", line)[0].lower(): line for line in text.splitlines() if line.strip()}


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_a_version_and_a_hash_and_no_address(name):
    entries = locked(name)
    assert entries
    for package, entry in entries.items():
        assert "==" in entry, package
        assert "--hash=sha256:" in entry, package
        assert "://" not in entry, package


def test_the_tests_lock_holds_the_program_at_the_same_versions():
    whole = locked("requirements-test.lock")
    for package, entry in locked("requirements.lock").items():
        assert whole[package].split()[0] == entry.split()[0]


def test_every_dependency_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted, lock in ((project["dependencies"], LOCKS[0]), (project["optional-dependencies"]["test"], LOCKS[1])):
        entries = locked(lock)
        for requirement in wanted:
            assert re.split(r"[<>=\[ ]", requirement)[0].lower() in entries


@pytest.mark.parametrize("name", ["deploy/run", "tests/run", "tests/bench/panel", ".ci/run", "manage.py"])
def test_commands_can_be_run(name):
    assert os.access(ROOT / name, os.X_OK)


def test_example_of_the_settings_is_the_one_that_is_declared():
    assert (ROOT / "deploy" / "env.example").read_text() == environment.example()


def test_no_file_names_a_folder_of_somebodys_machine():
    private = re.compile(rb"(?<![\w.])/(?:" + b"|".join((b"root", b"work", b"home")) + rb")/")
    files = tracked()
    assert ROOT / "pyproject.toml" in files
    named = [path for path in files if private.search(path.read_bytes())]
    assert not named


@pytest.mark.once("sqlite")
def test_a_lock_is_installed_once(tmp_path):
    assert install(tmp_path, LOCKS[0], "a") == ["installed a"]
    assert install(tmp_path, LOCKS[0], "a") == []


@pytest.mark.once("sqlite")
def test_an_earlier_lock_is_installed_again(tmp_path):
    install(tmp_path, LOCKS[0], "a")
    install(tmp_path, LOCKS[0], "b")
    assert install(tmp_path, LOCKS[0], "a") == ["installed a"]


@pytest.mark.once("sqlite")
def test_the_tests_lock_serves_a_start_but_not_the_other_way_round(tmp_path):
    install(tmp_path, LOCKS[0], "a")
    assert install(tmp_path, LOCKS[1], "a and pytest") == ["installed a and pytest"]
    assert install(tmp_path, LOCKS[0], "a") == []
    assert install(tmp_path, LOCKS[0], "b") == ["installed b"]
    assert install(tmp_path, LOCKS[1], "a and pytest") == ["installed a and pytest"]


@pytest.mark.once("sqlite")
def test_an_install_that_failed_half_way_is_done_again(tmp_path):
    install(tmp_path, LOCKS[0], "a")
    assert install(tmp_path, LOCKS[0], "broken") == ["installed broken"]
    assert install(tmp_path, LOCKS[0], "a") == ["installed a"]


@pytest.mark.once("sqlite")
def test_a_virtual_environment_whose_python_is_gone_is_made_again(tmp_path):
    install(tmp_path, LOCKS[0], "a")
    (tmp_path / ".venv" / "bin" / "python").unlink()
    assert install(tmp_path, LOCKS[0], "a") == ["installed a"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root's programs run as other users")
def test_a_folder_that_only_root_can_enter_is_left_for_a_copy(tmp_path):
    closed, app = tmp_path / "closed", tmp_path / "app"
    for name in ("panel", "mailserver", "deploy"):
        (closed / name).mkdir(parents=True)
    for name in ("manage.py", "requirements.lock", "panel/a.py"):
        (closed / name).write_text(name)
    (closed / "deploy" / "run").write_text("#!/bin/sh\necho \"$0 $1 $POSTHOUSE_DATA\"\n")
    (closed / "deploy" / "run").chmod(0o700)
    closed.chmod(0o700)
    script = f". {shlex.quote(str(ROOT))}/deploy/venv.sh; leave_closed_folder --no-demo; echo stayed"

    def run(**more: str) -> list[str]:
        environment = {"PATH": os.environ["PATH"], "POSTHOUSE_APP": str(app), **more}
        done = subprocess.run(
            ["bash", "-c", script], cwd=closed, capture_output=True, text=True, timeout=60, check=True, env=environment
        )
        return done.stdout.splitlines()

    said, ran = run()
    assert str(closed) in said
    assert str(app) in said
    assert ran == f"{app}/deploy/run --no-demo /var/lib/posthouse/data"
    assert (app / "panel" / "a.py").stat().st_mode & 0o444 == 0o444
    (closed / "panel" / "a.py").unlink()
    assert run(POSTHOUSE_DATA="/srv/mail")[-1].endswith(" /srv/mail")
    assert not (app / "panel" / "a.py").exists(), "the copy follows"


@pytest.mark.django_db
def test_the_suite_runs_on_the_database_and_folder_that_it_was_told():
    from django.conf import settings
    from django.db import connection

    data = Path(os.environ["POSTHOUSE_DATA"])
    assert connection.vendor == os.environ.get("POSTHOUSE_TEST_DATABASE", "sqlite")
    assert settings.ENVIRONMENT.data == data
    assert not data.is_relative_to(ROOT)
    if connection.vendor == "sqlite":
        assert connection.settings_dict["NAME"] == str(data / "db.sqlite3")


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_a_program_that_a_test_starts_reads_the_same_database():
    from panel.tenants.models import Plan

    Plan.objects.create(name="Seen by both")
    program = (
        "import django; django.setup(); from panel.tenants.models import Plan; "
        "print(Plan.objects.filter(name='Seen by both').count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "1"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_units_are_right_to_systemd(tmp_path):
    # Where nothing is installed, the commands are not there.
    for unit in (ROOT / "deploy" / "systemd").iterdir():
        text = unit.read_text().replace("/opt/posthouse/.venv/bin/python", sys.executable)
        (tmp_path / unit.name).write_text(text.replace("/opt/posthouse", str(ROOT)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())], capture_output=True, text=True,
        timeout=60, check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
