"""The repository itself: locks, commands, and what must not stand in it."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from panel import environment

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ["requirements.lock", "requirements-test.lock"]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode()
    return [path for path in map(ROOT.joinpath, filter(None, listed.split("\0"))) if path.is_file()]


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


@pytest.mark.parametrize("name", ["deploy/run", "tests/run", ".ci/run", "manage.py"])
def test_commands_can_be_run(name):
    assert os.access(ROOT / name, os.X_OK)


def test_example_of_the_settings_is_the_one_that_is_declared():
    assert (ROOT / "deploy" / "env.example").read_text() == environment.example()


def test_no_file_names_a_folder_of_somebodys_machine():
    private = re.compile(rb"(?<![\w.])/(?:" + b"|".join((b"root", b"work", b"home")) + rb")/")
    named = [path for path in tracked() if private.search(path.read_bytes())]
    assert not named
