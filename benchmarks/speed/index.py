"""Exact index search against scipy CSR + BLAS, interleaved in one process, one query at a time and in batches.

    python benchmarks/speed/index.py [--passages 10000] [--queries 30] [--json]
    python benchmarks/speed/index.py --documents embeddings/documents --query_embeddings embeddings/queries

Synthetic vectors with a seed: gaussian dense halves, terms and whole words of a Zipf law (`--words 0`: none); or what
`dupmae encode` wrote. Prints how long building (without encoding) and opening take, how the bytes are spent, and for
each number of query terms (queries cut to their heaviest) the latency of both, and of the index without words, taking
turns, with the ratio of their processor time; the throughput of a batch, the time in which the measured memory
bandwidth could deliver the bytes that a query needs, and the share of scipy's top 100 that the index finds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dupmae.corpus import Passage
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.words import QUERY_WORDS, STEPS, WORD_DIMENSIONS, WordSpace, brevity, rarity
from dupmae.index import DuplexIndex, Weights
from dupmae.index.scoring.threads import cores
from dupmae.index.storage.arrays import MappedFile
from dupmae.index.storage.segments import VECTORS_FILE

os.environ["HF_HUB_OFFLINE"] = "1"  # the model "synthetic" is not to be looked for
K = 100
BLAS_REST = 0.1
"""Seconds between a search of scipy's and the next of ours: BLAS's threads keep the cores busy in case of more work."""
GROUPS = {
    "dense, high bytes": ("high",),
    "dense, low bytes": ("low",),
    "inverted lists: passages": ("documents",),
    "inverted lists: weights": ("weights",),
    "inverted lists: where they begin": ("starts", "column_ids"),
    "columns of frequent terms": ("columns",),
    "units and error bounds": ("cls_units", "slack", "ot_units"),
    "words: passages": ("word_documents",),
    "words: frequencies": ("word_frequencies",),
    "words: which, and where their lists begin": ("word_borders", "word_ids", "word_starts"),
}
DISTINCT_WORDS = 200_000
"""Synthetic words; they are numbered by their frequency."""
HASH = 2_654_435_761
"""An odd number: multiplied with it, modulo a power of two, no two words get the same dimension."""


class Encoded:
    """Stands in for an encoder: the text "n" is embedded as row n."""

    tokenizer = None

    def __init__(self, embeddings: DuplexEmbeddings, vocabulary_size: int) -> None:
        self.embeddings, self.pooling = embeddings, SimpleNamespace(vocabulary_size=vocabulary_size)
        self.words = None if embeddings.words is None else SimpleNamespace(space=WordSpace())

    def chunks(self, documents: Iterable[Passage], tokens: int, overlap: int | None) -> Iterator[Passage]:
        """Leave passages as they are."""
        return iter(documents)

    def embed_documents(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        return self.embeddings[np.array([int(text) for text in texts])]

    embed_queries = embed_documents


@numba.njit
def zipf(seed: int, rows: int, terms: int, vocabulary: int, shift: int) -> Any:
    """Draw distinct terms for each row, one after the other with probability proportional to 1 / (rank + shift)."""
    np.random.seed(seed)
    cumulated = np.cumsum(1.0 / np.arange(1 + shift, vocabulary + 1 + shift))
    ids = np.empty((rows, terms), np.uint32)
    last_seen = np.full(vocabulary, -1)
    for row in range(rows):
        filled = 0
        while filled < terms:
            term = np.searchsorted(cumulated, np.random.random() * cumulated[-1])
            if last_seen[term] != row:
                last_seen[term] = row
                ids[row, filled] = term
                filled += 1
    return ids


def draw(seed: int, rows: int, dimension: int, terms: int, vocabulary: int) -> DuplexEmbeddings:
    rng = np.random.default_rng(seed)
    cls = rng.standard_normal((rows, dimension), np.float32) / np.float32(np.sqrt(max(dimension, 1)))
    weights = rng.standard_exponential((rows, terms), np.float32)
    return DuplexEmbeddings(cls, zipf(seed, rows, terms, vocabulary, 0).astype(np.uint16), weights)


def draw_words(seed: int, rows: int, words: int) -> NDArray[np.int64]:
    """Draw distinct words for each row: the most frequent one stands in a third of rows of 99, as in real text."""
    return np.asarray(zipf(seed, rows, words, DISTINCT_WORDS, 30), np.int64)


def as_dimensions(words: NDArray[np.int64], weights: NDArray[np.float32]) -> sp.csr_array:
    """Lay words (n, w) out as the embeddings of a model have them."""
    rows, width = words.shape
    matrix = sp.csr_array(
        (weights.flatten(), (words * HASH % WORD_DIMENSIONS).ravel(), np.arange(rows + 1) * width),
        shape=(rows, WORD_DIMENSIONS),
    )
    matrix.sort_indices()
    return matrix


def cut(queries: DuplexEmbeddings, terms: int) -> DuplexEmbeddings:
    """Cut queries to their heaviest terms."""
    heaviest = np.argsort(-np.abs(queries.weights), axis=1, kind="stable")[:, :terms]
    ids, weights = (np.take_along_axis(array, heaviest, axis=1) for array in (queries.ids, queries.weights))
    return DuplexEmbeddings(queries.cls, ids, weights, queries.words)


def scipy_search(
    cls: NDArray[Any], parts: Sequence[sp.csr_array], query: DuplexEmbeddings, words: NDArray[np.float32], k: int
) -> NDArray[Any]:
    """Find the numbers of the k best passages, best first; the parts are terms and words, which have their rarity."""
    terms, *rest = parts
    vector = np.zeros(terms.shape[1], np.float32)
    vector[query.ids[0]] = query.weights[0]
    scores = cls @ query.cls[0] + terms @ vector
    for part in rest:
        scores += part @ words
    best = np.argpartition(-scores, k - 1)[:k]
    return best[np.argsort(-scores[best])]


@numba.njit(nogil=True, fastmath=True)
def _total(words: Any) -> Any:
    total = np.int64(0)
    for place in range(words.shape[0]):
        total += words[place]
    return total


def memory_bandwidth() -> float:
    """Measure the bytes per second that all cores together read from memory: the best of several passes over 1 GiB."""
    words = np.ones(2**27, np.int64)
    parts = np.array_split(words, cores())
    _total(words[:8])
    with ThreadPoolExecutor(cores()) as threads:
        seconds = [timed(lambda: list(threads.map(_total, parts)))[0] for _ in range(8)]
    return float(words.nbytes / min(seconds))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def peak_memory(work: Callable[[], Any]) -> tuple[float, Any]:
    """Measure by how many megabytes some work raises the resident memory at most (Linux), and return its result."""

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        line = next(line for line in lines if line.startswith(key))
        return int(line.split()[1])

    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = status("VmRSS")
    result = work()
    return (status("VmHWM") - before) / 1024, result


def spent(folder: Path, index: DuplexIndex) -> dict[str, float]:
    """Count bytes per passage by what they are for, texts and ids left out."""
    counts = dict.fromkeys(GROUPS, 0)
    total = 0
    for entry in index.manifest.segments:
        arrays = MappedFile(folder, f"{entry.name}/{VECTORS_FILE}", entry.files[VECTORS_FILE]).arrays()
        total += entry.files[VECTORS_FILE]["bytes"]
        for group, names in GROUPS.items():
            counts[group] += sum(arrays[name].nbytes for name in names if name in arrays)
    counts["file headers"] = total - sum(counts.values())
    return {group: count / len(index) for group, count in counts.items()} | {"total": total / len(index)}


def bytes_needed(index: DuplexIndex, query: DuplexEmbeddings) -> int:
    """Count the bytes that exact search for one query must read: high bytes, units, bounds and the query's lists."""
    needed = 0
    ids = query.ids[0][query.weights[0] != 0].astype(np.int64)
    for segment in index.snapshot.segments:
        for block in segment.blocks:
            starts = block.starts.astype(np.int64)
            needed += block.high.nbytes + 12 * len(block)
            needed += 4 * int((starts[ids + 1] - starts[ids]).sum())
            needed += 2 * len(block) * int(np.isin(ids, block.column_ids).sum())
            if query.words is not None:
                known, word_starts, _, _ = block.words
                chosen = np.isin(known, query.words.indices)
                needed += 3 * int(np.diff(word_starts.astype(np.int64))[chosen].sum())
    return needed


