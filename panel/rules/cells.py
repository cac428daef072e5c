"""Cells of a CSV that no spreadsheet takes for a formula, and what they were before.

A sheet is opened by whoever may read it, and what stands in it was written by others.
"""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the wide ones too
_QUOTE = "'"


def harmless(text: str) -> str:
    """The text as a cell that is text everywhere. What looks as if it was made so is made so once more."""
    return f"{_QUOTE}{text}" if text.lstrip(_QUOTE).startswith(FORMULA) else text


def as_written(cell: str) -> str:
    """The text that `harmless` made the cell of."""
    return cell[1:] if cell.startswith(_QUOTE) and cell.lstrip(_QUOTE).startswith(FORMULA) else cell
