"""Rank with pre-trained checkpoints before any fine-tuning: both halves, calibrated on the corpus and no more.

    python benchmarks/quality/untuned.py runs/a/model runs/b/model --benchmark data/nfcorpus --split dev

Prints and, with --json, writes NDCG@10 of the sum and of each half.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from halves import PARTS, ndcg_of_halves
from rich.console import Console
from rich.table import Table

from dupmae.config import DuplexConfig
from dupmae.corpus import read_benchmark
from dupmae.duplex import start_duplex
from dupmae.files import write_json

SEED = 42
"""Draws the passages that are calibrated on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="folders that `dupmae pretrain` wrote, or encoders")
    parser.add_argument("--benchmark", type=Path, required=True, help="folder in BEIR layout")
    parser.add_argument("--split", default="train", help="not the test split, if it is to choose")
    parser.add_argument("--pooling", choices=("cls", "mean"), default="mean", help="the dense half's")
    parser.add_argument("--top_k", type=int, default=DuplexConfig.top_k, help="terms of a passage")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    benchmark = read_benchmark(options.benchmark, options.split)
    config = DuplexConfig(dense_pooling=options.pooling, top_k=options.top_k)
    table = Table("checkpoint", *(f"ndcg@10 {part}" for part in PARTS), title=f"{benchmark.name} ({benchmark.split})")
    record = []
    for checkpoint in options.checkpoints:
        encoder = start_duplex(checkpoint, config, benchmark.corpus, SEED)
        (found,) = ndcg_of_halves(encoder, [benchmark])
        table.add_row(checkpoint, *(f"{value:.4f}" for value in found.values()))
        record.append({"checkpoint": checkpoint, **found})
    Console().print(table)
    if options.json is not None:
        write_json(options.json, {"benchmark": benchmark.name, "split": benchmark.split, "rows": record})


if __name__ == "__main__":
    main()
