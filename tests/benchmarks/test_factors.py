"""A model made without fine-tuning, and what its halves' balance does on a tiny benchmark."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dupmae.corpus import read_benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.evaluation import evaluate_run
from dupmae.index import DuplexIndex
from dupmae.retrievers import duplex_run

ROOT = Path(__file__).parents[2]


def test_an_untuned_model_is_ranked_with_its_vocabulary_half_multiplied(
    tmp_path: Path,
    write_data: Callable[[Path], Path],
    embedder_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for folder in ("benchmarks/quality", "recipes"):
        monkeypatch.syspath_prepend(ROOT / folder)
    import factors
    import untuned_duplex

    data, card = write_data(tmp_path / "toy"), tmp_path / "card.md"
    card.write_text("# A card\n")
    words = [str(embedder_folder), str(data), "--output", str(tmp_path / "model"), "--factor", "2", "--card", str(card)]
    words += ["--top_k", "24"]
    monkeypatch.setattr(sys, "argv", ["untuned_duplex.py", *words])
    untuned_duplex.main()
    encoder = DuplexEncoder(str(tmp_path / "model"))
    assert float((encoder.pooling.ot_log_scale - encoder.pooling.cls_log_scale).detach().exp()) == pytest.approx(2)
    assert (tmp_path / "model" / "README.md").read_text() == "# A card\n"

    words = [str(tmp_path / "model"), "--benchmark", f"{data}:train", "--indexes", str(tmp_path / "indexes")]
    words += ["--factors", "1", "1e-6", "100", "--json", str(tmp_path / "factors.json")]
    monkeypatch.setattr(sys, "argv", ["factors.py", *words])
    factors.main()
    (row,) = json.loads((tmp_path / "factors.json").read_text())
    benchmark = read_benchmark(data, "train")
    (index,) = (DuplexIndex.open(folder) for folder in (tmp_path / "indexes").iterdir())
    assert row["x 1"] == evaluate_run(duplex_run(index, benchmark), benchmark.qrels)["ndcg@10"]
    assert row["x 1e-06"] == row["dense"] != row["x 100"]
