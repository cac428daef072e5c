"""What people are told by letter without having asked: a domain, a limit, a new network, what opens their account.

Nothing of it happens where mail passes or somebody signs in: every minute worker 0 of each node reads
what was recorded meanwhile. Of what is told whenever it comes a row waits (tenants.Untold) and goes in
the letter's own transaction; charges and logins, of which there are many, are read from where the last
look came to (operations.Look, for the first one after a start), and what was told of them is known by
the letters that were sent. So nothing is told twice, and nothing is lost while no mailserver runs.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Q

from panel.operations.models import Look
from panel.operations.notices import domains, limits, security
from panel.operations.notices.sign_ins import Known, tell_accounts
from panel.operations.notices.told import Told
from panel.sending import letters

FIRST = timedelta(minutes=30)  # how far back the very first look goes
OVERLAP = timedelta(minutes=5)  # what was recorded for a moment that is over may come so late
STORED_EACH = timedelta(minutes=5)


class Notices:
    """Of one process. Remembers until when it has looked, and which networks are known."""

    def __init__(self) -> None:
        self._known = Known()
        self._since: dict[str, datetime] = {}
        self._stored: dict[str, datetime] = {}

    def tell(self, now: datetime, is_leaving: Callable[[], bool] = lambda: False) -> Told:
        """Write the letters that are due, as many as are for one look, until `is_leaving`.

        Raises Django's database errors when the database is gone.
        """
        told = Told(now, is_leaving)
        parts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("domains", partial(domains.tell, told)), ("security", partial(security.tell, told)),
            ("limits", partial(self._go_on, told, "limits", limits.tell)),
            ("sign-ins of accounts", partial(self._go_on, told, "sign-ins of accounts", tell_accounts)),
            ("sign-ins of mailboxes", partial(self._go_on, told, "sign-ins of mailboxes", self._known.tell)),
        )
        for what, look in parts:
            if told.is_leaving():
                break
            try:
                look()
            except (OperationalError, InterfaceError):
                raise  # it isn't one of these that is at fault
            except Exception as error:
                told.fails(what, error)
        return told

    def _go_on(self, told: Told, name: str, look: Callable[[Told, datetime], datetime | None]) -> None:
        """Look at what was recorded since the last look; `look` says until when it came, None for all there is."""
        if name not in self._since:
            stored = Look.objects.filter(pk=name).values_list("since", flat=True).first()
            self._since[name] = max(stored, told.now - letters.KEPT) if stored else told.now - FIRST
        if self._since[name] > told.now:  # a clock was ahead, here or on another node: till then nothing would be told
            self._since[name] = told.now - FIRST
            self._stored.pop(name, None)
        until = look(told, self._since[name]) or told.now - OVERLAP
        # Forwards only: the clock may go back.
        self._since[name] = until = max(until, self._since[name])
        if name in self._stored and until < self._stored[name] + STORED_EACH:
            return
        with transaction.atomic():
            Look.objects.get_or_create(pk=name, defaults={"since": until})
            # Not if another node came further meanwhile.
            Look.objects.filter(Q(since__lt=until) | Q(since__gt=told.now), pk=name).update(since=until)
        self._stored[name] = until
