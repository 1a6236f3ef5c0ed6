"""Read text files, compressed or not, line by line, with the line's number at hand for an error.

All readers of text come through here, so that no line and no compressed file takes more memory or time than the bounds
below allow: a megabyte of gzip may unpack to a gigabyte, one of zstd to far more.
"""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import math
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from dupmae.errors import DupmaeError
from dupmae.runtime.json_text import parse_strict_json

LINE_VARIABLE, LINE_MB = "DUPMAE_MAX_LINE_MB", 64.0
"""Environment variable with the megabytes that a line may have, or a file that is read as one passage; its default."""
FILE_VARIABLE = "DUPMAE_MAX_FILE_GB"
"""Environment variable with the gigabytes that a compressed file may unpack to. Unless it is set, :data:`RATIO` is what
bounds them."""
RATIO, UNCHECKED_BYTES = 250, 2 << 20
"""How many times its size a compressed file may unpack to (text seldom passes 10), beyond its first bytes."""

UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""What the operating system and damaged compressed data raise."""
WIDE = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte-order mark -> the encoding that it is of; the longer ones come first, as one of them begins like a shorter."""
COMPRESSIONS = (".gz", ".xz", ".zst")
"""Endings of compressed files, in the order in which they are tried."""


def refuse_irregular(path: Path) -> None:
    """Refuse a device, which may have no end, and a pipe by its name, which may have nobody who writes to it.

    What a shell makes of `<(command)` or `/dev/stdin` is a pipe, too, and is taken.

    Raises:
        DupmaeError: The path leads to such a thing; the file's own absence is left to whoever opens it.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or (stat.S_ISFIFO(mode) and path.is_relative_to("/dev")):
        return
    raise DupmaeError(f"{path} is no regular file: name one that can be read to its end.")


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
    skipped; that of UTF-16 or UTF-32 says that the text is encoded so. Only a line feed (after a carriage return or
    not) ends a line.

    Raises:
        DupmaeError: The file cannot be read, its compressed data are damaged, cut short or unpack to more than they may
            (:data:`RATIO`), or a line is not UTF-8 or too long.
    """
    number = 0
    try:
        with _in_utf8(_open_bytes(path)) as file:
            for number, line in decoded_lines(file, path):
                yield number, line
    except (*UNREADABLE, UnicodeError) as error:
        raise DupmaeError(f"{path} cannot be read{f' past line {number}' if number else ''} ({error}).") from None


def read_text(path: Path) -> str:
    """Read the whole text of a file, as :func:`numbered_lines` does.

    Raises:
        DupmaeError: As there, or the file is longer than :func:`longest_line`.
    """
    length, lines, longest = 0, list[str](), longest_line()
    for number, line in numbered_lines(path):
        lines.append(line)
        length += len(line) + 1
        if length > longest:
            raise too_long(f"{path}, up to line {number}")
    return "\n".join(lines)


def read_bytes(path: Path) -> bytes:
    """Read a whole file, unpacked if its name says that it is compressed.

    Raises:
        DupmaeError: It cannot be read, or is longer than :func:`longest_line`.
    """
    longest = longest_line()
    try:
        with _open_bytes(path) as file:
            content = file.read(longest + 1)
    except UNREADABLE as error:
        raise DupmaeError(f"{path} cannot be read ({error}).") from None
    if len(content) > longest:
        raise too_long(str(path))
    return content


def longest_line() -> int:
    """Return how many bytes a line may have, with its line break."""
    return int(_bound(LINE_VARIABLE, LINE_MB) * 1e6)


def too_long(place: str) -> DupmaeError:
    """Make the sentence about a text of more bytes than :func:`longest_line`, which begins with its place."""
    return DupmaeError(
        f"{place}: longer than {_bound(LINE_VARIABLE, LINE_MB):g} MB, too much for one text: split it, or raise the "
        f"environment variable {LINE_VARIABLE}."
    )


def refuse_bomb(path: Path, unpacked: int, packed: int) -> None:
    """Refuse a file that unpacks to more than it may (:data:`RATIO`, :data:`FILE_VARIABLE`).

    Args:
        path: The file.
        unpacked: Bytes that came out of it so far.
        packed: Bytes of it that they came from.

    Raises:
        DupmaeError: It does.
    """
    most = UNCHECKED_BYTES + RATIO * packed
    if os.environ.get(FILE_VARIABLE):
        most = int(_bound(FILE_VARIABLE, 0.0) * 1e9)
    if unpacked > most:
        raise DupmaeError(
            f"{path} unpacks to more than {most / 1e6:,.0f} MB, too much for a file of its size: unpack it and look, "
            f"or set the environment variable {FILE_VARIABLE} to the gigabytes that it may have."
        )


def _bound(variable: str, default: float) -> float:
    """Read a bound from the environment."""
    text = os.environ.get(variable, "")
    try:
        bound = float(text) if text else default
    except ValueError:
        bound = math.nan
    if not 0 < bound < 1e9:
        raise DupmaeError(f"The environment variable {variable} must be a number above 0, not {text!r}.")
    return bound


