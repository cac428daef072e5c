"""The letters that warn people of what was recorded (panel/operations/notices), written every minute."""

from collections.abc import Callable
from datetime import datetime

from mailserver import log
from mailserver.spool import sql
from panel.operations import notices


class Notices:
    """Of one worker."""

    def __init__(self) -> None:
        self._notices = notices.Notices()

    def tell(self, now: datetime, is_leaving: Callable[[], bool]) -> bool:
        """Queue the letters that are due, until it is leaving; whether there were any. Raises SpoolUnavailable."""
        with sql.usable_connection():
            told = self._notices.tell(now, is_leaving)
        for message in told.letters:
            log.accepted(message.pk, direction="internal", recipients=1, subject=message.subject)
        for what, because in told.failed:
            log.warning("what happened can't be told to people by letter", about=what, because=because)
        return bool(told.letters)
