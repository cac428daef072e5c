"""The CSV of mailboxes that `mailbox import` takes and `mailbox export` gives. RFC 4180, UTF-8.

Decides what a row may hold; asks no database. Read a line at a time: a file of any size and any
content costs bounded memory, and is refused with the line where it went wrong.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TextIO

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from panel.mailboxes import foreign
from panel.mailboxes.models import MOST_QUOTA_BYTES
from panel.rules.addresses import Address, BadAddress, parse_address
from panel.rules.cells import as_written, harmless
from panel.tenants.changes import ServiceError, one_line
from panel.tenants.shown import read_size, size

COLUMNS = ("address", "password", "hash", "quota", "name")
MOST_ROWS = 20_000  # some 5 s in one transaction; on SQLite all other writing waits for it
MOST_LINES = 5 * MOST_ROWS  # empty ones too: else a file of nothing would be read for hours
MOST_BYTES = 32 * 1024 * 1024
MOST_LINE_BYTES = 8192
MOST_ROW_LINES = 20  # that one row may take: a quote that is never closed ends there
MOST_ERRORS = 50  # told


@dataclass(frozen=True, slots=True)
class Row:
    """One mailbox to be made. Its repr shows neither password nor hash."""

    line: int
    address: Address
    password: str = field(repr=False)  # empty: `stored` is, or nobody can log in
    stored: str = field(repr=False)  # a hash as we keep it
    quota_bytes: int | None
    name: str


class BadRows(ServiceError):
    """Rows that can't be used: the text tells the first MOST_ERRORS and how many there are."""


class Errors:
    """What is wrong: one sentence a line, for the first is often what causes the others."""

    def __init__(self) -> None:
        self._by_line: dict[int, str] = {}

    def add(self, line: int, text: str) -> None:
        self._by_line.setdefault(line, text)

    @property
    def lines(self) -> list[tuple[int, str]]:
        """Line and sentence, in the order of the lines."""
        return sorted(self._by_line.items())

    def raise_if_any(self) -> None:
        """Raises BadRows."""
        count = len(self._by_line)
        if not count:
            return
        lines = [f"line {line}: {text}" for line, text in sorted(self._by_line.items())[:MOST_ERRORS]]
        if count > MOST_ERRORS:
            lines.append(f"and {count - MOST_ERRORS:,} more.")
        raise BadRows("\n".join([
            f"Nothing is imported: {count:,} {'line' if count == 1 else 'lines'} can't be used.", *lines,
        ]))


