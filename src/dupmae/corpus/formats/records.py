"""Turn numbered records of named fields into passages, whatever file they come from."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from dupmae.corpus.lines import columns_in, json_kind
from dupmae.corpus.passage import Passage
from dupmae.errors import DupmaeError

ID_FIELDS = ("_id", "id", "docid", "doc_id", "pid", "passage_id")
"""What the field with the id may be called where no name is asked for; the first that a record has counts."""
TITLE_FIELD = "title"
NESTED_FIELD = "metadata"
"""The field in which BEIR puts a passage's further fields."""

Value = str | int | float | bool
"""A value of metadata."""
Placed = tuple[str, Passage]
"""A passage behind the words that say where it stands."""
Found = Placed | DupmaeError
"""A passage, or what is wrong with one; those behind it can be read all the same."""
Row = tuple[int, Mapping[str, Any]] | DupmaeError
"""A record behind its number, or what is wrong with one; 0 is that of a record that is a whole file."""


class Columns(Protocol):
    """What a reader of tables asks of those who know what their columns mean."""

    def chosen(self, columns: Sequence[str], source: str) -> list[str]:
        """List the columns to read, or refuse those of `source` because one is missing."""

    def heading(self, cells: Sequence[str], place: str) -> bool:
        """Tell whether the first line of a table that may do without a heading is one."""

    def without_heading(self, cells: Sequence[str], place: str) -> list[str]:
        """Name the columns of a table that has no heading, or refuse their number."""


class Table(NamedTuple):
    """How a kind of file that holds records is read."""

    rows: Callable[[Path, Columns], Iterator[Row]]
    """Yields the records of a file with their numbers."""
    unit: str
    """What is numbered, such as `line`."""
    typed: bool = True
    """Whether values have types; otherwise all are strings, also numbers."""
    compressed: bool = True
    """Whether such a file may be compressed as a whole."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields or columns that hold a passage's parts."""

    ids: tuple[str, ...]
    """Names that the id's may have."""
    title: str
    text: str
    metadata: tuple[str, ...]
    need_ids: bool
    """Whether records must have one of `ids`."""

    def id_in(self, columns: Iterable[str]) -> str | None:
        """Find the one of `ids` that `columns` has, if any."""
        return next((name for name in self.ids if name in columns), None)

    def chosen(self, columns: Sequence[str], source: str) -> list[str]:
        """List the columns that hold a part, or refuse columns without one of the text."""
        if self.text not in columns:
            raise DupmaeError(
                f"{source}: no column {self.text!r} (the text); its columns are {listing(columns)}: name the text's "
                "with --text_field."
            )
        nested = (NESTED_FIELD,) if self.metadata else ()
        return [name for name in columns if name in (*self.ids, self.title, self.text, *self.metadata, *nested)]

    def heading(self, cells: Sequence[str], place: str) -> bool:
        """Take a line that names the text for a heading, and refuse one that names an id alone: read as a passage it
        would name no column.
        """
        if self.text in cells:
            return True
        for cell in cells:
            if cell in self.ids or cell.lower() in ID_FIELDS:
                raise DupmaeError(
                    f"{place}: a heading ({cell!r}) without a column {self.text!r}; its columns are {listing(cells)}: "
                    "name the text's with --text_field."
                )
        return False

    def without_heading(self, cells: Sequence[str], place: str) -> list[str]:
        """Name two columns id and text, three id, title and text."""
        if len(cells) not in (2, 3):
            raise DupmaeError(
                f"{place}: {columns_in(cells)}; without a header that names {self.text!r} there must be two (id, text) "
                "or three (id, title, text)."
            )
        return [self.ids[0], *([self.title] if len(cells) == 3 else []), self.text]


def from_records(source: str, table: Table, rows: Iterable[Row], fields: Fields, name: str) -> Iterator[Found]:
    """Turn the numbered records of one source into passages.

    Args:
        source: What is read, for errors.
        table: Its kind.
        rows: The records with their numbers.
        fields: Names of the parts.
        name: What goes, with a `#`, before an id that is made from a record's number.

    Raises:
        DupmaeError: No record has a title whose name was asked for.
    """
    iterator = iter(rows)
    first = list(islice(iterator, 1))
    id_field = next((fields.id_in(row[1]) for row in first if not isinstance(row, DupmaeError)), None)
    decided = any(not isinstance(row, DupmaeError) for row in first)
    titled = fields.title == TITLE_FIELD or not first
    for row in chain(first, iterator):
        if isinstance(row, DupmaeError):
            yield row
            continue
        number, record = row
        place = f"{source}, {table.unit} {number}" if number else source
        if not decided:
            id_field, decided = fields.id_in(record), True
        titled = titled or fields.title in record
        try:
            _check_fields(record, fields, id_field, f"the first {table.unit}", place)
            title = record.get(fields.title)
            passage = Passage(
                (f"{name}#{number}" if number else name)
                if id_field is None
                else _identifier(record[id_field], id_field, place),
                "" if title is None else string_field(title, fields.title, place),
                string_field(record[fields.text], fields.text, place),
                metadata_of(record, fields.metadata, place, typed=table.typed) if fields.metadata else {},
            )
        except DupmaeError as error:
            yield error
        else:
            yield place, passage
    if not titled:
        raise DupmaeError(f"{source}: no {table.unit} has a field {fields.title!r} (the title).")


