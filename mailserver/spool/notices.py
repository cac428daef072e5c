"""The letters that warn people: of what was recorded (panel/operations/notices), and of a mailbox that fills up."""

from collections.abc import Callable
from datetime import datetime

from mailserver import log
from mailserver.spool import sql
from panel.operations import notices
from panel.operations.notices import room
from panel.sending.models import Message


class Notices:
    """Of one worker, which looks every minute."""

    def __init__(self) -> None:
        self._notices = notices.Notices()

    def tell(self, now: datetime, is_leaving: Callable[[], bool]) -> bool:
        """Queue the letters that are due, until it is leaving; whether there were any. Raises SpoolUnavailable."""
        with sql.usable_connection():
            told = self._notices.tell(now, is_leaving)
        for message in told.letters:
            _log(message)
        for what, because in told.failed:
            log.warning("what happened can't be told to people by letter", about=what, because=because)
        return bool(told.letters)


def tell_of_room(mailbox: int, used_bytes: int, quota_bytes: int, now: datetime) -> None:
    """Queue the letter to a mailbox that fills up. Raises SpoolUnavailable."""
    with sql.usable_connection():
        letter = room.tell(mailbox, used_bytes, quota_bytes, now)
    if letter:
        _log(letter)


def _log(letter: Message) -> None:
    log.accepted(letter.pk, direction="internal", recipients=1, subject=letter.subject)
