"""Read records from comma-separated values, as RFC 4180 and spreadsheets write them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dupmae.corpus.formats.records import Columns, Row
from dupmae.corpus.lines import columns_in, longest_line, numbered_lines
from dupmae.errors import DupmaeError

_DELIMITERS = ",;\t|"


def rows(path: Path, columns: Columns) -> Iterator[Row]:
    """Yield a record a row, numbered by the line that it begins in; the first row names the columns.

    Cells are split at commas; or at semicolons, tabs or bars, if that is what splits the first row into names that
    there should be. A cell in double quotes may hold these and line breaks.
    """
    lines = _Lines(path)
    first = next(lines, "")
    csv.field_size_limit(longest_line())  # of the whole process, which reads no other CSV
    delimiter, names = _heading(first, lines, columns, f"{path}, line {lines.number}")
    if not names:
        return
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        begin = lines.number + 1
        place = f"{path}, line {begin}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield DupmaeError(f"{place}: not valid CSV ({error}): look for a quote left open or not doubled.")
            continue
        if len(cells) == len(names):
            yield begin, dict(zip(names, cells, strict=True))
        elif any(cells):
            yield DupmaeError(
                f"{place}: {columns_in(cells)} where the heading has {len(names)}: put a cell that holds "
                f"{'a tab' if delimiter == chr(9) else repr(delimiter)} or a line break in double quotes."
            )


class _Lines(Iterator[str]):
    """The lines of a file with their breaks, and the number of the last one."""

    def __init__(self, path: Path) -> None:
        self.number = 0
        self._lines = numbered_lines(path)

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        return f"{line}\n"


def _heading(first: str, rest: Iterator[str], columns: Columns, place: str) -> tuple[str, list[str]]:
    """Find the delimiter and the names of the columns, the first row of which `first` is the first line."""
    if not first.strip():
        return ",", []
    try:
        splits = {delimiter: next(csv.reader([first], delimiter=delimiter)) for delimiter in _DELIMITERS}
    except csv.Error as error:
        raise DupmaeError(f"{place}: not valid CSV ({error}).") from None
    for delimiter, names in splits.items():
        names[:] = [name.strip() for name in names]
        try:
            columns.chosen(names, place)
        except DupmaeError:
            continue
        if twice := next((name for name, count in Counter(names).items() if name and count > 1), None):
            raise DupmaeError(f"{place}: two columns are called {twice!r}: rename one.")
        return delimiter, names
    columns.chosen(max(splits.values(), key=len), place)  # says what is missing
    raise AssertionError(place)
