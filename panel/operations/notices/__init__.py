"""What people are told by letter without having asked: a domain, a limit, a new network, a second factor.

Nothing of it happens where mail passes or somebody signs in: every minute worker 0 of each node reads
what was recorded meanwhile (audit log, messages' charges, logins). Several may look at the same: what
was told is known by the letters that were sent, and isn't told twice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import InterfaceError, OperationalError

from panel.operations.notices import domains, limits, second_factors
from panel.operations.notices.sign_ins import Known
from panel.sending.letters import Due
from panel.sending.models import Message

# How far back the first look after a start goes: over a night without a mailserver for what stays so.
FIRST, FIRST_OF_DOMAINS = timedelta(minutes=30), timedelta(days=1)
OVERLAP = timedelta(minutes=5)  # what was recorded for a moment that is over may come so late


@dataclass(slots=True)
class Told:
    """What a look did. `failed`: what couldn't be looked at or written, and why."""

    letters: list[Message] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


class Notices:
    """Of one process. Remembers until when it has looked, and which networks are known."""

    def __init__(self) -> None:
        self._until: datetime | None = None
        self._known = Known()

    def tell(self, now: datetime, is_leaving: Callable[[], bool] = lambda: False) -> Told:
        """Write the letters that are due, until `is_leaving`. Raises Django's database errors when it is gone."""
        told = Told()
        for what, look, first in (
            ("domains", domains.due, FIRST_OF_DOMAINS), ("limits", limits.due, FIRST),
            ("sign-ins", self._known.due, FIRST), ("second factors", second_factors.due, FIRST),
        ):
            since = min(self._until - OVERLAP, now) if self._until else now - first
            try:
                for write in look(since, now):
                    if is_leaving():
                        return told  # the next start tells the others
                    _try(what, write, told)
            except (OperationalError, InterfaceError):
                raise  # it isn't one of these that is at fault
            except Exception as error:
                told.failed.append((what, repr(error)[:300]))
        self._until = now
        return told


def _try(what: str, write: Due, told: Told) -> None:
    """One that can't be written doesn't keep the others from it."""
    try:
        letter = write()
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        told.failed.append((what, repr(error)[:300]))
    else:
        if letter:
            told.letters.append(letter)
