"""What texts, names and messages hold reaches a terminal as text alone, whichever way it is printed."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from tqdm import tqdm

from dupmae.cli import entry, main
from dupmae.cli.display import PlainConsole, show_hits, show_metrics
from dupmae.index import DuplexIndex, Hit
from dupmae.index.highlights import Highlights
from dupmae.runtime.terminal import Guarded, guarded_streams, printable

ACTING = {
    "clears the screen": "\x1b[2J",
    "a link": "\x1b]8;;http://evil\x07here\x1b]8;;\x07",
    "C1's CSI": "\x9b31m",
    "a bell": "\x07",
    "a carriage return": "\rover",
    "backspaces": "\x08\x08",
    "NUL": "\x00",
    "DEL": "\x7f",
    "an override": "\u202egnp.exe",
    "an isolate": "\u2066a\u2069",
    "a line separator": "\u2028",
    "half a pair": "\ud83d",
    "a tag": "\U000e0041",
}
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]")
MARKUP = "[bold]x[/bold] [/] [link=http://evil]y[/link] :smile:"


def stand_in_screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Put one text in the place of both standard streams, as a terminal shows them."""
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def _index(text: str) -> Any:
    index = create_autospec(DuplexIndex, instance=True)
    hit = Hit(text, 3.5, 1.0, 2.0, 0.5, [(text, 1.5)], [(text, 0.5)], text, text, {text: text}, text, (text,), 0, 9)
    index.search.side_effect = lambda queries, k, **_: [[hit] for _ in queries]
    index.queries.words = None
    return index


def by_search(text: str) -> None:
    hits = _index(text).search([text], 1)[0]
    show_hits(PlainConsole(), text, hits, [Highlights([(0, len(text))], (0, len(text)), [(text, 1.5)]) for _ in hits])


def by_table(text: str) -> None:
    show_metrics(PlainConsole(), text, [(text, {"ndcg@10": 0.5})])


def by_print(text: str) -> None:
    print(text, text)


def by_log(text: str) -> None:
    logging.getLogger("dupmae.test").warning("%s", text)


def by_warning(text: str) -> None:
    # As Python shows one; what pytest puts in its place cannot be sent between processes with half a pair in it.
    sys.stderr.write(warnings.formatwarning(UserWarning(text), UserWarning, "file", 1))


def by_progress_bar(text: str) -> None:
    for _ in tqdm(range(2), desc=text, file=sys.stderr):
        pass


DOORS = [by_search, by_table, by_print, by_log, by_warning, by_progress_bar]


@pytest.mark.parametrize("acting", ACTING)
@pytest.mark.parametrize("door", DOORS)
def test_nothing_printed_acts_on_a_terminal(
    door: Callable[[str], None], acting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = stand_in_screen(monkeypatch)
    handler = logging.StreamHandler()
    monkeypatch.setattr(logging.getLogger("dupmae.test"), "propagate", False)  # pytest cannot send on half a pair
    with guarded_streams():
        handler.setStream(sys.stderr)
        logging.getLogger("dupmae.test").addHandler(handler)
        door(f"before{ACTING[acting]}after {MARKUP}")
    logging.getLogger("dupmae.test").removeHandler(handler)
    shown = screen.getvalue()
    if door is by_progress_bar:
        shown = re.sub(r"\r(?=before)", "", shown)  # the bar's own
    assert not FORBIDDEN.search(shown), ascii(shown)
    assert "before" in shown
    assert "[bold]" in shown  # markup is text
    assert ":smile:" in shown
    assert screen is sys.stdout  # and afterwards all is as it was


@pytest.mark.parametrize("acting", ACTING)
@pytest.mark.parametrize(
    "words",
    [
        ["search", "index", "q"],
        ["search", "index", "q", "--json"],
        ["search", "{}", "q"],
        ["{}"],
        ["search", "index", "q", "--{}"],
        ["search", "index", "q", "--k={}"],
        ["search", "index", "q", "{}"],
        ["search", "index", "q", "--where", "{}"],
        ["run", "{}.yaml"],
        ["encode", "--model", "{}", "--input", "{}", "--output", "out"],
        ["evaluate", "--model", "bm25", "--benchmark", "{}"],
        ["index", "push", "qdrant", "index", "{}"],
        ["index", "delete", "index", "--file", "{}"],
    ],
)
def test_no_command_prints_what_acts_on_a_terminal(
    words: list[str], acting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = stand_in_screen(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(entry, "silence", lambda: None)
    if words[:3] == ["search", "index", "q"]:
        monkeypatch.setattr(DuplexIndex, "open", lambda *_, **__: _index(f"before{ACTING[acting]}after"))
    try:
        main([word.replace("{}", f"before{ACTING[acting]}after") for word in words])
    except ValueError:  # a path with NUL, or with half a pair
        assert acting in ("NUL", "half a pair")
    shown = screen.getvalue()
    assert not FORBIDDEN.search(shown), ascii(shown)
    if "--json" in words:
        assert json.loads(shown)["text"] == f"before{ACTING[acting]}after"


def test_bars_and_lines_stay_what_they_are() -> None:
    shown = io.StringIO()
    stream = Guarded(shown, messages=True)
    for text in ("\r 10 %", "\n", "\x1b[A", "\x1b[A\x1b[A", "a\tb é 東京 🦄 👩‍👩‍👧 עברית", "\x1b[Ax", "a\rb"):
        stream.write(text)
    assert shown.getvalue() == "\r 10 %\n\x1b[A\x1b[A\x1b[Aa\tb é 東京 🦄 👩‍👩‍👧 עברית\x1b[Axa\\rb"
    assert printable(printable("\x1b")) == "\\u001b"


def test_passwords_in_urls_stay_out_of_messages_but_not_out_of_results() -> None:
    results, messages = io.StringIO(), io.StringIO()
    Guarded(results, messages=False).write("http://me:pw@host")
    Guarded(messages, messages=True).write("http://me:pw@host")
    assert results.getvalue() == "http://me:pw@host"
    assert messages.getvalue() == "http://me:***@host"
