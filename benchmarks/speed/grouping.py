"""What it costs to rank documents instead of their chunks: the same index and queries, taking turns in one process.

    python benchmarks/speed/grouping.py [--chunks 100000] [--mean 10] [--queries 60] [--json]

Synthetic documents with a seed: of geometrically many chunks, `--mean` on average, whose dense halves lie around their
document's and whose terms are half of its; one in a hundred has 500. Each query is answered by both, one after the
other in turns; a batch of all queries, too. The ratio is that of the processor time. `same` is how many of the rankings
begin as the documents of a ranking of chunks that is ten times as deep.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from index import Encoded, cut, draw, timed
from rich.console import Console
from rich.table import Table

from dupmae.corpus import Chunk, Passage
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.index import DuplexIndex

VOCABULARY, DIMENSION, TERMS = 30_522, 384, 384
LONG = 500
"""Chunks of one document in a hundred."""


def draw_chunks(seed: int, count: int, mean: int) -> tuple[DuplexEmbeddings, list[Passage]]:
    """Draw documents and their chunks; the text "n" is embedded as row n."""
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(1 / mean, 2 * count // mean)
    sizes[rng.random(len(sizes)) < 0.01] = LONG
    owners = np.repeat(np.arange(len(sizes)), sizes)[:count]
    documents = draw(seed, int(owners[-1]) + 1, DIMENSION, 2 * TERMS, VOCABULARY)
    noise = rng.standard_normal((count, DIMENSION), np.float32) / np.float32(np.sqrt(DIMENSION))
    cls = np.float32(0.8) * documents.cls[owners] + np.float32(0.6) * noise
    ids, weights = np.empty((count, TERMS), np.uint16), rng.standard_exponential((count, TERMS), np.float32)
    for row, owner in enumerate(owners):
        ids[row] = documents.ids[owner, rng.permutation(2 * TERMS)[:TERMS]]
    places = np.arange(count) - np.searchsorted(owners, owners)
    passages = [
        Passage(f"{owner}::{place + 1}", "", str(row), {}, Chunk(str(owner), (), 100 * place, 100 * place + 120))
        for row, (owner, place) in enumerate(zip(owners.tolist(), places.tolist(), strict=True))
    ]
    return DuplexEmbeddings(cls, ids, weights), passages


def measure(index: DuplexIndex, queries: DuplexEmbeddings, k: int) -> dict[str, Any]:
    """Measure both ways of search for one k."""
    groups = ("none", "document")
    for group in groups:
        index.search_embeddings(queries[:8], k, group=group)  # type: ignore[arg-type]
    work, walls = dict.fromkeys(groups, 0.0), {group: list[float]() for group in groups}
    for row in range(len(queries)):
        for group in groups if row % 2 else groups[::-1]:
            begun = time.process_time()
            seconds, _ = timed(
                lambda row=row, group=group: index.search_embeddings(queries[row : row + 1], k, group=group)
            )  # type: ignore[misc]
            work[group] += time.process_time() - begun
            walls[group].append(seconds)
    batch = dict.fromkeys(groups, 0.0)
    for turn in range(10):
        for group in groups if turn % 2 else groups[::-1]:
            begun = time.process_time()
            index.search_embeddings(queries, k, group=group)  # type: ignore[arg-type]
            batch[group] += time.process_time() - begun
    deep, _ = index.search_embeddings(queries, 10 * k + LONG, group="none")
    found, _ = index.search_embeddings(queries, k)
    owners = [list(dict.fromkeys(name.partition("::")[0] for name in names))[:k] for names in deep]
    same = [mine[: len(theirs)] == theirs for mine, theirs in zip(found, owners, strict=True)]
    return {
        "k": k,
        "p50_ms": {group: 1000 * float(np.median(walls[group])) for group in groups},
        "processor_ms": {group: 1000 * work[group] / len(queries) for group in groups},
        "ratio": work["document"] / work["none"],
        "batch_ratio": batch["document"] / batch["none"],
        "documents_in_top_k_chunks": float(
            np.mean([len({name.partition("::")[0] for name in row[:k]}) for row in deep])
        ),
        "same_documents": float(np.mean(same)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"chunks": 100_000, "mean": 10, "queries": 60, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--terms", type=int, nargs="+", default=[32, 384], help="terms that queries are cut to")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    embeddings, passages = draw_chunks(options.seed, options.chunks, options.mean)
    queries = draw(options.seed + 1, options.queries, DIMENSION, TERMS, VOCABULARY)
    with tempfile.TemporaryDirectory() as place:
        encoder = Encoded(embeddings, VOCABULARY)
        index = DuplexIndex.build(Path(place) / "i", encoder, passages, model="synthetic", batch_size=256)
        first, _ = timed(lambda: [segment.groups for segment in index.snapshot.segments])
        result = {
            "chunks": len(index),
            "documents": index.info()["documents"],
            "groups_s": first,
            "searches": [
                {"terms": terms} | measure(index, cut(queries, terms), k) for terms in options.terms for k in options.k
            ],
        }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    console = Console(width=130)
    console.print(
        f"{result['chunks']:,} chunks of {result['documents']:,} documents; telling which belong together takes"
        f" {first:.2f} s once"
    )
    table = Table(
        "terms", "k", "chunks p50, ms", "documents", "processor, ms", "documents", "ratio", "in a batch", "same"
    )
    for row in result["searches"]:
        cells = [row["p50_ms"]["none"], row["p50_ms"]["document"], *row["processor_ms"].values()]
        ratios = [row["ratio"], row["batch_ratio"], row["same_documents"]]
        table.add_row(
            str(row["terms"]), str(row["k"]), *(f"{cell:.2f}" for cell in cells), *(f"{cell:.3f}" for cell in ratios)
        )
    console.print(table)


if __name__ == "__main__":
    main()
