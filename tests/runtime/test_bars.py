"""Bars are shown of what takes time, and none where `--quiet` asks for none."""

from __future__ import annotations

import io
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dupmae.cli import main
from dupmae.corpus import Passage
from dupmae.duplex import DuplexEncoder
from dupmae.index import DuplexIndex
from dupmae.models import open_model
from dupmae.retrievers import vectors
from dupmae.runtime import bars
from dupmae.runtime.bars import bar, heartbeat, show_bars


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_a_bar_is_shown_of_what_takes_more_than_two_seconds(
    seconds: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bars, "_asked", True)
    clock = itertools.count(0, seconds / 2)  # which is looked at about twice a step
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    assert list(bar("abc", "Read", "texts")) == ["a", "b", "c"]
    assert ("Read:" in capsys.readouterr().err) == (seconds > 1)


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_hides_the_bars_of_encoders_and_of_other_libraries(
    quiet: bool,
    duplex_folder: Path,
    embedder_folder: Path,
    texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", str(int(quiet)))
    monkeypatch.setattr(bars, "_asked", True)
    monkeypatch.setattr(vectors, "FEW_TEXTS", 1)
    dense, duplex = vectors.DenseVectors(open_model(str(embedder_folder))), DuplexEncoder(str(duplex_folder))
    capsys.readouterr()
    dense.embed(texts, "document")
    assert ("Batches" not in capsys.readouterr().err) == quiet
    hidden, tqdm = list[bool](), bars.tqdm

    def look(items: Any, **options: Any) -> Any:
        hidden.append(options.get("disable", False))
        return tqdm(items, **options)

    monkeypatch.setattr(bars, "tqdm", look)
    duplex.embed_documents(texts, show_progress_bar=True)
    assert hidden == [quiet]


def test_python_shows_no_bar_unless_asked(
    duplex_folder: Path, tmp_path: Path, texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    passages = [Passage(str(number), "", text) for number, text in enumerate(texts)]
    encoder = DuplexEncoder(str(duplex_folder))
    capsys.readouterr()
    DuplexIndex.build(tmp_path / "silent", encoder, passages)
    assert capsys.readouterr().err == ""
    show_bars()
    try:
        DuplexIndex.build(tmp_path / "shown", encoder, passages)
    finally:
        show_bars(False)
    assert "Index:" in capsys.readouterr().err
    DuplexIndex.build(tmp_path / "again", encoder, passages)
    assert capsys.readouterr().err == ""


def test_a_command_leaves_python_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "info", str(tmp_path)]) == 2
    assert not bars.shown()


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_what_shows_no_bar_shows_the_time_on_a_terminal(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(bars, "_asked", True)
    monkeypatch.setattr(bars, "DELAY", 0.2)
    monkeypatch.setattr(sys, "stderr", stream)
    with heartbeat():
        time.sleep(1.2)
    assert ("... 00:0" in stream.getvalue()) == terminal
    before = stream.getvalue()
    with heartbeat(), bar(None, "Read", "texts", 3, delay=0):
        time.sleep(1.2)
    assert "... 00:0" not in stream.getvalue()[len(before) :]
