"""Runs to compare with each other: BM25, any dense sentence-transformers model, a duplex index."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dupmae.corpus import Benchmark, Passage, Run
from dupmae.evaluation.benchmarks import Definition
from dupmae.evaluation.blocks import best_rows

if TYPE_CHECKING:
    from dupmae.index import DuplexIndex
    from dupmae.index.scoring.exact import Part

QUERIES_AT_A_TIME = 1024
"""Queries that an index is searched for together: what is in memory beside their rankings."""
BM25_K1 = 0.9
BM25_B = 0.4


def bm25_run(benchmark: Benchmark, k: int = 100) -> Run:
    """Rank by BM25 as Lucene does, with the settings behind the figures published for BEIR: k1 = 0.9, b = 0.4.

    Title and text are one field; words are lower-cased, Lucene's 33 English stop words dropped, the rest stemmed by
    Porter. NDCG@10 on the test splits: SciFact .677, NFCorpus .320. The paper quotes .665 and .325, for title and text
    indexed apart; done so (:func:`bm25_searcher` with `fields`) it is .664 and .325 here, too. `dupmae evaluate --model
    bm25 bm25-fields --benchmark FOLDER` shows them.

    Args:
        benchmark: Corpus and queries.
        k: Passages kept of each query; those without a word of the query are left out.

    Returns:
        Scores of the best passages, ties cut by id.
    """
    return bm25_searcher(benchmark.corpus)(benchmark.queries, k)


@dataclass(frozen=True, slots=True)
class Bm25:
    """A corpus indexed for BM25; called with queries (id -> text) and a depth it gives their ranking, best first."""

    fields: Sequence[Any]
    """bm25s' index of each field; their scores are added up."""
    ids: Sequence[str]
    """The passages' ids, rising."""

    def __call__(self, queries: Mapping[str, str], k: int) -> Run:
        """The k best passages of queries (id -> text); those without a word of the query are not found."""
        run: Run = {}
        for query, tokens in zip(queries, bm25_words(list(queries.values())), strict=True):
            scores = np.zeros(len(self.ids), np.float32)
            for field in self.fields if tokens else ():
                scores = scores + field.get_scores(tokens)
            found = np.flatnonzero(scores > 0)
            run[query] = {self.ids[row]: float(scores[row]) for row in found[best_rows(scores[found], k)]}
        return run

    @property
    def stored(self) -> int:
        """Bytes of the inverted lists."""
        return sum(field.scores[name].nbytes for field in self.fields for name in ("data", "indices", "indptr"))


def bm25_searcher(corpus: Mapping[str, Passage], *, fields: bool = False) -> Bm25:
    """Index a corpus for BM25 once, to search it a block of queries at a time; see :func:`bm25_run`.

    Args:
        corpus: Every passage by its id.
        fields: Index title and text apart and add their scores up, instead of taking them for one text.
    """
    import bm25s

    passages = [corpus[name] for name in sorted(corpus)]
    columns = [[passage.full_text for passage in passages]]
    if fields:
        columns = [[passage.title for passage in passages], [passage.text for passage in passages]]
    models = []
    for column in columns:
        words = bm25_words(column)
        if any(words):
            models.append(bm25s.BM25(method="lucene", k1=BM25_K1, b=BM25_B))
            models[-1].index(words, show_progress=False)
    return Bm25(models, sorted(corpus))


def bm25_words(texts: Sequence[str]) -> list[list[str]]:
    """What BM25 takes for the words of each text: lower-cased, without stop words, stemmed."""
    import bm25s
    import Stemmer

    words: list[list[str]] = bm25s.tokenize(
        list(texts),
        token_pattern=r"(?u)\b\w+\b",
        stopwords="english",
        stemmer=Stemmer.Stemmer("porter"),
        return_ids=False,
        show_progress=False,
    )
    return words


def dense_run(
    model: str, benchmark: Benchmark, k: int = 100, max_length: int | None = None, folder: Path | None = None
) -> Run:
    """Rank by the similarity of one dense vector per text, exactly.

    Args:
        model: Any sentence-transformers model: a folder, a Hugging Face id or the name of a model package.
        benchmark: Corpus and queries.
        k: Passages kept of each query.
        max_length: Tokens of a passage; longer ones are cut. None keeps the model's own limit.
        folder: Where the vectors are kept, so that a call that was killed goes on; None keeps them while it lasts.

    Returns:
        Scores of the best passages by the model's own similarity (cosine unless it says otherwise), equal ones by id.
    """
    from dupmae.evaluation.encodings import encode_corpus, search_encodings
    from dupmae.evaluation.vectors import DenseVectors
    from dupmae.models import resolve_model

    rules = Definition(name=benchmark.name, document_length=max_length)
    vectors = DenseVectors(resolve_model(model), rules)
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        encodings = encode_corpus(vectors, benchmark.corpus, Path(place))
        return search_encodings(vectors, encodings, benchmark.queries, k)


def duplex_run(index: DuplexIndex, benchmark: Benchmark, k: int = 100, part: Part = "both") -> Run:
    """Rank by Eq. 12, or by one of its two terms.

    Args:
        index: Of the benchmark's corpus.
        benchmark: Gives the queries.
        k: Passages kept of each query.
        part: `"both"`, or `"cls"` / `"ot"` for one half alone.
    """
    return search_index(index, benchmark.queries, k, part)


def search_index(index: DuplexIndex, queries: Mapping[str, str], k: int, part: Part = "both") -> Run:
    """The k best passages of queries (id -> text); see :func:`duplex_run`."""
    names, run = list(queries), dict[str, dict[str, float]]()
    for start in range(0, len(names), QUERIES_AT_A_TIME):
        block = names[start : start + QUERIES_AT_A_TIME]
        ids, scores = index.search_embeddings(index.encoder.embed_queries([queries[query] for query in block]), k, part)
        run |= {query: dict(zip(*found, strict=True)) for query, *found in zip(block, ids, scores, strict=True)}
    return run
