"""The formats that passages are read from, one module a kind, and the table of their endings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from dupmae.corpus.formats import arrow, json_lines, plain_text, tsv
from dupmae.corpus.formats.records import Fields, Placed

Reader = Callable[[Path, Fields, str], Iterator[Placed]]
"""From a file, the names of its fields, and what goes before ids that are made from numbers of lines."""

DATA: dict[str, Reader] = {
    ".jsonl": json_lines.read,
    ".ndjson": json_lines.read,
    ".tsv": tsv.read,
    ".parquet": arrow.read_parquet,
}
"""Ending of a file of records -> what reads it."""
TEXT: dict[str, Reader] = {".txt": plain_text.read, ".md": plain_text.read}
"""Ending of a text file -> what reads it."""
SUPPORTED = ".jsonl, .ndjson, .tsv, .txt, .md (each also with .gz, .xz or .zst added) and .parquet"
"""All of them, for an error."""

__all__ = ["DATA", "SUPPORTED", "TEXT", "Fields", "Placed"]
