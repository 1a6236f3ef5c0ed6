"""Passages from JSONL, TSV, plain text, Parquet, saved Hugging Face data sets, BEIR folders and folders of files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from dupmae.corpus.lines import file_type, find_file, json_kind, json_objects, numbered_lines
from dupmae.corpus.passage import Passage, value_text
from dupmae.errors import DupmaeError

DATA_TYPES = (".jsonl", ".ndjson", ".tsv", ".parquet")
TEXT_TYPES = (".txt", ".md")
SUPPORTED = ".jsonl, .ndjson, .tsv, .txt, .md (each also with .gz, .xz or .zst added) and .parquet"
ID_FIELDS = ("_id", "id", "docid", "doc_id", "pid", "passage_id")
"""What the field with the id may be called where no name is asked for; the first that a record has counts."""
TITLE_FIELD = "title"
NESTED_FIELD = "metadata"
"""The field in which BEIR puts a passage's further fields."""


@dataclass(frozen=True, slots=True)
class _Fields:
    """Names of the fields or columns that hold a passage's parts."""

    ids: tuple[str, ...]
    """Names that the id's may have."""
    title: str
    text: str
    metadata: tuple[str, ...]
    need_ids: bool
    """Whether records must have one of `ids`."""

    def id_in(self, columns: Iterable[str]) -> str | None:
        """The one of `ids` that `columns` has, if any."""
        return next((name for name in self.ids if name in columns), None)

    def present(self, columns: Iterable[str]) -> list[str]:
        """Those that `columns` has."""
        nested = (NESTED_FIELD,) if self.metadata else ()
        return [name for name in columns if name in (*self.ids, self.title, self.text, *self.metadata, *nested)]


def read_passages(
    path: str | Path,
    *,
    id_field: str | None = None,
    title_field: str = TITLE_FIELD,
    text_field: str = "text",
    metadata_fields: Sequence[str] = (),
    need_ids: bool = False,
) -> Iterator[Passage]:
    """Read passages one at a time from a file or a folder; the name tells the format.

    * `.jsonl`, `.ndjson`: one passage per line; blank lines are passed over.
    * `.tsv`: one passage per line; columns are split at tabs and quotes mean nothing. The first line is a header if one
      of its columns is called `text_field`; one that names an id but no text is refused. Without a header, two columns
      are id and text, three id, title and text.
    * `.txt`, `.md`: one passage per paragraph, that is, lines between blank lines; its id is the file's name, `#` and
      the paragraph's number.
    * `.parquet`: one passage per row.
    * A folder in BEIR layout: its `corpus.jsonl`.
    * The folder of a Hugging Face data set (`save_to_disk`): one passage per row.
    * Any other folder: all files of the types above, in it and its subfolders, in the order of their paths; hidden
      files and other types are passed over. If it holds nothing but text files, each of them is ONE passage, and its
      path within the folder is the id; beside data files, text files are taken for notes and passed over.

    Everything but Parquet may be compressed (`.gz`, `.xz`, `.zst`). A title may be missing or null. The first record of
    a file decides which field holds its ids. If it has none, no record may have one, and the ids are the numbers of the
    lines (or rows) from 1, with the file's path in front where a folder is read. White space in an id made from a
    file's name becomes `_`.

    Args:
        path: File or folder.
        id_field: Field that holds the id, a string or a whole number; every record must have it. If None, the first of
            `_id`, `id`, `docid`, `doc_id`, `pid` and `passage_id` that there is.
        title_field: Field that holds the title; one other than `title` must be in a record of each file.
        text_field: Field that holds the text.
        metadata_fields: Further fields to keep, of the record or of an object in its field `metadata`: strings,
            numbers, true and false, all kept as strings, a number without a fraction as a whole one (`2020` for
            2020.0). Null or a missing field is no value.
        need_ids: Refuse records without an id instead of numbering them.

    Returns:
        An iterator. Texts are not kept in memory; ids are, to find duplicates.

    Raises:
        DupmaeError: The path does not exist or its type is unknown (at the call); a record is malformed, an id occurs
            twice, or there is no passage at all (on the way).
    """
    path, ids = Path(path), ID_FIELDS if id_field is None else (id_field,)
    fields = _Fields(ids, title_field, text_field, tuple(metadata_fields), need_ids or id_field is not None)
    if not path.exists():
        raise DupmaeError(f"{path} does not exist.")
    return _checked(path, _read_folder(path, fields) if path.is_dir() else _read_file(path, fields, ""))


def _checked(path: Path, passages: Iterator[tuple[str, Passage]]) -> Iterator[Passage]:
    """Refuse duplicate ids and an empty corpus; the strings say where a passage stands."""
    seen: set[str] = set()
    for place, passage in passages:
        if passage.id in seen:
            raise DupmaeError(f"{place}: the id {passage.id!r} was used before; ids must be unique.")
        seen.add(passage.id)
        yield passage
    if not seen:
        raise DupmaeError(f"{path} is empty: no text was found in it.")


def _read_folder(folder: Path, fields: _Fields) -> Iterator[tuple[str, Passage]]:
    """Read a folder of any kind."""
    corpus = find_file(folder, "corpus.jsonl")
    if corpus is not None:
        return _read_file(corpus, fields, "")
    if (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file():
        return _from_records(str(folder), "row", _dataset_rows(folder, fields), fields, "")
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(child.name for child in folder.iterdir() if (child / "dataset_info.json").is_file())
        raise DupmaeError(
            f"{folder} holds a data set with the splits {', '.join(splits)}: give the folder of one of them."
        )
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not _is_hidden(file, folder)]
    data = [file for file in files if file_type(file) in DATA_TYPES]
    texts = [file for file in files if file_type(file) in TEXT_TYPES]
    if not data and not texts:
        raise DupmaeError(f"{folder} holds no file of a known type; known are {SUPPORTED}.")
    if data:
        return (pair for file in data for pair in _read_file(file, fields, f"{_name(file, folder)}:"))
    return ((str(file), Passage(_name(file, folder), "", _whole_text(file))) for file in texts)


