"""Read reStructuredText as the plain text that it is, less the marks that are not for readers, and with its headings.

Directives are not carried out: what they mean is known to Sphinx and its extensions alone, and their text reads well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dupmae.corpus.formats.pages import Layout, Page
from dupmae.corpus.lines import read_text

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}\s*")
"""A line below (or also above) a title: one sign, over and over."""
_UNREAD = re.compile(r"\.\. (?:_|__ |\||(?:image|toctree|include|contents|index|currentmodule|raw|highlight)::)|\.\.$")
"""How blocks begin that hold nothing to read: targets, substitutions, empty comments, and such directives."""
_DIRECTIVE = re.compile(r"(\s*)\.\. (?:(?:code|code-block|sourcecode|math)::.*|[\w:+.-]{1,60}::\s*(.*))")
_OPTION = re.compile(r"\s+:[\w-]+:.*")
_RULE = re.compile(r"\s*[=+ -]{3,}")
"""A line of a table that separates its rows."""


def read(path: Path) -> Page:
    """Read a file's text and the titles of its sections; the first that stands at the top is the document's."""
    lines = read_text(path).expandtabs().split("\n")
    layout, styles, number = Layout(), list[str](), 0
    paragraph: list[str] = []
    while number < len(lines):
        if title := _title_at(lines, number):
            text, style, taken = title
            _put(layout, paragraph)
            if style not in styles:
                styles.append(style)
            layout.heading(styles.index(style) + 1, _readable(text))
            number += taken
        elif not lines[number].strip():
            _put(layout, paragraph)
            number += 1
        elif _is_comment(lines[number]):
            _put(layout, paragraph)
            number = _behind_block(lines, number)
        else:
            paragraph.append(lines[number])
            number += 1
    _put(layout, paragraph)
    page = layout.page("")
    first = page.headings[0].text if page.headings and page.headings[0].start == 0 else ""
    return layout.page(first)


def _title_at(lines: Sequence[str], number: int) -> tuple[str, str, int] | None:
    """Find a section's title that begins at a line: its text, how it is adorned, and the lines that it takes."""
    line, below = lines[number], lines[number + 1 : number + 3]
    if number and lines[number - 1].strip() and not _ADORNMENT.fullmatch(lines[number - 1]):
        return None
    over = len(below) == 2 and _ADORNMENT.fullmatch(line) and below[1].rstrip() == line.rstrip() and below[0].strip()
    if over:
        return below[0].strip(), line[0] * 2, 3
    if below and line[:1].strip() and not _ADORNMENT.fullmatch(line) and _ADORNMENT.fullmatch(below[0]):
        long_enough = len(below[0].rstrip()) >= min(len(line.rstrip()), 4)
        return (line.strip(), below[0][0], 2) if long_enough else None
    return None


def _is_comment(line: str) -> bool:
    """Tell whether a line begins a block that is not for readers."""
    text = line.lstrip()
    return bool(_UNREAD.match(text)) or (text.startswith(".. ") and "::" not in text and not text.startswith(".. ["))


def _behind_block(lines: Sequence[str], number: int) -> int:
    """Find the first line behind an explicit block: one that is indented no more than the block's own."""
    indent = len(lines[number]) - len(lines[number].lstrip())
    number += 1
    while number < len(lines) and (
        not lines[number].strip() or len(lines[number]) - len(lines[number].lstrip()) > indent
    ):
        number += 1
    return number


def _put(layout: Layout, paragraph: list[str]) -> None:
    """Add a paragraph as it stands, less its marks, and begin the next one."""
    if paragraph and (directive := _DIRECTIVE.fullmatch(paragraph[0])):
        options = next((n for n, line in enumerate(paragraph[1:], 1) if not _OPTION.fullmatch(line)), len(paragraph))
        paragraph[:options] = [directive[1] + (directive[2] or "")]
    kept = [line for line in paragraph if line.strip() and not _RULE.fullmatch(line)]
    if kept:
        layout.lines(_readable("\n".join(kept)))
    paragraph.clear()


def _readable(text: str) -> str:
    """Take roles, links' targets and the marks of words off."""
    # What repeats is bounded, so that no text takes a time that grows with its square.
    text = re.sub(r":[\w:+.-]{1,60}:`", "`", text)
    text = re.sub(r"`~?([^`<]{0,500}?)\s{1,20}<[^`>]{0,500}>`_{0,2}", r"\1", text)
    text = re.sub(r"``([^`]{1,1000})``", r"\1", text)
    text = re.sub(r"`[!~]?([^`]{1,1000})`_{0,2}", r"\1", text)
    text = re.sub(r"\*\*([^*\n]{1,1000})\*\*", r"\1", text)
    text = re.sub(r"(?<![\w*])\*([^*\s][^*\n]{0,1000})\*(?![\w*])", r"\1", text)
    text = re.sub(r"(?<=\S)::$", ":", text, flags=re.MULTILINE)
    return re.sub(r"(?<=\w)_{1,2}(?=[\s.,;:)]|$)|\s?::$", "", text, flags=re.MULTILINE)
