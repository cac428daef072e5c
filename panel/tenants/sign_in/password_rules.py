"""Which passwords people may choose, for panel accounts and mailboxes alike (AUTH_PASSWORD_VALIDATORS).

The services ask on every way in: `changes.hash_password`. Leaked passwords are looked for in a file
on this machine: nothing of a password leaves it.
"""

import hashlib
import logging
from pathlib import Path
from typing import BinaryIO

from django.conf import settings
from django.contrib.auth.password_validation import CommonPasswordValidator
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from panel.rules import passwords
from panel.tenants.changes import RULES_IN_WORDS
from panel.tenants.models import User

LINE_BYTES = 128  # more than any line: 40 digits, a colon and a count

_log = logging.getLogger("posthouse.panel")


class CommonPassword(CommonPasswordValidator):
    """Refuses the 20,000 most common ones, our own name and the server's, also with a few signs around them."""

    def __init__(self) -> None:
        super().__init__()
        hostname = settings.ENVIRONMENT.hostname
        self.passwords = self.passwords | {"posthouse", hostname, *hostname.split(".")}

    def validate(self, password: str, user: User | None = None) -> None:
        if password.lower().strip() in self.passwords:
            raise ValidationError(_("This is one of the most common passwords."))
        core = next((each for each in passwords.cores(password) if each in self.passwords), None)
        if core is not None:
            raise ValidationError(
                _("This is “{core}” with a few characters around it: attackers try that first.").format(core=core)
            )
        if passwords.is_monotonous(password):
            raise ValidationError(_("These are few different characters, or neighbours in a row."))

    def get_help_text(self) -> str:
        return str(RULES_IN_WORDS)


class LeakedPassword:
    """Refuses what stands in POSTHOUSE_LEAKED_PASSWORDS: SHA-1 digests in order, as leaks are published."""

    def validate(self, password: str, user: User | None = None) -> None:
        path = settings.ENVIRONMENT.leaked_passwords
        if path is None:
            return
        digest = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper()
        try:
            is_leaked = stands_in(path, digest.encode())
        except OSError as error:
            _log.error("POSTHOUSE_LEAKED_PASSWORDS can't be read, so nothing is looked for there: %s", error)
            return
        if is_leaked:
            raise ValidationError(_("This password was in a leak somewhere: attackers have it on their lists."))

    def get_help_text(self) -> str:
        return ""


def stands_in(path: Path, digest: bytes) -> bool:
    """Whether a line of the sorted file begins with the digest: some 35 reads in 40 GB. Raises OSError."""
    with path.open("rb") as file:
        low, high = 0, path.stat().st_size  # the line, if it is there, begins in between
        while low < high:
            middle = (low + high) // 2
            begin, line = _first_line_from(file, middle)
            found = line[: len(digest)].upper()
            if begin < high and found == digest:
                return True
            if begin < high and found < digest:
                low = begin + len(line)
            else:
                high = middle
        return False


def _first_line_from(file: BinaryIO, at: int) -> tuple[int, bytes]:
    """Where the first line begins that begins at `at` or after it, and the line."""
    file.seek(max(at - 1, 0))
    if at:
        file.readline(LINE_BYTES)
    return file.tell(), file.readline(LINE_BYTES)
