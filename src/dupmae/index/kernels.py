"""The compiled loops of exact search: each works on one segment and needs no lock, so threads may share them.

Every score is summed in an order that depends on the query and the passage alone - not on the passage's place in its
segment nor on the other queries of the batch - so equal passages get equal scores and ties are real ties.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

TILE = 256
"""Passages whose dense halves are decoded at a time; the buffer stays in the processor's second-level cache."""


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _half_to_float(bits: Any) -> Any:
    """The float32 value of a finite float16 given as its 16 bits: shift mantissa and exponent, then mend the bias."""
    magnitude = (np.uint32(bits) & np.uint32(0x7FFF)) << np.uint32(13)
    sign = (np.uint32(bits) & np.uint32(0x8000)) << np.uint32(16)
    return np.uint32(magnitude | sign).view(np.float32) * np.float32(2.0**112)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def decode_halves(bits: Any, out: Any) -> None:
    """Write the float32 values of `bits`, finite float16 numbers as uint16 (n, d), into the first n rows of `out`."""
    for row in range(bits.shape[0]):
        for column in range(bits.shape[1]):
            out[row, column] = _half_to_float(bits[row, column])


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def _dense_scores(query_cls: Any, cls_bits: Any, scores: Any) -> None:
    """First term of Eq. 12 for all queries (Q, d') and passages (n, d'), written into `scores` (Q, n)."""
    passages, width = cls_bits.shape
    buffer = np.empty((TILE, width), np.float32)
    for start in range(0, passages, TILE):
        size = min(TILE, passages - start)
        decode_halves(cls_bits[start : start + size], buffer)
        for query in range(query_cls.shape[0]):
            for row in range(size):
                total = np.float32(0.0)
                for column in range(width):
                    total += query_cls[query, column] * buffer[row, column]
                scores[query, start + row] = total


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _add_sparse_scores(
    ids: Any, weights: Any, starts: Any, documents: Any, document_weights: Any, scales: Any, scores: Any
) -> None:
    """Add the second term of Eq. 12 for one query's entries (`ids`, `weights`) to `scores` (n,)."""
    sums = np.zeros(scores.shape[0], np.float32)
    for entry in range(ids.shape[0]):
        weight = weights[entry]
        for position in range(starts[ids[entry]], starts[ids[entry] + 1]):
            sums[documents[position]] += weight * np.float32(document_weights[position])
    for document in range(scores.shape[0]):
        scores[document] += sums[document] * scales[document]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _select(scores: Any, ranks: Any, best_scores: Any, best_ranks: Any) -> None:
    """Keep the best entries of `scores` (n,), best first, smaller rank first among equals; unfilled ranks stay -1."""
    size, filled = best_scores.shape[0], 0
    for document in range(scores.shape[0]):
        score, rank = scores[document], ranks[document]
        if filled == size:
            last = best_scores[size - 1]
            if score < last or (score == last and rank > best_ranks[size - 1]):
                continue
            place = size - 1
        else:
            place = filled
            filled += 1
        while place > 0 and (
            score > best_scores[place - 1] or (score == best_scores[place - 1] and rank < best_ranks[place - 1])
        ):
            best_scores[place], best_ranks[place] = best_scores[place - 1], best_ranks[place - 1]
            place -= 1
        best_scores[place], best_ranks[place] = score, rank


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def search_segment(
    query_cls: Any,
    query_starts: Any,
    query_ids: Any,
    query_weights: Any,
    cls_bits: Any,
    starts: Any,
    documents: Any,
    document_weights: Any,
    scales: Any,
    ranks: Any,
    k: int,
) -> Any:
    """Score all passages of a segment by Eq. 12 and return the k best of each query.

    Args:
        query_cls: Dense halves, float32 (Q, d'); d' = 0 leaves the first term out.
        query_starts: Where each query's vocabulary entries begin, int64 (Q + 1,).
        query_ids: Vocabulary entries of all queries, int64 (M,).
        query_weights: Their weights, float32 (M,).
        cls_bits: The segment's dense halves, float16 seen as uint16 (n, d').
        starts: Where each vocabulary entry's inverted list begins, uint32 (V + 1,).
        documents: The lists: passage numbers within the segment, uint16.
        document_weights: The lists: 16-bit weights, int16.
        scales: What a passage's 16-bit weights are multiplied by, float32 (n,).
        ranks: The passages' places in the order that breaks ties, int64 (n,).
        k: Passages wanted for each query.

    Returns:
        Scores float32 (Q, k) and ranks int64 (Q, k), best first; a rank of -1 means that there is no such passage.
    """
    queries, passages = query_cls.shape[0], cls_bits.shape[0]
    best_scores = np.full((queries, k), -np.inf, np.float32)
    best_ranks = np.full((queries, k), -1, np.int64)
    scores = np.zeros((queries, passages), np.float32)
    _dense_scores(query_cls, cls_bits, scores)
    for query in range(queries):
        first, last = query_starts[query], query_starts[query + 1]
        if last > first:
            _add_sparse_scores(
                query_ids[first:last],
                query_weights[first:last],
                starts,
                documents,
                document_weights,
                scales,
                scores[query],
            )
        _select(scores[query], ranks, best_scores[query], best_ranks[query])
    return best_scores, best_ranks


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def weights_of(document: int, ids: Any, starts: Any, documents: Any, document_weights: Any) -> Any:
    """The 16-bit weights that one passage has for vocabulary entries `ids` (M,): int16 (M,), 0 where it has none."""
    found = np.zeros(ids.shape[0], np.int16)
    for entry in range(ids.shape[0]):
        first, last = np.int64(starts[ids[entry]]), np.int64(starts[ids[entry] + 1])
        position = first + np.searchsorted(documents[first:last], document)
        if position < last and documents[position] == document:
            found[entry] = document_weights[position]
    return found