def _check_fields(record: Collection[str], fields: Fields, id_field: str | None, first: str, place: str) -> None:
    """Refuse a record without a text, or without the id that the file's first record has, and the reverse."""
    if id_field is not None and id_field not in record:
        raise DupmaeError(f"{place}: no field {id_field!r} (the id); its fields are {listing(record)}.")
    if id_field is None and fields.need_ids:
        raise DupmaeError(
            f"{place}: no field {fields.ids[0]!r} (the id), and each passage must have one; its fields are "
            f"{listing(record)}."
        )
    if id_field is None and (found := fields.id_in(record)) is not None:
        raise DupmaeError(f"{place}: has the field {found!r}, but {first} has none; give all an id.")
    if fields.text not in record:
        raise DupmaeError(
            f"{place}: no field {fields.text!r} (the text); its fields are {listing(record)}: name the text's with "
            "--text_field."
        )


def metadata_of(record: Mapping[str, Any], names: Iterable[str], place: str, *, typed: bool = True) -> dict[str, Value]:
    """Collect the metadata fields that have a value: strings, numbers, true and false, dates as ISO 8601 has them.

    Args:
        record: What has them, itself or in an object in its field `metadata`.
        names: Which.
        place: Where it stands, for errors.
        typed: Whether values have types. Otherwise text that is a number, or `true` or `false`, becomes that if it is
            written as the value would be, so that nothing is lost (`007` stays text), and empty text is no value.

    Raises:
        DupmaeError: A value is of another kind.
    """
    nested = record.get(NESTED_FIELD)
    further = nested if isinstance(nested, Mapping) else {}
    metadata: dict[str, Value] = {}
    for name in names:
        value = further.get(name) if record.get(name) is None else record[name]
        if value is None or value != value:  # a column of Arrow may hold NaN for what is missing, as pandas writes it
            continue
        if isinstance(value, Decimal):
            value = int(value) if value == value.to_integral_value() else float(value)
        if isinstance(value, float) and math.isinf(value):
            raise DupmaeError(f"{place}: the field {name!r} is an infinite number.")
        if isinstance(value, datetime.date | datetime.time):
            metadata[name] = value.isoformat()
        elif isinstance(value, int | float):
            metadata[name] = value
        elif text := string_field(value, name, place) if typed else string_field(value, name, place).strip():
            metadata[name] = text if typed else _typed(text)
    return metadata


def _typed(text: str) -> Value:
    """Read the value that text spells, if it is spelled as Python would write the value."""
    if text in ("true", "false"):
        return text == "true"
    if len(text) > 40 or not re.fullmatch(r"-?\d+(\.\d+)?", text, re.ASCII):
        return text
    value = float(text) if "." in text else int(text)
    return value if str(value) == text and abs(value) < 2**63 else text


def listing(columns: Iterable[str]) -> str:
    """Name the fields or columns that there are, the first twelve of them, for an error."""
    names = [repr(name if len(name) <= 30 else f"{name[:29]}…") for name in columns]
    return (", ".join(names[:12]) or "none") + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _identifier(value: object, field: str, place: str) -> str:
    """Read an id: strings as they are, whole numbers in decimal."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        raise DupmaeError(
            f"{place}: the field {field!r} (the id) is the number {value!r}: ids are strings or whole numbers, written "
            "without a fraction."
        )
    identifier = string_field(value, field, place)
    if not identifier:
        raise DupmaeError(f"{place}: the field {field!r} (the id) is empty.")
    return identifier


def string_field(value: object, field: str, place: str) -> str:
    """Check that the value of a field is a string of valid Unicode.

    Raises:
        DupmaeError: It is of another type, or holds half of a surrogate pair, which no UTF-8 file can.
    """
    if not isinstance(value, str):
        raise DupmaeError(f"{place}: the field {field!r} is {json_kind(value)}, but must be a string.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DupmaeError(f"{place}: the field {field!r} holds half of a surrogate pair, not valid Unicode.") from None
    return value
