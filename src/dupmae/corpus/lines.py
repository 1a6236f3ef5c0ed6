"""Read text files, compressed or not, line by line, with the line's number at hand for an error."""

from __future__ import annotations

import codecs
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from dupmae.errors import DupmaeError

COMPRESSIONS = (".gz", ".xz", ".zst")
"""Endings of compressed files, in the order in which they are tried."""


def file_type(path: Path) -> str:
    """Find the ending that tells a file's format, without that of its compression: `.jsonl` for `corpus.jsonl.xz`."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return name.suffix.lower()


def find_file(folder: Path, name: str) -> Path | None:
    """Find `name` in `folder`, compressed or not.

    Returns:
        The path, or None if there is no such file.

    Raises:
        DupmaeError: Several versions of the file lie there.
    """
    found = [folder / (name + ending) for ending in ("", *COMPRESSIONS) if (folder / (name + ending)).is_file()]
    if len(found) > 1:
        raise DupmaeError(f"{folder} holds both {found[0].name} and {found[1].name}: keep one of them.")
    return found[0] if found else None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every line with its number, from 1, without its line break.

    The ending of the name says how the file is compressed: `.gz`, `.xz`, `.zst` or not at all. A byte-order mark is
    skipped. Only a line feed (after a carriage return or not) ends a line.

    Raises:
        DupmaeError: The file cannot be read, its compressed data are damaged or cut short, or a line is not UTF-8.
    """
    number = 0
    try:
        with _open_bytes(path) as file:
            for number, line in decoded_lines(file, path):
                yield number, line
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DupmaeError(f"{path} cannot be read{f' past line {number}' if number else ''} ({error}).") from None


def decoded_lines(lines: Iterable[bytes], source: str | Path) -> Iterator[tuple[int, str]]:
    """Number and decode lines, from a file or a pipe, as :func:`numbered_lines` says.

    Raises:
        DupmaeError: A line is not UTF-8; the sentence begins with `source`.
    """
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            text = line.rstrip(b"\r\n").decode("utf-8")
        except UnicodeDecodeError as error:
            raise DupmaeError(
                f"{source}, line {number}: byte {error.start + 1} is not UTF-8: convert it to UTF-8."
            ) from None
        yield number, text


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON object of each line with the line's number; blank lines are passed over.

    Raises:
        DupmaeError: A line is not a JSON object, or see :func:`numbered_lines`.
    """
    for number, line in numbered_lines(path):
        if not line or line.isspace():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DupmaeError(
                f"{path}, line {number}: not valid JSON ({error}); each line must hold one object."
            ) from None
        if not isinstance(record, dict):
            raise DupmaeError(f"{path}, line {number}: expected a JSON object, found {json_kind(record)}.")
        yield number, record


def json_kind(value: object) -> str:
    """Name the JSON type of a value as a reader of the file would: 'a number', 'null', 'a list'."""
    if value is None:
        return "null"
    kinds = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), f"a value of type {type(value).__name__}")


def word_of(name: str) -> str:
    """Make a name (part of) an id, which may not hold white space in runs and judgements: it becomes `_`."""
    return re.sub(r"\s", "_", name)


def _open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading its uncompressed bytes."""
    match path.suffix.lower():
        case ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        case ".xz":
            return cast(IO[bytes], lzma.open(path, "rb"))
        case ".zst":
            import io

            import pyarrow as pa

            # pyarrow notices a stream that was cut short; the reader of `zstandard` ends there without a word.
            return cast(IO[bytes], io.BufferedReader(pa.input_stream(str(path), compression="zstd"), 1 << 20))
        case _:
            return path.open("rb")
