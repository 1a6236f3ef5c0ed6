"""Measure a duplex model on several sets: its halves, and their sum with the lexical half's score multiplied.

    python benchmarks/quality/factors.py MODEL --benchmark data/scifact:train data/scifact:test --indexes runs/indexes

A set is a folder in BEIR layout and the judgements to measure on. Passages are encoded once a folder, for queries alone
carry the scale. Prints and, with --json, writes NDCG@10.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from halves import ndcg
from rich.console import Console
from rich.table import Table

from dupmae.corpus import read_benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.files import write_json
from dupmae.index import DuplexIndex
from dupmae.models import resolve_model
from dupmae.retrievers.systems import HALVES

FACTORS = (0.3, 1.0, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a duplex model")
    parser.add_argument("--benchmark", nargs="+", required=True, metavar="FOLDER:SPLIT")
    parser.add_argument("--indexes", type=Path, required=True, help="folder that keeps the indexes")
    parser.add_argument("--factors", nargs="+", type=float, default=FACTORS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    folder = resolve_model(options.model)
    encoder = DuplexEncoder(folder)
    scale = encoder.pooling.ot_log_scale.detach().clone()
    names = [*HALVES, *(f"x {factor:g}" for factor in options.factors)]
    table = Table("queries", *names, title=options.model)
    record = []
    for named in options.benchmark:
        source, _, split = named.rpartition(":")
        benchmark = read_benchmark(Path(source), split)
        index = DuplexIndex.build(
            options.indexes / Path(source).name, encoder, benchmark.corpus.values(), model=folder, chunk_tokens=0
        )
        figures: dict[str, Any] = {half: ndcg(index, benchmark, half) for half in HALVES}
        for factor in options.factors:
            with torch.no_grad():
                index.encoder.pooling.ot_log_scale.copy_(scale + math.log(factor))
            figures[f"x {factor:g}"] = ndcg(index, benchmark)
        with torch.no_grad():
            index.encoder.pooling.ot_log_scale.copy_(scale)
        table.add_row(f"{benchmark.name} {split}", *(f"{figures[name]:.4f}" for name in names))
        record.append({"benchmark": benchmark.name, "split": split, "queries": len(benchmark.qrels), **figures})
        print(json.dumps(record[-1]), flush=True)
    Console(width=120).print(table)
    if options.json is not None:
        write_json(options.json, record)


if __name__ == "__main__":
    main()
