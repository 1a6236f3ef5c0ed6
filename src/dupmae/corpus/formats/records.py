"""Turn numbered records of named fields into passages, whatever file they come from."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from dupmae.corpus.lines import json_kind
from dupmae.corpus.passage import Passage, value_text
from dupmae.errors import DupmaeError

ID_FIELDS = ("_id", "id", "docid", "doc_id", "pid", "passage_id")
"""What the field with the id may be called where no name is asked for; the first that a record has counts."""
TITLE_FIELD = "title"
NESTED_FIELD = "metadata"
"""The field in which BEIR puts a passage's further fields."""

Placed = tuple[str, Passage]
"""A passage behind the words that say where it stands."""


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

    def present(self, columns: Iterable[str]) -> list[str]:
        """List those that `columns` has."""
        nested = (NESTED_FIELD,) if self.metadata else ()
        return [name for name in columns if name in (*self.ids, self.title, self.text, *self.metadata, *nested)]


def from_records(
    source: str, unit: str, records: Iterable[tuple[int, Mapping[str, Any]]], fields: Fields, prefix: str
) -> Iterator[Placed]:
    """Turn the numbered records of one source into passages.

    Args:
        source: What is read, for errors.
        unit: What is numbered, such as `line`.
        records: The records with their numbers.
        fields: Names of the parts.
        prefix: What goes before an id that is made from a record's number.

    Raises:
        DupmaeError: A record is malformed, or none has a title whose name was asked for.
    """
    iterator = iter(records)
    first = list(islice(iterator, 1))
    id_field = fields.id_in(first[0][1]) if first else None
    titled = fields.title == TITLE_FIELD or not first
    for number, record in chain(first, iterator):
        place = f"{source}, {unit} {number}"
        _check_fields(record, fields, id_field, f"the first {unit}", place)
        titled = titled or fields.title in record
        title = record.get(fields.title)
        yield (
            place,
            Passage(
                f"{prefix}{number}" if id_field is None else _identifier(record[id_field], id_field, place),
                "" if title is None else string_field(title, fields.title, place),
                string_field(record[fields.text], fields.text, place),
                _metadata(record, fields.metadata, place),
            ),
        )
    if not titled:
        raise DupmaeError(f"{source}: no {unit} has a field {fields.title!r} (the title).")


def _check_fields(record: Collection[str], fields: Fields, id_field: str | None, first: str, place: str) -> None:
    """Refuse a record without a text, or without the id that the file's first record has, and the reverse."""
    if id_field is not None and id_field not in record:
        raise DupmaeError(f"{place}: no field {id_field!r} (the id); {_listing(record)}.")
    if id_field is None and fields.need_ids:
        raise DupmaeError(
            f"{place}: no field {fields.ids[0]!r} (the id), and each passage must have one; {_listing(record)}."
        )
    if id_field is None and (found := fields.id_in(record)) is not None:
        raise DupmaeError(f"{place}: has the field {found!r}, but {first} has none; give all an id.")
    if fields.text not in record:
        raise DupmaeError(f"{place}: no field {fields.text!r} (the text); {_listing(record)}.")


def _metadata(record: Mapping[str, Any], names: Iterable[str], place: str) -> dict[str, str]:
    """Collect the metadata fields that have a value, as strings; true and false are spelled as in JSON, times as in
    ISO 8601.
    """
    nested = record.get(NESTED_FIELD)
    further = nested if isinstance(nested, Mapping) else {}
    metadata = {}
    for name in names:
        value = further.get(name) if record.get(name) is None else record[name]
        if value is None or value != value:  # a column of Arrow may hold NaN for what is missing, as pandas writes it
            continue
        if isinstance(value, int | float | datetime.date | datetime.time):
            metadata[name] = value_text(value)
        else:
            metadata[name] = string_field(value, name, place)
    return metadata


def _listing(columns: Iterable[str]) -> str:
    """Name the fields that there are, for an error."""
    return f"its fields are {', '.join(map(repr, columns)) or 'none'}"


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
