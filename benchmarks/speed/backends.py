"""Encoding passages with one model: PyTorch, ONNX Runtime in float32, and there with products of bytes, taking turns.

    dupmae export MODEL --corpus data/scifact/corpus.jsonl.xz
    python benchmarks/speed/backends.py MODEL [--passages 128] [--rounds 4] [--json]

MODEL is the folder of a duplex model with its export; the passages are of the bundled SciFact. `sentence-transformers`
is `SparseEncoder.encode_document` of the same model in float32, which computes every logit; `torch` is `DuplexEncoder`
in float32, which rules most terms out in bytes. Prints the median seconds and the ratio to sentence-transformers.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from dupmae.corpus import read_benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.duplex.backends import open_encoder
from dupmae.models import open_model

SCIFACT = Path(__file__).parents[2] / "data" / "scifact"
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a duplex model with its export")
    parser.add_argument("--passages", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    options = parser.parse_args()
    texts = [passage.full_text for passage in read_benchmark(SCIFACT, "test").corpus.values()]
    texts = random.Random(0).sample(texts, options.passages)
    model = open_model(options.model)
    pytorch = open_encoder(model, "torch", "float32")
    assert isinstance(pytorch, DuplexEncoder)
    systems: dict[str, Callable[[], Any]] = {
        "sentence-transformers": lambda: pytorch.encode_document(texts, batch_size=BATCH),
        "torch": lambda: pytorch.embed_documents(texts, BATCH),
    }
    for name in ("onnx", "onnx-int8"):
        encoder = open_encoder(model, name)
        systems[name] = lambda encoder=encoder: encoder.embed_documents(texts, BATCH)  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(options.rounds + 1):
        for name, encode in systems.items():
            begun = time.perf_counter()
            encode()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    plain = medians["sentence-transformers"]
    exact, inexact = pytorch.embed_documents(texts, BATCH), encoder.embed_documents(texts, BATCH)
    figures = {
        "passages": options.passages,
        "threads": torch.get_num_threads(),
        "seconds": medians,
        "passages_per_s": {name: options.passages / value for name, value in medians.items()},
        "speedup": {name: plain / value for name, value in medians.items()},
        "int8_dense_cosine": float((exact.cls * inexact.cls).sum(axis=1).mean()),
    }
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    table = Table("", "passages/s", "times sentence-transformers")
    for name in systems:
        table.add_row(name, f"{figures['passages_per_s'][name]:.1f}", f"{figures['speedup'][name]:.2f}")
    console = Console()
    console.print(table)
    console.print(f"int8: cosine of dense halves with float32 {np.float32(figures['int8_dense_cosine']):.4f}")


if __name__ == "__main__":
    main()
