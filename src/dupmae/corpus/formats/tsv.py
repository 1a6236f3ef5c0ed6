"""Read records from columns that are split by tabs, in which quotes mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dupmae.corpus.formats.records import Columns, Row
from dupmae.corpus.lines import columns_in, numbered_lines
from dupmae.errors import DupmaeError


def rows(path: Path, columns: Columns) -> Iterator[Row]:
    """Yield a record a line; `columns` says whether the first one is a heading, and what it means without."""
    names: list[str] = []
    for number, line in numbered_lines(path):
        if not line:
            continue
        cells = line.split("\t")
        if not names:
            place = f"{path}, line {number}"
            if columns.heading(cells, place):
                names = cells
                continue
            names = columns.without_heading(cells, place)
        if len(cells) != len(names):
            hint = "; quotes mean nothing, so that no cell holds a tab or a line break" if '"' in line else ""
            yield DupmaeError(
                f"{path}, line {number}: {columns_in(cells)} where the first line has {len(names)}{hint}."
            )
        else:
            yield number, dict(zip(names, cells, strict=True))
