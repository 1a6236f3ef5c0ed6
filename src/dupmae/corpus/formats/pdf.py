"""Read the text of PDF files, page by page, with PDFium."""

from __future__ import annotations

import contextlib
import mmap
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from dupmae.corpus.formats.extras import needs
from dupmae.corpus.formats.pages import Page
from dupmae.corpus.lines import longest_line, refuse_bomb, refuse_irregular, too_long
from dupmae.errors import DupmaeError

_FIELDS = {"Author": "author", "Subject": "subject", "Keywords": "keywords", "CreationDate": "date"}
"""What a file says of itself, and the fields' names here."""


def read(path: Path) -> Page:
    """Read all pages' text; of a scanned file without any it is empty.

    Raises:
        DupmaeError: The file is damaged, wants a password, or its text is longer than :func:`longest_line`.
    """
    with needs("pypdfium2", path):
        import pypdfium2
    refuse_irregular(path)
    _refuse_bomb(path)
    longest, length, texts = longest_line(), 0, list[str]()
    try:
        with path.open("rb"), pypdfium2.PdfDocument(path) as file:
            for number in range(len(file)):
                page = file[number]
                content = page.get_textpage()
                texts.append(content.get_text_bounded())
                content.close()
                page.close()
                length += len(texts[-1])
                if length > longest:
                    raise too_long(f"{path}, up to page {number + 1}")
            said = file.get_metadata_dict(skip_empty=True)
    except OSError as error:
        raise DupmaeError(f"{path} cannot be read ({error}).") from None
    except (pypdfium2.PdfiumError, ValueError) as error:
        if "password" in str(error).lower():
            raise DupmaeError(f"{path} is encrypted: write it out again without a password.") from None
        raise DupmaeError(f"{path} cannot be read as PDF ({error}).") from None
    text = "\n\n".join(filter(None, (_readable(text) for text in texts)))
    fields = {name: _date(said[key]) for key, name in _FIELDS.items() if key in said}
    return Page(" ".join(said.get("Title", "").split()), text, fields=fields)


def _refuse_bomb(path: Path) -> None:
    """Refuse a file whose streams, images aside, unpack to more than they may; PDFium would take gigabytes for them."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            unpacked = 0
            for begin in re.finditer(rb"stream\r?\n", content):
                about = content[max(0, begin.start() - 300) : begin.start()].rpartition(b" obj")[2]
                if b"FlateDecode" not in about or b"/Image" in about:
                    continue
                with contextlib.suppress(zlib.error):
                    for size in _sizes(content, begin.end()):
                        unpacked += size
                        refuse_bomb(path, unpacked, len(content))
    except (OSError, ValueError) as error:  # that it is empty is a ValueError
        raise DupmaeError(f"{path} cannot be read ({error}).") from None


def _sizes(content: mmap.mmap, place: int) -> Iterator[int]:
    """Yield how many bytes come out of a stream, a megabyte of it at a time."""
    stream = zlib.decompressobj()
    while not stream.eof and (part := stream.unconsumed_tail or content[place : place + 65536]):
        place += 0 if stream.unconsumed_tail else 65536
        yield len(stream.decompress(part, 1 << 20))


def _date(value: str) -> str:
    """Write a time as in ISO 8601, less its zone; any other value stays as it is."""
    found = re.match(r"D:(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d))?", value)
    return (
        value
        if found is None
        else "-".join(found.group(1, 2, 3)) + (f"T{':'.join(found.group(4, 5, 6))}" if found[4] else "")
    )


def _readable(text: str) -> str:
    """Join words that a line's end has hyphenated, and leave what is no valid Unicode out."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufffe\n", "").replace("\ufffe", "")
    return text.encode("utf-8", "ignore").decode().replace("\0", "").strip()
