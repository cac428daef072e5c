"""The floors of the house: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PANEL_FLOORS = ["tenants", "domains", "mailboxes", "sending", "operations", "autoconfig", "console"]
# A floor may import the floors before it, and itself.
MAILSERVER_FLOORS = [
    {
        "envelope", "config", "clock", "log", "reader", "trace", "dsn", "resolver", "tls", "connection", "commands",
        "recent", "dict_protocol", "lua_protocol", "hashing", "lines", "gate", "handover", "kernel",
        "listeners", "systemd", "vacation", "numbers", "doveadm",
    },
    {"directory", "spool", "content", "transports", "lanes"},
    {
        "intake", "session", "runner", "authd", "authenticator", "lockout", "login_events", "panel_sign_ins",
        "rehash", "disposition", "usage", "counting", "warnings", "room", "reading", "dispatch", "carrier", "judge",
        "settler", "backoff",
    },
    {"worker"},
    {"__main__"},
]
DATABASE_ROOMS = {"directory", "spool"}
NOT_IN_RULES = {"django", "asyncio", "socket", "os", "subprocess", "threading", "mailserver", "pathlib", "io"}


def sources(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "migrations" not in path.parts)


def imports(path: Path) -> set[str]:
    """Every module that the file names in an import, wherever it stands."""
    return IMPORTS[path]


def read_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


# Read before any test runs: Python before 3.11.5 raises SystemError when another thread, such as
# one that logs a traceback, parses at the same time (CPython gh-106905).
IMPORTS = {path: read_imports(path) for folder in ("panel", "mailserver") for path in sources(folder)}


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources("panel"), ids=label)
def test_panel_never_imports_mailserver(path):
    assert not [name for name in imports(path) if name.split(".")[0] == "mailserver"]


@pytest.mark.parametrize("path", sources("panel/rules"), ids=label)
def test_rules_are_pure(path):
    names = imports(path)
    assert not [name for name in names if name.split(".")[0] in NOT_IN_RULES]
    inside = [name for name in names if name.startswith("panel.") and not name.startswith("panel.rules")]
    assert not inside


@pytest.mark.parametrize("path", [p for p in sources("panel") if p.parts[-2] != "panel"], ids=label)
def test_panel_apps_import_to_their_left(path):
    room = path.relative_to(ROOT / "panel").parts[0]
    if room not in PANEL_FLOORS or path.name == "admin.py":
        return
    allowed = PANEL_FLOORS[: PANEL_FLOORS.index(room) + 1]
    named = {name.split(".")[1] for name in imports(path) if name.startswith("panel.") and name.count(".") >= 1}
    assert not [name for name in named if name in PANEL_FLOORS and name not in allowed]


def room_of(path: Path) -> str:
    first = path.relative_to(ROOT / "mailserver").parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", sources("mailserver"), ids=label)
def test_mailserver_imports_go_down_the_floors(path):
    room = room_of(path)
    if room == "__init__":
        return
    floor = next((n for n, rooms in enumerate(MAILSERVER_FLOORS) if room in rooms), None)
    assert floor is not None, f"{room} has no floor: give it one here"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "mailserver" or len(parts) < 2 or parts[1] == room:
            continue
        other = next((n for n, rooms in enumerate(MAILSERVER_FLOORS) if parts[1] in rooms), None)
        if other is not None:
            assert other <= floor, f"{room} imports {parts[1]}, which stands above it"


@pytest.mark.parametrize("path", sources("mailserver"), ids=label)
def test_only_directory_and_spool_touch_the_database(path):
    if room_of(path) in DATABASE_ROOMS:
        return
    touched = [
        name for name in imports(path)
        if name.startswith(("django.db", "psycopg", "sqlite3")) or (name.startswith("panel.") and ".models" in name)
    ]
    if room_of(path) == "__main__":
        touched = [name for name in touched if not name.startswith("django.db.utils")]
    assert not touched
