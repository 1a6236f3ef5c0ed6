"""The formats that documents are read from, one module a kind, and the table of their endings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from dupmae.corpus.formats import (
    arrow,
    csv_text,
    docx,
    epub,
    html,
    json_records,
    markdown,
    pdf,
    plain_text,
    rst,
    tsv,
    xlsx,
)
from dupmae.corpus.formats.pages import Page
from dupmae.corpus.formats.records import Fields, Found, Table, from_records, metadata_of
from dupmae.corpus.lines import COMPRESSIONS, file_type
from dupmae.corpus.passage import Document
from dupmae.errors import DupmaeError

TABLES: dict[str, Table] = {
    ".jsonl": Table(json_records.rows_of_lines, "line"),
    ".ndjson": Table(json_records.rows_of_lines, "line"),
    ".json": Table(json_records.rows_of_value, "record"),
    ".csv": Table(csv_text.rows, "line", typed=False),
    ".tsv": Table(tsv.rows, "line", typed=False),
    ".parquet": Table(arrow.rows_of_parquet, "row", compressed=False),
    ".xlsx": Table(xlsx.rows, "row", compressed=False),
}
"""Ending of a file of records -> how it is read."""
DATASET = Table(arrow.rows_of_dataset, "row")
"""How a folder is read that the library `datasets` has saved."""
PAGES: dict[str, Callable[[Path], Page]] = {
    ".md": markdown.read,
    ".markdown": markdown.read,
    ".rst": rst.read,
    **dict.fromkeys((".html", ".htm", ".xhtml"), html.read),
    ".pdf": pdf.read,
    ".docx": docx.read,
    ".epub": epub.read,
}
"""Ending of a file that is one document -> what reads it."""
TEXTS = (".txt", ".text")
"""Endings of plain text."""
PACKED = {".parquet", ".xlsx", ".pdf", ".docx", ".epub"}
"""Endings of files that are compressed in themselves, and not once more."""
SUPPORTED = (
    ".jsonl, .ndjson, .json, .csv, .tsv, .txt, .text, .md, .markdown, .rst, .html, .htm, .xhtml (each also with .gz, "
    ".xz or .zst added), .parquet, .xlsx, .pdf, .docx and .epub"
)
"""All of them, for an error."""


def is_known(path: Path) -> bool:
    """Tell from a file's name whether it can be read."""
    ending = file_type(path)
    return (ending in TABLES or ending in PAGES or ending in TEXTS) and not (
        ending in PACKED and path.suffix.lower() in COMPRESSIONS
    )


def read_file(path: Path, fields: Fields, name: str) -> Iterator[Found]:
    """Read what a file holds, whose name is known.

    Args:
        path: The file, or the folder of a saved data set.
        fields: Names of the parts of records.
        name: Id of the document that the file is, or what goes before the numbers of those that it holds.

    Raises:
        DupmaeError: The file cannot be read, or not to its end.
    """
    ending = file_type(path)
    if path.is_dir():
        yield from from_records(str(path), DATASET, DATASET.rows(path, fields), fields, name)
    elif table := TABLES.get(ending):
        yield from from_records(str(path), table, table.rows(path, fields), fields, name)
    elif ending in TEXTS:
        yield from plain_text.read(path, name)
    else:
        page = PAGES[ending](path)
        if not page.text:
            raise DupmaeError(f"{path} holds no text{_WHY.get(ending, '')}.")
        metadata = metadata_of(page.fields, fields.metadata, str(path))
        yield str(path), Document(name, page.title, page.text, metadata, headings=page.headings)


_WHY = {
    ".pdf": ": it holds images of pages, whose text has to be recognised first",
    **dict.fromkeys((".html", ".htm", ".xhtml"), ": scripts make it, if any; save it from a browser"),
}
"""Why a file of a kind may hold no text."""
