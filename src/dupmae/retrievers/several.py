"""Several systems over one benchmark: what two of them have in common, as mixtures do, is made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from dupmae.corpus import Benchmark, Run
from dupmae.errors import DupmaeError
from dupmae.retrievers.best_chunk import by_best_chunk, cut_corpus
from dupmae.retrievers.hybrid import CANDIDATES, Form, has_dense_half, hybrid_run, split_mixture
from dupmae.retrievers.lengths import Lengths
from dupmae.retrievers.systems import BM25_SYSTEMS, Retriever, name_of_half, open_retrievers


class Systems:
    """The systems that rank a benchmark. What mixtures are made of stays open, and ranks the queries once.

    Args:
        benchmark: Corpus and queries.
        models: Mixtures, as :func:`dupmae.retrievers.hybrid.split_mixture` takes them, and systems, as
            :func:`dupmae.retrievers.systems.open_retrievers` does.
        lengths: The benchmark's rules on lengths.
        encodings: Folder in which encoded corpora are kept and found again.
        halves: Whether a duplex model is followed by each of its halves alone.
        chunks: Cut documents into chunks of so many tokens with so much overlap (:func:`cut_corpus`); a document scores
            what its best chunk scores.
        drop_self: Whether the query's own id is taken out of what is mixed.

    Raises:
        DupmaeError: A mixture whose embedder is none, or cannot be opened.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        models: Sequence[str],
        lengths: Lengths,
        encodings: Path,
        *,
        halves: bool = False,
        chunks: tuple[int, int | None] | None = None,
        drop_self: bool = False,
    ) -> None:
        self._searched = (
            benchmark if chunks is None else replace(benchmark, corpus=cut_corpus(benchmark.corpus, *chunks))
        )
        self._documents = {name: one.document for name, one in self._searched.corpus.items() if one.chunk is not None}
        self._lengths, self._encodings, self._halves = lengths, encodings, halves
        self._drop_self = drop_self
        self._opened: dict[str, list[Retriever]] = {}
        self._rankings: dict[str, Run] = {}
        mixtures = {model: mixture for model in models if (mixture := split_mixture(model)) is not None}
        self._mixed: dict[str, tuple[Form, list[Retriever]]] = {
            model: (form, [self._part("bm25"), self._part(embedder)]) for model, (form, embedder) in mixtures.items()
        }
        self._parts = {part.name for _, parts in self._mixed.values() for part in parts}

    def open(self, model: str) -> list[Retriever]:
        """Make the corpus ready for searching with one of the systems; a row of a table each.

        Raises:
            DupmaeError: No such model, or one that cannot search.
        """
        if model not in self._mixed:
            rows = self._opened.get(model) or self._open(model)
            return rows if self._halves else rows[:1]
        form, parts = self._mixed[model]

        def search(queries: Mapping[str, str], k: int) -> Run:
            return self._mix(form, [part.search(queries, self._depth(k)) for part in parts], k)

        lexical, dense = parts
        seconds = None if lexical.seconds is None or dense.seconds is None else lexical.seconds + dense.seconds
        stored = None if lexical.stored is None or dense.stored is None else lexical.stored + dense.stored
        return [Retriever(name=model, search=search, seconds=seconds, stored=stored)]

    def rank(self, retriever: Retriever, k: int) -> Run:
        """Rank the k best passages of the benchmark's queries with what :meth:`open` returned."""
        if retriever.name in self._mixed:
            form, parts = self._mixed[retriever.name]
            return self._mix(form, [self._rank_part(part, k) for part in parts], k)
        if retriever.name in self._parts:
            ranked = self._rank_part(retriever, k)
            return {query: dict(islice(scores.items(), k)) for query, scores in ranked.items()}
        return retriever.search(self._searched.queries, k)

    def _open(self, model: str) -> list[Retriever]:
        """Open a system that is no mixture, with its halves."""
        rows = open_retrievers(model, self._searched, self._lengths, self._encodings, halves=True)
        documents = self._documents
        return [replace(row, search=by_best_chunk(row.search, documents)) for row in rows] if documents else rows

    def _part(self, model: str) -> Retriever:
        """Open what a mixture is made of, to stay: of a duplex model its dense half, at the cost of its index."""
        from dupmae.retrievers.vectors import split_kind

        if model not in self._opened:
            if model not in BM25_SYSTEMS and not has_dense_half(split_kind(model)[1]):
                raise DupmaeError(f"{model} has no dense half, and BM25 is mixed with dense vectors: name an embedder.")
            self._opened[model] = self._open(model)
        whole, *halves = self._opened[model]
        dense = [row for row in halves if row.name == name_of_half(model, "dense")]
        return replace(dense[0], seconds=whole.seconds, stored=whole.stored) if dense else whole

    def _rank_part(self, part: Retriever, k: int) -> Run:
        """Rank the benchmark's queries as deep as a mixture needs it, once."""
        if part.name not in self._rankings:
            self._rankings[part.name] = part.search(self._searched.queries, self._depth(k))
        return self._rankings[part.name]

    def _depth(self, k: int) -> int:
        """Tell how many passages a mixture of k asks of its parts."""
        return max(k, CANDIDATES + self._drop_self)

    def _mix(self, form: Form, runs: Sequence[Run], k: int) -> Run:
        """Mix BM25's ranking and an embedder's."""
        lexical, dense = runs
        candidates = self._depth(k) - self._drop_self
        return hybrid_run(lexical, dense, k, form=form, candidates=candidates, drop_self=self._drop_self)
