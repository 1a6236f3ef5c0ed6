"""The benchmark of what words add to dense vectors, on a tiny benchmark."""

from __future__ import annotations

import json
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


def test_the_ends_of_the_scale_are_the_rankings_alone(
    tmp_path: Path,
    write_data: Callable[[Path], Path],
    embedder_folder: Path,
    run_script: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_data(tmp_path / "toy")
    benchmark = read_benchmark(data, "test")
    result = tmp_path / "words.json"
    more = ["--benchmark", data, "--split", "test", "--weights", 0, 0.5, "--json", result]
    run_script("words", embedder_folder, *more)
    found = json.loads(result.read_text(encoding="utf-8"))["ndcg@10"]
    assert list(found) == ["0", "0.5", "alone"]
    for name, run in (("0", dense_run(str(embedder_folder), benchmark)), ("alone", bm25_run(benchmark))):
        assert found[name] == pytest.approx(evaluate_run(run, benchmark.qrels)["ndcg@10"])
    assert f"{found['0.5']:.4f}" in capsys.readouterr().out


def test_a_duplex_models_own_score_is_weight_one(
    tmp_path: Path, write_data: Callable[[Path], Path], embedder_folder: Path, run_script: Callable[..., None]
) -> None:
    data = write_data(tmp_path / "toy")
    benchmark = read_benchmark(data, "test")
    encoder = DuplexEncoder.from_encoder(
        str(embedder_folder), DuplexConfig(dense_pooling="mean", top_k=24, words="none")
    )
    encoder.save(str(tmp_path / "model"))
    result = tmp_path / "words.json"
    more = ["--benchmark", data, "--split", "test", "--weights", 0, 1, "--json", result]
    run_script("words", tmp_path / "model", *more)
    index = DuplexIndex.build(tmp_path / "index", encoder, benchmark.corpus.values(), model=str(tmp_path / "model"))
    for name, part in (("0", "dense"), ("1", "all"), ("alone", "lexical")):
        run = duplex_run(index, benchmark, part=part)  # type: ignore[arg-type]
        measured = json.loads(result.read_text(encoding="utf-8"))["ndcg@10"][name]
        assert measured == pytest.approx(evaluate_run(run, benchmark.qrels)["ndcg@10"])


def test_a_passage_that_one_ranking_lacks_is_last_there(import_script: Callable[[str], Any]) -> None:
    script = import_script("words")
    dense, others = {"q": {"a": 4.0, "b": 2.0}, "r": {"a": 1.0}}, {"q": {"c": 8.0, "b": 2.0}}
    assert script.scaled(dense) == {"q": {"a": 1.0, "b": 0.5}, "r": {"a": 1.0}}
    joined = script.together(dense, others, 0.5)
    assert joined == {"q": {"a": 4.0, "b": 3.0, "c": 6.0}, "r": {"a": 1.0}}
