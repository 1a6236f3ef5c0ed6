"""The exchange between an index and an engine: passages become sparse vectors, and answers become hits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.errors import DupmaeError, refuse_string
from dupmae.index.duplex_index import DuplexIndex
from dupmae.index.engines.engine import Document, Engine, SparseVector
from dupmae.index.hits import Hit, Where, wanted_values
from dupmae.index.storage.quantise import Rows, restore_dense
from dupmae.index.writing.encoding import Encoder


def push(index: DuplexIndex, engine: Engine) -> int:
    """Make an engine hold the passages of an index and no others; return how many there are."""
    dimensions = index.manifest.vocabulary_size + index.manifest.cls_dimension
    with tqdm(_documents(index), total=len(index), desc="push", unit=" passages") as bar:
        return engine.push(iter(bar), dimensions)


def search(
    engine: Engine, encoder: Encoder, model: str, queries: Sequence[str], k: int, where: Where | None = None
) -> list[list[Hit]]:
    """Search an engine and explain its answers as :meth:`DuplexIndex.search` does.

    Args:
        engine: Holds what :func:`push` brought.
        encoder: The model that built the index.
        model: Its fingerprint.
        queries: Texts.
        k: Passages wanted.
        where: Only passages with these metadata.

    Raises:
        DupmaeError: A string instead of a list, or the engine refuses, or holds another model's vectors.
    """
    refuse_string(queries, "queries")
    vocabulary = encoder.pooling.vocabulary_size
    wanted = {field: wanted_values(values) for field, values in (where or {}).items()}
    answers = []
    for query in query_vectors(encoder.embed_queries(list(queries)), vocabulary):
        found = engine.search(query, k, wanted)
        if any(document.model != model for document, _ in found):
            raise DupmaeError("The engine holds vectors of another model: push the index again.")
        answers.append([_hit(document, score, query, vocabulary, encoder) for document, score in found])
    return answers


def query_vectors(embeddings: DuplexEmbeddings, vocabulary_size: int) -> list[SparseVector]:
    """Turn query embeddings into sparse vectors over V + d' dimensions."""
    vectors = []
    for dense, ids, weights in zip(embeddings.cls, embeddings.ids, embeddings.weights, strict=True):
        used = np.flatnonzero(weights)
        order = used[np.argsort(ids[used])]
        vectors.append(_joined(ids[order].astype(np.int64), weights[order], dense, vocabulary_size))
    return vectors


def row_vector(rows: Rows, row: int) -> SparseVector:
    """Turn a stored passage into a sparse vector; nothing is rounded."""
    start, end = rows.lexical.indptr[row], rows.lexical.indptr[row + 1]
    weights = rows.lexical.data[start:end] * rows.lexical_units[row]
    one = slice(row, row + 1)
    dense = restore_dense(rows.high[one], rows.low[one], rows.dense_units[one])[0]
    return _joined(rows.lexical.indices[start:end].astype(np.int64), weights, dense, rows.lexical.shape[1])


def _joined(ids: NDArray[np.int64], weights: NDArray[Any], dense: NDArray[Any], vocabulary_size: int) -> SparseVector:
    """Join the terms and, after them, the dense half."""
    used = np.flatnonzero(dense)
    return SparseVector(
        np.concatenate((ids, vocabulary_size + used)), np.concatenate((weights, dense[used])).astype(np.float32)
    )


def _documents(index: DuplexIndex) -> Iterator[Document]:
    """Read the living passages; memory holds one segment."""
    for segment, alive in zip(index.snapshot.segments, index.snapshot.alive, strict=True):
        rows = segment.rows()
        for row in np.flatnonzero(alive).tolist():
            yield Document(segment.passages.passage(row), row_vector(rows, row), index.manifest.model_fingerprint)


def _hit(document: Document, score: float, query: SparseVector, vocabulary: int, encoder: Encoder) -> Hit:
    """Take an engine's score apart."""
    ids, mine, theirs = np.intersect1d(query.ids, document.vector.ids, assume_unique=True, return_indices=True)
    parts = query.values[mine].astype(np.float64) * document.vector.values[theirs]
    lexical = np.flatnonzero(ids < vocabulary)
    heaviest = lexical[np.argsort(-parts[lexical], kind="stable")]
    tokens = encoder.tokenizer.convert_ids_to_tokens(ids[heaviest].tolist())
    return Hit(
        id=document.passage.id,
        score=score,
        dense_score=float(parts[ids >= vocabulary].sum()),
        lexical_score=float(parts[lexical].sum()),
        matches=list(zip(tokens, parts[heaviest].tolist(), strict=True)),
        title=document.passage.title,
        text=document.passage.text,
        metadata=document.passage.metadata,
    )
