"""Vectors and scores of texts that are in no index, by the model of one that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.words import inner_products


def embedded(encoder: Any, texts: Sequence[str], *, queries: bool) -> DuplexEmbeddings:
    """Embed texts; the words of queries are as rare as the model says, since there is no index to tell.

    Args:
        encoder: What encodes queries, or of documents the whole model.
        texts: Texts.
        queries: Whether they are queries.
    """
    if not queries:
        found: DuplexEmbeddings = encoder.embed_documents(list(texts))
        return found
    found = encoder.embed_queries(list(texts))
    if found.words is None:
        return found
    return DuplexEmbeddings(found.cls, found.ids, found.weights, encoder.words.rare(found.words))


def sparse_rows(embeddings: DuplexEmbeddings, vocabulary: int) -> list[list[tuple[int, float]]]:
    """List the dimensions that the lexical half and words of each text have, as `DuplexEncoder.encode` numbers them.

    Args:
        embeddings: Of n texts.
        vocabulary: V, the number of learned terms; words follow behind V + d'.
    """
    first_word, rows = vocabulary + embeddings.cls.shape[1], []
    for number, (ids, weights) in enumerate(zip(embeddings.ids, embeddings.weights, strict=True)):
        kept = np.flatnonzero(weights)
        row = list(zip(ids[kept].tolist(), weights[kept].tolist(), strict=True))
        if embeddings.words is not None:
            words = embeddings.words[[number]]
            row += zip((words.indices + first_word).tolist(), words.data.tolist(), strict=True)
        rows.append(row)
    return rows


def scores(query: DuplexEmbeddings, documents: DuplexEmbeddings, vocabulary: int) -> NDArray[np.float64]:
    """Score n documents for one query by Eq. 12 and words: (n,)."""
    weights = np.zeros(vocabulary)
    np.add.at(weights, query.ids[0].astype(np.int64), query.weights[0])  # unused places are of term 0 and weigh nothing
    found = documents.cls.astype(np.float64) @ query.cls[0]
    found += (documents.weights * weights[documents.ids]).sum(axis=1)
    if query.words is not None and documents.words is not None:
        found += inner_products(query.words, documents.words)[0]
    result: NDArray[np.float64] = found
    return result
