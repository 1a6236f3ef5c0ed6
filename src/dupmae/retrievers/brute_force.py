"""Exact search a block of queries and a slab of passages at a time: never a matrix of all queries by all passages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dupmae.corpus import Run
from dupmae.runtime.bars import bar

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Queries = TypeVar("Queries")
Slab = TypeVar("Slab")

QUERY_BLOCK = 256
"""Queries that are scored at a time."""


def best_rows(scores: Floats, k: int) -> Rows:
    """Find the rows of the k largest scores, largest first, earlier rows first among equals."""
    rows = np.arange(len(scores))
    if len(scores) > k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero(scores >= threshold)
    return rows[np.argsort(-scores[rows], kind="stable")][:k]


def search_slabs(
    queries: Queries,
    count: int,
    slabs: Iterable[Slab],
    score: Callable[[Queries, Slab], Floats],
    take: Callable[[Queries, slice], Queries],
    k: int,
    *,
    above: float = -np.inf,
) -> list[tuple[Rows, Floats]]:
    """Find the k best passages of each query.

    Args:
        queries: Vectors of Q queries, in whatever form `score` takes.
        count: Q.
        slabs: Vectors of the passages, some at a time.
        score: Scores of some queries and the passages of a slab, (q, n).
        take: Takes some of the queries.
        k: Passages kept of each query.
        above: Passages that score no more than this are not found.

    Returns:
        For each query the passages' numbers, counted through all slabs, and their scores: best first, earlier passages
        first among equals.
    """
    found = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in range(count)]
    before = 0
    for slab in bar(slabs, "Compare", "slabs"):
        width = 0
        for start in range(0, count, QUERY_BLOCK):
            block = score(take(queries, slice(start, start + QUERY_BLOCK)), slab)  # (q, n)
            width = block.shape[1]
            for number, scores in enumerate(block, start):
                found[number] = _merge(found[number], scores, before, k, above)
        before += width
    return found


def as_run(queries: Iterable[str], ids: Sequence[str], found: Iterable[tuple[Rows, Floats]]) -> Run:
    """Turn what :func:`search_slabs` found into a run, by the ids of the queries and of the passages."""
    return {
        query: {ids[row]: float(score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)}
        for query, (rows, scores) in zip(queries, found, strict=True)
    }


def _merge(best: tuple[Rows, Floats], scores: Floats, before: int, k: int, above: float) -> tuple[Rows, Floats]:
    """Keep the k best of those found so far and a slab's, whose first passage has the number `before`."""
    rows, values = best
    # An earlier passage wins a tie, so only what scores more than the last one of a full list can enter.
    entering = np.flatnonzero(scores > (max(above, values[-1]) if len(values) == k else above))
    if not len(entering):
        return best
    entering = entering[best_rows(scores[entering], k)]
    rows, values = np.concatenate([rows, entering + before]), np.concatenate([values, scores[entering]])
    kept = np.argsort(-values, kind="stable")[:k]
    return rows[kept], values[kept]
