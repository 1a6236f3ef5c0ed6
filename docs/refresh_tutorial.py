"""Run the commands of docs/tutorial.md and put what they print into it.

    python docs/refresh_tutorial.py

A shell block that is followed by a `text` block is run, and the text is replaced by its standard output. A comment
above the shell block says what is shown of it:

    <!-- output: lines 1-12, 20- -->        these lines (without a last number: to the end), and ... for others
    <!-- output: from TEXT -->              those from the first line that begins with TEXT
    <!-- output: until TEXT -->             those before it
    <!-- output: none -->                   nothing: no text block follows

A text block of its own, under `<!-- table: HEADING, FILE -->`, is the table after that heading of an HTML report. All
blocks run one after the other in one temporary folder in which `data` is the repository's; if one fails, the document
stays as it is.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.md"
PIECE = re.compile(
    r"^(?:<!-- (?P<kind>output|table): (?P<what>[^\n]*) -->\n+)?"
    r"(?:```sh\n(?P<commands>.*?)^```\n)?"
    r"(?:\n*^```text\n(?P<shown>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Step:
    """Commands of the tutorial with what it shows of their output."""

    commands: str
    """Lines for the shell; empty where a table of a report is shown."""
    kind: str
    """`output` or `table`."""
    what: str
    """What the comment says of it; empty without one."""
    shown: str | None
    """The text that stands there; None without a block for it."""
    span: tuple[int, int]
    """Where the shown text begins and ends in the document."""


def read_steps(document: str) -> Iterator[Step]:
    """Find the shell blocks and the tables of a document, in order."""
    for match in PIECE.finditer(document):
        if match["commands"] or match["kind"]:
            kind, what = match["kind"] or "output", match["what"] or ""
            yield Step(match["commands"] or "", kind, what, match["shown"], match.span("shown"))


def shorten(output: str, what: str) -> str:
    """Keep the lines of an output that a comment names, with `...` where others were.

    Raises:
        ValueError: The comment is not understood, or names a line that is not there.
    """
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not what:
        return "".join(f"{line}\n" for line in lines)
    place, _, text = what.partition(" ")
    if place in ("from", "until"):
        found = next((n for n, line in enumerate(lines) if line.startswith(text)), None)
        if found is None:
            raise ValueError(f"no line of the output begins with {text!r}")
        kept = ["...", *lines[found:]] if place == "from" else [*lines[:found], "..."]
        return "".join(f"{line}\n" for line in kept)
    if not re.fullmatch(r"lines \d+-\d*(, \d+-\d*)*", what):
        raise ValueError(f"not understood: output: {what}")
    kept, end = list[str](), 0
    for first, last in re.findall(r"(\d+)-(\d*)", what):
        if int(first) > end + 1:
            kept.append("...")
        end = int(last or len(lines))
        kept += lines[int(first) - 1 : end]
    if end < len(lines):
        kept.append("...")
    return "".join(f"{line}\n" for line in kept)


class _Tables(HTMLParser):
    """The tables of a page, each with the heading before it."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[str, list[list[str]]]] = []
        self._heading, self._tag = "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a heading, a table, a row or a cell."""
        self._tag = tag
        if tag in ("h1", "h2", "h3"):
            self._heading = ""
        elif tag == "table":
            self.tables.append((self._heading, []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """Leave what was begun."""
        self._tag = ""

    def handle_data(self, data: str) -> None:
        """Read a heading's or a cell's text."""
        if self._tag in ("h1", "h2", "h3"):
            self._heading += data
        elif self._tag in ("th", "td"):
            self.tables[-1][1][-1][-1] += data.strip()


def read_table(page: str, heading: str) -> str:
    """Write the table after a heading of an HTML page as aligned text.

    Raises:
        ValueError: No table stands under a heading that begins so.
    """
    parser = _Tables()
    parser.feed(page)
    rows = next((rows for name, rows in parser.tables if name.startswith(heading)), None)
    if rows is None:
        raise ValueError(f"no table under {heading!r}: the headings are {[name for name, _ in parser.tables]}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def run(commands: str, folder: Path) -> str:
    """Run a shell block in a folder, with the repository's own dupmae; its progress goes to the terminal.

    Returns:
        Its standard output.

    Raises:
        CalledProcessError: A command failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {
        "PATH": path, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"
    }  # fmt: skip
    shell = ["bash", "-e", "-o", "pipefail", "-c", commands]
    return subprocess.run(shell, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _processor_seconds() -> float:
    """Say how long finished commands have kept a core busy: beside others, a better measure than the clock."""
    times = os.times()
    return times.children_user + times.children_system


def refresh(document: str, folder: Path) -> str:
    """Run a document's steps in a folder and return it with what they print."""
    if not (folder / "data").exists():
        (folder / "data").symlink_to(ROOT / "data", target_is_directory=True)
    pieces, end = list[str](), 0
    for step in read_steps(document):
        begun, busy = time.monotonic(), _processor_seconds()
        if step.kind == "table":
            heading, file = step.what.rsplit(", ", 1)
            text = read_table((folder / file).read_text(encoding="utf-8"), heading)
        else:
            output = run(step.commands, folder)
            text = "" if step.what == "none" else shorten(output, step.what)
            took = f"{time.monotonic() - begun:6.1f} s, {_processor_seconds() - busy:6.1f} of a core"
            print(f"{took}  {step.commands.splitlines()[0]}", flush=True)
        if step.shown is not None:
            pieces += [document[end : step.span[0]], text]
            end = step.span[1]
    return "".join([*pieces, document[end:]])


def main() -> None:
    """Refresh the tutorial."""
    parser = argparse.ArgumentParser(
        description="Run the commands of docs/tutorial.md and put what they print into it."
    )
    parser.add_argument("--folder", type=Path, help="run them here, and keep what they write; must not hold runs/")
    folder = parser.parse_args().folder
    document = TUTORIAL.read_text(encoding="utf-8")
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            document = refresh(document, Path(temporary))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        document = refresh(document, folder.resolve())
    TUTORIAL.write_text(document, encoding="utf-8")


if __name__ == "__main__":
    main()
