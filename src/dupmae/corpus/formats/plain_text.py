"""Read passages from plain text: the paragraphs of a file, or a whole file as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dupmae.corpus.formats.records import Fields, Placed
from dupmae.corpus.lines import longest_line, numbered_lines, too_long, word_of
from dupmae.corpus.passage import Passage


def read(path: Path, fields: Fields, prefix: str) -> Iterator[Placed]:
    """Read one passage per paragraph, that is, lines between blank lines; there are no fields."""
    name = word_of(path.name)
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


def read_whole(path: Path, identifier: str) -> Placed:
    """Read a file as one passage, without the white space around its text."""
    length, lines, longest = 0, list[str](), longest_line()
    for number, line in numbered_lines(path):
        lines.append(line)
        length += len(line) + 1
        if length > longest:
            raise too_long(f"{path}, up to line {number}")
    return str(path), Passage(identifier, "", "\n".join(lines).strip())
