"""Read passages from columns that are split by tabs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dupmae.corpus.formats.records import ID_FIELDS, Fields, Placed, from_records
from dupmae.corpus.lines import columns_in, numbered_lines
from dupmae.errors import DupmaeError


def read(path: Path, fields: Fields, prefix: str) -> Iterator[Placed]:
    """Read one passage per line; :func:`dupmae.corpus.read_passages` says what the first line means."""
    return from_records(str(path), "line", _records(path, fields), fields, prefix)


def _records(path: Path, fields: Fields) -> Iterator[tuple[int, dict[str, str]]]:
    """Split lines at tabs and name the columns."""
    header: list[str] = []
    for number, line in numbered_lines(path):
        if not line:
            continue
        columns = line.split("\t")
        if not header and fields.text in columns:
            header = columns
            continue
        if not header:
            _refuse_heading(columns, fields, f"{path}, line {number}")
            if len(columns) not in (2, 3):
                raise DupmaeError(
                    f"{path}, line {number}: {columns_in(columns)}; without a header that names {fields.text!r} "
                    "there must be two (id, text) or three (id, title, text)."
                )
            titles = [fields.title] if len(columns) == 3 else []
            header = [fields.ids[0], *titles, fields.text]
        if len(columns) != len(header):
            hint = "; quotes mean nothing, so that no cell holds a tab or a line break" if '"' in line else ""
            raise DupmaeError(
                f"{path}, line {number}: {columns_in(columns)} where the first line has {len(header)}{hint}."
            )
        yield number, dict(zip(header, columns, strict=True))


def _refuse_heading(columns: list[str], fields: Fields, place: str) -> None:
    """Refuse a first line that names an id but no text: read as a passage, it would name no column."""
    for column in columns:
        if column in fields.ids or column.lower() in ID_FIELDS:
            raise DupmaeError(
                f"{place}: a heading ({column!r}) without a column {fields.text!r}: "
                "call the text's column so, or give its name in Python (text_field)."
            )
