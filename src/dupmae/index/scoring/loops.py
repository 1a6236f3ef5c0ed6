"""The compiled loops of search: each works on one block of a segment and needs no lock, so threads may share them.

Exact scores are summed in double precision, in an order that depends on the query and the passage alone - not on the
passage's place nor on the other queries of the batch - so equal passages get equal scores and ties are real ties.

What describes a part of a query or a block comes as one tuple, from :class:`dupmae.index.scoring.query.Query` (`terms`,
`words`) and :class:`dupmae.index.storage.segments.Block` (`dense`, `lists`, `words`). They are plain tuples because
numba's cache on disk would import the class of a named one before it looks whether it is still valid.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from dupmae.duplex.words import STEPS
from dupmae.index.scoring.scanning import scan_dense as scan_dense

RUN = 64
"""Passages that are passed over together when the best of them is not good enough."""
STEP = 1 / STEPS
"""What a byte of a word's saturated frequency counts in, a power of two: nothing is rounded."""


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def search_block(
    query: Any,
    length: Any,
    terms: Any,
    words: Any,
    scanned: Any,
    dense: Any,
    lists: Any,
    word_lists: Any,
    alive: Any,
    groups: Any,
    floor: Any,
    k: int,
) -> Any:
    """Find the k best documents of a block by Eq. 12 and words, proven: none that is left out can be among them.

    A document scores what the best of its passages here scores; with no `groups` each passage is one.

    The lexical half and the words are summed exactly for every passage. Of the dense half the high bytes give a score
    that is off by at most `length * slack`. So k documents certainly reach the k-th largest score less its bound, and
    every passage whose score plus its bound reaches that too, be they many or few, is scored exactly.

    Args:
        query: Dense half of a query, float32 (d',).
        length: Its Euclidean length; 0 leaves the first term of Eq. 12 out.
        terms: Its lexical half.
        words: Its words.
        scanned: Its first terms of Eq. 12 from :func:`dupmae.index.scoring.scanning.scan_dense`, float32 (n,); zeros
            if they are left out.
        dense: The block's dense halves.
        lists: The block's lexical halves.
        word_lists: The block's words.
        alive: Passages that may be found, uint8 (n,).
        groups: Which passages belong to one document, see :data:`dupmae.index.storage.segments.Groups`.
        floor: float64 (1,): a score that k documents of other blocks reach; raised when this block knows a higher one.
            Threads may share it: an outdated value costs time, not passages.
        k: Documents wanted.

    Returns:
        Scores float64 and rows int64 of the best passages of up to k documents, in no order; those below `floor` may be
        missing.
    """
    high, low, dense_units, slack = dense
    passages = high.shape[0]
    sums = _lexical_scores_of_all(terms, lists, passages)
    _add_words_of_all(words, word_lists, sums)
    places, rows_in_order, documents = groups
    grouped = places.shape[0] > 0
    held = np.full(documents[-1] + 1 if grouped else 0, -1, np.int32)
    size = min(k, passages)
    scores, keys, filled = np.empty(size, np.float64), np.empty(size, np.int64), 0
    least = floor[0]
    lowest, highest = np.empty(RUN, np.float64), np.empty(RUN, np.float64)
    highest_of_run = np.empty(-(-passages // RUN), np.float64)
    for first in range(0, passages, RUN):
        last = min(first + RUN, passages)
        most_low, highest_of_run[first // RUN] = _bounds(
            scanned[first:last], sums[first:last], slack[first:last], length, lowest, highest
        )
        if most_low < least:
            continue
        for row in range(first, last):
            if alive[row] != 0 and lowest[row - first] >= least:
                key = places[row] if grouped else row
                filled = _push(scores, keys, filled, lowest[row - first], key, documents, held)
                if filled == k and scores[0] > least:
                    least = scores[0]
    filled = 0
    held[:] = -1
    for first in range(0, passages, RUN):
        if highest_of_run[first // RUN] < least:
            continue
        last = min(first + RUN, passages)
        _bounds(scanned[first:last], sums[first:last], slack[first:last], length, lowest, highest)
        for row in range(first, last):
            if alive[row] == 0 or highest[row - first] < least:
                continue
            score = sums[row]
            if length != 0.0:
                score += _exact_dense(query, high[row], low[row], np.float64(dense_units[row]))
            filled = _push(scores, keys, filled, score, places[row] if grouped else row, documents, held)
    if filled == k and scores[0] > floor[0]:
        floor[0] = scores[0]
    if grouped:
        for place in range(filled):
            keys[place] = rows_in_order[keys[place]]
    return scores[:filled], keys[:filled]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def dense_scores(query: Any, dense: Any, rows: Any) -> Any:
    """Compute the first term of Eq. 12 for a query (d',) and chosen passages (r,): float64 (r,)."""
    high, low, units, _ = dense
    scores = np.empty(rows.shape[0], np.float64)
    for number in range(rows.shape[0]):
        row = rows[number]
        scores[number] = _exact_dense(query, high[row], low[row], np.float64(units[row]))
    return scores


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def lexical_scores(terms: Any, lists: Any, rows: Any) -> Any:
    """Compute the second term of Eq. 12 for chosen passages: the same sums as :func:`search_block`'s, term by term.

    Args:
        terms: Lexical half of a query, (m,).
        lists: The block's lexical halves.
        rows: The passages, rising (r,).

    Returns:
        float64 (r,)
    """
    (ids, weights), units = terms, lists[5]
    sums = np.zeros(rows.shape[0], np.float64)
    for place in range(ids.shape[0]):
        _add_term(ids[place], weights[place], lists, rows, sums)
    for number in range(rows.shape[0]):
        sums[number] *= np.float64(units[rows[number]])
    return sums


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def add_words(words: Any, lists: Any, rows: Any, sums: Any) -> None:
    """Add what words contribute to chosen passages to `sums` (r,): the same sums as :func:`search_block`'s.

    Args:
        words: A query's dimensions, and what a whole saturated frequency of each is worth, (m,).
        lists: The block's words.
        rows: The passages, rising (r,).
        sums: float64 (r,).
    """
    (ids, weights), (known, starts, documents, frequencies) = words, lists
    for place in range(ids.shape[0]):
        first, last = _list_of(ids[place], known, starts)
        if first < last:
            _add_list(weights[place] * STEP, first, last, documents, frequencies, rows, sums)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def count_passages(ids: Any, lists: Any, alive: Any, counts: Any) -> None:
    """Add to `counts` int64 (m,) how many living passages of a block have each of some words.

    Args:
        ids: Dimensions of words (m,).
        lists: The block's words.
        alive: uint8: 1 for each passage that is not deleted, (n,); empty if none is.
        counts: Changed in place.
    """
    known, starts, documents, _ = lists
    for place in range(ids.shape[0]):
        first, last = _list_of(ids[place], known, starts)
        if alive.shape[0] == 0:
            counts[place] += last - first
        else:
            for position in range(first, last):
                counts[place] += alive[documents[position]]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def word_contributions(words: Any, lists: Any, row: Any) -> Any:
    """Compute what each of a query's m words adds to the score of one passage: float64 (m,)."""
    ids, weights = words
    rows, parts = np.full(1, row), np.zeros(ids.shape[0], np.float64)
    for place in range(ids.shape[0]):
        add_words((ids[place : place + 1], weights[place : place + 1]), lists, rows, parts[place : place + 1])
    return parts


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def contributions(terms: Any, lists: Any, row: Any) -> Any:
    """Compute what each of a query's m terms adds to the score of one passage: float64 (m,)."""
    (ids, weights), unit = terms, np.float64(lists[5][row])
    rows, parts = np.full(1, row), np.zeros(ids.shape[0], np.float64)
    for place in range(ids.shape[0]):
        _add_term(ids[place], weights[place], lists, rows, parts[place : place + 1])
        parts[place] *= unit
    return parts


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def _exact_dense(query: Any, high: Any, low: Any, unit: Any) -> Any:
    """Compute the first term of Eq. 12 for a query (d',) and one passage (d',), in double precision."""
    total = 0.0
    for column in range(query.shape[0]):
        total += np.float64(query[column]) * np.float64(256 * np.int32(high[column]) + np.int32(low[column]))
    return total * unit


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _column_of(term: Any, column_ids: Any) -> Any:
    """Find the number of the column that a term is stored as; -1 if it is not."""
    number = np.searchsorted(column_ids, term)
    return number if number < column_ids.shape[0] and column_ids[number] == term else -1


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _lexical_scores_of_all(terms: Any, lists: Any, passages: int) -> Any:
    """Compute the second term of Eq. 12 for every passage of a block: float64 (n,)."""
    (ids, weights), (starts, documents, list_weights, column_ids, columns, units) = terms, lists
    sums = np.zeros(passages, np.float64)
    for place in range(ids.shape[0]):
        weight = np.float64(weights[place])
        first, last = np.int64(starts[ids[place]]), np.int64(starts[ids[place] + 1])
        if first < last:
            for position in range(first, last):
                sums[documents[position]] += weight * np.float64(list_weights[position])
        else:
            number = _column_of(ids[place], column_ids)
            if number >= 0:
                column = columns[number]
                for row in range(passages):
                    sums[row] += weight * np.float64(column[row])
    for row in range(passages):
        sums[row] *= np.float64(units[row])
    return sums


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _list_of(word: Any, known: Any, starts: Any) -> Any:
    """Find where the list of a word begins and ends; both are 0 if the block does not have it."""
    place = np.searchsorted(known, word)
    if place < known.shape[0] and known[place] == word:
        return np.int64(starts[place]), np.int64(starts[place + 1])
    return np.int64(0), np.int64(0)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _add_words_of_all(words: Any, lists: Any, sums: Any) -> None:
    """Add what words contribute to every passage of a block to `sums` (n,)."""
    (ids, weights), (known, starts, documents, frequencies) = words, lists
    for place in range(ids.shape[0]):
        first, last = _list_of(ids[place], known, starts)
        weight = weights[place] * STEP
        for position in range(first, last):
            sums[documents[position]] += weight * np.float64(frequencies[position])


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _add_list(weight: Any, first: Any, last: Any, documents: Any, list_weights: Any, rows: Any, sums: Any) -> None:
    """Add what one inverted list contributes to chosen passages (r,), rising, to `sums` (r,)."""
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


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _add_term(term: Any, weight: Any, lists: Any, rows: Any, sums: Any) -> None:
    """Add what one term contributes to chosen passages (r,), rising, in their units, to `sums` (r,)."""
    starts, documents, list_weights, column_ids, columns, _ = lists
    wide = np.float64(weight)
    first, last = np.int64(starts[term]), np.int64(starts[term + 1])
    if first < last:
        _add_list(wide, first, last, documents, list_weights, rows, sums)
    else:
        column = _column_of(term, column_ids)
        if column >= 0:
            for number in range(rows.shape[0]):
                sums[number] += wide * np.float64(columns[column, rows[number]])


@numba.njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _worse(score: Any, key: Any, other_score: Any, other_key: Any) -> Any:
    """Tell whether a passage comes after another one: a lower score, or the same score and a larger key."""
    return score < other_score or (score == other_score and key > other_key)


@numba.njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _put(scores: Any, keys: Any, place: Any, score: Any, key: Any, documents: Any, held: Any) -> None:
    """Put a passage into a place of a heap and, if they are told, keep in which place its document is `held`."""
    scores[place], keys[place] = score, key
    if held.shape[0] > 0:
        held[documents[key]] = place


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _push(scores: Any, keys: Any, filled: Any, score: Any, key: Any, documents: Any, held: Any) -> Any:
    """Put a passage into a heap whose top is the worst one; a full heap drops the worst; return how many it holds.

    Of a document it holds the best passage alone.

    Args:
        scores: The heap's scores (k,).
        keys: Its passages: their rows or, with documents, their places in the documents' order (k,).
        filled: How many it holds.
        score: The passage's.
        key: The passage.
        documents: By key, the passage's document (n,).
        held: For each document its place in the heap, -1 if it is not there; empty if every passage is a document.
    """
    size, place = scores.shape[0], 0
    known = held.shape[0] > 0 and held[documents[key]] >= 0
    if known:
        place = held[documents[key]]
        if not _worse(scores[place], keys[place], score, key):
            return filled
    elif filled < size:
        place = filled
        while place > 0:
            parent = (place - 1) // 2
            if not _worse(score, key, scores[parent], keys[parent]):
                break
            _put(scores, keys, place, scores[parent], keys[parent], documents, held)
            place = parent
        _put(scores, keys, place, score, key, documents, held)
        return filled + 1
    else:
        if _worse(score, key, scores[0], keys[0]):
            return filled
        if held.shape[0] > 0:
            held[documents[keys[0]]] = -1
    while 2 * place + 1 < filled:
        child = 2 * place + 1
        if child + 1 < filled and _worse(scores[child + 1], keys[child + 1], scores[child], keys[child]):
            child += 1
        if not _worse(scores[child], keys[child], score, key):
            break
        _put(scores, keys, place, scores[child], keys[child], documents, held)
        place = child
    _put(scores, keys, place, score, key, documents, held)
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
