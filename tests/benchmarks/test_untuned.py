"""The benchmark of checkpoints that were not fine-tuned, on a tiny benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dupmae.corpus import read_benchmark
from dupmae.evaluation import evaluate_run
from dupmae.retrievers import dense_run


def test_the_dense_half_of_an_embedder_ranks_as_it_does_and_the_other_ones_figure_is_another(
    tmp_path: Path,
    write_data: Callable[[Path], Path],
    embedder_folder: Path,
    run_script: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, model, file = write_data(tmp_path / "toy"), str(embedder_folder), tmp_path / "untuned.json"
    run_script("untuned", model, "--benchmark", data, "--top_k", 24, "--json", file)
    shown = capsys.readouterr().out
    (row,) = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert all(f"{row[part]:.4f}" in shown for part in ("both", "dense", "lexical"))
    benchmark = read_benchmark(data, "train")
    alone = evaluate_run(dense_run(model, benchmark), benchmark.qrels)["ndcg@10"]
    assert row["dense"] == pytest.approx(alone, abs=0.02)  # bfloat16 where the machine has it
    assert row["dense"] != row["lexical"]
