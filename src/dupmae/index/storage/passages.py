"""Passages of a segment beside their vectors: ids and metadata in one Arrow file, titles and texts in another.

Each holds one record batch. A row of texts carries its own checksum, so a hit is read and checked without reading the
rest of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
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
from dupmae.index.storage.manifest import SegmentEntry

IDS_FILE = "ids.arrow"
TEXTS_FILE = "texts.arrow"
FIXED = ("id", "title", "text")
"""Fields every passage has; metadata fields have other names."""
_TEXTS = pa.schema([("title", pa.large_string()), ("text", pa.large_string()), ("check", pa.uint64())])
_MAGIC = 8  # bytes before a file's first message


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
    ids = [name for name in table.column_names if name not in _TEXTS.names]
    for file, columns in ((IDS_FILE, ids), (TEXTS_FILE, _TEXTS.names)):
        part = table.select(columns).combine_chunks()
        # Arrow's own files do not tell of a write that fails when they are closed.
        with (folder / file).open("wb") as sink, pa.ipc.new_file(sink, part.schema) as writer:
            for batch in part.to_batches():
                writer.write_batch(batch)


class StoredPassages:
    """The passages of an open segment, in the order of their ids."""

    def __init__(self, folder: Path, entry: SegmentEntry) -> None:
        """Map both files of a segment of the index, unless one is missing or not of the size that the manifest says."""
        self.ids_file = MappedFile(folder, f"{entry.name}/{IDS_FILE}", entry.files[IDS_FILE])
        self.texts_file = MappedFile(folder, f"{entry.name}/{TEXTS_FILE}", entry.files[TEXTS_FILE])
        self._count = entry.passages

    def check(self) -> None:
        """Refuse damaged ids or metadata; what was found sound is not read again."""
        _ = self._columns

    @cached_property
    def _columns(self) -> pa.RecordBatch:
        """Ids and metadata, once the file has proved sound."""
        self.ids_file.check()
        batch = _batch(self.ids_file, self._count)
        names = batch.schema.names
        if names[:1] != ["id"] or len(set(names)) < len(names) or {*FIXED, "check"}.intersection(names[1:]):
            raise damaged(self.ids_file.path, "has other columns than an id and metadata")
        if any(kind != pa.large_string() for kind in batch.schema.types):
            raise damaged(self.ids_file.path, "has columns that are no strings")
        _validate(self.ids_file.path, batch)
        ids = batch.column("id")
        if ids.null_count or not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
            raise damaged(self.ids_file.path, "has ids that do not rise")
        return batch

    @cached_property
    def _texts(self) -> pa.RecordBatch:
        """Titles, texts and their checksums, which are validated and read row by row."""
        batch = _batch(self.texts_file, self._count)
        if batch.schema != _TEXTS or any(column.null_count for column in batch.columns):
            raise damaged(self.texts_file.path, "has other columns than titles, texts and checksums")
        return batch

    def check_texts(self) -> None:
        """Refuse texts that are damaged, all of them."""
        self.texts_file.check()
        _validate(self.texts_file.path, self._texts)

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
        except (pa.ArrowException, ValueError, AttributeError, TypeError, OSError) as error:
            raise damaged(self.texts_file.path, f"cannot be read ({str(error)[:100]})") from error
        if not sound:
            raise damaged(self.texts_file.path, f"holds other texts of passage {identifier!r} than were written")
        metadata = {name: value for name, value in fields.items() if value is not None}
        return Passage(identifier, texts["title"], texts["text"], metadata)

    def table(self) -> pa.Table:
        """Read everything, once both files have proved sound."""
        self.check_texts()
        columns = {name: self._columns.column(name) for name in self._columns.schema.names}
        return pa.table(columns | {name: self._texts.column(name) for name in self._texts.schema.names})


def _batch(file: MappedFile, count: int) -> pa.RecordBatch:
    """View the one record batch of an Arrow file, unless it is not that of `count` passages; it is not validated.

    The messages behind the first bytes are those of a stream, and a compressed one, which might unpack to anything, is
    seen before it is unpacked.
    """
    try:
        messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(file.data[_MAGIC:]))
        schema, message = pa.ipc.read_schema(messages.read_next_message()), messages.read_next_message()
        if message.type != "record batch" or _is_compressed(message.metadata):
            raise ValueError("no record batch, or a compressed one")
        batch = pa.ipc.read_record_batch(message, schema)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, StopIteration, struct.error) as error:
        raise damaged(file.path, f"cannot be read ({str(error)[:100]})") from error
    if batch.num_rows != count:
        raise damaged(file.path, f"holds {batch.num_rows} passages instead of {count}")
    return batch


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Tell whether a record batch is compressed: whether the fourth field of its header is there.

    The metadata is a flatbuffer: a table begins with how far before it its list of fields lies, which tells for each
    where within the table it stands, or 0.
    """

    def field(table: int, number: int) -> int:
        fields = table - struct.unpack_from("<i", metadata, table)[0]
        (size,) = struct.unpack_from("<H", metadata, fields)
        place = 4 + 2 * number
        return int(struct.unpack_from("<H", metadata, fields + place)[0]) if place < size else 0

    message = struct.unpack_from("<I", metadata, 0)[0]
    header = message + field(message, 2)
    return field(header + struct.unpack_from("<I", metadata, header)[0], 3) != 0


def _validate(path: Path, batch: pa.RecordBatch) -> None:
    """Refuse a batch with offsets beyond its bytes, or bytes that are no text."""
    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise damaged(path, f"cannot be read ({str(error)[:100]})") from error


def _check(title: str, text: str) -> int:
    """Compute 64 bits that change when a title or a text does."""
    hasher = xxhash.xxh3_64(title.encode())
    hasher.update(b"\0" + text.encode())
    return hasher.intdigest()
