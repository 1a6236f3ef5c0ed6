"""Exact index search against scipy CSR + BLAS, interleaved in one process, one query at a time and in batches.

    python benchmarks/index_search.py [--passages 10000] [--queries 30] [--json] ...

Synthetic vectors with a seed: gaussian dense halves, vocabulary entries drawn from a Zipf law. Prints build time
without encoding, bytes per passage, and for each number of query terms the median latency of both, the throughput of a
batch and the share of scipy's top 100 that the index finds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dupmae.corpus import Passage
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.index import DuplexIndex

K = 100


class Synthetic:
    """Stands in for an encoder: the text "n" is embedded as row n."""

    tokenizer = None

    def __init__(self, embeddings: DuplexEmbeddings, vocabulary_size: int) -> None:
        self.embeddings, self.pooling = embeddings, SimpleNamespace(vocabulary_size=vocabulary_size)

    def embed_documents(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        return self.embeddings[np.array([int(text) for text in texts])]

    embed_queries = embed_documents


def draw(rng: np.random.Generator, rows: int, dimension: int, entries: int, vocabulary: int) -> DuplexEmbeddings:
    """Rows of `entries` distinct vocabulary entries each, frequent ones following a Zipf law."""
    cls = rng.normal(size=(rows, dimension)).astype(np.float32) / np.sqrt(dimension)
    rarity = np.arange(1, vocabulary + 1, dtype=np.float32)  # exponential times in proportion to it: the first come win
    ids = np.empty((rows, entries), np.uint16 if vocabulary <= 65_535 else np.uint32)
    for row in range(rows):
        ids[row] = np.argpartition(rarity * rng.standard_exponential(vocabulary, np.float32), entries)[:entries]
    return DuplexEmbeddings(cls, ids, rng.exponential(size=(rows, entries)).astype(np.float32))


def scipy_search(cls: NDArray[Any], matrix: sp.csr_array, query: DuplexEmbeddings) -> NDArray[Any]:
    """Numbers of the K best passages, best first."""
    vector = np.zeros(matrix.shape[1], np.float32)
    vector[query.ids[0]] = query.weights[0]
    scores = cls @ query.cls[0] + matrix @ vector
    best = np.argpartition(-scores, K)[:K]
    return best[np.argsort(-scores[best])]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = {"passages": 10_000, "queries": 30, "dimension": 384, "entries": 384, "vocabulary": 30_522, "seed": 0}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--terms", type=int, nargs="+", default=[32, 384], help="vocabulary entries of a query")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    options = parser.parse_args()

    rng = np.random.default_rng(options.seed)
    documents = draw(rng, options.passages, options.dimension, options.entries, options.vocabulary)
    matrix = sp.csr_array(
        (
            documents.weights.ravel(),
            documents.ids.ravel().astype(np.int32),
            np.arange(options.passages + 1) * options.entries,
        ),
        shape=(options.passages, options.vocabulary),
    )
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        corpus = [Passage(str(row), "", str(row)) for row in range(options.passages)]
        build_s, index = timed(
            lambda: DuplexIndex.build(folder, Synthetic(documents, options.vocabulary), corpus, model="synthetic")
        )
        vectors = list(folder.rglob("*.npy"))
        bytes_per_passage = sum(path.stat().st_size for path in vectors) / options.passages
        for terms in options.terms:
            queries = draw(rng, options.queries, options.dimension, terms, options.vocabulary)
            index.search_embeddings(queries[:1], K)  # compiles, and maps the files
            ours, theirs, found = [], [], []
            for row in range(options.queries):
                query = queries[row : row + 1]
                seconds, (ids, _) = timed(lambda query=query: index.search_embeddings(query, K))  # type: ignore[misc]
                ours.append(seconds)
                seconds, best = timed(lambda query=query: scipy_search(documents.cls, matrix, query))  # type: ignore[misc]
                theirs.append(seconds)
                found.append(len(set(ids[0]) & {str(number) for number in best}) / K)
            seconds, _ = timed(lambda queries=queries: index.search_embeddings(queries, K))  # type: ignore[misc]
            rows.append(
                {
                    "terms": terms,
                    "p50_ms": 1000 * float(np.median(ours)),
                    "scipy_p50_ms": 1000 * float(np.median(theirs)),
                    "batch_queries_per_s": options.queries / seconds,
                    "recall_at_100": float(np.mean(found)),
                }
            )
    head = {"passages": options.passages, "build_s": build_s, "bytes_per_passage": bytes_per_passage}
    if options.json:
        print(json.dumps(head | {"searches": rows}, indent=2))
        return
    table = Table("query terms", "index, ms", "scipy + BLAS, ms", "ratio", "batch, queries/s", "recall@100")
    table.title = (
        f"{options.passages:,} passages, {bytes_per_passage:,.0f} bytes each without texts, built in {build_s:.1f} s"
    )
    for row in rows:
        table.add_row(
            str(row["terms"]),
            f"{row['p50_ms']:.2f}",
            f"{row['scipy_p50_ms']:.2f}",
            f"{row['scipy_p50_ms'] / row['p50_ms']:.1f} x",
            f"{row['batch_queries_per_s']:,.0f}",
            f"{row['recall_at_100']:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
