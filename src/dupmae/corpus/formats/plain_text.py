"""Read plain text: a file is one document, one of the size of a library the document a paragraph."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from dupmae.corpus.formats.records import Found
from dupmae.corpus.lines import longest_line, numbered_lines, too_long
from dupmae.corpus.passage import Passage
from dupmae.errors import DupmaeError

logger = logging.getLogger(__name__)

WHOLE = 8_000_000
"""Characters of the longest file that is one document: some ten novels. Tokenising one takes seconds, not minutes."""


def read(path: Path, name: str) -> Iterator[Found]:
    """Read a file as one document, without the white space around its text.

    One with more than :data:`WHOLE` characters is taken for a collection: each paragraph of it, that is, lines between
    blank lines, is a document, which is said. No more than that is in memory.
    """
    length, lines = 0, list[str]()
    for _, line in numbered_lines(path):
        lines.append(line)
        length += len(line) + 1
        if length > WHOLE:
            lines.clear()
            logger.warning(
                "%s has more than %d million characters: each of its paragraphs is read as a document of its own.",
                path,
                WHOLE // 1_000_000,
            )
            yield from _paragraphs(path, name)
            return
    text = "\n".join(lines).strip()
    yield (str(path), Passage(name, "", text)) if text else DupmaeError(f"{path} is empty: no text was found in it.")


def _paragraphs(path: Path, name: str) -> Iterator[Found]:
    """Read a passage per paragraph, numbered from 1."""
    count, length, lines, longest = 0, 0, list[str](), longest_line()
    for number, line in _with_end(numbered_lines(path)):
        if line.strip():
            lines.append(line)
            length += len(line) + 1
            if length > longest:
                raise too_long(f"{path}, the paragraph up to line {number}")
        elif lines:
            count += 1
            yield f"{path}, line {number - len(lines)}", Passage(f"{name}#{count}", "", "\n".join(lines).strip())
            length, lines = 0, []


def _with_end(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Add a blank line after the last one."""
    number = 0
    for number, line in lines:
        yield number, line
    yield number + 1, ""
