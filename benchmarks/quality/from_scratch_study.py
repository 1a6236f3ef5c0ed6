"""Pre-train small encoders from nothing by MLM, RetroMAE, either decoder alone and DupMAE; fine-tune all alike.

    python recipes/wikipedia_passages.py ARTICLES.jsonl.xz ... --output passages.jsonl --sample 40000
    python benchmarks/quality/from_scratch_study.py passages.jsonl --output runs/from-scratch-study \\
        --benchmark data/medquad data/nfcorpus --seeds 42 43

The paper's Table 4 where no finished embedder's training can explain the figures: a BERT of 4 layers of width 256 and a
tokenizer of 16,000 terms, both new, of the passages alone. A seed's encoders begin with the same weights and read the
same batches in the same order; what differs is the objective:

| pre-training | losses |
|---|---|
| nothing | none: the random encoder is fine-tuned |
| MLM | Eq. 1 |
| CLS | Eq. 1 and 5: what RetroMAE is trained with |
| OT | Eq. 1 and 8 |
| both | Eq. 1, 5 and 8 (Eq. 9): DupMAE |

They are fine-tuned on the same pairs with the same settings (stage 1), as dense dimensions and terms of :data:`ROWS`.
The table shows NDCG@10 of the queries of --split among --pool passages at most, a figure a seed; p is how often chance
alone would make as large a difference from `DupMAE` (randomisation test over queries, not corrected for the number of
rows). Writes OUTPUT/study.json; the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from halves import PARTS
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from dupmae.backbones.from_scratch import new_encoder
from dupmae.config import DuplexConfig, FinetuneConfig, PretrainConfig, ScratchConfig, StoreConfig
from dupmae.corpus import Benchmark, TokenStore, build_token_store, read_benchmark, read_passages
from dupmae.duplex import DuplexEncoder, start_duplex
from dupmae.evaluation import per_query
from dupmae.evaluation.significance import compare_with_baseline
from dupmae.files import write_json
from dupmae.finetuning import finetune
from dupmae.finetuning.validation import dev_pool
from dupmae.index import DuplexIndex
from dupmae.pretraining import pretrain
from dupmae.retrievers import bm25_run, duplex_run
from dupmae.runtime.json_text import parse_json

SIZE = ScratchConfig(layers=4, width=256, heads=4, vocabulary_size=16000, positions=256)
PRETRAINING: dict[str, dict[str, Any] | None] = {
    "nothing": None,
    "MLM": {"cls_weight": 0.0, "bow_weight": 0.0},
    "CLS": {"bow_weight": 0.0},
    "OT": {"cls_weight": 0.0},
    "both": {},
}
"""What each objective changes of :func:`pretraining`'s settings."""
PAIRS = 32
"""A step of fine-tuning."""
METRIC = "ndcg@10"
POOL_SEED = 42
"""Draws the pool, the same one for all seeds."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: what an encoder was pre-trained by, and what represents a text."""

    pretraining: str
    dense: int
    terms: int


