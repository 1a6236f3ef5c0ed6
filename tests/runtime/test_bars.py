"""Bars are shown of what takes time, and none where `--quiet` asks for none."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from dupmae.duplex import DuplexEncoder
from dupmae.models import open_model
from dupmae.retrievers import vectors
from dupmae.runtime import bars
from dupmae.runtime.bars import bar


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_a_bar_is_shown_of_what_takes_more_than_two_seconds(
    seconds: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
