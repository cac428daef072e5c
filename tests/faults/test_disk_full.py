"""The disk is full: 452 4.3.1, nothing half written, and no start needed once there is room."""

import errno
import os
import re
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from tests.support.installation import Installation, Template, message

SHOP, OFFICE, BOB = "shop@demo.test", "office@demo.test", "bob@elsewhere.test"
DISK = "size=24m,nr_inodes=400"
LEFT_BYTES = 300 * 1024  # for the database, which then still has room
LARGE = ("x" * 70 + "\r\n") * 15_000  # about 1 MB


@pytest.fixture
def small(template: Template, tmp_path: Path) -> Iterator[Installation]:
    """Running on a file system of its own, of 24 MB and 400 files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.strip()}")
    made = Installation(template, disk / "data")
    made.log = tmp_path / "mailserver.log"
    try:
        made.start()
        # The database's files, the Maildirs and the login cache are there before the room goes.
        made.send(SHOP, OFFICE, SHOP, subject="Before")
        yield made
    finally:
        made.kill()
        subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """A file that takes the room but for `leave_bytes`."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * 1024))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(file.tell() - leave_bytes)
    return ballast


def answer(client: smtplib.SMTP, *recipients: str, text: str = "Hello.\r\n", subject: str = "No room") -> bytes:
    """The reply to the final dot."""
    assert client.mail(SHOP)[0] == 250
    for recipient in recipients:
        assert client.rcpt(recipient)[0] == 250
    code, reply = client.data(message(SHOP, recipients[0], subject, text))
    return b"%d %s" % (code, reply)


def check(installation: Installation, subjects: list[str]) -> None:
    """Office has these messages, whole, and nothing of another is left."""
    inbox = installation.inbox(OFFICE)
    assert sorted(inbox.subjects()) == sorted(subjects)
    for path in inbox.files():
        assert path.stat().st_size == int(re.search(r",S=(\d+)", path.name)[1])  # type: ignore[index]
    for folder in ("mail/staging", "spool"):
        assert list((installation.data / folder).iterdir()) == []


def test_no_room_is_452_and_the_next_message_goes_when_there_is_room(small):
    disk = small.data.parent
    with small.client(SHOP) as client:
        ballast = fill(disk, LEFT_BYTES)
        # In the middle of DATA: the body is too large for memory, and has no room in spool/.
        assert answer(client, OFFICE, text=LARGE).startswith(b"452 4.3.1 ")
        ballast.unlink()
        ballast = fill(disk)
        # At the dot: there is no room in staging/.
        assert answer(client, OFFICE).startswith(b"452 4.3.1 ")
        check(small, ["Before"])
        assert answer(client, BOB, OFFICE).startswith(b"452 4.3.1 ")
        # The queue's rows need room in the database, which SQLite has on the same disk.
        if connection.vendor == "sqlite":
            assert answer(client, BOB).startswith((b"452 4.3.1 ", b"451 4.3.0 "))
        ballast.unlink()
        assert answer(client, OFFICE, text=LARGE, subject="After").startswith(b"250 2.0.0 ")
        assert answer(client, OFFICE, subject="Again").startswith(b"250 2.0.0 ")
    check(small, ["Before", "After", "Again"])


def test_no_inodes_is_452_too(small):
    disk = small.data.parent
    empty = disk / "empty"
    empty.mkdir()
    with small.client(SHOP) as client:
        with pytest.raises(OSError, match="No space") as full:
            for number in range(1000):
                os.close(os.open(empty / str(number), os.O_CREAT | os.O_WRONLY))
        assert full.value.errno == errno.ENOSPC
        assert answer(client, OFFICE).startswith(b"452 4.3.1 ")
        assert answer(client, OFFICE, text=LARGE).startswith(b"452 4.3.1 ")
        for path in empty.iterdir():
            path.unlink()
        assert answer(client, OFFICE, subject="After").startswith(b"250 2.0.0 ")
    check(small, ["Before", "After"])
