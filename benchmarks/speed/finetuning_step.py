"""A fine-tuning step, forward and backward, in three ways: memory and time, and what becomes of the gradient.

    python benchmarks/speed/finetuning_step.py [--batch 128] [--mini 16] [--negatives 1] [--length 128] [--layers 6]
    python benchmarks/speed/finetuning_step.py --json

`every entry` computes the passages' whole vocabulary halves and cuts them to their top k, as encoding does; the whole
batch and the mini-batches compute those entries alone that a query of the step has.

The encoder is a BERT with random weights and a vocabulary of 30,522, in float32 unless --bfloat16 is given. Each way
has a process of its own, and they take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from interleave import comparison_parser, serve, take_turns
from random_bert import random_bert
from rich.console import Console
from rich.table import Table
from synthetic_text import draw_texts, vocabulary
from transformers import BertTokenizerFast

WAYS = ("every entry", "whole batch", "mini-batches")
SIZES = {"batch": 128, "mini": 16, "negatives": 1, "length": 128, "layers": 6, "hidden": 384, "vocabulary": 30_522}


def write_encoder(folder: Path, options: argparse.Namespace) -> None:
    """A BERT with random weights and a tokenizer of whole words."""
    words = {word: number for number, word in enumerate(vocabulary(options.vocabulary))}
    BertTokenizerFast(vocab=words).save_pretrained(folder)
    torch.manual_seed(0)
    random_bert(options.layers, options.hidden, options.vocabulary).save_pretrained(folder)


def measure(options: argparse.Namespace) -> None:
    """One way's side: the seconds of a step, and some of the gradient."""
    from dupmae.config import DuplexConfig, FinetuneConfig
    from dupmae.corpus import Benchmark, Passage
    from dupmae.duplex import DuplexEncoder
    from dupmae.finetuning.examples import make_examples
    from dupmae.finetuning.loss import DuplexLoss
    from dupmae.finetuning.trainer import row_collator
    from dupmae.runtime.precision import autocast, prepare_for_training

    torch.set_num_threads(options.threads)
    words = vocabulary(options.vocabulary)[5:]
    texts = draw_texts((2 + options.negatives) * options.batch, words, options.length, natural=True)
    corpus = {f"p{number}": Passage(f"p{number}", "", text) for number, text in enumerate(texts)}
    queries = {f"q{number}": " ".join(texts[number].split()[:8]) for number in range(options.batch)}
    train = Benchmark("made up", "train", corpus, queries, {f"q{n}": {f"p{n}": 1} for n in range(options.batch)})
    config = FinetuneConfig(epochs=1, batch_size=options.batch, negatives=options.negatives)
    config = replace(config, mini_batch_size=options.mini if options.system == "mini-batches" else 0)
    torch.manual_seed(0)
    encoder = DuplexEncoder.from_encoder(options.folder, DuplexConfig(document_max_length=options.length))
    encoder.to("cpu")
    precision = "bfloat16" if options.bfloat16 else "float32"
    prepare_for_training(encoder.transformers_model, 0.0, precision)
    examples = make_examples(train, config)
    loss = DuplexLoss(encoder, examples, config)
    if options.system == "every entry":
        loss.terms_of = lambda features: None
    collate = row_collator(encoder, examples)

    def step() -> dict[str, Any]:
        begun = time.perf_counter()
        encoder.zero_grad()
        batch = collate([{"label": row} for row in range(options.batch)])
        labels = batch.pop("label")
        features = [
            {name.removeprefix(f"{column}_"): value for name, value in batch.items() if name.startswith(f"{column}_")}
            for column in examples.columns
        ]
        with autocast("cpu", precision):
            losses = loss(features, labels)
            torch.stack(list(losses.values())).sum().backward()
        weights = {name: parameter.grad for name, parameter in encoder.named_parameters()}
        probe = [float(weights[f"1.{name}"].norm()) for name in ("cls_projection.weight", "output.weight")]
        return {"seconds": time.perf_counter() - begun, "gradient": probe}

    serve(step)


def main() -> None:
    parser = comparison_parser(__doc__, SIZES, rounds=3)
    parser.add_argument("--bfloat16", action="store_true", help="matrix products in bfloat16")
    options = parser.parse_args()
    if options.system:
        measure(options)
        return
    shape = [f"--{name}={getattr(options, name)}" for name in (*SIZES, "threads")] + ["--bfloat16"] * options.bfloat16
    with tempfile.TemporaryDirectory() as place:
        write_encoder(Path(place), options)
        measured = take_turns(
            {name: [sys.executable, __file__, f"--system={name}", f"--folder={place}", *shape] for name in WAYS},
            1,
            options.rounds,
        )
    figures: dict[str, Any] = {"setting": {name: getattr(options, name) for name in (*SIZES, "threads", "bfloat16")}}
    for name, answers in measured.items():
        figures[name] = {
            "seconds": round(statistics.median(answer["seconds"] for answer in answers), 2),
            "peak_rss_mb": answers[-1]["peak_rss_mb"],
            "gradient": answers[-1]["gradient"],
        }
    if options.json:
        print(json.dumps(figures))
        return
    table = Table("way", "seconds a step", "peak, MB", "norms of two gradients", title=str(figures["setting"]))
    for name in measured:
        row = figures[name]
        norms = ", ".join(f"{norm:.6g}" for norm in row["gradient"])
        table.add_row(name, f"{row['seconds']:.2f}", f"{row['peak_rss_mb']:,}", norms)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
