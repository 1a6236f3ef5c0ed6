"""Lay out readable text from blocks, headings and runs of words, whatever document they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dupmae.corpus.passage import Heading


@dataclass(frozen=True, slots=True)
class Page:
    """What a document's file holds."""

    title: str
    """May be empty."""
    text: str
    headings: tuple[Heading, ...] = ()
    """Those in its text, in their order."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What the file says of itself, such as its author or its language."""


class Layout:
    """Text that grows: white space in words is collapsed, blocks stand on lines of their own."""

    def __init__(self) -> None:
        self.headings: list[Heading] = []
        self._parts: list[str] = []
        self._length, self._breaks, self._space, self._mark = 0, 0, False, ""

    def line(self) -> None:
        """Begin a new line with what comes next, unless an item has just begun."""
        self._breaks = self._breaks if self._mark else max(self._breaks, 1)

    def block(self) -> None:
        """Leave a blank line before what comes next, unless an item has just begun."""
        self._breaks = self._breaks if self._mark else 2

    def item(self, mark: str) -> None:
        """Begin an item of a list, whose first word stands behind its mark."""
        self._breaks, self._mark = max(self._breaks, 1), mark

    def words(self, text: str) -> None:
        """Add text of a paragraph."""
        words = text.split()
        if not words:
            self._space = self._space or bool(text)
            return
        self._put(" ".join(words), text[0].isspace() or self._space)
        self._space = text[-1].isspace()

    def lines(self, text: str) -> None:
        """Add text whose white space counts, such as code, as a block."""
        self.block()
        if text := text.strip("\n").rstrip():
            self._put(text, False)
        self.block()

    def heading(self, level: int, text: str) -> None:
        """Add a heading."""
        text = re.sub(r"\s*[¶#§🔗]$", "", " ".join(text.split()))  # what a page's own links to its headings look like
        self.block()
        if text:
            start = self._put(text, False)
            self.headings.append(Heading(start, level, text))
        self.block()

    def page(self, title: str, fields: Mapping[str, Any] | None = None) -> Page:
        """Return what was laid out."""
        return Page(title, "".join(self._parts), tuple(self.headings), fields or {})

    def _put(self, text: str, space: bool) -> int:
        """Add text behind the breaks or the space that are due, and return where it begins."""
        before = "\n" * self._breaks if self._breaks else " " if space else ""
        before = (before if self._parts else "") + self._mark
        self._parts += [before, text]
        start = self._length + len(before)
        self._length, self._breaks, self._space, self._mark = start + len(text), 0, False, ""
        return start
