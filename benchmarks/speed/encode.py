"""Encoding passages: `DuplexEncoder`, and sentence-transformers' `SparseEncoder` with `SpladePooling`, same weights.

    python benchmarks/speed/encode.py [--float32] [--passages 256] [--length 256] [--batch 32] [--layers 6] \\
        [--hidden 384]
    python benchmarks/speed/encode.py --json

The passages are the first of the bundled SciFact; the weights are random, a BERT with its MLM head in a vocabulary of
30,522, written once and loaded by both. Each system has a process of its own, and they take turns. Both run in bfloat16
throughout unless --float32 is given, with the same batch size, both sorting passages by length; ours also computes the
dense half. Before anything is timed both embed a few passages, and their heaviest entries are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from interleave import comparison_parser, serve, take_turns
from random_bert import random_bert
from rich.console import Console
from rich.table import Table
from transformers import BertTokenizerFast

from dupmae.corpus import read_benchmark

SCIFACT = Path(__file__).parents[2] / "data" / "scifact"
PROBES, HEAVIEST = 4, 50
"""Passages that are compared before the timing, and by how many of their entries."""
VOCABULARY = 30_522
"""Entries of the tokenizer at most, and of the output matrix."""
SIZES = {"passages": 256, "length": 256, "batch": 32, "layers": 6, "hidden": 384}


def write_encoder(folder: Path, texts: list[str], options: argparse.Namespace) -> None:
    """A BERT with random weights and a WordPiece tokenizer that knows the texts' words."""
    tokenizer = BertTokenizerFast(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4})
    tokenizer = tokenizer.train_new_from_iterator(texts, VOCABULARY)
    torch.manual_seed(0)
    random_bert(options.layers, options.hidden, VOCABULARY).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def ours(folder: Path, options: argparse.Namespace) -> Callable[[list[str]], list[list[int]]]:
    """A function that embeds texts and gives each one's entries, heaviest first."""
    from dupmae.config import DuplexConfig
    from dupmae.duplex import DuplexEncoder
    from dupmae.duplex import inference as embedding

    if options.float32:
        embedding.bfloat16_pays = lambda _: False
    encoder = DuplexEncoder.from_encoder(str(folder), DuplexConfig(document_max_length=options.length))
    return lambda texts: encoder.embed_documents(texts, batch_size=options.batch).ids.tolist()


def splade(folder: Path, options: argparse.Namespace) -> Callable[[list[str]], list[list[int]]]:
    """The same from sentence-transformers."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    transformer = Transformer(
        str(folder),
        transformer_task="fill-mask",
        max_seq_length=options.length,
        model_kwargs={"dtype": torch.float32 if options.float32 else torch.bfloat16},
    )
    encoder = SparseEncoder(modules=[transformer, SpladePooling()], device="cpu")

    def embed(texts: list[str]) -> list[list[int]]:
        vectors = encoder.encode_document(texts, batch_size=options.batch, max_active_dims=384)
        rows = vectors.coalesce()
        order = torch.argsort(rows.values(), descending=True, stable=True)
        entries: list[list[int]] = [[] for _ in texts]
        for row, entry in rows.indices()[:, order].T.tolist():
            entries[row].append(entry)
        return entries

    return embed


def measure(options: argparse.Namespace) -> None:
    """One system's side: first the entries of the probes, then the seconds of a pass."""
    torch.set_num_threads(options.threads)
    texts = _texts(options.passages)
    embed = {"dupmae": ours, "sentence-transformers": splade}[options.system](Path(options.folder), options)
    asked = False

    def answer() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"probes": [row[:HEAVIEST] for row in embed(texts[:PROBES])]}
        begun = time.perf_counter()
        embed(texts)
        return {"seconds": time.perf_counter() - begun}

    serve(answer)


def _texts(count: int) -> list[str]:
    corpus = read_benchmark(SCIFACT, "test").corpus
    return [passage.full_text for passage in list(corpus.values())[:count]]


def main() -> None:
    parser = comparison_parser(__doc__, SIZES, rounds=4)
    parser.add_argument("--float32", action="store_true", help="float32 instead of bfloat16, both systems")
    options = parser.parse_args()
    if options.system:
        measure(options)
        return
    shape = [f"--{name}={getattr(options, name)}" for name in (*SIZES, "threads")] + ["--float32"] * options.float32
    with tempfile.TemporaryDirectory() as place:
        write_encoder(Path(place), _texts(options.passages), options)
        measured = take_turns(
            {
                name: [sys.executable, __file__, f"--system={name}", f"--folder={place}", *shape]
                for name in ("dupmae", "sentence-transformers")
            },
            0,
            1 + options.rounds,
        )
    figures: dict[str, Any] = {"setting": {name: getattr(options, name) for name in (*SIZES, "threads", "float32")}}
    probes = [answers[0]["probes"] for answers in measured.values()]
    shared = [len({*a} & {*b}) / len(b) for a, b in zip(*probes, strict=True)]
    figures["heaviest_50_shared"] = round(statistics.mean(shared), 3)
    for name, answers in measured.items():
        rates = [options.passages / answer["seconds"] for answer in answers[1:]]
        figures[name] = {
            "passages_per_s": round(statistics.median(rates), 2),
            "passages_per_s_best": round(max(rates), 2),
            "peak_rss_mb": answers[-1]["peak_rss_mb"],
        }
    if options.json:
        print(json.dumps(figures))
        return
    show(figures)


def show(figures: dict[str, Any]) -> None:
    """A row for each system, and beside the peer's how ours stands to it."""
    setting = ", ".join(f"{name} {value}" for name, value in figures["setting"].items())
    table = Table("system", "passages/s: median", "best", "peak, MB", title=setting)
    ours = figures["dupmae"]
    for name in ("dupmae", "sentence-transformers"):
        row = figures[name]
        ratios = [ours[key] / row[key] for key in ("passages_per_s", "passages_per_s_best")]
        ratios.append(row["peak_rss_mb"] / ours["peak_rss_mb"])
        table.add_row(
            name,
            *(
                f"{value:,}" + ("" if row is ours else f" ({ratio:.1f} x)")
                for value, ratio in zip(row.values(), ratios, strict=True)
            ),
        )
    console = Console(width=120)
    console.print(table)
    console.print(f"Of the {HEAVIEST} heaviest entries both share {100 * figures['heaviest_50_shared']:.0f} %.")


if __name__ == "__main__":
    main()
