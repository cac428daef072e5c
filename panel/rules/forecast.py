"""Where a limit will stand if sending goes on as in the last hour.

Decides when it is full, or how much of it is taken at most; what leaves the window meanwhile is counted in.
It is a forecast for people: nothing is refused by it.
"""

from dataclasses import dataclass

from panel.rules.limits import Rings, Window

STEP_S = 600
AHEAD_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Forecast:
    """`full_at_s`, seconds since 1970: when no further recipient fits; None: not within the next 24 hours."""

    full_at_s: int | None
    most: int  # recipients taken, at the worst moment until then


def forecast(rings: Rings, allowed: int, now_s: float) -> Forecast:
    """Of the window of 24 hours, at the pace of the last hour."""
    a_second = rings.count(Window.HOUR, now_s) / 3600
    most = 0
    for ahead_s in range(0, AHEAD_S + 1, STEP_S):
        taken = rings.count(Window.DAY, now_s + ahead_s) + int(a_second * ahead_s)
        most = max(most, taken)
        if taken >= allowed:
            return Forecast(int(now_s) + ahead_s, most)
    return Forecast(None, most)
