"""Runs to compare with each other: BM25, any dense sentence-transformers model, a duplex index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dupmae.corpus import Benchmark, Passage, Run

if TYPE_CHECKING:
    from dupmae.index import DuplexIndex
    from dupmae.index.search import Part

BM25_K1 = 0.9
BM25_B = 0.4


def bm25_run(benchmark: Benchmark, k: int = 100) -> Run:
    """Rank by BM25 as Lucene does, with the settings behind the figures published for BEIR: k1 = 0.9, b = 0.4.

    Title and text are one field; words are lower-cased, Lucene's 33 English stop words dropped, the rest stemmed by
    Porter. NDCG@10 on the test splits: SciFact .677, NFCorpus .320; the paper quotes .665 and .325, for another way of
    indexing. `dupmae evaluate --model bm25 --benchmark FOLDER` shows them.

    Args:
        benchmark: Corpus and queries.
        k: Passages kept of each query; those without a word of the query are left out.

    Returns:
        Scores of the best passages, ties cut by id.
    """
    return bm25_searcher(benchmark.corpus)(benchmark.queries, k)


def bm25_searcher(corpus: Mapping[str, Passage]) -> Callable[[Mapping[str, str], int], Run]:
    """Index a corpus for BM25 once, to search it a block of queries at a time; see :func:`bm25_run`.

    Args:
        corpus: Every passage by its id.

    Returns:
        A function from queries (id -> text) and the number of passages kept of each to their ranking, best first.
    """
    import bm25s
    import Stemmer

    ids = sorted(corpus)
    stemmer = Stemmer.Stemmer("porter")

    def words(texts: Sequence[str]) -> Any:
        return bm25s.tokenize(
            list(texts),
            token_pattern=r"(?u)\b\w+\b",
            stopwords="english",
            stemmer=stemmer,
            return_ids=False,
            show_progress=False,
        )

    model = bm25s.BM25(method="lucene", k1=BM25_K1, b=BM25_B)
    model.index(words([corpus[name].full_text for name in ids]), show_progress=False)

    def search(queries: Mapping[str, str], k: int) -> Run:
        run: Run = {}
        for query, tokens in zip(queries, words(list(queries.values())), strict=True):
            scores = model.get_scores(tokens) if tokens else np.zeros(len(ids), np.float32)
            run[query] = {ids[row]: float(scores[row]) for row in _best_positive(scores, k)}
        return run

    return search


def _best_positive(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Rows of the k largest scores above zero, largest first, earlier rows first among equals."""
    rows = np.flatnonzero(scores > 0)
    if len(rows) > k:
        threshold = np.partition(scores[rows], len(rows) - k)[len(rows) - k]
        rows = rows[scores[rows] >= threshold]
    return rows[np.argsort(-scores[rows], kind="stable")][:k]


def dense_run(
    model: str, benchmark: Benchmark, k: int = 100, max_length: int | None = None, batch_size: int = 32
) -> Run:
    """Rank by the similarity of one dense vector per text, exactly.

    Args:
        model: Any sentence-transformers model: a folder, a Hugging Face id or the name of a model package.
        benchmark: Corpus and queries.
        k: Passages kept of each query.
        max_length: Tokens of a text; longer ones are cut. None keeps the model's own limit.
        batch_size: Texts in a forward pass; batches hold texts of similar length.

    Returns:
        Scores of the best passages by the model's own similarity (cosine unless it says otherwise). The product of
        queries and corpus is taken in blocks. Encoding runs in bfloat16 where the machine has matrix units for it.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import semantic_search

    from dupmae.models import resolve_model
    from dupmae.precision import bfloat16_pays

    encoder = SentenceTransformer(resolve_model(model))
    if max_length is not None:
        encoder.max_seq_length = max_length
    ids = sorted(benchmark.corpus)
    settings: Mapping[str, Any] = {"batch_size": batch_size, "convert_to_tensor": True, "show_progress_bar": True}
    if bfloat16_pays("auto"):
        encoder.bfloat16()
    documents = encoder.encode_document([benchmark.corpus[name].full_text for name in ids], **settings)
    queries = encoder.encode_query(list(benchmark.queries.values()), **settings)
    documents, queries = documents.float(), queries.float()
    best = semantic_search(
        queries, documents, corpus_chunk_size=50_000, top_k=min(k, len(ids)), score_function=encoder.similarity
    )
    return {
        query: {ids[hit["corpus_id"]]: float(hit["score"]) for hit in hits}
        for query, hits in zip(benchmark.queries, best, strict=True)
    }


def duplex_run(index: DuplexIndex, benchmark: Benchmark, k: int = 100, part: Part = "both") -> Run:
    """Rank by Eq. 12, or by one of its two terms.

    Args:
        index: Of the benchmark's corpus.
        benchmark: Gives the queries.
        k: Passages kept of each query.
        part: `"both"`, or `"cls"` / `"ot"` for one half alone.
    """
    embeddings = index.encoder.embed_queries(list(benchmark.queries.values()))
    ids, scores = index.search_embeddings(embeddings, k, part)
    return {
        query: dict(zip(*ranking, strict=True))
        for query, ranking in zip(benchmark.queries, zip(ids, scores, strict=True), strict=True)
    }
