"""Read the text of Word's documents (DOCX)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dupmae.corpus.formats.extras import needs, opened_archive
from dupmae.corpus.formats.pages import Layout, Page
from dupmae.errors import DupmaeError


def read(path: Path) -> Page:
    """Read paragraphs, lists and tables; styles called Title and Heading N are headings.

    Raises:
        DupmaeError: The file is damaged, encrypted, or unpacks to too much.
    """
    with needs("python-docx", path):
        import docx
    with opened_archive(path):
        try:
            document = docx.Document(str(path))
            layout = Layout()
            styles = {style.style_id: style.name or "" for style in document.styles}
            for block in _blocks(document):
                _put(layout, block, styles)
            about = document.core_properties
            said = {"author": about.author, "date": about.created, "subject": about.subject, "keywords": about.keywords}
            fields = {name: value for name, value in said.items() if value}
            title = " ".join((about.title or "").split())
        except Exception as error:  # the library raises what it likes on a damaged file
            raise DupmaeError(f"{path} cannot be read as DOCX ({error}).") from None
    first = layout.headings[0].text if layout.headings and layout.headings[0].start == 0 else ""
    return layout.page(title or first, fields)


def _blocks(parent: Any) -> Iterator[Any]:
    """Yield paragraphs, and of tables the rows."""
    for block in parent.iter_inner_content():
        if hasattr(block, "rows"):
            yield from block.rows
        else:
            yield block


def _put(layout: Layout, block: Any, styles: Mapping[str, str]) -> None:
    """Add a paragraph, or a table's row; `styles` has the styles' names by their ids."""
    if hasattr(block, "cells"):
        cells = list(dict.fromkeys(block.cells))  # cells that were joined come once for each of them
        layout.line()
        layout.words(" | ".join(" ".join(cell.text.split()) for cell in cells))
        layout.line()
        return
    style = styles.get(block._p.style, "")  # its own `style` searches all styles for each paragraph
    level = re.fullmatch(r"(?i)heading (\d)", style)
    if level or style == "Title":
        layout.heading(int(level[1]) if level else 1, block.text)
    elif style.startswith("List"):
        layout.item("- ")
        layout.words(block.text)
        layout.line()
    else:
        layout.block()
        layout.words(block.text)
        layout.block()
