"""Read documents from files and folders: text, web pages, office documents, tables and lines of records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dupmae.corpus.folders import Unread, files_of
from dupmae.corpus.formats import SUPPORTED, Fields, Found, is_known, read_file
from dupmae.corpus.formats.records import ID_FIELDS, TITLE_FIELD
from dupmae.corpus.lines import find_file, word_of
from dupmae.corpus.passage import Passage
from dupmae.errors import DupmaeError

PATH_FIELD = "path"
"""Metadata field of what is read from a folder: its file's path in it."""


def read_passages(
    path: str | Path,
    *,
    id_field: str | None = None,
    title_field: str = TITLE_FIELD,
    text_field: str = "text",
    metadata_fields: Sequence[str] = (),
    need_ids: bool = False,
    unread: Unread | None = None,
) -> Iterator[Passage]:
    """Read documents one at a time from a file or a folder; the name tells the format.

    * `.txt`, `.text`: a file is one document; one of more than 8 million characters a document a paragraph, that is,
      lines between blank lines.
    * `.md`, `.markdown`, `.rst`, `.html`, `.htm`, `.xhtml`, `.epub`, and with the extra `documents` `.pdf` and `.docx`:
      a file is one :class:`~dupmae.corpus.passage.Document`, its text plain, with a title and its headings' places
      where it has some. Of Markdown the front matter and comments are not part of the text, of a web page what
      surrounds its main part.
    * `.jsonl`, `.ndjson`: one document per line; blank lines are passed over.
    * `.json`: one document per record of a list, or of an object whose names are the ids; or the one that the object
      is; JSON lines will do.
    * `.csv`: one document per row; the first row names the columns, which are split at commas, semicolons, tabs or
      bars. `.xlsx` (with the extra `documents`): the same of its first sheet.
    * `.tsv`: one document per line; columns are split at tabs and quotes mean nothing. The first line is a header if
      one of its columns is called `text_field`; one that names an id but no text is refused. Without a header, two
      columns are id and text, three id, title and text.
    * `.parquet`, the folder of a Hugging Face data set (`save_to_disk`): one document per row.
    * A folder in BEIR layout: its `corpus.jsonl`.
    * Any other folder: all of these, in it and its subfolders, in the order of their paths; links are followed. Hidden
      files and files of other kinds are counted, and what cannot be read is named; one line at the end says so.
      Metadata has each file's path in the folder as `path`.

    All but the packed kinds (`.parquet`, `.pdf`, `.docx`, `.epub`, `.xlsx`) may be compressed (`.gz`, `.xz`, `.zst`).
    Text is UTF-8, or has the byte-order mark of UTF-16; a web page says its own encoding.

    The id of a document that is a file is the file's path in the folder (its name, if it was given by itself). Of
    several in a file each has a field with its id, which the first one decides; if that has none, no one may have one,
    and the ids are the file's with `#` and the number of the line, row or record, from 1. White space in an id made
    from a file's name becomes `_`. A title may be missing or null.

    Args:
        path: File or folder.
        id_field: Field that holds the id, a string or a whole number; every record must have it. If None, the first of
            `_id`, `id`, `docid`, `doc_id`, `pid` and `passage_id` that there is.
        title_field: Field that holds the title; one other than `title` must be in a record of each file.
        text_field: Field that holds the text.
        metadata_fields: Further fields to keep, of the record or of an object in its field `metadata`, of what a page
            or a document says of itself (`author`, `date`, `lang`), or of Markdown's front matter: strings, numbers,
            true and false; dates become strings. Numbers in CSV and TSV are numbers if they are written as Python does.
            Null or a missing field is no value.
        need_ids: Refuse records without an id instead of numbering them.
        unread: Collects what is not read of a folder; a strict one refuses the first file or record of it that cannot
            be, instead of going on with the others.

    Returns:
        An iterator. Texts are not kept in memory; ids are, to find duplicates.

    Raises:
        DupmaeError: The path does not exist or its type is unknown (at the call); of a file given by itself a record is
            malformed or an id occurs twice; or there is no document at all (on the way).

    Examples:
        >>> from pathlib import Path
        >>> from dupmae import read_passages
        >>> record = '{"_id": "a", "title": "Bees", "text": "They dance.", "year": 1927}'
        >>> _ = Path("insects.jsonl").write_text(record, encoding="utf-8")
        >>> list(read_passages("insects.jsonl", metadata_fields=["year"]))
        [Passage(id='a', title='Bees', text='They dance.', metadata={'year': 1927}, chunk=None)]
    """
    path, ids = Path(path), ID_FIELDS if id_field is None else (id_field,)
    fields = Fields(ids, title_field, text_field, tuple(metadata_fields), need_ids or id_field is not None)
    unread = Unread() if unread is None else unread
    if not path.exists():
        raise DupmaeError(f"{path} does not exist.")
    if not path.is_dir():
        if not is_known(path):
            raise DupmaeError(f"{path} is of an unknown type; known are {SUPPORTED}.")
        return _read_one(path, fields)
    corpus = find_file(path, "corpus.jsonl")
    if corpus is not None:
        return _read_one(corpus, fields)
    if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
        return _read_one(path, fields)
    if (path / "dataset_dict.json").is_file():
        splits = sorted(child.name for child in path.iterdir() if (child / "dataset_info.json").is_file())
        raise DupmaeError(
            f"{path} holds a data set with the splits {', '.join(splits)}: give the folder of one of them."
        )
    files = files_of(path, unread)
    if not files:
        found = unread.summary()
        raise DupmaeError(
            f"{path} holds no file of a known type" + (f" ({found})" if found else "") + f"; known are {SUPPORTED}."
        )
    return _read_folder(path, files, fields, unread)


def _read_one(path: Path, fields: Fields) -> Iterator[Passage]:
    """Read a file, or a saved data set, by itself; the first fault in it is refused."""
    seen: set[str] = set()
    for found in read_file(path, fields, word_of(path.name or path.resolve().name)):
        passage = _new(found, seen)
        seen.add(passage.id)
        yield passage
    if not seen:
        raise DupmaeError(f"{path} is empty: no text was found in it.")


def _read_folder(folder: Path, files: Sequence[Path], fields: Fields, unread: Unread) -> Iterator[Passage]:
    """Read files one after the other, and count what cannot be read of them."""
    seen: set[str] = set()
    for file in files:
        place = file.relative_to(folder).as_posix()
        try:
            for found in read_file(file, fields, word_of(place)):
                try:
                    passage = _new(found, seen)
                except DupmaeError as error:
                    unread.refuse(file, error)
                    continue
                seen.add(passage.id)
                yield replace(passage, metadata={PATH_FIELD: place, **passage.metadata})
        except DupmaeError as error:
            unread.refuse(file, error)
    unread.say(folder)
    if not seen:
        first = f", such as: {unread.reasons[0]}" if unread.reasons else ""
        raise DupmaeError(f"{folder} is empty: no text was found in it; not read: {unread.summary()}{first}")


def _new(found: Found, seen: Collection[str]) -> Passage:
    """Take a passage, unless something is wrong with it or its id was used before."""
    if isinstance(found, DupmaeError):
        raise found
    place, passage = found
    if passage.id in seen:
        raise DupmaeError(f"{place}: the id {passage.id!r} was used before; ids must be unique.")
    return passage
