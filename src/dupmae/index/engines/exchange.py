"""The exchange between an index and an engine: passages become sparse vectors, and answers become hits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.corpus import Passage
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.queries import QueryEncoder
from dupmae.duplex.words import STEPS, WORD_DIMENSIONS
from dupmae.errors import DupmaeError, refuse_string
from dupmae.index.duplex_index import DuplexIndex, Group, words_by_dimension
from dupmae.index.engines.engine import Document, Engine, SparseVector
from dupmae.index.hits import Hit
from dupmae.index.scoring.explaining import named_words
from dupmae.index.scoring.query import UNCHANGED, Weights
from dupmae.index.scoring.words import all_rarities
from dupmae.index.storage.quantise import Rows, restore_dense
from dupmae.index.where import Filter, Where, read_filter
from dupmae.runtime.bars import bar


def push(index: DuplexIndex, engine: Engine) -> int:
    """Make an engine hold the passages of an index and no others; return how many there are."""
    dimensions = index.manifest.vocabulary_size + index.manifest.cls_dimension
    dimensions += 0 if index.manifest.words is None else WORD_DIMENSIONS
    return engine.push(iter(bar(_documents(index), "Push", "passages", len(index))), dimensions)


def search(
    engine: Engine,
    encoder: QueryEncoder,
    model: str,
    queries: Sequence[str],
    k: int,
    where: Where | None = None,
    weights: Weights = UNCHANGED,
    group: Group = "document",
) -> list[list[Hit]]:
    """Search an engine and explain its answers as :meth:`DuplexIndex.search` does.

    Args:
        engine: Holds what :func:`push` brought.
        encoder: The model that built the index.
        model: Its fingerprint.
        queries: Texts.
        k: Documents wanted.
        where: Only passages with these metadata.
        weights: What each part of the score is multiplied by.
        group: `"none"` ranks passages, so that several may be of one document.

    Raises:
        DupmaeError: A string instead of a list, or the engine refuses, or holds another model's
            vectors.
    """
    refuse_string(queries, "queries")
    vocabulary = encoder.pooling.vocabulary_size
    condition = None if where is None else read_filter(where)
    find = engine.search if group == "none" else partial(_documents_found, engine)
    answers = []
    embeddings = weights.apply(encoder.embed_queries(list(queries)))
    dense = range(vocabulary, vocabulary + embeddings.cls.shape[1])
    for text, query in zip(queries, query_vectors(embeddings, vocabulary), strict=True):
        found = find(query, k, condition)
        if any(document.model != model for document, _ in found):
            raise DupmaeError("The engine holds vectors of another model: push the index again.")
        names = words_by_dimension(encoder, text)
        answers.append([_hit(document, score, query, dense, encoder, names) for document, score in found])
    return answers


def _documents_found(engine: Engine, query: SparseVector, k: int, where: Filter | None) -> list[tuple[Document, float]]:
    """Find the best passage of each of the k best documents, ties by their ids, as far as the engine is exact.

    It is asked for more and more passages, until one that was not found can belong to none of them.
    """
    limit = 2 * k
    while True:
        found = engine.search(query, limit, where)
        if all(document.passage.chunk is None for document, _ in found):
            return found[:k]
        best: dict[str, tuple[Document, float]] = {}
        for document, score in sorted(found, key=lambda place: (-place[1], *_place_of(place[0].passage))):
            best.setdefault(document.passage.document, (document, score))
        ranking = [*best.values()][:k]
        if len(found) < limit or (len(ranking) == k and ranking[-1][1] > found[-1][1]):
            return ranking
        limit *= 2


def _place_of(passage: Passage) -> tuple[str, int]:
    """Tell a passage's document, and where it begins there."""
    return passage.document, 0 if passage.chunk is None else passage.chunk.start


