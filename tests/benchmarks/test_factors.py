"""A model made without fine-tuning, and what a factor of its lexical half does on a tiny benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dupmae.corpus import read_benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.evaluation import evaluate_run
from dupmae.index import DuplexIndex
from dupmae.retrievers import duplex_run


def test_an_untuned_model_is_ranked_with_its_lexical_half_multiplied(
    tmp_path: Path, write_data: Callable[[Path], Path], embedder_folder: Path, run_script: Callable[..., None]
) -> None:
    data, model, card = write_data(tmp_path / "toy"), tmp_path / "model", tmp_path / "card.md"
    card.write_text("# A card\n", encoding="utf-8")
    words = ["--output", model, "--factor", 2, "--card", card, "--top_k", 24]
    run_script("untuned_duplex", embedder_folder, data, *words)
    encoder = DuplexEncoder(str(model))
    assert float((encoder.pooling.ot_log_scale - encoder.pooling.cls_log_scale).detach().exp()) == pytest.approx(2)
    assert (model / "README.md").read_text(encoding="utf-8") == "# A card\n"

    words = ["--benchmark", f"{data}:train", "--indexes", tmp_path / "indexes", "--json", tmp_path / "factors.json"]
    run_script("factors", model, *words, "--lexical", 1, "1e-6", 100)
    (row,) = json.loads((tmp_path / "factors.json").read_text(encoding="utf-8"))
    benchmark = read_benchmark(data, "train")
    (index,) = (DuplexIndex.open(folder) for folder in (tmp_path / "indexes").iterdir())
    for name, part in (("sum", "all"), ("dense", "dense"), ("lexical", "lexical")):
        run = duplex_run(index, benchmark, part=part)  # type: ignore[arg-type]
        assert row[name] == evaluate_run(run, benchmark.qrels)["ndcg@10"]
    assert row["1e-06:1"] == row["dense"] != row["100:1"]
    assert "words" not in row
