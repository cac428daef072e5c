"""What makes a password easy to guess, as pure decisions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panel.rules import passwords


@pytest.mark.parametrize(("password", "core"), [
    ("dragon2024!", "dragon"), ("!!Monkey!!", "monkey"), ("p@ssw0rd2026", "password"), ("DragonDragon", "dragon"),
    ("1qaz2wsx", "qaz2wsx"), ("ｄｒａｇｏｎ12", "dragon"), ("5unshine99", "sunshine"),
])
def test_a_word_is_found_under_what_stands_around_it(password, core):
    assert core in passwords.cores(password)


@pytest.mark.parametrize("password", ["dragon-7391-82640", "1234567890", "", "a1b2", "!!!!!!!!!!!!"])
def test_what_is_no_word_or_much_more_than_one_has_no_core(password):
    assert "dragon" not in passwords.cores(password)
    assert all(len(each) >= 4 for each in passwords.cores(password))


@pytest.mark.parametrize(("password", "is_so"), [
    ("aaaaaaaaaaaa", True), ("abababababab", True), ("abcdefghijkl", True), ("zyxwvutsrqpo", True), ("", True),
    ("right horse battery", False), ("abcdefghijkm", False),
])
def test_few_characters_or_neighbours_in_a_row_are_monotonous(password, is_so):
    assert passwords.is_monotonous(password) is is_so


@settings(max_examples=50)
@given(st.text(max_size=50))
def test_any_text_is_judged(password):
    passwords.is_monotonous(password)
    for core in passwords.cores(password):
        assert core
