"""The loops of :mod:`dupmae.index.scoring.loops` and `scanning` in NumPy, for what a process has too little work for.

To import numba and load what it has compiled takes most of a second and 140 MB, more than a few searches of a small
index (:func:`dupmae.index.scoring.choice.loops_for`). Functions, arguments and results are those of the compiled ones,
where they are explained; sums of terms and of words are the same to the last bit, and those of dense halves, in double
precision as well, are added in another order, which depends on the passage as little.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.duplex.words import STEPS

STEP = 1 / STEPS
"""What a byte of a word's saturated frequency counts in."""
ROWS = 1024
"""Passages whose bytes are made floats at a time."""


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
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Find the k best documents of a block by Eq. 12 and words, proven: none that is left out can be among them."""
    places, _, documents = groups
    slack, rows = dense[3], np.arange(len(alive))
    sums = lexical_scores(terms, lists, rows)
    add_words(words, word_lists, rows, sums)
    bounds = length * slack.astype(np.float64)
    middle = scanned.astype(np.float64) + sums
    living = np.flatnonzero(alive)
    keys = places if len(places) else rows
    numbers = documents[places] if len(places) else rows  # of each passage's document
    _, lowest = _best_of_each(middle[living] - bounds[living], keys[living], numbers[living], k)
    least = max(floor[0], lowest[-1]) if len(lowest) == k else floor[0]
    near = living[(middle + bounds)[living] >= least]
    scores = sums[near]
    if length:
        scores = scores + dense_scores(query, dense, near)
    chosen, found = _best_of_each(scores, keys[near], numbers[near], k)
    if len(found) == k:
        floor[0] = max(floor[0], found[-1])
    return found, near[chosen]


def _best_of_each(
    scores: NDArray[np.float64], keys: NDArray[Any], numbers: NDArray[Any], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pick the best passage of each of the k best documents, by falling scores and rising keys: places and scores."""
    order = np.lexsort((keys, -scores))
    _, firsts = np.unique(numbers[order], return_index=True)
    order = order[np.sort(firsts)[:k]]
    return order, scores[order]


def scan_dense(queries: Any, high: Any, units: Any) -> NDArray[np.float32]:
    """Compute the first term of Eq. 12 from high bytes (n, d') alone, for queries (Q, d'): float32 (Q, n)."""
    out = np.empty((len(queries), len(high)), np.float32)
    for first in range(0, len(high), ROWS):
        out[:, first : first + ROWS] = queries @ high[first : first + ROWS].astype(np.float32).T
    return np.asarray(out * (np.float32(256) * units), np.float32)


def dense_scores(query: Any, dense: Any, rows: Any) -> NDArray[np.float64]:
    """Compute the first term of Eq. 12 for a query (d',) and chosen passages (r,): float64 (r,)."""
    high, low, units, _ = dense
    scores, wide = np.empty(len(rows), np.float64), query.astype(np.float64)
    for first in range(0, len(rows), ROWS):
        some = rows[first : first + ROWS]
        numbers = 256 * high[some].astype(np.int32) + low[some]
        scores[first : first + ROWS] = (wide * numbers).sum(axis=1) * units[some]
    return scores


def lexical_scores(terms: Any, lists: Any, rows: Any) -> NDArray[np.float64]:
    """Compute the second term of Eq. 12 for chosen passages, rising (r,), term by term: float64 (r,)."""
    sums = np.zeros(len(rows), np.float64)
    for term, weight in zip(*terms, strict=True):
        _add_term(term, weight, lists, rows, sums)
    return np.asarray(sums * lists[5][rows].astype(np.float64))


def add_words(words: Any, lists: Any, rows: Any, sums: Any) -> None:
    """Add what words contribute to chosen passages, rising (r,), to `sums` (r,)."""
    known, starts, documents, frequencies = lists
    for word, weight in zip(*words, strict=True):
        listed = _list_of(word, known, starts)
        _add_list(weight * STEP, documents[listed], frequencies[listed], rows, sums)


def count_passages(ids: Any, lists: Any, alive: Any, counts: Any) -> None:
    """Add to `counts` int64 (m,) how many living passages of a block have each of some words."""
    known, starts, documents, _ = lists
    for place, word in enumerate(ids):
        having = documents[_list_of(word, known, starts)]
        counts[place] += alive[having].sum() if len(alive) else len(having)


def word_contributions(words: Any, lists: Any, row: Any) -> NDArray[np.float64]:
    """Compute what each of a query's m words adds to the score of one passage: float64 (m,)."""
    rows, parts = np.full(1, row), np.zeros(len(words[0]), np.float64)
    for place in range(len(parts)):
        one = slice(place, place + 1)
        add_words((words[0][one], words[1][one]), lists, rows, parts[one])
    return parts


def contributions(terms: Any, lists: Any, row: Any) -> NDArray[np.float64]:
    """Compute what each of a query's m terms adds to the score of one passage: float64 (m,)."""
    rows, parts = np.full(1, row), np.zeros(len(terms[0]), np.float64)
    for place, (term, weight) in enumerate(zip(*terms, strict=True)):
        _add_term(term, weight, lists, rows, parts[place : place + 1])
    return parts * np.float64(lists[5][row])


def _list_of(word: Any, known: Any, starts: Any) -> slice:
    """Find where the list of a word stands; nowhere if the block does not have it."""
    place = int(np.searchsorted(known, word))
    if place < len(known) and known[place] == word:
        return slice(int(starts[place]), int(starts[place + 1]))
    return slice(0, 0)


def _add_list(weight: Any, documents: Any, list_weights: Any, rows: Any, sums: Any) -> None:
    """Add what one inverted list contributes to chosen passages (r,), rising, to `sums` (r,)."""
    places = np.searchsorted(rows, documents)
    inside = places < len(rows)
    inside[inside] = rows[places[inside]] == documents[inside]
    sums[places[inside]] += np.float64(weight) * list_weights[inside].astype(np.float64)


def _add_term(term: Any, weight: Any, lists: Any, rows: Any, sums: Any) -> None:
    """Add what one term contributes to chosen passages (r,), rising, in their units, to `sums` (r,)."""
    starts, documents, list_weights, column_ids, columns, _ = lists
    listed = slice(int(starts[term]), int(starts[term + 1]))
    if listed.start < listed.stop:
        _add_list(weight, documents[listed], list_weights[listed], rows, sums)
        return
    column = int(np.searchsorted(column_ids, term))
    if column < len(column_ids) and column_ids[column] == term:
        sums += np.float64(weight) * columns[column][rows].astype(np.float64)
