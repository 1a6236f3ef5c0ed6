"""Measure a duplex model and its halves, for the benchmarks that compare models."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from dupmae.corpus import Benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.evaluation import evaluate_run
from dupmae.index import DuplexIndex
from dupmae.index.scoring.query import Part
from dupmae.retrievers import duplex_run

PARTS: dict[str, Part] = {"both": "all", "dense": "dense", "lexical": "lexical"}
"""Name of a column -> the sum, the dense half, the lexical half."""


def ndcg_of_halves(encoder: DuplexEncoder, sets: Sequence[Benchmark]) -> list[dict[str, float]]:
    """Measure NDCG@10 of each of :data:`PARTS` on sets of queries over one corpus, indexed for as long as it takes."""
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/model"
        encoder.save(model)
        index = DuplexIndex.build(Path(folder) / "index", encoder, sets[0].corpus.values(), model=model, chunk_tokens=0)
        return [{name: ndcg(index, one, part) for name, part in PARTS.items()} for one in sets]


def ndcg(index: DuplexIndex, benchmark: Benchmark, part: Part = "all") -> float:
    """Measure NDCG@10 of a part of the score."""
    return evaluate_run(duplex_run(index, benchmark, part=part), benchmark.qrels)["ndcg@10"]
