"""The compiled loops of search: each works on one block of a segment and needs no lock, so threads may share them.

Exact scores are summed in double precision, in an order that depends on the query and the passage alone - not on the
passage's place nor on the other queries of the batch - so equal passages get equal scores and ties are real ties.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

RUN = 64
"""Passages that are passed over together when the best of them is not good enough."""


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def exact_dense(query: Any, high: Any, low: Any, unit: Any) -> Any:
    """First term of Eq. 12 for a query (d',) and one passage (d',), in double precision."""
    total = 0.0
    for column in range(query.shape[0]):
        total += np.float64(query[column]) * np.float64(256 * np.int32(high[column]) + np.int32(low[column]))
    return total * unit


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def add_lists(
    ids: Any, weights: Any, starts: Any, documents: Any, list_weights: Any, column_ids: Any, columns: Any, sums: Any
) -> None:
    """Add the second term of Eq. 12, in the passages' units, to `sums` (n,).

    Args:
        ids: The query's vocabulary entries (m,).
        weights: Their weights, float32 (m,).
        starts: Where each vocabulary entry's inverted list begins (V + 1,).
        documents: The lists: passage numbers within the block.
        list_weights: The lists: weights.
        column_ids: Vocabulary entries that are stored as columns instead, rising (C,).
        columns: Their weights for every passage of the block (C, n).
        sums: float64 (n,).
    """
    for place in range(ids.shape[0]):
        weight = np.float64(weights[place])
        first, last = np.int64(starts[ids[place]]), np.int64(starts[ids[place] + 1])
        if first < last:
            for position in range(first, last):
                sums[documents[position]] += weight * np.float64(list_weights[position])
        else:
            number = np.searchsorted(column_ids, ids[place])
            if number < column_ids.shape[0] and column_ids[number] == ids[place]:
                column = columns[number]
                for document in range(sums.shape[0]):
                    sums[document] += weight * np.float64(column[document])


@numba.njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _worse(score: Any, row: Any, other_score: Any, other_row: Any) -> Any:
    """Whether a passage comes after another one: a lower score, or the same score and a larger row."""
    return score < other_score or (score == other_score and row > other_row)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _push(scores: Any, rows: Any, filled: Any, score: Any, row: Any) -> Any:
    """Put a passage into a heap whose top is the worst one; a full heap drops the worst. Returns how many it holds."""
    size = scores.shape[0]
    if filled < size:
        place = filled
        while place > 0:
            parent = (place - 1) // 2
            if not _worse(score, row, scores[parent], rows[parent]):
                break
            scores[place], rows[place] = scores[parent], rows[parent]
            place = parent
        scores[place], rows[place] = score, row
        return filled + 1
    if _worse(score, row, scores[0], rows[0]):
        return filled
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _worse(scores[child + 1], rows[child + 1], scores[child], rows[child]):
            child += 1
        if not _worse(scores[child], rows[child], score, row):
            break
        scores[place], rows[place] = scores[child], rows[child]
        place = child
    scores[place], rows[place] = score, row
    return filled


@numba.njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})  # type: ignore[untyped-decorator]
def _bounds(dense: Any, sums: Any, slack: Any, length: Any, lowest: Any, highest: Any) -> Any:
    """Between which numbers the scores of some passages lie, `lowest` and `highest` (n,), and the largest of either."""
    most_low, most_high = -np.inf, -np.inf
    for row in range(sums.shape[0]):
        score, bound = np.float64(dense[row]) + sums[row], length * np.float64(slack[row])
        lowest[row], highest[row] = score - bound, score + bound
        most_low, most_high = max(most_low, lowest[row]), max(most_high, highest[row])
    return most_low, most_high


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def search_block(
    query: Any,
    length: Any,
    ids: Any,
    weights: Any,
    dense: Any,
    high: Any,
    low: Any,
    cls_units: Any,
    slack: Any,
    starts: Any,
    documents: Any,
    list_weights: Any,
    column_ids: Any,
    columns: Any,
    ot_units: Any,
    alive: Any,
    floor: Any,
    k: int,
) -> Any:
    """The k best passages of a block by Eq. 12, proven: no passage that is left out can be among them.

    The vocabulary half is summed exactly for every passage. Of the dense half the high bytes give a score that is off
    by at most `length * slack`. So k passages certainly reach the k-th largest score less its bound, and every passage
    whose score plus its bound reaches that too, be they many or few, is scored exactly.

    Args:
        query: Dense half of a query, float32 (d',).
        length: Its Euclidean length; 0 leaves the first term out.
        ids: Its vocabulary entries (m,).
        weights: Their weights, float32 (m,).
        dense: Its first terms from :func:`dupmae.index.scoring.scanning.scan_dense`, float32 (n,); zeros if they are
            left out.
        high: The block's dense halves, int8 (n, d'), like the following arrays described in `segments`.
        low: int8 (n, d').
        cls_units: float32 (n,).
        slack: float32 (n,).
        starts: uint32 (V + 1,).
        documents: uint16.
        list_weights: int16.
        column_ids: uint32 (C,).
        columns: int16 (C, n).
        ot_units: float32 (n,).
        alive: Passages that may be found, uint8 (n,).
        floor: float64 (1,): a score that k passages of other blocks reach; raised when this block knows a higher one.
            Threads may share it: an outdated value costs time, not passages.
        k: Passages wanted.

    Returns:
        Scores float64 and rows int64 of up to k passages, in no order; those below `floor` may be missing.
    """
    passages = high.shape[0]
    sums = np.zeros(passages, np.float64)
    add_lists(ids, weights, starts, documents, list_weights, column_ids, columns, sums)
    size = min(k, passages)
    scores, rows, filled = np.empty(size, np.float64), np.empty(size, np.int64), 0
    least = floor[0]
    for row in range(passages):
        sums[row] *= np.float64(ot_units[row])
    lowest, highest = np.empty(RUN, np.float64), np.empty(RUN, np.float64)
    highest_of_run = np.empty(-(-passages // RUN), np.float64)
    for first in range(0, passages, RUN):
        last = min(first + RUN, passages)
        most_low, highest_of_run[first // RUN] = _bounds(
            dense[first:last], sums[first:last], slack[first:last], length, lowest, highest
        )
        if most_low < least:
            continue
        for row in range(first, last):
            if alive[row] != 0 and lowest[row - first] >= least:
                filled = _push(scores, rows, filled, lowest[row - first], row)
                if filled == k and scores[0] > least:
                    least = scores[0]
    filled = 0
    for first in range(0, passages, RUN):
        if highest_of_run[first // RUN] < least:
            continue
        last = min(first + RUN, passages)
        _bounds(dense[first:last], sums[first:last], slack[first:last], length, lowest, highest)
        for row in range(first, last):
            if alive[row] == 0 or highest[row - first] < least:
                continue
            score = sums[row]
            if length != 0.0:
                score += exact_dense(query, high[row], low[row], np.float64(cls_units[row]))
            filled = _push(scores, rows, filled, score, row)
    if filled == k and scores[0] > floor[0]:
        floor[0] = scores[0]
    return scores[:filled], rows[:filled]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def lexical_scores(
    rows: Any,
    ids: Any,
    weights: Any,
    starts: Any,
    documents: Any,
    list_weights: Any,
    column_ids: Any,
    columns: Any,
    ot_units: Any,
) -> Any:
    """Second term of Eq. 12 for chosen passages of a block: the same sums as :func:`search_block`'s, entry by entry.

    Args:
        rows: The passages, rising (r,).
        ids: The query's vocabulary entries (m,), and so on as there.
        weights: float32 (m,).
        starts: uint32 (V + 1,).
        documents: uint16.
        list_weights: int16.
        column_ids: uint32 (C,).
        columns: int16 (C, n).
        ot_units: float32 (n,).

    Returns:
        float64 (r,)
    """
    sums = np.zeros(rows.shape[0], np.float64)
    for place in range(ids.shape[0]):
        weight = np.float64(weights[place])
        first, last = np.int64(starts[ids[place]]), np.int64(starts[ids[place] + 1])
        if first < last:
            position = first
            for number in range(rows.shape[0]):
                # gallop ahead from the last place found, then halve
                step, end = 1, position
                while end < last and documents[end] < rows[number]:
                    position = end + 1
                    end += step
                    step *= 2
                position += np.searchsorted(documents[position : min(end, last)], rows[number])
                if position >= last:
                    break
                if documents[position] == rows[number]:
                    sums[number] += weight * np.float64(list_weights[position])
        else:
            column = np.searchsorted(column_ids, ids[place])
            if column < column_ids.shape[0] and column_ids[column] == ids[place]:
                for number in range(rows.shape[0]):
                    sums[number] += weight * np.float64(columns[column, rows[number]])
    for number in range(rows.shape[0]):
        sums[number] *= np.float64(ot_units[rows[number]])
    return sums


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def contributions(
    row: Any,
    ids: Any,
    weights: Any,
    starts: Any,
    documents: Any,
    list_weights: Any,
    column_ids: Any,
    columns: Any,
    ot_units: Any,
) -> Any:
    """What each vocabulary entry of a query adds to the score of one passage of a block: float64 (m,).

    Args as for :func:`lexical_scores`.
    """
    parts = np.zeros(ids.shape[0], np.float64)
    for place in range(ids.shape[0]):
        first, last = np.int64(starts[ids[place]]), np.int64(starts[ids[place] + 1])
        weight = np.int16(0)
        if first < last:
            position = first + np.searchsorted(documents[first:last], row)
            if position < last and documents[position] == row:
                weight = list_weights[position]
        else:
            column = np.searchsorted(column_ids, ids[place])
            if column < column_ids.shape[0] and column_ids[column] == ids[place]:
                weight = columns[column, row]
        parts[place] = np.float64(weights[place]) * np.float64(weight) * np.float64(ot_units[row])
    return parts


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def exact_dense_of(query: Any, rows: Any, high: Any, low: Any, units: Any) -> Any:
    """First term of Eq. 12 for chosen passages (r,): float64 (r,)."""
    scores = np.empty(rows.shape[0], np.float64)
    for number in range(rows.shape[0]):
        row = rows[number]
        scores[number] = exact_dense(query, high[row], low[row], np.float64(units[row]))
    return scores
