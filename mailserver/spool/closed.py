"""What is past its time: what was closed is made to bounce, and removed (panel/operations/closing).

And the provider's visits into tenants' consoles end, if nobody left.
"""

from datetime import datetime
from pathlib import Path

from mailserver import log
from mailserver.spool import sql
from panel.operations import closing
from panel.tenants import visits


def end_grace(now: datetime, mail: Path) -> int:
    """One bounded step; how many recipients were made due, to bounce. Raises SpoolUnavailable."""
    with sql.usable_connection():
        visits.end_overdue(now)
        step = closing.end_grace(now, mail)
    for name in step.removed:
        log.removed(name)
    for name, because in step.failed:
        log.warning("what was closed can't be removed, it is tried again", subject=name, because=because)
    return step.due
