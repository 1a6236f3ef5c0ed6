"""The compiled loops of search: each works on one block of a segment and needs no lock, so threads may share them.

Exact scores are summed in double precision, in an order that depends on the query and the passage alone - not on the
passage's place nor on the other queries of the batch - so equal passages get equal scores and ties are real ties.

In all of them `query` is a :class:`dupmae.index.scoring.query.Query` and `block` a
:class:`dupmae.index.storage.segments.BlockArrays`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

RUN = 64
"""Passages that are passed over together when the best of them is not good enough."""


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def search_block(query: Any, block: Any, scanned: Any, alive: Any, floor: Any, k: int) -> Any:
    """Find the k best passages of a block by Eq. 12, proven: no passage that is left out can be among them.

    The lexical half is summed exactly for every passage. Of the dense half the high bytes give a score that is off
    by at most `query.length * slack`. So k passages certainly reach the k-th largest score less its bound, and every
    passage whose score plus its bound reaches that too, be they many or few, is scored exactly.

    Args:
        query: The query.
        block: n passages.
        scanned: The query's first terms of Eq. 12 from :func:`dupmae.index.scoring.scanning.scan_dense`, float32 (n,);
            zeros if they are left out.
        alive: Passages that may be found, uint8 (n,).
        floor: float64 (1,): a score that k passages of other blocks reach; raised when this block knows a higher one.
            Threads may share it: an outdated value costs time, not passages.
        k: Passages wanted.

    Returns:
        Scores float64 and rows int64 of up to k passages, in no order; those below `floor` may be missing.
    """
    passages = block.high.shape[0]
    sums = np.zeros(passages, np.float64)
    _add_lists(query, block, sums)
    size = min(k, passages)
    scores, rows, filled = np.empty(size, np.float64), np.empty(size, np.int64), 0
    least = floor[0]
    for row in range(passages):
        sums[row] *= np.float64(block.lexical_units[row])
    lowest, highest = np.empty(RUN, np.float64), np.empty(RUN, np.float64)
    highest_of_run = np.empty(-(-passages // RUN), np.float64)
    for first in range(0, passages, RUN):
        last = min(first + RUN, passages)
        most_low, highest_of_run[first // RUN] = _bounds(
            scanned[first:last], sums[first:last], block.slack[first:last], query.length, lowest, highest
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
        _bounds(scanned[first:last], sums[first:last], block.slack[first:last], query.length, lowest, highest)
        for row in range(first, last):
            if alive[row] == 0 or highest[row - first] < least:
                continue
            score = sums[row]
            if query.length != 0.0:
                score += _exact_dense(query.dense, block, row)
            filled = _push(scores, rows, filled, score, row)
    if filled == k and scores[0] > floor[0]:
        floor[0] = scores[0]
    return scores[:filled], rows[:filled]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def dense_scores(dense: Any, block: Any, rows: Any) -> Any:
    """Compute the first term of Eq. 12 of a query's dense half (d',) for chosen passages (r,): float64 (r,)."""
    scores = np.empty(rows.shape[0], np.float64)
    for number in range(rows.shape[0]):
        scores[number] = _exact_dense(dense, block, rows[number])
    return scores


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def lexical_scores(query: Any, block: Any, rows: Any) -> Any:
    """Compute the second term of Eq. 12 for chosen passages: the same sums as :func:`search_block`'s, term by term.

    Args:
        query: The query, of m terms.
        block: Where the passages are.
        rows: The passages, rising (r,).

    Returns:
        float64 (r,)
    """
    sums = np.zeros(rows.shape[0], np.float64)
    for place in range(query.ids.shape[0]):
        _add_term(query, place, block, rows, sums)
    for number in range(rows.shape[0]):
        sums[number] *= np.float64(block.lexical_units[rows[number]])
    return sums


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def contributions(query: Any, block: Any, row: Any) -> Any:
    """Compute what each of a query's m terms adds to the score of one passage: float64 (m,)."""
    rows, parts = np.full(1, row), np.zeros(query.ids.shape[0], np.float64)
    for place in range(query.ids.shape[0]):
        _add_term(query, place, block, rows, parts[place : place + 1])
        parts[place] *= np.float64(block.lexical_units[row])
    return parts


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def _exact_dense(dense: Any, block: Any, row: Any) -> Any:
    """Compute the first term of Eq. 12 for one passage, in double precision."""
    total, high, low = 0.0, block.high[row], block.low[row]
    for column in range(dense.shape[0]):
        total += np.float64(dense[column]) * np.float64(256 * np.int32(high[column]) + np.int32(low[column]))
    return total * np.float64(block.dense_units[row])


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _list_of(term: Any, block: Any) -> Any:
    """Find where a term's inverted list begins and ends; it is empty where the term is stored as a column."""
    return np.int64(block.starts[term]), np.int64(block.starts[term + 1])


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _column_of(term: Any, block: Any) -> Any:
    """Find the number of the column that a term is stored as, -1 if it is not."""
    number = np.searchsorted(block.column_ids, term)
    return number if number < block.column_ids.shape[0] and block.column_ids[number] == term else -1


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _add_lists(query: Any, block: Any, sums: Any) -> None:
    """Add the second term of Eq. 12 of every passage, in the passages' units, to `sums` (n,)."""
    for place in range(query.ids.shape[0]):
        term, weight = query.ids[place], np.float64(query.weights[place])
        first, last = _list_of(term, block)
        if first < last:
            for position in range(first, last):
                sums[block.documents[position]] += weight * np.float64(block.weights[position])
        else:
            number = _column_of(term, block)
            if number >= 0:
                column = block.columns[number]
                for row in range(sums.shape[0]):
                    sums[row] += weight * np.float64(column[row])


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _add_term(query: Any, place: Any, block: Any, rows: Any, sums: Any) -> None:
    """Add what one term contributes to chosen passages (r,), rising, in their units, to `sums` (r,)."""
    term, weight = query.ids[place], np.float64(query.weights[place])
    position, last = _list_of(term, block)
    if position < last:
        for number in range(rows.shape[0]):
            # gallop ahead from the last place found, then halve
            step, end = 1, position
            while end < last and block.documents[end] < rows[number]:
                position = end + 1
                end += step
                step *= 2
            position += np.searchsorted(block.documents[position : min(end, last)], rows[number])
            if position >= last:
                break
            if block.documents[position] == rows[number]:
                sums[number] += weight * np.float64(block.weights[position])
    else:
        column = _column_of(term, block)
        if column >= 0:
            for number in range(rows.shape[0]):
                sums[number] += weight * np.float64(block.columns[column, rows[number]])


@numba.njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _worse(score: Any, row: Any, other_score: Any, other_row: Any) -> Any:
    """Tell whether a passage comes after another one: a lower score, or the same score and a larger row."""
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
def _bounds(scanned: Any, sums: Any, slack: Any, length: Any, lowest: Any, highest: Any) -> Any:
    """Bound the scores of some passages from `lowest` to `highest` (n,), both written; return the largest of either."""
    most_low, most_high = -np.inf, -np.inf
    for row in range(sums.shape[0]):
        score, bound = np.float64(scanned[row]) + sums[row], length * np.float64(slack[row])
        lowest[row], highest[row] = score - bound, score + bound
        most_low, most_high = max(most_low, lowest[row]), max(most_high, highest[row])
    return most_low, most_high