def measure(
    index: DuplexIndex,
    documents: DuplexEmbeddings,
    parts: Sequence[sp.csr_array],
    queries: DuplexEmbeddings,
    rare_words: NDArray[np.float32],
    bandwidth: float,
) -> dict[str, Any]:
    """Measure latency, throughput and recall for one set of queries, whose words (q, W) have their rarity for scipy."""
    k = min(K, len(index))
    index.search_embeddings(queries[:1], K)  # compiles, and checks the files
    index.search_embeddings(queries[:8], K)
    walls: dict[str, list[float]] = {"ours": [], "without words": [], "scipy": []}
    work, found = dict.fromkeys(walls, 0.0), []
    for row in range(len(queries)):
        query = queries[row : row + 1]
        searches: dict[str, Callable[[], Any]] = {
            "ours": lambda query=query: index.search_embeddings(query, K)[0][0],  # type: ignore[misc]
            "without words": lambda query=query: index.search_embeddings(query, K, weights=Weights(words=0)),  # type: ignore[misc]
            "scipy": lambda query=query, row=row: scipy_search(documents.cls, parts, query, rare_words[row], k),  # type: ignore[misc]
        }
        first, second, last = searches
        time.sleep(BLAS_REST)
        best = {}
        for name in (first, second, last) if row % 2 else (second, first, last):  # caches are warmer for the second
            begun = time.process_time()
            seconds, best[name] = timed(searches[name])
            work[name] += time.process_time() - begun
            walls[name].append(seconds)
        found.append(len(set(best["ours"]) & {str(number) for number in best["scipy"]}) / k)
    ours, without, theirs = walls.values()
    batch = timed(lambda: index.search_embeddings(queries, K))[0]
    limit = np.median([bytes_needed(index, queries[row : row + 1]) for row in range(len(queries))]) / bandwidth
    return {
        "p50_ms": 1000 * float(np.median(ours)),
        "p95_ms": 1000 * float(np.percentile(ours, 95)),
        "without_words_p50_ms": 1000 * float(np.median(without)),
        "processor_ms": {name: 1000 * seconds / len(queries) for name, seconds in work.items()},
        "cost_of_words": work["ours"] / work["without words"],
        "scipy_p50_ms": 1000 * float(np.median(theirs)),
        "scipy_p95_ms": 1000 * float(np.percentile(theirs, 95)),
        "speedup": float(np.median(theirs) / np.median(ours)),
        "bandwidth_limit_ms": 1000 * float(limit),
        "times_bandwidth_limit": float(np.median(ours) / limit),
        "batch_queries_per_s": len(queries) / batch,
        "recall_at_100": float(np.mean(found)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"passages": 10_000, "queries": 30, "dimension": 384, "passage_terms": 384, "vocabulary": 30_522}
    for name, default in {**sizes, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--query_terms", type=int, default=384, help="terms of a synthetic query before the cut")
    parser.add_argument("--words", type=int, default=99, help="words of a synthetic passage; 0 leaves words out")
    parser.add_argument("--query_words", type=int, default=12, help="words of a synthetic query")
    parser.add_argument("--terms", type=int, nargs="+", default=[32, 384], help="terms that queries are cut to")
    parser.add_argument("--documents", type=Path, help="embeddings of passages to use instead of synthetic ones")
    parser.add_argument("--query_embeddings", type=Path, help="embeddings of queries to use with them")
    parser.add_argument("--folder", type=Path, help="where to build the index; a temporary folder if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the tables")
    options = parser.parse_args()

    rare_words = np.empty((options.queries, 0), np.float32)
    if options.documents:
        documents = DuplexEmbeddings.load(options.documents)
        queries = DuplexEmbeddings.load(options.query_embeddings)[: options.queries]
    else:
        width, vocabulary = options.dimension, options.vocabulary
        documents = draw(options.seed, options.passages, width, options.passage_terms, vocabulary)
        queries = draw(options.seed + 1, options.queries, width, options.query_terms, vocabulary)
    count, width = documents.ids.shape
    terms = documents.ids.ravel().astype(np.int32), np.arange(count + 1) * width
    parts = [sp.csr_array((documents.weights.ravel(), *terms), shape=(count, options.vocabulary))]
    if options.words and not options.documents:
        words, asked = draw_words(options.seed + 2, count, options.words), options.query_words
        steps = np.random.default_rng(options.seed + 2).integers(60, 220, words.shape)
        own = (steps / STEPS).astype(np.float32)
        documents = replace(documents, words=as_dimensions(words, own))
        query_words = draw_words(options.seed + 3, options.queries, asked)
        shares = np.full(query_words.shape, np.sqrt(QUERY_WORDS / asked), np.float32)
        queries = replace(queries, words=as_dimensions(query_words, shares))
        rare = rarity(count, np.bincount(words.ravel(), minlength=DISTINCT_WORDS))
        rare *= brevity(options.words)
        rare_words = np.zeros((options.queries, DISTINCT_WORDS), np.float32)
        np.put_along_axis(rare_words, query_words, (shares * rare[query_words]).astype(np.float32), axis=1)
        places = np.arange(count + 1) * words.shape[1]
        numbers = words.ravel().astype(np.int32)
        parts.append(sp.csr_array((own.ravel(), numbers, places), shape=(count, DISTINCT_WORDS)))
        del words, steps, own, numbers, places, terms
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place) / "index"
        corpus = [Passage(str(row), "", str(row)) for row in range(count)]
        encoder = Encoded(documents, options.vocabulary)
        build_mb, (build_s, _) = peak_memory(
            lambda: timed(lambda: DuplexIndex.build(folder, encoder, corpus, model="synthetic", batch_size=256))
        )
        open_s = min(timed(lambda: DuplexIndex.open(folder))[0] for _ in range(5))
        index = DuplexIndex.open(folder)
        search_mb, _ = peak_memory(lambda: index.search_embeddings(cut(queries[:1], max(options.terms)), K))
        bandwidth = memory_bandwidth()
        spending = spent(folder, index)
        result = {
            "passages": count,
            "words": options.words if documents.words is not None else 0,
            "query_words": options.query_words if documents.words is not None else 0,
            "cores": cores(),
            "build_s": build_s,
            "build_peak_mb": build_mb,
            "open_ms": 1000 * open_s,
            "search_peak_mb": search_mb,
            "bytes_per_passage": spending["total"],
            "bytes": spending,
            "bandwidth_gb_per_s": bandwidth / 1e9,
            "searches": [
                {"terms": terms} | measure(index, documents, parts, cut(queries, terms), rare_words, bandwidth)
                for terms in options.terms
            ],
        }
        for key in ("p50_ms", "without_words_p50_ms", "scipy_p50_ms", "recall_at_100"):
            result[key] = {str(search["terms"]): search[key] for search in result["searches"]}
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


def show(result: dict[str, Any]) -> None:
    console = Console(width=max(Console().width, 150))
    console.print(
        f"{result['passages']:,} passages on {result['cores']} cores; built in {result['build_s']:.1f} s"
        f" (peak {result['build_peak_mb']:,.0f} MB), opened in {result['open_ms']:.1f} ms; searching takes"
        f" {result['search_peak_mb']:,.0f} MB, mapped files included;"
        f" memory bandwidth {result['bandwidth_gb_per_s']:.1f} GB/s"
    )
    table = Table("bytes per passage", "", title="How the bytes are spent", title_justify="left")
    for group, count in result["bytes"].items():
        table.add_row(group, f"{count:,.1f}")
    console.print(table)
    heads = (
        "terms",
        "p50, ms",
        "p95",
        "without words",
        "ratio",
        "scipy + BLAS p50",
        "p95",
        "speed-up",
        "bandwidth limit, ms",
        "times the limit",
    )
    table = Table(*heads, "batch, queries/s", "recall@100")
    for row in result["searches"]:
        table.add_row(
            str(row["terms"]),
            f"{row['p50_ms']:.2f}",
            f"{row['p95_ms']:.2f}",
            f"{row['without_words_p50_ms']:.2f}",
            f"{row['cost_of_words']:.2f}",
            f"{row['scipy_p50_ms']:.1f}",
            f"{row['scipy_p95_ms']:.1f}",
            f"{row['speedup']:.1f} x",
            f"{row['bandwidth_limit_ms']:.2f}",
            f"{row['times_bandwidth_limit']:.1f}",
            f"{row['batch_queries_per_s']:,.0f}",
            f"{row['recall_at_100']:.4f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
