"""BM25, the lexical baseline: one index of title and text together, or one of each."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dupmae.corpus import Benchmark, Passage, Run
from dupmae.corpus.words import terms_of
from dupmae.retrievers.brute_force import best_rows
from dupmae.runtime.bars import bar, shown

logger = logging.getLogger(__name__)

BM25_K1 = 0.9
BM25_B = 0.4
MANY = 50_000
"""Passages whose index takes bm25s more than two seconds."""


def bm25_run(benchmark: Benchmark, k: int = 100) -> Run:
    """Rank by BM25 as Lucene does, with the settings behind the figures published for BEIR: k1 = 0.9, b = 0.4.

    Title and text are one field, cut into words as :mod:`dupmae.corpus.words` has it for every script; Lucene's 33
    English stop words are dropped, the rest stemmed by Porter. NDCG@10 on the test splits: SciFact .677, NFCorpus .320.
    The paper quotes .665 and .325, for title and text indexed apart; done so (:func:`bm25_searcher` with `fields`) it
    is .664 and .325 here, too. `dupmae evaluate --model bm25 bm25-fields --benchmark FOLDER` shows them.

    Args:
        benchmark: Corpus and queries.
        k: Passages kept of each query; those without a word of the query are left out. How many queries find none is
            logged.

    Returns:
        Scores of the best passages, ties cut by id.

    Examples:
        >>> from dupmae import bm25_run
        >>> from dupmae.corpus import Benchmark, Passage
        >>> corpus = {"a": Passage("a", "Lamps", "They light rooms."), "b": Passage("b", "Bread", "Bakers bake it.")}
        >>> benchmark = Benchmark("home", "test", corpus, {"q": "who bakes bread?"}, {"q": {"b": 1}})
        >>> list(bm25_run(benchmark)["q"])
        ['b']
    """
    run = bm25_searcher(benchmark.corpus)(benchmark.queries, k)
    warn_of_unmatched(run, f"{benchmark.name} ({benchmark.split})")
    return run


@dataclass(frozen=True, slots=True)
class Bm25:
    """A corpus indexed for BM25."""

    fields: Sequence[Any]
    """bm25s' index of each field; their scores are added up."""
    ids: Sequence[str]
    """The passages' ids, rising."""

    def __call__(self, queries: Mapping[str, str], k: int) -> Run:
        """Rank the k best passages of queries (id -> text); those without a word of the query are left out."""
        run: Run = {}
        tokenised = zip(queries, terms_of(list(queries.values())), strict=True)
        for query, tokens in bar(tokenised, "BM25: search", "queries", len(queries)):
            scores = np.zeros(len(self.ids), np.float32)
            for field in self.fields if tokens else ():
                scores = scores + field.get_scores(tokens)
            found = np.flatnonzero(scores > 0)
            run[query] = {self.ids[row]: float(scores[row]) for row in found[best_rows(scores[found], k)]}
        return run

    def matches(self, texts: Sequence[str]) -> bool:
        """Tell whether any of the texts has a word that any passage has."""
        return any(term in field.vocab_dict for terms in terms_of(texts) for term in terms for field in self.fields)

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
        words = terms_of(bar(column, "BM25: read", "passages"))
        if any(words):
            models.append(bm25s.BM25(method="lucene", k1=BM25_K1, b=BM25_B))
            models[-1].index(words, show_progress=shown() and len(words) > MANY)
    return Bm25(models, sorted(corpus))


def warn_of_unmatched(
    found: Mapping[str, Collection[str]], name: str, reason: str = "no passage has a word of theirs"
) -> None:
    """Say how many queries BM25 has found nothing for, if there are any.

    Args:
        found: Query id -> passages.
        name: Of the benchmark.
        reason: Why that is so, or what comes of it.
    """
    unmatched = [query for query, passages in found.items() if not passages]
    if unmatched:
        logger.warning(
            "BM25 finds nothing for %d of the %d queries of %s, such as %r: %s.",
            len(unmatched),
            len(found),
            name,
            unmatched[0],
            reason,
        )
