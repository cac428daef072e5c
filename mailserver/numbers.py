"""Which process of this node makes ids with which number."""

import fcntl
import os
from pathlib import Path

from mailserver.config import CannotStart
from panel.database.ids import WORKERS


def number_for_ids(folder: Path) -> int:
    """The lowest number that no live process of this node makes ids with; ours until the process ends.

    Leases go by these numbers, and those that a dead worker left are taken back only while nobody
    living has its number.

    Not the worker's own: those of a parent that was killed finish their sessions while the
    next one's workers begin, and two that made the same id would overwrite each other's mail.
    """
    for number in range(WORKERS):
        # Never closed: the lock ends with the process.
        descriptor = os.open(folder / f"ids-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number
        except BlockingIOError:
            os.close(descriptor)
    raise CannotStart(
        f"{WORKERS} processes of this node are running, with those that finish their sessions after a "
        "take-over: wait for their end, or set POSTHOUSE_WORKERS or POSTHOUSE_FINISH_S to less."
    )
