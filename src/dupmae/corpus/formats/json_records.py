"""Read records from JSON: JSON lines, or one value that holds them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from dupmae.corpus.formats.records import Columns, Row
from dupmae.corpus.lines import json_kind, json_objects_or_errors, numbered_lines, read_text
from dupmae.errors import DupmaeError
from dupmae.runtime.json_text import parse_strict_json


def rows_of_lines(path: Path, columns: Columns) -> Iterator[Row]:
    """Read a record a line; blank lines are passed over."""
    return json_objects_or_errors(path)


def rows_of_value(path: Path, columns: Columns) -> Iterator[Row]:
    """Yield the records of a list, those of an object whose names are their ids, or the one that the object is.

    What holds JSON lines under a name that ends in `.json` is read as such.
    """
    if _is_lines(path):
        yield from rows_of_lines(path, columns)
        return
    try:
        value = parse_strict_json(read_text(path))
    except ValueError as error:
        raise DupmaeError(f"{path}: not valid JSON ({error}).") from None
    records: list[Any] = []
    if isinstance(value, list):
        records = value
    elif value and isinstance(value, dict) and all(isinstance(record, dict) for record in value.values()):
        records = [{"_id": name} | record for name, record in value.items()]
    elif isinstance(value, dict):
        columns.chosen(list(value), str(path))
        yield 0, value  # the file holds no others that it would have to be told from
    else:
        raise DupmaeError(f"{path}: holds {json_kind(value)}, neither a list of records nor an object of them.")
    for number, record in enumerate(records, 1):
        if isinstance(record, Mapping):
            yield number, record
        else:
            yield DupmaeError(f"{path}, record {number}: expected a JSON object, found {json_kind(record)}.")


def _is_lines(path: Path) -> bool:
    """Tell whether the first line that is not blank is a whole object, and another one follows."""
    first = list(islice((line for _, line in numbered_lines(path) if line.strip()), 2))
    try:
        return len(first) == 2 and isinstance(parse_strict_json(first[0]), dict)
    except ValueError:
        return False
