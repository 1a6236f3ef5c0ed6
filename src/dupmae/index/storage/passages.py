"""Passages of a segment beside their vectors, in Arrow files: ids and metadata, titles and texts, and chunks' places.

Each holds one record batch. A row of texts carries its own checksum, so a hit is read and checked without reading the
rest of the file. A segment without chunks has no file of their places.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from dupmae.corpus import Chunk, Passage
from dupmae.corpus.passage import value_text
from dupmae.errors import DupmaeError
from dupmae.index.storage.arrays import MappedFile, damaged
from dupmae.index.storage.manifest import CHUNKS_FILE, SegmentEntry
from dupmae.index.storage.matching import matching
from dupmae.index.where import Filter

IDS_FILE = "ids.arrow"
TEXTS_FILE = "texts.arrow"
FIXED = ("id", "title", "text")
"""Fields every passage has; metadata fields have other names."""
_TEXTS = pa.schema([("title", pa.large_string()), ("text", pa.large_string()), ("check", pa.uint64())])
_CHUNKS = pa.schema(
    [
        ("document", pa.large_string()),
        ("headings", pa.large_list(pa.large_string())),
        ("start", pa.int64()),
        ("end", pa.int64()),
    ]
)
"""Null in all four of a passage that is a document by itself."""
_IN_TABLE = [f"chunk:{name}" for name in _CHUNKS.names]
"""What these are called in a table, beside metadata of any name."""
_METADATA = (pa.large_string(), pa.int64(), pa.float64(), pa.bool_())
_EXACT = 1 << 53  # whole numbers up to here are the same as doubles
_MAGIC = 8  # bytes before a file's first message
_FEW = 64  # ids that are looked up one by one
_READ_TOGETHER = 1024  # passages, by whoever reads all of them


def refuse_reserved(fields: Iterable[str]) -> None:
    """Refuse metadata fields that are called like one of the fixed fields."""
    if clash := {*FIXED, "check", *_IN_TABLE}.intersection(fields):
        raise DupmaeError(f"The metadata field {min(clash)!r} is called like a field of every passage: rename it.")


def passage_table(passages: Sequence[Passage]) -> pa.Table:
    """Lay passages out as a table, a column a field, with the checksum of each row's texts, and chunks' places if any.

    A metadata field whose values are all truth values, whole numbers or numbers is a column of these; any other one
    holds texts, as :func:`dupmae.corpus.passage.value_text` writes them.
    """
    fields = sorted({field for passage in passages for field in passage.metadata})
    refuse_reserved(fields)
    columns = {name: pa.array([getattr(passage, name) for passage in passages], pa.large_string()) for name in FIXED}
    columns |= {field: _typed([passage.metadata.get(field) for passage in passages]) for field in fields}
    columns["check"] = pa.array(checks_of(passages))
    if any(passage.chunk is not None for passage in passages):
        for name, field in zip(_IN_TABLE, _CHUNKS, strict=True):
            values = [None if passage.chunk is None else getattr(passage.chunk, field.name) for passage in passages]
            columns[name] = pa.array(values, field.type)
    return pa.table(columns)


def _typed(values: Sequence[Any]) -> pa.Array:
    """Lay the values of a metadata field out, None where a passage has none, in the narrowest kind that holds all."""
    there = [value for value in values if value is not None]
    kinds = set(map(type, there))
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(-(1 << 63) <= value < 1 << 63 for value in there):
        return pa.array(values, pa.int64())
    exact = all(
        math.isfinite(value) if type(value) is float else abs(value) <= _EXACT
        for value in there
        if kinds <= {int, float}
    )
    if kinds and kinds <= {int, float} and exact:
        return pa.array(values, pa.float64())
    return pa.array([None if value is None else value_text(value) for value in values], pa.large_string())


def concatenate_passages(tables: Sequence[pa.Table]) -> pa.Table:
    """Join tables of passages; a metadata field of several kinds becomes one that holds all its values."""
    tables = list(tables)
    kinds: dict[str, set[Any]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    for name in (name for name, found in kinds.items() if len(found) > 1):
        having = [number for number, table in enumerate(tables) if name in table.column_names]
        whole = _typed([value for number in having for value in tables[number].column(name).to_pylist()])
        first = 0
        for number in having:
            table = tables[number]
            place, column = table.column_names.index(name), whole.slice(first, len(table))
            tables[number] = table.set_column(place, name, column)
            first += len(table)
    return pa.concat_tables(tables, promote_options="default")


def write_passages(folder: Path, table: pa.Table) -> None:
    """Write the files of a segment from what :func:`passage_table` or :meth:`StoredPassages.table` gives."""
    texts = table.select(_TEXTS.names)
    ids = table.select([name for name in table.column_names if name not in (*_TEXTS.names, *_IN_TABLE)])
    parts = [(IDS_FILE, ids), (TEXTS_FILE, texts)]
    if _IN_TABLE[0] in table.column_names and table.column(_IN_TABLE[0]).null_count < len(table):
        parts.append((CHUNKS_FILE, table.select(_IN_TABLE).rename_columns(_CHUNKS.names)))
    for file, part in parts:
        part = part.combine_chunks()
        # Arrow's own files do not tell of a write that fails when they are closed.
        with (folder / file).open("wb") as sink, pa.ipc.new_file(sink, part.schema) as writer:
            for batch in part.to_batches():
                writer.write_batch(batch)


class StoredPassages:
    """The passages of an open segment, in the order of their ids."""

    def __init__(self, folder: Path, entry: SegmentEntry) -> None:
        """Map the files of a segment of the index, unless one is missing or not of the size that the manifest says."""
        self.ids_file = MappedFile(folder, f"{entry.name}/{IDS_FILE}", entry.files[IDS_FILE])
        self.texts_file = MappedFile(folder, f"{entry.name}/{TEXTS_FILE}", entry.files[TEXTS_FILE])
        self.chunks_file: MappedFile | None = None
        """Places of chunks in their documents, in a segment that has some."""
        if CHUNKS_FILE in entry.files:
            self.chunks_file = MappedFile(folder, f"{entry.name}/{CHUNKS_FILE}", entry.files[CHUNKS_FILE])
        self._count = entry.passages

    @property
    def files(self) -> list[MappedFile]:
        """Those that there are."""
        return [file for file in (self.ids_file, self.texts_file, self.chunks_file) if file is not None]

    def check(self) -> None:
        """Refuse damaged ids, metadata or places of chunks; what was found sound is not read again."""
        _ = self._columns, self._chunks

    @cached_property
    def _columns(self) -> pa.RecordBatch:
        """Ids and metadata, once the file has proved sound."""
        self.ids_file.check()
        batch = _batch(self.ids_file, self._count)
        names = batch.schema.names
        if names[:1] != ["id"] or len(set(names)) < len(names) or {*FIXED, "check"}.intersection(names[1:]):
            raise damaged(self.ids_file.path, "has other columns than an id and metadata")
        kinds = batch.schema.types
        if kinds[0] != pa.large_string() or any(kind not in _METADATA for kind in kinds):
            raise damaged(self.ids_file.path, "has columns of other kinds than metadata")
        _validate(self.ids_file.path, batch)
        ids = batch.column("id")
        if ids.null_count or not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
            raise damaged(self.ids_file.path, "has ids that do not rise")
        return batch

    @cached_property
    def _chunks(self) -> pa.RecordBatch | None:
        """Places of chunks, once their file has proved sound; None in a segment without chunks."""
        if self.chunks_file is None:
            return None
        self.chunks_file.check()
        batch, path = _batch(self.chunks_file, self._count), self.chunks_file.path
        if batch.schema != _CHUNKS:
            raise damaged(path, "has other columns than the places of chunks")
        _validate(path, batch)
        known = [np.asarray(column.is_valid()) for column in batch.columns]
        if not all(np.array_equal(known[0], other) for other in known) or batch.column("headings").flatten().null_count:
            raise damaged(path, "has chunks without a place")
        start, end = (np.asarray(batch.column(name).fill_null(0)) for name in ("start", "end"))
        if (start < 0).any() or (end < start).any():
            raise damaged(path, "has chunks that end before they begin")
        return batch

    @cached_property
    def _texts(self) -> pa.RecordBatch:
        """Titles, texts and their checksums, which are validated and read row by row."""
        batch = _batch(self.texts_file, self._count)
        if batch.schema != _TEXTS:
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

    def metadata_of(self, field: str) -> Any:
        """Give the column of a metadata field, null where a passage has no value (n,)."""
        return self._columns.column(field)

    def rows_of(self, ids: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find which of the given ids are here: their places among those given, and their rows."""
        if len(ids) <= _FEW:  # the ids rise, and no table of all of them need be made
            wanted = ids.to_pylist()
            near = [bisect_left(self.ids, one, key=lambda other: other.as_py()) for one in wanted]
            pairs = zip(wanted, near, strict=True)
            places = [place for place, (one, row) in enumerate(pairs) if self.ids[row : row + 1].to_pylist() == [one]]
            return np.array(places, np.int64), np.array([near[place] for place in places], np.int64)
        rows = pc.index_in(ids, value_set=self.ids)
        found = np.flatnonzero(np.asarray(rows.is_valid()))
        return found, np.asarray(rows.fill_null(0))[found].astype(np.int64)

    def rows_of_texts(self, passages: Sequence[Passage], checks: NDArray[np.uint64]) -> list[tuple[int, int]]:
        """Find passages with the same title and text: places among those given, and a row for each.

        `checks` are those of :func:`checks_of`, to be computed once for many segments.
        """
        rows = np.asarray(pc.index_in(pa.array(checks), value_set=self._texts.column("check")).fill_null(-1))
        found = []
        for place in np.flatnonzero(rows >= 0).tolist():
            stored, asked = self.passage(int(rows[place])), passages[place]
            if (stored.title, stored.text) == (asked.title, asked.text):
                found.append((place, int(rows[place])))
        return found

    @property
    def has_chunks(self) -> bool:
        """Whether one of the passages is a part of a document."""
        return self.chunks_file is not None

    @cached_property
    def documents(self) -> Any:
        """Id of each passage's document, its own where it is one by itself (n,)."""
        return self.ids if self._chunks is None else pc.coalesce(self._chunks.column("document"), self.ids)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each passage begins in its document, in characters (n,)."""
        if self._chunks is None:
            return np.zeros(self._count, np.int64)
        return np.asarray(self._chunks.column("start").fill_null(0))

    def rows_of_documents(self, documents: pa.Array) -> tuple[NDArray[np.int64], list[str]]:
        """Find the passages of some documents: their rows, and for each the document's id."""
        rows = np.flatnonzero(np.asarray(pc.is_in(self.documents, value_set=documents)))
        return rows, self.documents.take(pa.array(rows)).to_pylist()

    def matching(self, condition: Filter) -> NDArray[np.bool_]:
        """Mark the passages whose metadata meet a condition (n,)."""
        columns = {name: self._columns.column(name) for name in self.metadata_fields}
        return matching(condition, columns, self._count)

    def passage(self, row: int) -> Passage:
        """Read one passage, unless its texts are not as they were written."""
        (passage,) = self._read(row, 1)
        return passage

    def __iter__(self) -> Iterator[Passage]:
        """Read all passages, a few at a time, in the order of their ids."""
        for first in range(0, self._count, _READ_TOGETHER):
            yield from self._read(first, min(_READ_TOGETHER, self._count - first))

    def _read(self, first: int, count: int) -> list[Passage]:
        """Read passages of successive rows."""
        fields = self._columns.slice(first, count).to_pylist()
        chunks = [{}] * count if self._chunks is None else self._chunks.slice(first, count).to_pylist()
        try:
            part = self._texts.slice(first, count)
            part.validate(full=True)
            texts = part.to_pylist()
            sound = [_check(row["title"], row["text"]) == row["check"] for row in texts]
        except (pa.ArrowException, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise damaged(self.texts_file.path, f"cannot be read ({str(error)[:100]})") from error
        ids = [row.pop("id") for row in fields]
        if not all(sound):
            raise damaged(
                self.texts_file.path, f"holds other texts of passage {ids[sound.index(False)]!r} than were written"
            )
        return [
            Passage(
                identifier,
                row["title"],
                row["text"],
                {name: value for name, value in metadata.items() if value is not None},
                _chunk(place),
            )
            for identifier, row, metadata, place in zip(ids, texts, fields, chunks, strict=True)
        ]

    def table(self) -> pa.Table:
        """Read everything, once both files have proved sound."""
        self.check_texts()
        columns = {name: self._columns.column(name) for name in self._columns.schema.names}
        columns |= {name: self._texts.column(name) for name in self._texts.schema.names}
        if self._chunks is not None:
            columns |= dict(zip(_IN_TABLE, self._chunks.columns, strict=True))
        return pa.table(columns)


def _chunk(place: dict[str, Any]) -> Chunk | None:
    """Make the place of a passage from its row; None of one that is a document by itself."""
    if place.get("document") is None:
        return None
    return Chunk(place["document"], tuple(place["headings"]), place["start"], place["end"])


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


def checks_of(passages: Sequence[Passage]) -> NDArray[np.uint64]:
    """Compute the checksum of each passage's title and text (n,)."""
    return np.array([_check(passage.title, passage.text) for passage in passages], np.uint64)


def _check(title: str, text: str) -> int:
    """Compute 64 bits that change when a title or a text does."""
    hasher = xxhash.xxh3_64(title.encode())
    hasher.update(b"\0" + text.encode())
    return hasher.intdigest()
