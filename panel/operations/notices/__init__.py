"""What people are told by letter without having asked: a domain that changed, a limit that is reached, a new network.

Nothing of it happens where mail passes or somebody signs in: every minute worker 0 of each node reads
what was recorded meanwhile (audit log, messages' charges, logins). Several may look at the same: what
was told is known by the letters that were sent, and isn't told twice.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import InterfaceError, OperationalError

from panel.operations.notices import domains, limits
from panel.operations.notices.sign_ins import Known
from panel.sending.models import Message

FIRST = timedelta(minutes=30)  # how far back the first look after a start goes
OVERLAP = timedelta(minutes=5)  # what was recorded for a moment that is over may come so late


@dataclass(slots=True)
class Told:
    """What a look did. `failed`: what couldn't be looked at, and why."""

    letters: list[Message] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


class Notices:
    """Of one process. Remembers until when it has looked, and which networks are known."""

    def __init__(self) -> None:
        self._until: datetime | None = None
        self._known = Known()

    def tell(self, now: datetime) -> Told:
        """Write the letters that are due. Raises Django's database errors when the database is gone."""
        since = min(self._until - OVERLAP, now) if self._until else now - FIRST
        told = Told()
        for what, look in (
            ("domains", domains.tell), ("limits", limits.tell), ("sign-ins", self._known.tell),
        ):
            try:
                told.letters += look(since, now)
            except (OperationalError, InterfaceError):
                raise  # it isn't one of these that is at fault
            except Exception as error:
                told.failed.append((what, repr(error)[:300]))
        self._until = now
        return told
