"""The benchmark of what words add to dense vectors, on a tiny benchmark."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dupmae.config import DuplexConfig
from dupmae.corpus import read_benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.evaluation import evaluate_run
from dupmae.index import DuplexIndex
from dupmae.retrievers import bm25_run, dense_run, duplex_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "quality")
    import words

    return words


def test_the_ends_of_the_scale_are_the_rankings_alone(
    script: Any,
    tmp_path: Path,
    write_data: Callable[[Path], Path],
    embedder_folder: Path,
    monkeypatch: Any,
    capsys: Any,
) -> None:
    data = write_data(tmp_path / "toy")
    benchmark = read_benchmark(data, "test")
    result = tmp_path / "words.json"
    more = ["--benchmark", str(data), "--split", "test", "--weights", "0", "0.5", "--json", str(result)]
    monkeypatch.setattr(sys, "argv", ["words.py", str(embedder_folder), *more])
    script.main()
    found = json.loads(result.read_text())["ndcg@10"]
    assert list(found) == ["0", "0.5", "alone"]
    for name, run in (("0", dense_run(str(embedder_folder), benchmark)), ("alone", bm25_run(benchmark))):
        assert found[name] == pytest.approx(evaluate_run(run, benchmark.qrels)["ndcg@10"])
    assert f"{found['0.5']:.4f}" in capsys.readouterr().out


def test_a_duplex_models_own_balance_is_weight_one(
    script: Any, tmp_path: Path, write_data: Callable[[Path], Path], embedder_folder: Path, monkeypatch: Any
) -> None:
    data = write_data(tmp_path / "toy")
    benchmark = read_benchmark(data, "test")
    encoder = DuplexEncoder.from_encoder(str(embedder_folder), DuplexConfig(dense_pooling="mean", top_k=24))
    encoder.save(str(tmp_path / "model"))
    result = tmp_path / "words.json"
    more = ["--benchmark", str(data), "--split", "test", "--weights", "0", "1", "--json", str(result)]
    monkeypatch.setattr(sys, "argv", ["words.py", str(tmp_path / "model"), *more])
    script.main()
    index = DuplexIndex.build(tmp_path / "index", encoder, benchmark.corpus.values(), model=str(tmp_path / "model"))
    for name, part in (("0", "dense"), ("1", "both"), ("alone", "lexical")):
        run = duplex_run(index, benchmark, part=part)  # type: ignore[arg-type]
        measured = json.loads(result.read_text())["ndcg@10"][name]
        assert measured == pytest.approx(evaluate_run(run, benchmark.qrels)["ndcg@10"])


def test_a_passage_that_one_ranking_lacks_is_last_there(script: Any) -> None:
    dense, others = {"q": {"a": 4.0, "b": 2.0}, "r": {"a": 1.0}}, {"q": {"c": 8.0, "b": 2.0}}
    assert script.scaled(dense) == {"q": {"a": 1.0, "b": 0.5}, "r": {"a": 1.0}}
    joined = script.together(dense, others, 0.5)
    assert joined == {"q": {"a": 4.0, "b": 3.0, "c": 6.0}, "r": {"a": 1.0}}
