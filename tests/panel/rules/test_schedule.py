"""Retries, expiry and the warning of a delay."""

from datetime import UTC, datetime, timedelta

import pytest

from panel.rules import schedule

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
EVEN = 0.5  # no jitter


def test_delays_double_from_a_minute_to_two_hours():
    minutes = [schedule.delay_s(tries, EVEN) / 60 for tries in range(1, 11)]
    assert minutes == [1, 2, 4, 8, 16, 32, 64, 120, 120, 120]


def test_jitter_spreads_a_delay_by_a_fifth_to_either_side():
    assert schedule.delay_s(1, 0.0) == pytest.approx(48)
    assert schedule.delay_s(1, 1 - 1e-9) == pytest.approx(72)


def test_any_number_of_tries_has_a_delay():
    assert schedule.delay_s(10**6, EVEN) == 7200


@pytest.mark.parametrize(("tries", "jitter"), [(0, 0.5), (1, 1.0), (1, -0.1)])
def test_a_delay_is_asked_for_after_a_try_and_with_a_jitter(tries, jitter):
    with pytest.raises(ValueError, match="delay_s takes"):
        schedule.delay_s(tries, jitter)


def test_the_last_try_falls_at_expiry():
    expires_at = NOW + timedelta(minutes=30)
    assert schedule.next_try(NOW, 1, expires_at, EVEN) == NOW + timedelta(minutes=1)
    assert schedule.next_try(NOW, 9, expires_at, EVEN) == expires_at
    assert schedule.next_try(expires_at, 10, expires_at, EVEN) is None


def test_a_message_lives_its_days_in_some_seventy_tries():
    expires_at = schedule.expires_at(NOW, 5)
    assert expires_at == NOW + timedelta(days=5)
    at, tries = NOW, 1
    while (following := schedule.next_try(at, tries, expires_at, EVEN)) is not None:
        at, tries = following, tries + 1
    assert at == expires_at
    assert 60 < tries < 80


def test_a_delay_is_reported_after_four_hours():
    assert not schedule.delay_warning_due(NOW, NOW + timedelta(hours=4, seconds=-1))
    assert schedule.delay_warning_due(NOW, NOW + timedelta(hours=4))