BASE = "DupMAE"
"""The row that the others are compared with."""
ROWS = {
    "no pre-training": Row("nothing", 128, 128),
    "MLM": Row("MLM", 128, 128),
    "RetroMAE, 256:0": Row("CLS", 256, 0),
    "[CLS] decoding alone": Row("CLS", 128, 128),
    "OT decoding alone": Row("OT", 128, 128),
    BASE: Row("both", 128, 128),
    "DupMAE, 256:0": Row("both", 256, 0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages", type=Path, help="raw text to pre-train on")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--benchmark", type=Path, nargs="+", required=True, help="folders in BEIR layout, with train queries"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--split", default="test", help="queries to measure; dev to choose settings by")
    parser.add_argument("--pool", type=int, default=4000, help="passages, their judged ones and BM25's best included")
    parser.add_argument("--pretraining_steps", type=int, default=2000, help="of 16 chunks of at most 128 tokens")
    parser.add_argument("--finetuning_steps", type=int, default=200, help="of 32 pairs")
    parser.add_argument("--learning_rate", type=float, default=2e-4, help="of the encoder in fine-tuning")
    options = parser.parse_args()
    found: dict[str, dict[str, dict[str, Any]]] = {}  # benchmark -> seed -> row -> part -> query -> NDCG@10
    for seed in options.seeds:
        for folder in options.benchmark:
            queries = dev_pool(read_benchmark(folder, options.split), options.pool, POOL_SEED)
            rows = found.setdefault(folder.name, {}).setdefault(str(seed), {})
            for name in options.only:
                rows[name] = measured_row(options, ROWS[name], folder, seed, queries)
                show(found)
    write_json(options.output / "study.json", found)


def measured_row(options: argparse.Namespace, row: Row, folder: Path, seed: int, queries: Benchmark) -> dict[str, Any]:
    """Train a row's model and measure it, each unless it is done: part of the score -> query -> NDCG@10."""
    name = f"{folder.name}-{seed}-{row.pretraining}-{row.dense}-{row.terms}-{options.learning_rate:g}"
    place = options.output / "finetuned" / name
    file = place / f"{options.split}.json"
    if file.is_file():
        return dict(parse_json(file.read_text(encoding="utf-8")))
    encoder = finetuned(options, row, read_benchmark(folder, "train"), seed, place)
    index = DuplexIndex.build(place / "index", encoder, queries.corpus.values(), chunk_tokens=0)
    values = {
        name: per_query(duplex_run(index, queries, part=part), queries.qrels, METRIC)
        for name, part in PARTS.items()
        if row.terms or name == "both"
    }
    values["bm25"] = per_query(bm25_run(queries), queries.qrels, METRIC)
    write_json(file, values)
    return values


def finetuned(options: argparse.Namespace, row: Row, train: Benchmark, seed: int, place: Path) -> DuplexEncoder:
    """Fine-tune a row's encoder on the pairs of a benchmark."""
    pairs = sum(len(answers) for answers in train.qrels.values())
    config = FinetuneConfig(
        epochs=options.finetuning_steps * PAIRS / pairs,
        batch_size=PAIRS,
        learning_rate=options.learning_rate,
        head_learning_rate=1e-3,
        max_length=64,
        lexical_loss_weight=0.5 if row.terms else 0.0,
        eval_steps=0,
        seed=seed,
    )
    representation = DuplexConfig(
        words="none",
        dense_dimension=row.dense,
        top_k=row.terms,
        dense_pooling="cls",
        query_max_length=48,
        document_max_length=128,
    )
    checkpoint = pretrained(options, row.pretraining, seed)
    return finetune(start_duplex(str(checkpoint), representation, train.corpus, seed), train, place, config)


@cache
def new_encoder_and_store(passages: Path, root: Path, seed: int) -> tuple[Path, TokenStore]:
    """Make an encoder of :data:`SIZE` with a seed's random weights, and the passages' token store, or find them."""
    read = list(read_passages(passages))
    encoder = new_encoder(lambda: [one.full_text for one in read], root / f"encoder-{seed}", SIZE, seed)
    return encoder, build_token_store(
        read, AutoTokenizer.from_pretrained(encoder), root / "store", StoreConfig(max_length=128)
    )


def pretrained(options: argparse.Namespace, name: str, seed: int) -> Path:
    """Pre-train a seed's encoder on the passages by one of :data:`PRETRAINING`."""
    root: Path = options.output
    encoder, store = new_encoder_and_store(options.passages, root, seed)
    changes = PRETRAINING[name]
    if changes is None:
        return encoder
    config = PretrainConfig(
        warm_start_sequences=0,
        new_layers_steps=0,
        steps=options.pretraining_steps,
        batch_size=16,
        learning_rate=1e-3,
        head_learning_rate=1e-3,
        dense_pooling="cls",
        eval_steps=max(options.pretraining_steps // 2, 1),
        keep="last",
        seed=seed,
    )
    return pretrain(store, str(encoder), root / "pretrained" / f"{name}-{seed}", replace(config, **changes))


def show(found: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]]) -> None:
    """Print what is there: a table a benchmark, means over the queries, a figure a seed."""
    for benchmark, seeds in found.items():
        table = Table("row", *PARTS, "p", title=f"{benchmark}, seeds {', '.join(seeds)}")
        names = next(iter(seeds.values()))
        chance = [chances(rows) for rows in seeds.values()]
        for name in names:
            having = [rows[name] for rows in seeds.values() if name in rows]
            cells = [figures([one[part] for one in having if part in one]) for part in PARTS]
            table.add_row(name, *cells, ", ".join(f"{one[name]:.3f}" for one in chance if name in one))
        first = next(iter(names.values()))
        table.add_row("BM25", figures([first["bm25"]]), *[""] * len(PARTS))
        Console(width=120).print(table)


def chances(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Compute p of every row's difference from :data:`BASE`, where that is there."""
    if BASE not in rows:
        return {}
    others = {name: values["both"] for name, values in rows.items() if name != BASE}
    return {one.system: one.p for one in compare_with_baseline(rows[BASE]["both"], others)}


def figures(values: Sequence[Mapping[str, float]]) -> str:
    """Write the mean over the queries, one figure a seed."""
    return ", ".join(f"{mean(one.values()):.4f}" for one in values)


if __name__ == "__main__":
    main()
