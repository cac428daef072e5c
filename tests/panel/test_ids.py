"""Ids that are made before the transaction, and their text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panel.database import ids


def test_ids_rise_strictly_even_when_the_clock_stands_or_goes_back():
    times = iter([1_800_000_000.0] * 3000 + [1_799_990_000.0] * 3000)
    maker = ids.IdMaker(3, 7, lambda: next(times))
    made = [maker.next() for _ in range(6000)]
    assert made == sorted(set(made))
    assert max(made) < 1 << 63


def test_ids_of_two_workers_never_meet():
    makers = [ids.IdMaker(node, worker, lambda: 1_800_000_000.0) for node in (0, 1, 63) for worker in (0, 1, 63)]
    made = [maker.next() for maker in makers for _ in range(1500)]
    assert len(set(made)) == len(made)


def test_worker_is_known_from_its_ids():
    maker = ids.IdMaker(63, 5)
    assert {ids.worker_of(maker.next()) for _ in range(3)} == {5}


@given(st.integers(min_value=0, max_value=(1 << 63) - 1))
def test_text_leads_back_to_the_id(number):
    text = ids.to_text(number)
    assert len(text) == 13
    assert ids.from_text(text) == ids.from_text(text.lower()) == number


def test_text_forgives_what_people_mistype():
    assert ids.from_text("00000000000OI") == 1


@pytest.mark.parametrize("text", ["", "0", "0" * 12, "0" * 14, "U" * 13, "Z" * 13, "00000 0000000", "\uff10" * 13])
def test_what_is_no_id_is_refused(text):
    with pytest.raises(ValueError, match="is not an id"):
        ids.from_text(text)


def test_an_id_tells_when_it_was_made():
    maker = ids.IdMaker(0, 0, lambda: 1_800_000_000.123)
    assert ids.made_at_ms(maker.next()) == 1_800_000_000_123
