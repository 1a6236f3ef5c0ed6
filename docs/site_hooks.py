"""Let mkdocs build the site from pages that are written for the repository, some of which stand beside `docs`.

The pages of the repository's root become pages of the site; links to anything else outside `docs` lead to the
repository's own pages.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "overview.md",
    "CHANGELOG.md": "changelog.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Pages of the root -> where they stand in the site."""
LINK = re.compile(r"(\]\(|(?:href|src)=\")([^)\s\"#]*)([^)\s\"]*)(?=[)\"])")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead where they lead in the site."""
    place = page.file.src_uri
    sources = {page_of: source for source, page_of in PAGES.items()}
    folder = posixpath.dirname(sources.get(place, f"docs/{place}"))

    def moved(match: re.Match[str]) -> str:
        before, target, rest = match.groups()
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        if path in PAGES:
            within = PAGES[path]
        elif path.startswith("docs/") and (ROOT / path).is_file() and not path.endswith(".py"):
            within = path.removeprefix("docs/")
        else:
            return f"{before}{config['extra']['repository']}/blob/main/{path}{rest}"
        return f"{before}{posixpath.relpath(within, posixpath.dirname(place) or '.')}{rest}"

    return LINK.sub(moved, markdown)
