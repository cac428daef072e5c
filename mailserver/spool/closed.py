"""What was closed and is past its grace period: made to bounce, and removed (panel/operations/closing)."""

from datetime import datetime
from pathlib import Path

from mailserver import log
from mailserver.spool import sql
from panel.operations import closing


def end_grace(now: datetime, mail: Path) -> int:
    """One bounded step; how many recipients were made due, to bounce. Raises SpoolUnavailable."""
    with sql.usable_connection():
        step = closing.end_grace(now, mail)
    for name in step.removed:
        log.removed(name)
    for name, because in step.failed:
        log.warning("what was closed can't be removed, it is tried again", subject=name, because=because)
    return step.due