def _is_hidden(file: Path, folder: Path) -> bool:
    """Whether the file or a folder on the way to it has a name that starts with a dot."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _name(file: Path, folder: Path) -> str:
    """A file's path within a folder as (part of) an id, which may not hold white space in runs and judgements."""
    return re.sub(r"\s", "_", file.relative_to(folder).as_posix())


def _whole_text(file: Path) -> str:
    """A text file's content without the white space around it."""
    return "\n".join(line for _, line in numbered_lines(file)).strip()


def _read_file(path: Path, fields: _Fields, prefix: str) -> Iterator[tuple[str, Passage]]:
    """Read a file; `prefix` goes before ids that are made from line numbers."""
    match file_type(path):
        case ".jsonl" | ".ndjson":
            return _from_records(str(path), "line", json_objects(path), fields, prefix)
        case ".tsv":
            return _from_records(str(path), "line", _tsv_records(path, fields), fields, prefix)
        case ".txt" | ".md":
            return _paragraphs(path)
        case ".parquet" if path.suffix.lower() == ".parquet":
            return _from_records(str(path), "row", _parquet_rows(path, fields), fields, prefix)
        case _:
            raise DupmaeError(f"{path} is of an unknown type; known are {SUPPORTED}.")


def _from_records(
    source: str, unit: str, records: Iterable[tuple[int, Mapping[str, Any]]], fields: _Fields, prefix: str
) -> Iterator[tuple[str, Passage]]:
    """Turn numbered records into passages, each with the words that say where it stands."""
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


def _check_fields(record: Collection[str], fields: _Fields, id_field: str | None, first: str, place: str) -> None:
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
    """The metadata fields that have a value, as strings; true and false are spelled as in JSON."""
    nested = record.get(NESTED_FIELD)
    further = nested if isinstance(nested, Mapping) else {}
    metadata = {}
    for name in names:
        value = further.get(name) if record.get(name) is None else record[name]
        if isinstance(value, int | float):
            metadata[name] = value_text(value)
        elif value is not None:
            metadata[name] = string_field(value, name, place)
    return metadata


def _listing(columns: Iterable[str]) -> str:
    """Say which fields there are."""
    return f"its fields are {', '.join(map(repr, columns)) or 'none'}"


def _identifier(value: object, field: str, place: str) -> str:
    """An id as a string: strings as they are, whole numbers in decimal."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
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


def _tsv_records(path: Path, fields: _Fields) -> Iterator[tuple[int, dict[str, str]]]:
    """Split lines at tabs and name the columns; see :func:`read_passages` for the rule."""
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
                    f"{path}, line {number}: {len(columns)} columns; without a header that names {fields.text!r} "
                    "there must be two (id, text) or three (id, title, text)."
                )
            titles = [fields.title] if len(columns) == 3 else []
            header = [fields.ids[0], *titles, fields.text]
        if len(columns) != len(header):
            raise DupmaeError(f"{path}, line {number}: {len(columns)} columns where the first line has {len(header)}.")
        yield number, dict(zip(header, columns, strict=True))


def _refuse_heading(columns: list[str], fields: _Fields, place: str) -> None:
    """Refuse a first line that names an id but no text: read as a passage, it would name no column."""
    for column in columns:
        if column in fields.ids or column.lower() in ID_FIELDS:
            raise DupmaeError(
                f"{place}: a heading ({column!r}) without a column {fields.text!r}: "
                "call the text's column so, or give its name in Python (text_field)."
            )


def _paragraphs(path: Path) -> Iterator[tuple[str, Passage]]:
    """Yield the paragraphs of a text file."""
    name = re.sub(r"\s", "_", path.name)
    count, lines = 0, list[str]()
    for number, line in _with_end(numbered_lines(path)):
        if line.strip():
            lines.append(line)
        elif lines:
            count += 1
            yield f"{path}, line {number - len(lines)}", Passage(f"{name}#{count}", "", "\n".join(lines).strip())
            lines = []


def _with_end(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Add a blank line after the last one."""
    number = 0
    for number, line in lines:
        yield number, line
    yield number + 1, ""


def _parquet_rows(path: Path, fields: _Fields) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a Parquet file, reading the columns that are needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = fields.present(_need_text(file.schema_arrow.names, fields, str(path)))
            yield from _numbered_rows(file.iter_batches(batch_size=1024, columns=columns))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DupmaeError(f"{path} cannot be read as Parquet ({error}).") from None


def _dataset_rows(folder: Path, fields: _Fields) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a data set that the library `datasets` has saved."""
    import datasets

    try:
        data = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises what it likes on a damaged folder
        raise DupmaeError(f"{folder} cannot be read as a Hugging Face data set ({error}).") from None
    data = data.select_columns(fields.present(_need_text(data.column_names, fields, str(folder))))
    yield from _numbered_rows(data.with_format("arrow").iter(batch_size=1024))


def _need_text(columns: list[str], fields: _Fields, source: str) -> list[str]:
    """Hand `columns` back if the text's is among them."""
    if fields.text not in columns:
        raise DupmaeError(f"{source}: no column {fields.text!r} (the text); its columns are {', '.join(columns)}.")
    return columns


def _numbered_rows(batches: Iterable[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number the rows of Arrow batches from 1."""
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield number, row