def read(path: Path, errors: Errors, *, without_passwords: bool) -> list[Row]:
    """The rows that can be used; what is wrong with others is added to `errors`.

    `without_passwords`: a row may have neither password nor hash. Raises ServiceError when the
    file as a whole can't be read on.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path, errors, without_passwords)
    except OSError as error:
        raise ServiceError(f"{path} can't be read: {error.strerror}.") from None


def read_file(file: BinaryIO, name: str, errors: Errors, *, without_passwords: bool) -> list[Row]:
    """The same of a file that is open; `name` is what its sentences call it."""
    return _read(file, Path(name), errors, without_passwords)


def _read(file: BinaryIO, path: Path, errors: Errors, without_passwords: bool) -> list[Row]:
    lines = _Lines(file, path)
    reader = csv.reader(lines, strict=True)
    rows: list[Row] = []
    seen: dict[Address, int] = {}
    head: list[str] | None = None
    count = 0
    while True:
        start = lines.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise ServiceError(_(
                "{file}, line {line}: the row is not understood ({error}). Write a value that holds a comma or a quote "
                "in double quotes, and such a quote twice."
            ).format(file=path, line=start, error=error)) from None
        if not any(cell.strip() for cell in cells):
            continue
        if head is None:
            head = _head(cells, path, start)
            continue
        count += 1
        if count > MOST_ROWS:
            raise ServiceError(
                _("{file} holds more than {most:,} mailboxes: split it.").format(file=path, most=MOST_ROWS)
            )
        try:
            row = _row(start, head, cells, without_passwords)
            if row.address in seen:
                raise ServiceError(_("{address} stands in line {line} already.").format(
                    address=row.address, line=seen[row.address]
                ))
            seen[row.address] = start
            rows.append(row)
        except ServiceError as error:
            errors.add(start, str(error))
    if head is None or not count:
        raise ServiceError(_("{file} holds no mailbox: {head}.").format(file=path, head=_head_words()))
    return rows


class _Lines:
    """The file's lines as text, each bounded; counts them."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._number = self._bytes = 0
        self._row_began = 0

    def begin_row(self) -> int:
        """The number of the line with which the next row begins."""
        self._row_began = self._number
        return self._number + 1

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(MOST_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._bytes += len(line)
        if self._number > MOST_LINES or self._bytes > MOST_BYTES:
            raise ServiceError(_(
                "{file} holds more than {lines:,} lines or {size}: split it, {rows:,} mailboxes at most in each."
            ).format(file=self._path, lines=MOST_LINES, size=size(MOST_BYTES), rows=MOST_ROWS))
        where = {"file": self._path, "line": self._number}
        if len(line) > MOST_LINE_BYTES:
            raise ServiceError(_(
                "{file}, line {line}: it is longer than {most} bytes; is this a CSV of mailboxes?"
            ).format(**where, most=MOST_LINE_BYTES))
        if self._number - self._row_began > MOST_ROW_LINES:
            raise ServiceError(_("{file}, line {line}: a double quote is opened and not closed.").format(
                file=self._path, line=self._row_began + 1
            ))
        if b"\0" in line:
            raise ServiceError(_("{file}, line {line}: it holds a NUL byte; save the file as UTF-8.").format(**where))
        try:
            return line.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise ServiceError(
                _("{file}, line {line}: it is not UTF-8; save the file as UTF-8.").format(**where)
            ) from None


def _head_words() -> str:
    return _("the first line names the columns: {columns}, of which address is needed").format(
        columns=",".join(COLUMNS)
    )


def _head(cells: list[str], path: Path, line: int) -> list[str]:
    head = [cell.strip().lower() for cell in cells]
    if "address" not in head:
        raise ServiceError(_("{file}, line {line}: {head}.").format(file=path, line=line, head=_head_words()))
    unknown = [cell for cell in head if cell not in COLUMNS]
    if unknown or len(set(head)) < len(head):
        odd = unknown[0] if unknown else next(cell for cell in head if head.count(cell) > 1)
        told = _("{file}, line {line}: the column {column!r} is unknown; {head}.") if unknown else (
            _("{file}, line {line}: the column {column!r} stands there twice; {head}.")
        )
        raise ServiceError(told.format(file=path, line=line, column=odd[:40], head=_head_words()))
    return head


def _row(line: int, head: list[str], cells: list[str], without_passwords: bool) -> Row:
    if len(cells) != len(head):
        raise ServiceError(ngettext(
            "it has {count} value, the first line names {columns} columns.",
            "it has {count} values, the first line names {columns} columns.", len(cells),
        ).format(count=len(cells), columns=len(head)))
    given: Mapping[str, str] = dict(zip(head, cells, strict=True))
    try:
        address = parse_address(as_written(given["address"])).canonical
    except BadAddress as error:
        raise ServiceError(error.said(_)) from None
    password, hashed = given.get("password", ""), given.get("hash", "").strip()
    if password and hashed:
        raise ServiceError(_("it has a password and a hash: write one of them."))
    if not (password or hashed or without_passwords):
        raise ServiceError("it has neither a password nor a hash; with --without-passwords it may.")
    try:
        stored = foreign.read(hashed) if hashed else ""
    except foreign.BadHash as error:
        raise ServiceError(f"{error}.") from None
    try:
        quota = read_size(given.get("quota", ""))
    except ValueError:
        raise ServiceError(_("the quota {quota!r} is no size: write a size such as 5 GB or 500 MB.").format(
            quota=given["quota"][:40]
        )) from None
    if quota is not None and quota > MOST_QUOTA_BYTES:
        raise ServiceError(_("the quota {quota!r} is larger than any disk.").format(quota=given["quota"][:40]))
    return Row(line, address, password, stored, quota, one_line(as_written(given.get("name", "")), "name", most=100))


def as_cells(address: str, stored: str, quota_bytes: int | None, name: str) -> dict[str, str]:
    """A mailbox as a row of the file, by column; `stored` is empty when its hash isn't told."""
    hashed = foreign.write(stored) if stored else ""
    return {"address": address, "password": "", "hash": hashed, "quota": _quota(quota_bytes), "name": name}


@lru_cache(maxsize=100)
def _quota(quota_bytes: int | None) -> str:
    return size(quota_bytes).replace(",", "")


def write(rows: Iterable[Mapping[str, str]], file: TextIO) -> int:
    """Write the file; gives how many rows it holds."""
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    count = 0
    for row in rows:
        writer.writerow({column: harmless(cell) for column, cell in row.items()})
        count += 1
    return count
