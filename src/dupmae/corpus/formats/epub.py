"""Read the text of electronic books (EPUB): the pages that their spine names, in its order."""

from __future__ import annotations

import posixpath
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from dupmae.corpus.formats.extras import opened_archive
from dupmae.corpus.formats.html import decoded, page_of
from dupmae.corpus.formats.pages import Page
from dupmae.corpus.lines import longest_line, too_long
from dupmae.corpus.passage import Heading
from dupmae.errors import DupmaeError

_DUBLIN = "{http://purl.org/dc/elements/1.1/}"
_FIELDS = {"creator": "author", "language": "lang", "date": "date", "publisher": "publisher", "subject": "subject"}
"""Elements of a book's description, and the fields' names here."""


def read(path: Path) -> Page:
    """Read all chapters of a book as one text.

    Raises:
        DupmaeError: The file is no book, damaged, encrypted, or unpacks to too much.
    """
    longest, length, texts, headings = longest_line(), 0, list[str](), list[Heading]()
    with opened_archive(path) as archive:
        package, folder = _package(archive, path)
        for name in _spine(package, folder):
            if name not in archive.namelist():
                raise DupmaeError(f"{path}: its chapter {name} is missing from it.")
            page = page_of(decoded(archive.read(name)), f"{path}, {name}")
            if not page.text:
                continue
            headings += [Heading(length + one.start, one.level, one.text) for one in page.headings]
            texts.append(page.text)
            length += len(page.text) + 2
            if length > longest:
                raise too_long(f"{path}, up to {name}")
    said = {name: package.findtext(f".//{_DUBLIN}{key}") for key, name in _FIELDS.items()}
    title = " ".join((package.findtext(f".//{_DUBLIN}title") or "").split())
    fields = {name: value.strip() for name, value in said.items() if value and value.strip()}
    return Page(title, "\n\n".join(texts), tuple(headings), fields)


def _package(archive: zipfile.ZipFile, path: Path) -> tuple[Any, str]:
    """Find a book's description, and the folder that its names are relative to."""
    try:
        container = _parsed(archive.read("META-INF/container.xml"))
        name = container.find(".//{*}rootfile").attrib["full-path"]
        return _parsed(archive.read(name)), posixpath.dirname(name)
    except (KeyError, AttributeError, ElementTree.ParseError) as error:
        raise DupmaeError(f"{path} cannot be read as EPUB ({error}).") from None


def _parsed(content: bytes) -> Any:
    """Parse XML that defines no entities: one that is made of others may be of any size."""
    if b"<!ENTITY" in content:
        raise ElementTree.ParseError("it defines entities, as no book needs")
    return ElementTree.fromstring(content)


def _spine(package: Any, folder: str) -> list[str]:
    """List the pages to read, in their order."""
    pages = {
        item.get("id"): posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
        for item in package.findall(".//{*}item")
        if "html" in (item.get("media-type") or "") and "nav" not in (item.get("properties") or "").split()
    }
    return [pages[item.get("idref")] for item in package.findall(".//{*}itemref") if item.get("idref") in pages]
