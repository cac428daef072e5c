"""Cells that no spreadsheet takes for a formula."""

import pytest

from panel.rules.cells import as_written, harmless


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "'=1", "''=1"])
def test_no_cell_is_a_formula_and_each_is_read_as_it_was_written(text):
    assert harmless(text) == f"'{text}" and as_written(harmless(text)) == text


@pytest.mark.parametrize("text", ["ann@acme.test", "", "'", "O'Neil", "'t Hart", "5 GB"])
def test_what_is_no_formula_stays_as_it_is(text):
    assert harmless(text) == text and as_written(text) == text


@pytest.mark.parametrize(("text", "cell"), [
    ("x;=1+1;y", "x;'=1+1;y"), ("=1;=1", "'=1;'=1"), (";;-1", ";;'-1"), ("a;'=1", "a;''=1"),
    ('a;"=1+1"', "a;\"'=1+1\""), ("\t;=1", "'\t;'=1"), ("a; b", "a; b"), ("a;b", "a;b"),
])
def test_none_begins_where_a_spreadsheet_of_another_language_divides_it(text, cell):
    assert harmless(text) == cell and as_written(cell) == text
