"""How times and sizes are written for people, and read again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panel.tenants.shown import about, moment, read_size, size

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@given(st.integers(0, 2**63 - 1))
def test_a_size_reads_back_as_the_same_number(number):
    assert read_size(size(number)) == number


@pytest.mark.parametrize(("text", "number"), [
    ("", None), ("5 GB", 5 * 2**30), ("500M", 500 * 2**20), ("1.5 kb", 1536), ("17", 17), ("2 GiB", 2 * 2**30),
])
def test_a_size_is_read_as_people_write_it(text, number):
    assert read_size(text) == number


@pytest.mark.parametrize("text", ["x", "-1", "5 PB", "1e3", "5 GB 3", "٣", "1" * 40])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="write a size"):
        read_size(text)


def test_sizes_are_told_to_one_digit():
    assert [about(number) for number in (812, 51_200, 7_400_000)] == ["812 bytes", "50.0 KB", "7.1 MB"]


@pytest.mark.parametrize(("seconds", "words"), [
    (-3, "just now"), (-59, "59 s ago"), (-240, "4 min ago"), (240, "in 4 min"), (-7200, "2 h ago"),
    (-3 * 86400, "3 days ago"), (-90 * 86400, "2026-08-26"),
])
def test_a_moment_is_relative_with_the_exact_time_on_hover(seconds, words):
    at = NOW + timedelta(seconds=seconds)
    shown = moment(at, NOW)
    assert f">{words}<" in shown
    assert f'title="{at:%Y-%m-%d %H:%M:%S} UTC"' in shown
