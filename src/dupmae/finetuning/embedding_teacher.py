"""Embedders as teachers: a model of vectors scores a query's candidates, each passage embedded once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dupmae.corpus import Benchmark, Run
from dupmae.models import model_file

if TYPE_CHECKING:
    from dupmae.evaluation.encodings import Encodings
    from dupmae.evaluation.vectors import Vectors

COSINE_SCALE = 20.0
"""What cosines are multiplied with to become logits; the scale at which sentence-transformers' contrastive losses train
them. Dot products, a duplex model's score among them, are taken as they are."""


def is_embedder(model: str) -> bool:
    """Whether a model's files say that it makes vectors.

    Args:
        model: What :func:`dupmae.models.resolve_model` returned: a folder, or a Hugging Face id.
    """
    from dupmae.evaluation.vectors import recorded_kind

    return model_file(model, "modules.json") is not None and recorded_kind(model) != "CrossEncoder"


class EmbeddingTeacher:
    """Scores of queries' passages by the similarity of their vectors.

    Args:
        model: An embedder, dense, sparse or duplex (:func:`is_embedder`).
        benchmark: Knows the texts.
        passages: Ids of all passages that will be asked for. They are embedded now.
        folder: Keeps their vectors, so that an interrupted call goes on.
    """

    def __init__(self, model: str, benchmark: Benchmark, passages: Iterable[str], folder: Path) -> None:
        from dupmae.evaluation.benchmarks import Definition
        from dupmae.evaluation.encodings import encode_corpus
        from dupmae.evaluation.vectors import open_vectors, split_kind

        vectors = open_vectors(*split_kind(model), Definition(name=benchmark.name))
        self._vectors: Vectors = vectors
        self._scale = COSINE_SCALE if vectors.model.similarity_fn_name == "cosine" else 1.0
        self._queries = benchmark.queries
        self._encoded: Encodings = encode_corpus(vectors, {name: benchmark.corpus[name] for name in passages}, folder)
        self._places = {name: place for place, name in enumerate(self._encoded.ids)}

    def __call__(self, passages: Mapping[str, Sequence[str]]) -> Run:
        """Query id -> passage id -> score, in the order given."""
        embedded = self._vectors.embed([self._queries[query] for query in passages], "query")
        run: Run = {}
        for row, (query, candidates) in enumerate(passages.items()):
            places = np.array([self._places[name] for name in candidates], np.int64)
            scores = np.zeros(len(places), np.float32)
            for which, vectors in self._encoded.some(places):
                scores[which] = self._vectors.score(embedded[row : row + 1], vectors)[0]
            run[query] = {name: float(self._scale * score) for name, score in zip(candidates, scores, strict=True)}
        return run
