"""Recall of exact index search on a model's own embeddings, against the scores of every passage in double precision.

    python benchmarks/reliability/index_recall.py MODEL BENCHMARK [--split test] [--k 100] [--document_length 64] \\
        [--json]

BENCHMARK is a folder in BEIR layout. Its encodings are kept (--encodings), a thousand passages a time: an interrupted
run goes on from there, and the next one encodes nothing. An index of them is asked for the k best passages of every
query of the split. Eq. 12 is computed for every query and passage twice: from the embeddings as the model gave them,
and from the 16-bit numbers that an index stores. A found passage counts if its score reaches the k-th largest one of
these, so of several passages with that score any will do. What is missed by the first and not by the second was lost
to the rounding of stored numbers, not to the search; "falls short by" says how little it takes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from dupmae.corpus import Passage, read_benchmark
from dupmae.corpus.passage import corpus_fingerprint
from dupmae.duplex import DuplexEncoder
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.files import fingerprint
from dupmae.index import DuplexIndex
from dupmae.index.storage.quantise import quantise
from dupmae.models import model_fingerprint

CHUNK = 1024
"""Passages that are encoded, stored and scored at a time."""
GROUP = 256
"""Queries that are scored at a time."""
ROUNDING = 1e-12
"""The share of a score that sums in double precision may differ by when they are taken in another order."""


class Encodings(Sequence[DuplexEmbeddings]):
    """A corpus' embeddings on disk, `CHUNK` passages a time; also an encoder that embeds the text "n" as passage n."""

    tokenizer = None

    def __init__(self, folder: Path, passages: int, terms: int, vocabulary_size: int) -> None:
        self.folder, self.passages, self.terms = folder, passages, terms
        self.pooling = SimpleNamespace(vocabulary_size=vocabulary_size)

    def __len__(self) -> int:
        return -(-self.passages // CHUNK)

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        chunk = DuplexEmbeddings.load(self.folder / f"{number:05d}")
        margin = ((0, 0), (0, self.terms - chunk.ids.shape[1]))
        ids: Any = np.pad(chunk.ids, margin)
        return DuplexEmbeddings(chunk.cls, ids, np.pad(chunk.weights, margin))

    def chunks(self, documents: Iterable[Passage], tokens: int, overlap: int | None) -> Iterator[Passage]:
        """Leave passages as they are."""
        return iter(documents)

    def embed_documents(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        """Passages in the order of their numbers, as building asks for texts that are equally long."""
        numbers = np.array([int(text) for text in texts])
        parts = [self[chunk][numbers[numbers // CHUNK == chunk] % CHUNK] for chunk in np.unique(numbers // CHUNK)]
        columns = [[getattr(part, name) for part in parts] for name in ("cls", "ids", "weights")]
        return DuplexEmbeddings(*map(np.concatenate, columns))

    embed_queries = embed_documents


def encode(encoder: DuplexEncoder, passages: Sequence[Passage], model: str, folder: Path) -> Encodings:
    """Encode a corpus, or what is left of it, in a folder that the model's fingerprint, length and texts name."""
    place = folder / fingerprint([model, encoder[0].document_length, corpus_fingerprint(passages), CHUNK])
    with tqdm(total=len(passages), desc="encode", unit=" passages") as bar:
        for number, start in enumerate(range(0, len(passages), CHUNK)):
            texts = [passage.full_text for passage in passages[start : start + CHUNK]]
            if not (place / f"{number:05d}").is_dir():
                encoder.embed_documents(texts).save(place / f"{number:05d}")
            bar.update(len(texts))
    return Encodings(place, len(passages), encoder.pooling.top_k, encoder.pooling.vocabulary_size)


def search(encodings: Encodings, queries: DuplexEmbeddings, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Search an index of the encodings: numbers and scores (Q, k) of what it finds."""
    names = [f"{number:08d}" for number in range(encodings.passages)]  # equally long, so they keep their order
    with tempfile.TemporaryDirectory() as place:
        index = DuplexIndex.build(
            Path(place) / "index",
            encodings,
            [Passage(name, "", name) for name in names],
            model="encodings",
            batch_size=128,
        )
        ids, scores = index.search_embeddings(queries, k)
    return np.array(ids).astype(np.int64), np.array(scores)


def vectors(chunk: DuplexEmbeddings, vocabulary_size: int) -> dict[str, tuple[NDArray[np.float64], sp.csr_array]]:
    """Lay out dense halves (n, d') and lexical halves (n, V) to compute scores from, in double precision."""
    places = np.arange(len(chunk) + 1) * chunk.ids.shape[1]
    weights = chunk.weights.ravel().astype(np.float64)
    lexical = sp.csr_array((weights, chunk.ids.ravel().astype(np.int32), places), shape=(len(chunk), vocabulary_size))
    rows = quantise(chunk, vocabulary_size)
    dense = (256 * rows.high.astype(np.float64) + rows.low) * rows.dense_units[:, None]
    stored = sp.csr_array(rows.lexical.astype(np.float64).multiply(rows.lexical_units[:, None].astype(np.float64)))
    return {"the model's embeddings": (chunk.cls.astype(np.float64), lexical), "the stored numbers": (dense, stored)}


def every_score(queries: DuplexEmbeddings, dense: NDArray[np.float64], lexical: sp.csr_array) -> NDArray[np.float64]:
    """Compute Eq. 12 for each query and passage (Q, n)."""
    rows = np.zeros((len(queries), lexical.shape[1]))
    np.add.at(rows, (np.arange(len(queries))[:, None], queries.ids), queries.weights)
    scores: NDArray[np.float64] = queries.cls.astype(np.float64) @ dense.T + (lexical @ rows.T).T
    return scores


def compare(
    chunks: Sequence[DuplexEmbeddings], vocabulary_size: int, queries: DuplexEmbeddings, found: NDArray[np.int64]
) -> tuple[dict[str, dict[str, float]], float, NDArray[np.float64]]:
    """Measure how much of what exhaustive search ranks first was found.

    Args:
        chunks: The passages, `CHUNK` of them in each but the last.
        vocabulary_size: V.
        queries: Q queries.
        found: Numbers of the passages found (Q, k).

    Returns:
        The figures by either kind of numbers, the largest difference between their scores, and the stored numbers'
        scores of what was found (Q, k).
    """
    k, largest = found.shape[1], 0.0
    best: dict[str, NDArray[np.float64]] = {}
    ours: dict[str, NDArray[np.float64]] = {}
    for number, chunk in enumerate(tqdm(chunks, desc="score", unit=" chunks")):
        kinds = vectors(chunk, vocabulary_size)
        for group in _groups(len(queries)):
            scores = {kind: every_score(queries[group], *halves) for kind, halves in kinds.items()}
            largest = max(largest, float(np.abs(np.subtract(*scores.values())).max()))
            here = np.nonzero(found[group] // CHUNK == number)
            for kind, table in scores.items():
                top = best.setdefault(kind, np.full(found.shape, -np.inf))[group]
                top[:] = np.partition(np.concatenate([top, table], axis=1), -k, axis=1)[:, -k:]
                ours.setdefault(kind, np.zeros(found.shape))[group][here] = table[here[0], found[group][here] % CHUNK]
    figures = {}
    for kind, top in best.items():
        needed = top.min(axis=1, keepdims=True)
        short = np.where(ours[kind] >= needed - ROUNDING * np.abs(needed), 0.0, needed - ours[kind])
        figures[kind] = {
            "recall": float(np.mean(short == 0)),
            "missed": int(np.sum(short > 0)),
            "falls_short_by": float(short.max()),
        }
    return figures, largest, ours["the stored numbers"]


def _groups(queries: int) -> Iterator[slice]:
    return (slice(start, start + GROUP) for start in range(0, queries, GROUP))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a duplex model")
    parser.add_argument("benchmark", type=Path, help="folder in BEIR layout")
    parser.add_argument("--split", default="test")
    parser.add_argument("--k", type=int, default=100, help="passages wanted for each query")
    parser.add_argument("--document_length", type=int, help="tokens of a passage; the model's own setting if not given")
    parser.add_argument("--encodings", type=Path, default=Path("encodings"), help="where encodings are kept")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    options = parser.parse_args()

    benchmark = read_benchmark(options.benchmark, options.split, allow_unknown=True)
    encoder = DuplexEncoder(options.model)
    encoder[0].document_length = options.document_length or encoder[0].document_length
    encodings = encode(encoder, list(benchmark.corpus.values()), model_fingerprint(options.model), options.encodings)
    queries = encoder.embed_queries(list(benchmark.queries.values()))
    found, scores = search(encodings, queries, min(options.k, len(benchmark.corpus)))
    figures, largest, stored = compare(encodings, encoder.pooling.vocabulary_size, queries, found)
    result = {
        "benchmark": benchmark.name,
        "split": options.split,
        "passages": len(benchmark.corpus),
        "queries": len(queries),
        "k": options.k,
        "document_length": encoder[0].document_length,
        "terms_per_query": float(np.mean(np.sum(queries.weights != 0, axis=1))),
        "wanted": found.size,
        "exhaustive_search_of": figures,
        "largest_rounding_of_a_score": largest,
        "largest_difference_of_the_index": float(np.abs(scores - stored).max()),
    }
    print(json.dumps(result, indent=1)) if options.json else show(result)


def show(result: dict[str, Any]) -> None:
    title = (
        f"{result['benchmark']}: {result['passages']:,} passages, {result['queries']:,} queries, the best {result['k']}"
    )
    table = Table("scores from", "recall", "missed", "of", "falls short by at most", title=title)
    for kind, row in result["exhaustive_search_of"].items():
        cells = (f"{row['recall']:.6f}", f"{row['missed']:,}", f"{result['wanted']:,}", f"{row['falls_short_by']:.2g}")
        table.add_row(kind, *cells)
    console = Console(width=max(Console().width, 100))
    console.print(table)
    console.print(
        f"Storing 16-bit numbers changes a score by up to {result['largest_rounding_of_a_score']:.2g}; the index's"
        f" scores differ from the stored numbers' by up to {result['largest_difference_of_the_index']:.2g}."
    )


if __name__ == "__main__":
    main()
