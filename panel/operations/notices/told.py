"""What one look at what happened told to people, and what of it went wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F

from panel.sending.models import Message
from panel.tenants.models import Untold

MOST_TRIES = 5
AGAIN = timedelta(minutes=10)  # after a letter that failed
MOST_FAILURES = 20  # that are told of, in one look


@dataclass(slots=True)
class Told:
    """`failed`: what couldn't be told, and why. `is_leaving`: whether to stop before the next letter."""

    now: datetime
    is_leaving: Callable[[], bool] = lambda: False
    letters: list[Message] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def fails(self, what: str, error: Exception) -> None:
        if len(self.failed) < MOST_FAILURES:
            self.failed.append((what, repr(error)[:300]))

    def each(self, what: str, write: Callable[[], list[Message]]) -> bool:
        """The letters about one thing, all or none; False if they failed, which stops no others."""
        try:
            with transaction.atomic():
                self.letters += write()
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            self.fails(what, error)
            return False
        return True

    @transaction.atomic
    def put_off(self, entries: list[int]) -> None:
        """Try to tell of these again later, a few times."""
        rows = Untold.objects.filter(pk__in=entries)
        rows.filter(tries__gte=MOST_TRIES - 1).delete()
        rows.update(tries=F("tries") + 1, due_at=self.now + AGAIN)
