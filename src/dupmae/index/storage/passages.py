"""Passages of a segment beside their vectors: ids and metadata in one Arrow file, titles and texts in another.

A row of texts carries its own checksum, so a hit is read and checked without reading the rest of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index.storage.arrays import MappedFile, damaged

IDS_FILE = "ids.arrow"
TEXTS_FILE = "texts.arrow"
FIXED = ("id", "title", "text")
"""Fields every passage has; metadata fields have other names."""


def refuse_reserved(fields: Iterable[str]) -> None:
    """Refuse metadata fields that are called like one of the fixed fields."""
    if clash := {*FIXED, "check"}.intersection(fields):
        raise DupmaeError(f"The metadata field {min(clash)!r} is called like a field of every passage: rename it.")


def passage_table(passages: Sequence[Passage]) -> pa.Table:
    """Lay passages out as a table of strings, a column a field, with the checksum of each row's texts."""
    fields = sorted({field for passage in passages for field in passage.metadata})
    refuse_reserved(fields)
    columns: dict[str, Any] = {name: [getattr(passage, name) for passage in passages] for name in FIXED}
    columns |= {field: [passage.metadata.get(field) for passage in passages] for field in fields}
    table = pa.table({name: pa.array(values, pa.large_string()) for name, values in columns.items()})
    checks = np.array([_check(passage.title, passage.text) for passage in passages], np.uint64)
    return table.append_column("check", pa.array(checks))


def write_passages(folder: Path, table: pa.Table) -> None:
    """Write the two files of a segment from what :func:`passage_table` or :meth:`StoredPassages.table` gives."""
    texts = ["title", "text", "check"]
    ids = [name for name in table.column_names if name not in texts]
    for file, columns in ((IDS_FILE, ids), (TEXTS_FILE, texts)):
        part = table.select(columns).combine_chunks()
        with pa.OSFile(str(folder / file), "wb") as sink, pa.ipc.new_file(sink, part.schema) as writer:
            for batch in part.to_batches():
                writer.write_batch(batch)


class StoredPassages:
    """The passages of an open segment, in the order of their ids."""

    def __init__(self, folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
        """Map both files, unless one is missing or has another size than the manifest says."""
        self.ids_file = MappedFile(folder / IDS_FILE, files[IDS_FILE])
        self.texts_file = MappedFile(folder / TEXTS_FILE, files[TEXTS_FILE])

    @cached_property
    def _columns(self) -> pa.RecordBatch:
        """Ids and metadata, once the file has proved sound."""
        self.ids_file.check()
        return pa.ipc.open_file(pa.py_buffer(self.ids_file.data)).get_batch(0)

    @cached_property
    def _texts(self) -> pa.RecordBatch:
        """Titles, texts and their checksums, read row by row."""
        return pa.ipc.open_file(pa.py_buffer(self.texts_file.data)).get_batch(0)

    @property
    def ids(self) -> Any:
        """All ids (n,)."""
        return self._columns.column("id")

    @property
    def metadata_fields(self) -> list[str]:
        """Metadata fields that at least one passage of the segment had."""
        return [name for name in self._columns.schema.names if name != "id"]

    def rows_of(self, ids: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find which of the given ids are here: their places among those given, and their rows."""
        rows = pc.index_in(ids, value_set=self.ids)
        found = np.flatnonzero(np.asarray(rows.is_valid()))
        return found, np.asarray(rows.fill_null(0))[found].astype(np.int64)

    def matching(self, field: str, values: Sequence[str]) -> NDArray[np.bool_]:
        """Mark the passages that have one of the values in a metadata field (n,)."""
        if field not in self.metadata_fields:
            return np.zeros(len(self.ids), np.bool_)
        column = self._columns.column(field)
        return np.asarray(pc.is_in(column, value_set=pa.array(values, column.type)))

    def passage(self, row: int) -> Passage:
        """Read one passage, unless its texts are not as they were written."""
        fields = {name: self._columns.column(name)[row].as_py() for name in self._columns.schema.names}
        identifier = fields.pop("id")
        try:
            part = self._texts.slice(row, 1)
            part.validate(full=True)
            texts = part.to_pylist()[0]
            sound = _check(texts["title"], texts["text"]) == texts["check"]
        except (pa.ArrowException, ValueError, KeyError, TypeError, OSError) as error:
            raise damaged(self.texts_file.path, f"cannot be read ({error})") from error
        if not sound:
            raise damaged(self.texts_file.path, f"holds other texts of passage {identifier!r} than were written")
        metadata = {name: value for name, value in fields.items() if value is not None}
        return Passage(identifier, texts["title"], texts["text"], metadata)

    def table(self) -> pa.Table:
        """Read everything, once both files have proved sound."""
        self.texts_file.check()
        columns = {name: self._columns.column(name) for name in self._columns.schema.names}
        return pa.table(columns | {name: self._texts.column(name) for name in self._texts.schema.names})


def _check(title: str, text: str) -> int:
    """Compute 64 bits that change when a title or a text does."""
    hasher = xxhash.xxh3_64(title.encode())
    hasher.update(b"\0" + text.encode())
    return hasher.intdigest()
