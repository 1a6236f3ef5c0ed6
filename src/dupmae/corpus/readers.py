"""Read passages from JSONL, TSV, plain text, Parquet, saved Hugging Face data sets, BEIR folders, folders of files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from dupmae.corpus.folders import files_within
from dupmae.corpus.formats import DATA, SUPPORTED, TEXT, Fields, Placed
from dupmae.corpus.formats.arrow import read_dataset
from dupmae.corpus.formats.plain_text import read_whole
from dupmae.corpus.formats.records import ID_FIELDS, TITLE_FIELD
from dupmae.corpus.lines import file_type, find_file, word_of
from dupmae.corpus.passage import Passage
from dupmae.errors import DupmaeError

logger = logging.getLogger(__name__)


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
      files and other types are passed over, links are followed. If it holds nothing but text files, each of them is
      ONE passage, and its path within the folder is the id; beside data files, text files are taken for notes and
      passed over.

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

    Example:
        >>> from pathlib import Path
        >>> from dupmae import read_passages
        >>> record = '{"_id": "a", "title": "Bees", "text": "They dance.", "year": 1927}'
        >>> _ = Path("insects.jsonl").write_text(record, encoding="utf-8")
        >>> list(read_passages("insects.jsonl", metadata_fields=["year"]))
        [Passage(id='a', title='Bees', text='They dance.', metadata={'year': '1927'})]
    """
    path, ids = Path(path), ID_FIELDS if id_field is None else (id_field,)
    fields = Fields(ids, title_field, text_field, tuple(metadata_fields), need_ids or id_field is not None)
    if not path.exists():
        raise DupmaeError(f"{path} does not exist.")
    return _checked(path, _read_folder(path, fields) if path.is_dir() else _read_file(path, fields, ""))


def _checked(path: Path, passages: Iterator[Placed]) -> Iterator[Passage]:
    """Refuse duplicate ids and an empty corpus; the strings say where a passage stands."""
    seen: set[str] = set()
    for place, passage in passages:
        if passage.id in seen:
            raise DupmaeError(f"{place}: the id {passage.id!r} was used before; ids must be unique.")
        seen.add(passage.id)
        yield passage
    if not seen:
        raise DupmaeError(f"{path} is empty: no text was found in it.")


def _read_folder(folder: Path, fields: Fields) -> Iterator[Placed]:
    """Read a folder of any kind."""
    corpus = find_file(folder, "corpus.jsonl")
    if corpus is not None:
        return _read_file(corpus, fields, "")
    if (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file():
        return read_dataset(folder, fields)
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(child.name for child in folder.iterdir() if (child / "dataset_info.json").is_file())
        raise DupmaeError(
            f"{folder} holds a data set with the splits {', '.join(splits)}: give the folder of one of them."
        )
    known = [file for file in sorted(files_within(folder)) if file_type(file) in DATA or file_type(file) in TEXT]
    hidden = [file for file in known if file.name.startswith(".")]
    if hidden:
        logger.warning("Passed over in %s: %d hidden files, such as %s.", folder, len(hidden), hidden[0].name)
    shown = [file for file in known if not file.name.startswith(".")]
    for file in shown:
        if file.is_symlink() and not file.exists():
            raise DupmaeError(f"{file} is a link that leads nowhere: delete it, or bring back what it leads to.")
    files = [file for file in shown if file.is_file()]
    data = [file for file in files if file_type(file) in DATA]
    texts = [file for file in files if file_type(file) in TEXT]
    if not data and not texts:
        raise DupmaeError(f"{folder} holds no file of a known type; known are {SUPPORTED}.")
    if data:
        return (pair for file in data for pair in _read_file(file, fields, f"{_name(file, folder)}:"))
    return (read_whole(file, _name(file, folder)) for file in texts)


def _name(file: Path, folder: Path) -> str:
    """Make a file's path within a folder (part of) an id."""
    return word_of(file.relative_to(folder).as_posix())


def _read_file(path: Path, fields: Fields, prefix: str) -> Iterator[Placed]:
    """Read a file; `prefix` goes before ids that are made from line numbers."""
    ending = file_type(path)
    read = (DATA | TEXT).get(ending)
    if read is None or (ending == ".parquet" and path.suffix.lower() != ending):
        raise DupmaeError(f"{path} is of an unknown type; known are {SUPPORTED}.")
    return read(path, fields, prefix)
