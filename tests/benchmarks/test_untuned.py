"""The benchmark of checkpoints that were not fine-tuned, on a tiny benchmark."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dupmae.corpus import read_benchmark
from dupmae.evaluation import evaluate_run
from dupmae.retrievers import dense_run

ROOT = Path(__file__).parents[2]


def test_the_dense_half_of_an_embedder_ranks_as_it_does_and_the_other_ones_figure_is_another(
    tmp_path: Path,
    write_data: Callable[[Path], Path],
    embedder_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "quality")
    import untuned

    data, model, file = write_data(tmp_path / "toy"), str(embedder_folder), tmp_path / "untuned.json"
    monkeypatch.setattr(
        sys, "argv", ["untuned.py", model, "--benchmark", str(data), "--top_k", "24", "--json", str(file)]
    )
    untuned.main()
    shown = capsys.readouterr().out
    (row,) = json.loads(file.read_text())["rows"]
    assert all(f"{row[part]:.4f}" in shown for part in ("both", "dense", "lexical"))
    benchmark = read_benchmark(data, "train")
    alone = evaluate_run(dense_run(model, benchmark), benchmark.qrels)["ndcg@10"]
    assert row["dense"] == pytest.approx(alone, abs=0.02)  # bfloat16 where the machine has it
    assert row["dense"] != row["lexical"]
