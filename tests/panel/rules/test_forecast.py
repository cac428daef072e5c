"""What days of a counter say, and where a limit will stand."""

from panel.rules.forecast import forecast
from panel.rules.limits import Rings

DAY_S = 86400
NOON = 20_000 * DAY_S + DAY_S // 2


def test_days_are_calendar_days_with_today_last():
    rings = Rings()
    for days_ago, sent in ((40, 9), (30, 1), (29, 2), (1, 4), (0, 5)):
        rings.charge(sent, NOON - days_ago * DAY_S)
    assert rings.by_day(31, NOON)[:3] == (1, 2, 0) and rings.by_day(31, NOON)[-2:] == (4, 5)
    # Nobody charged since: what is old is no longer among them, and what is not yet is nothing.
    assert rings.by_day(3, NOON + DAY_S) == (4, 5, 0)
    assert set(rings.by_day(31, NOON + 40 * DAY_S)) == {0} and Rings().by_day(2, NOON) == (0, 0)


def test_a_limit_is_full_when_the_last_hours_pace_fills_it():
    rings = Rings()
    for minute in range(60):
        rings.charge(1, NOON - 60 * minute)
    coming = forecast(rings, 180, NOON)
    assert coming.full_at_s is not None and 7200 <= coming.full_at_s - NOON <= 7200 + 600
    below = forecast(rings, 5000, NOON)
    # A day of it, and no more: what is older leaves the window.
    assert below.full_at_s is None and 24 * 60 <= below.most <= 26 * 60
    assert forecast(rings, 60, NOON).full_at_s == NOON and forecast(Rings(), 1, NOON).full_at_s is None
