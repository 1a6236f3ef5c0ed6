"""The study of objectives on encoders from nothing, on a tiny benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def study(
    tmp_path: Path,
    write_data: Callable[[Path], Path],
    import_script: Callable[[str], Any],
    run_script: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., dict[str, Any]]:
    """Runs the study of tiny encoders with further words and reads what it wrote for a seed."""
    script, toy = import_script("from_scratch_study"), write_data(tmp_path / "toy")
    tiny = replace(script.SIZE, layers=1, width=16, heads=2, vocabulary_size=90)
    monkeypatch.setattr(script, "SIZE", tiny)
    monkeypatch.setattr(script, "PAIRS", 8)
    small = {"no pre-training": ("nothing", 8, 8), "RetroMAE, 256:0": ("CLS", 16, 0), "DupMAE": ("both", 8, 8)}
    monkeypatch.setattr(script, "ROWS", {name: script.Row(*row) for name, row in small.items()})
    words = [toy / "corpus.jsonl", "--output", tmp_path / "out", "--benchmark", toy, "--seeds", 3]

    def run(*more: object) -> dict[str, Any]:
        run_script("from_scratch_study", *words, "--pretraining_steps", 1, "--finetuning_steps", 1, *more)
        found: dict[str, Any] = json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))
        return found["toy"]["3"]  # type: ignore[no-any-return]

    return run


def test_objectives_are_compared_on_the_same_queries_and_the_same_command_goes_on(
    study: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = study()
    assert {name: list(row) for name, row in rows.items()} == {
        "no pre-training": ["both", "dense", "lexical", "bm25"],
        "RetroMAE, 256:0": ["both", "bm25"],
        "DupMAE": ["both", "dense", "lexical", "bm25"],
    }
    assert {len(values) for row in rows.values() for values in row.values()} == {8}
    made = tmp_path / "out" / "pretrained"
    losses = {
        place.name: json.loads((place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
        for place in made.iterdir()
    }
    assert {name: {"mlm", "cls", "bow"} & set(line) for name, line in losses.items()} == {
        "CLS-3": {"mlm", "cls"},
        "both-3": {"mlm", "cls", "bow"},
    }
    assert losses["CLS-3"]["mlm"] == pytest.approx(losses["both-3"]["mlm"])  # the same weights, batch and masks
    assert "BM25" in capsys.readouterr().out

    file = next((tmp_path / "out" / "finetuned").glob("*both-8-8*/test.json"))
    file.write_text(json.dumps(rows["DupMAE"] | {"both": dict.fromkeys(rows["DupMAE"]["both"], 1.0)}))
    assert set(study("--only", "DupMAE")["DupMAE"]["both"].values()) == {1.0}  # what is there is not done again
