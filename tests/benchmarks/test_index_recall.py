"""The recall of the index on a model's own embeddings is measured against scores that can tell a wrong answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dupmae.config import DuplexConfig
from dupmae.corpus import Passage, write_benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.duplex.embeddings import DuplexEmbeddings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "reliability"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_an_index_of_a_models_embeddings_finds_all_and_the_next_run_encodes_nothing(
    tmp_path: Path,
    bert_folder: Path,
    texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import index_recall

    DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(top_k=20)).save(str(tmp_path / "model"))
    folder = tmp_path / "tiny"
    passages = [Passage(f"corpus{number}", "", text) for number, text in enumerate(texts)]
    queries = {f"queries{number}": text for number, text in enumerate(texts[:3])}
    judged = {f"queries{number}": {f"corpus{number}": 1} for number in range(3)}
    write_benchmark(folder, passages, queries, {"test": judged})
    monkeypatch.setattr(index_recall, "CHUNK", 5)
    options = (str(tmp_path / "model"), str(folder), "--k=4", f"--encodings={tmp_path / 'kept'}", "--json")
    monkeypatch.setattr(sys, "argv", ["index_recall.py", *options])
    index_recall.main()
    first = json.loads(capsys.readouterr().out)
    assert (first["passages"], first["queries"], first["wanted"]) == (12, 3, 12)
    assert first["exhaustive_search_of"]["the stored numbers"] == {"recall": 1.0, "missed": 0, "falls_short_by": 0.0}
    assert first["largest_difference_of_the_index"] < 1e-9 < first["largest_rounding_of_a_score"] < 0.1
    assert len(list((tmp_path / "kept").glob("*/*"))) == 3
    monkeypatch.setattr(DuplexEncoder, "embed_documents", None)
    index_recall.main()
    assert json.loads(capsys.readouterr().out) == first


def test_a_worse_passage_counts_as_missed_and_an_equal_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import index_recall

    monkeypatch.setattr(index_recall, "CHUNK", 2)
    cls = np.array([[3.0], [2], [2], [1]], np.float32)
    ids, weights = np.zeros((4, 1), np.uint16), np.array([[0.0], [0], [0], [0.5]], np.float32)
    passages = DuplexEmbeddings(cls, ids, weights)
    query = DuplexEmbeddings(np.ones((1, 1), np.float32), np.zeros((1, 1), np.uint16), np.ones((1, 1), np.float32))
    chunks = [passages[:2], passages[2:]]
    for found, missed, short in (([0, 1], 0, 0.0), ([0, 2], 0, 0.0), ([0, 3], 1, 0.5)):
        figures, rounding, scores = index_recall.compare(chunks, 5, query, np.array([found]))
        for row in figures.values():
            assert row == {"recall": 1 - missed / 2, "missed": missed, "falls_short_by": short}
        assert rounding == 0
        np.testing.assert_array_equal(scores[0], [3.0, 2.0 - short])