def decoded_lines(file: IO[bytes], source: str | Path) -> Iterator[tuple[int, str]]:
    """Number and decode the lines of a file or a pipe, as :func:`numbered_lines` says.

    Raises:
        DupmaeError: A line is not UTF-8, or longer than :func:`longest_line`; the sentence begins with `source`.
    """
    longest = longest_line()
    for number, line in enumerate(iter(partial(file.readline, longest + 1), b""), 1):
        if len(line) > longest:
            raise too_long(f"{source}, line {number}")
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            text = line.rstrip(b"\r\n").decode("utf-8")
        except UnicodeDecodeError as error:
            raise DupmaeError(
                f"{source}, line {number}: byte {error.start + 1} is not UTF-8: convert it to UTF-8 "
                "(iconv -f WINDOWS-1252 -t UTF-8, if that is what it is in)."
            ) from None
        yield number, text


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON object of each line with the line's number; blank lines are passed over.

    Raises:
        DupmaeError: A line is not a JSON object, or see :func:`numbered_lines`.
    """
    for found in json_objects_or_errors(path):
        if isinstance(found, DupmaeError):
            raise found
        yield found


def json_objects_or_errors(path: Path) -> Iterator[tuple[int, dict[str, Any]] | DupmaeError]:
    """Yield what :func:`json_objects` does, and instead of raising for a line that holds no object its error."""
    for number, line in numbered_lines(path):
        if not line or line.isspace():
            continue
        try:
            record = parse_strict_json(line)
        except ValueError:
            record = None
        yield (number, record) if isinstance(record, dict) else _not_an_object(line, f"{path}, line {number}")


def _not_an_object(line: str, place: str) -> DupmaeError:
    """Make the sentence about a line that holds no JSON object, which begins with its place."""
    try:
        record = parse_strict_json(line)
    except ValueError as error:
        return DupmaeError(f"{place}: not valid JSON ({error}); each line must hold one object.")
    return DupmaeError(f"{place}: expected a JSON object, found {json_kind(record)}.")


def json_kind(value: object) -> str:
    """Name the JSON type of a value as a reader of the file would: 'a number', 'null', 'a list'."""
    if value is None:
        return "null"
    kinds = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), f"a value of type {type(value).__name__}")


def columns_in(columns: Sequence[str]) -> str:
    """Count columns in words: `1 column`, `2 columns`."""
    return f"{len(columns)} column{'' if len(columns) == 1 else 's'}"


def word_of(name: str) -> str:
    """Make a name (part of) an id, which may not hold white space in runs and judgements: it becomes `_`."""
    return re.sub(r"\s", "_", name)


def _open_bytes(path: Path) -> io.BufferedReader:
    """Open a file for reading its uncompressed bytes."""
    refuse_irregular(path)
    ending = path.suffix.lower()
    packed = path.open("rb")
    if ending not in COMPRESSIONS:
        return packed
    if ending == ".gz":
        unpacked = cast(IO[bytes], gzip.GzipFile(fileobj=packed))
    elif ending == ".xz":
        unpacked = cast(IO[bytes], lzma.LZMAFile(packed))  # noqa: SIM115 - closed with what reads it
    else:
        import pyarrow as pa

        # pyarrow notices a stream that was cut short; the reader of `zstandard` ends there without a word.
        unpacked = cast(IO[bytes], pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd"))
    return io.BufferedReader(_Unpacked(path, packed, unpacked), 1 << 20)


def _in_utf8(file: io.BufferedReader) -> io.BufferedReader:
    """Read a file that begins with the mark of UTF-16 or UTF-32 as if it were UTF-8."""
    start = file.peek(4)[:4]
    encoding = next((name for mark, name in WIDE.items() if start.startswith(mark)), None)
    return file if encoding is None else io.BufferedReader(_Recoded(file, encoding), 1 << 20)


class _Recoded(io.RawIOBase):
    """The text of a file in UTF-8.

    Args:
        file: The file.
        encoding: What it is in.
    """

    def __init__(self, file: io.BufferedReader, encoding: str) -> None:
        super().__init__()
        self._file, self._decoder, self._rest = file, codecs.getincrementaldecoder(encoding)(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b"more"
        while data and not self._rest:
            data = self._file.read(1 << 16)
            self._rest = self._decoder.decode(data, final=not data).encode()
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Unpacked(io.RawIOBase):
    """The uncompressed bytes of a file, up to their bound.

    Args:
        path: The file, for the sentence.
        packed: What is read of it.
        unpacked: What that unpacks to.
    """

    def __init__(self, path: Path, packed: IO[bytes], unpacked: IO[bytes]) -> None:
        super().__init__()
        self._path, self._packed, self._unpacked, self._count = path, packed, unpacked, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._unpacked.read(len(buffer))
        buffer[: len(data)] = data
        self._count += len(data)
        refuse_bomb(self._path, self._count, self._packed.tell())
        return len(data)

    def close(self) -> None:
        self._unpacked.close()
        self._packed.close()
        super().close()
