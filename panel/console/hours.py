"""The chart of the last 24 hours on a tenant's home: what was sent in each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.utils.translation import gettext as _

# The chart, in the units of its own box.
WIDTH, HEIGHT, TOP = 240, 60, 9
MARKED = (0, 6, 12, 18)  # hours that stand below it


@dataclass(frozen=True, slots=True)
class Hour:
    """A column of the chart, in its units."""

    x: float
    y: float
    height: float
    clock: str
    sent: int
    is_present: bool


@dataclass(frozen=True, slots=True)
class Chart:
    hours: list[Hour]
    label: str  # what it shows, for whoever doesn't see it

    @property
    def marks(self) -> list[str]:
        return [self.hours[at].clock for at in MARKED]


def chart(sent: Sequence[int], now: datetime) -> Chart | None:
    """Of what was sent in each hour, the present one last. None where there was nothing."""
    most = max(sent, default=0)
    if not most:
        return None
    first = now.astimezone(UTC).replace(minute=0) - timedelta(hours=len(sent) - 1)
    width = WIDTH / len(sent)
    hours = [
        Hour(
            width * number + 1.5, HEIGHT - height, height, f"{first + timedelta(hours=number):%H:%M}", each,
            number == len(sent) - 1,
        )
        for number, each in enumerate(sent)
        for height in ((HEIGHT - TOP) * each / most,)
    ]
    label = _("Recipients in each hour (UTC): {total} in all, most at {hour} with {most}, {now} in the present one.")
    peak = next(each for each in hours if each.sent == most)
    return Chart(hours, label.format(
        total=f"{sum(sent):,}", hour=peak.clock, most=f"{most:,}", now=f"{sent[-1]:,}"
    ))
