"""Read Markdown: its text without marks, its headings, and the fields in front of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dupmae.corpus.formats.html import page_of
from dupmae.corpus.formats.pages import Page
from dupmae.corpus.lines import read_text

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.{0,65536}?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


def read(path: Path) -> Page:
    """Read a Markdown file as CommonMark with tables; front matter in YAML gives its fields and its title."""
    fields, text = _without_front_matter(read_text(path))
    page = page_of(_parser().render(text), str(path))
    first = page.headings[0].text if page.headings and page.headings[0].start == 0 else ""
    title = fields.get("title")
    return replace(page, title=title if isinstance(title, str) else first, fields=fields)


@cache
def _parser() -> Any:
    """Make the parser."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"])


def _without_front_matter(text: str) -> tuple[Mapping[str, Any], str]:
    """Take the fields off that stand before a text."""
    found = _FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    try:
        fields = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, text
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        return {}, text
    plain: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, list):
            # One that holds lists, some of them many times over by its aliases, may be of any size.
            plain[name] = ", ".join(str(one) for one in value if not isinstance(one, list | dict))
        elif not isinstance(value, dict):
            plain[name] = value
    return plain, text[found.end() :]
