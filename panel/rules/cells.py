"""Cells of a CSV that no spreadsheet takes for a formula, and what they were before.

A sheet is opened by whoever may read it, and what stands in it was written by others. A spreadsheet in whose
language the comma is the decimal's divides it at semicolons: a cell may begin there as well.
"""

import re

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the wide ones too
_QUOTE = "'"
_BEGINS = "[" + re.escape("".join(FORMULA)) + "]"
_INSIDE = re.compile(f"(;['\"]*)(?={_BEGINS})")
_MADE_INSIDE = re.compile(f"(;['\"]*){_QUOTE}(?={_BEGINS})")


def harmless(text: str) -> str:
    """The text as a cell that is text everywhere. What looks as if it was made so is made so once more."""
    if ";" in text:  # few have one, and a file has thousands of cells
        text = _INSIDE.sub(rf"\1{_QUOTE}", text)
    return f"{_QUOTE}{text}" if text.lstrip(_QUOTE).startswith(FORMULA) else text


def as_written(cell: str) -> str:
    """The text that `harmless` made the cell of."""
    cell = cell[1:] if cell.startswith(_QUOTE) and cell.lstrip(_QUOTE).startswith(FORMULA) else cell
    return _MADE_INSIDE.sub(r"\1", cell)
