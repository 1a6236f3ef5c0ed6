"""Measure a duplex model on several sets: its parts, and their sum with the parts' scores multiplied.

    python benchmarks/quality/factors.py MODEL --benchmark data/scifact:train data/scifact:test --indexes runs/indexes

A set is a folder in BEIR layout and the judgements to measure on. Passages are encoded once a folder, for queries alone
carry the scales. Prints and, with --json, writes NDCG@10.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dupmae.corpus import read_benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.evaluation import evaluate_run
from dupmae.files import write_json
from dupmae.index import DuplexIndex, Weights
from dupmae.index.scoring.query import UNCHANGED, Part
from dupmae.models import resolve_model

PARTS: dict[str, Part] = {"sum": "all", "dense": "dense", "lexical": "lexical", "words": "words"}
"""Name of a column -> the part of the score."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a duplex model")
    parser.add_argument("--benchmark", nargs="+", required=True, metavar="FOLDER:SPLIT")
    parser.add_argument("--indexes", type=Path, required=True, help="folder that keeps the indexes")
    parser.add_argument("--lexical", nargs="+", type=float, default=[1.0], help="factors of the lexical half")
    parser.add_argument("--words", nargs="+", type=float, default=[1.0], help="factors of words")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    folder = resolve_model(options.model)
    encoder = DuplexEncoder(folder)
    grid = [Weights(lexical=one, words=other) for one, other in product(options.lexical, options.words)]
    names = {f"{weights.lexical:g}:{weights.words:g}": weights for weights in grid if weights != UNCHANGED}
    parts = {name: part for name, part in PARTS.items() if part != "words" or encoder.words is not None}
    table = Table("queries", *parts, *names, title=f"{options.model}; lexical:words")
    record = []
    for named in options.benchmark:
        source, _, split = named.rpartition(":")
        benchmark = read_benchmark(Path(source), split)
        index = DuplexIndex.build(
            options.indexes / Path(source).name, encoder, benchmark.corpus.values(), model=folder, chunk_tokens=0
        )
        queries = encoder.embed_queries([benchmark.queries[query] for query in benchmark.qrels])
        columns: dict[str, tuple[Part, Weights]] = {name: (part, UNCHANGED) for name, part in parts.items()}
        columns |= {name: ("all", weights) for name, weights in names.items()}
        figures = {}
        for name, (part, weights) in columns.items():
            rankings = zip(*index.search_embeddings(queries, 100, part, weights=weights), strict=True)
            run = {
                query: dict(zip(*ranking, strict=True))
                for query, ranking in zip(benchmark.qrels, rankings, strict=True)
            }
            figures[name] = evaluate_run(run, benchmark.qrels)["ndcg@10"]
        table.add_row(f"{benchmark.name} {split}", *(f"{figure:.4f}" for figure in figures.values()))
        record.append({"benchmark": benchmark.name, "split": split, "queries": len(benchmark.qrels), **figures})
        print(json.dumps(record[-1]), flush=True)
    Console(width=120).print(table)
    if options.json is not None:
        write_json(options.json, record)


if __name__ == "__main__":
    main()