def query_vectors(embeddings: DuplexEmbeddings, vocabulary_size: int) -> list[SparseVector]:
    """Turn query embeddings into sparse vectors over V + d' dimensions and those of words, which have their shares."""
    vectors, words = [], embeddings.words
    for row, (dense, ids, weights) in enumerate(zip(embeddings.cls, embeddings.ids, embeddings.weights, strict=True)):
        used = np.flatnonzero(weights)
        order = used[np.argsort(ids[used])]
        own = _NO_WORDS
        if words is not None:
            start, end = words.indptr[row], words.indptr[row + 1]
            own = words.indices[start:end], words.data[start:end]
        vectors.append(_joined(ids[order].astype(np.int64), weights[order], dense, own, vocabulary_size))
    return vectors


def row_vector(rows: Rows, row: int, words: NDArray[np.int64], rare: NDArray[np.float64]) -> SparseVector:
    """Turn a stored passage into a sparse vector; nothing is rounded but words times their rarity.

    Args:
        rows: Stored passages.
        row: Which of them.
        words: Dimensions of all words of the index, rising (m,).
        rare: Their rarities (m,).
    """
    start, end = rows.lexical.indptr[row], rows.lexical.indptr[row + 1]
    weights = rows.lexical.data[start:end] * rows.lexical_units[row]
    one = slice(row, row + 1)
    dense = restore_dense(rows.high[one], rows.low[one], rows.dense_units[one])[0]
    own = _NO_WORDS
    if rows.words is not None:
        first, last = rows.words.indptr[row], rows.words.indptr[row + 1]
        ids = rows.words.indices[first:last]
        own = ids, rows.words.data[first:last] / STEPS * rare[np.searchsorted(words, ids)]
    return _joined(rows.lexical.indices[start:end].astype(np.int64), weights, dense, own, rows.lexical.shape[1])


_NO_WORDS: tuple[NDArray[Any], NDArray[Any]] = np.empty(0, np.int64), np.empty(0, np.float64)


def _joined(
    ids: NDArray[np.int64],
    weights: NDArray[Any],
    dense: NDArray[Any],
    words: tuple[NDArray[Any], NDArray[Any]],
    vocabulary_size: int,
) -> SparseVector:
    """Join the terms, after them the dense half, and after that the words."""
    used, (word_ids, word_weights) = np.flatnonzero(dense), words
    kept = np.flatnonzero(word_weights)
    behind = vocabulary_size + len(dense)
    return SparseVector(
        np.concatenate((ids, vocabulary_size + used, behind + word_ids[kept].astype(np.int64))),
        np.concatenate((weights, dense[used], word_weights[kept])).astype(np.float32),
    )


def _documents(index: DuplexIndex) -> Iterator[Document]:
    """Read the living passages; memory holds one segment."""
    snapshot = index.snapshot
    words, rare = all_rarities(snapshot)
    for segment, alive in zip(snapshot.segments, snapshot.alive, strict=True):
        rows = segment.rows()
        for row in np.flatnonzero(alive).tolist():
            vector = row_vector(rows, row, words, rare)
            yield Document(segment.passages.passage(row), vector, snapshot.manifest.model_fingerprint)


def _hit(
    document: Document,
    score: float,
    query: SparseVector,
    dense: range,
    encoder: QueryEncoder,
    names: Mapping[int, str],
) -> Hit:
    """Take an engine's score apart; `dense` are the dimensions of the dense half, terms before and words behind it."""
    ids, mine, theirs = np.intersect1d(query.ids, document.vector.ids, assume_unique=True, return_indices=True)
    parts = query.values[mine].astype(np.float64) * document.vector.values[theirs]
    lexical, words = np.flatnonzero(ids < dense.start), np.flatnonzero(ids >= dense.stop)
    heaviest = lexical[np.argsort(-parts[lexical], kind="stable")]
    tokens = encoder.tokenizer.convert_ids_to_tokens(ids[heaviest].tolist())
    return Hit.of(
        document.passage,
        score,
        dense_score=float(parts[(ids >= dense.start) & (ids < dense.stop)].sum()),
        lexical_score=float(parts[lexical].sum()),
        word_score=float(parts[words].sum()),
        matches=list(zip(tokens, parts[heaviest].tolist(), strict=True)),
        words=named_words(ids[words] - dense.stop, parts[words], names),
    )
