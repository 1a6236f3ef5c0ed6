"""Measure TREC runs apart on test queries whose positives are positives of train queries, too, and on the others.

    python benchmarks/quality/seen_positives.py RUN ... [--benchmark data/scifact]

Where a test set shares passages with the train set, a fine-tuned model has learnt that these passages are asked for.
The other queries show what it does on passages that nobody asked for before. Prints NDCG@10.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dupmae import evaluate_run, read_benchmark
from dupmae.corpus.trec import read_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="TREC run files")
    parser.add_argument("--benchmark", type=Path, default=Path(__file__).parents[2] / "data" / "scifact")
    options = parser.parse_args()
    train, test = (read_benchmark(options.benchmark, split).qrels for split in ("train", "test"))
    known = {passage for judged in train.values() for passage, grade in judged.items() if grade > 0}
    seen = {query: judged for query, judged in test.items() if known & {p for p, grade in judged.items() if grade > 0}}
    groups = {"all": test, "seen": seen, "unseen": {query: test[query] for query in test if query not in seen}}
    table = Table("run", *(f"{name}: {len(qrels)} queries" for name, qrels in groups.items()))
    for path in options.runs:
        run = read_run(path)
        table.add_row(str(path), *(f"{evaluate_run(run, qrels)['ndcg@10']:.4f}" for qrels in groups.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
