"""A sending limit that is reached: of a mailbox to its person, of a tenant to its owners.

Read from what messages were charged: a limit counts as reached when another message like the one that
was just taken would no longer be. Once in the limit's own window, however often it is met.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db.models import Count
from django.utils.translation import gettext as _

from panel.database import ids
from panel.mailboxes.language import language_of
from panel.mailboxes.models import Mailbox
from panel.operations.notices.readers import OWNERS, readers
from panel.operations.notices.told import Told
from panel.rules.limits import Window
from panel.rules.status import Status
from panel.sending import letters
from panel.sending.letters import Aside, Facts, Letter, Link, Purpose, Words
from panel.sending.models import LetterSent, Message, Recipient
from panel.sending.used import window_words
from panel.tenants.models import Tenant

MOST_READ = 20_000  # messages in one look, the newest
MOST_TOLD = 200  # letters in one look; what is left is the next one's
MOST_AT_ONCE = 200  # limits whose subjects are read together
AT_MOST_BACK = timedelta(days=1)  # no limit has a longer window
NEAR = 0.5  # of a limit: below that no message of this size is looked at closer
WITHIN = timedelta(hours=12)
_LENGTH = {Window.HOUR: timedelta(hours=1), Window.DAY: timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Reached:
    """A limit, as it stood after the latest message that it was charged for."""

    kind: str  # mailbox or tenant
    subject: int
    window: Window
    used: int
    allowed: int

    @property
    def about(self) -> str:
        return f"limit {self.kind} {self.subject} {self.window.value}"


def tell(told: Told, since: datetime) -> datetime | None:
    """The letters about limits that were reached since then; `since` again if there is more than for one look."""
    before, since = len(told.letters), max(since, told.now - AT_MOST_BACK)
    reached = _untold(list(_reached(since, told.now)), told.now)
    for first in range(0, len(reached), MOST_AT_ONCE):
        few = reached[first : first + MOST_AT_ONCE]
        boxes = Mailbox.objects.filter(
            pk__in=[each.subject for each in few if each.kind == "mailbox"], status=Status.ACTIVE
        ).select_related("address__domain")
        tenants = Tenant.objects.filter(pk__in=[each.subject for each in few if each.kind == "tenant"])
        of_kind: dict[str, dict[int, Any]] = {
            "mailbox": {each.pk: each for each in boxes},
            "tenant": {each.pk: each for each in tenants.select_related("parent__parent")},
        }
        for each in few:
            if told.is_leaving() or len(told.letters) - before >= MOST_TOLD:
                return since
            subject = of_kind[each.kind].get(each.subject)
            if subject is not None:  # else gone, or not active
                told.each("limits", partial(_write, each, subject, told.now))
    return None


def _untold(reached: list[Reached], now: datetime) -> list[Reached]:
    """Those that nobody was told of within their window."""
    sent: set[str] = set()
    for first in range(0, len(reached), MOST_AT_ONCE):
        few = {each.about for each in reached[first : first + MOST_AT_ONCE]}
        for window, length in _LENGTH.items():
            rows = LetterSent.objects.filter(about__in=few, about__endswith=window.value, at__gt=now - length)
            sent.update(rows.values_list("about", flat=True))
    return [each for each in reached if each.about not in sent]


def _write(reached: Reached, subject: Mailbox | Tenant, now: datetime) -> list[Message]:
    people = [subject] if isinstance(subject, Mailbox) else readers(subject, OWNERS)
    sent = [
        letters.send(
            str(person), language_of(person), partial(_letter, reached, subject), purpose=Purpose.LIMIT,
            about=reached.about, once_within=_LENGTH[reached.window], now=now, within=WITHIN,
        )
        for person in people
    ]
    return [each for each in sent if each]


def _reached(since: datetime, now: datetime) -> Iterator[Reached]:
    """Each limit once, by the newest message that was charged to it; none whose window is over."""
    first = _first_since(since)
    in_window = {window.value: _first_since(now - length) for window, length in _LENGTH.items()}
    messages = Message.objects.filter(pk__gte=first).exclude(direction=Message.Direction.INTERNAL).order_by("-pk")
    newest: dict[tuple[str, int, str], tuple[int, int, int]] = {}
    for pk, facts in messages.values_list("pk", "facts")[:MOST_READ]:
        for charge in facts.get("charged", ()):
            if charge["kind"] in ("mailbox", "tenant") and charge["used"] >= NEAR * charge["allowed"]:
                key = charge["kind"], charge["id"], charge["window"]
                newest.setdefault(key, (pk, charge["used"], charge["allowed"]))
    asked = {pk for pk, _used, _allowed in newest.values()}
    counted = Recipient.objects.filter(message__in=asked).order_by().values("message").annotate(count=Count("pk"))
    sizes: dict[Any, int] = {row["message"]: row["count"] for row in counted}
    for (kind, subject, window), (pk, used, allowed) in newest.items():
        if used + sizes.get(pk, 1) > allowed > 0 and pk >= in_window[window]:
            yield Reached(kind, subject, Window(window), used, allowed)


def _first_since(at: datetime) -> int:
    return int(ids.first_of_ms(int(at.timestamp() * 1000)))


def _letter(reached: Reached, subject: Mailbox | Tenant) -> Letter:
    name, window = letters.cleaned(subject, 320), window_words(reached.window)
    path = "/me/" if isinstance(subject, Mailbox) else f"/t/{subject.pk}/usage/"
    return Letter(_("The sending limit of {name} is reached").format(name=name), (
        Words(_("With its last message {name} came to what it may send in {window}.").format(name=name, window=window)),
        Facts((
            (_("Limit"), _("{count} recipients in {window}").format(count=f"{reached.allowed:,}", window=window)),
            (_("Used"), f"{reached.used:,}"),
        )),
        Words(_(
            "What goes beyond is not taken now, and the mail program is told to try again later. Room comes free bit "
            "by bit, as what was sent gets older than {window}. Nothing that was taken is lost."
        ).format(window=window)),
        Link(_("See what was sent"), letters.url(path)),
        Aside(_("If you didn't send that much, somebody else may: choose another password.") if path == "/me/" else _(
            "If nobody of yours sends that much, look for the mailbox that does, and give it another password."
        )),
    ))
