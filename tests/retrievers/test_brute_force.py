"""Blocked search against a search that sees everything at once."""

from __future__ import annotations

import numpy as np
import pytest

from dupmae.retrievers import brute_force
from dupmae.retrievers.brute_force import best_rows, search_slabs


def naive(scores: np.ndarray, k: int, above: float) -> list[tuple[list[int], list[float]]]:
    found = []
    for row in scores:
        ranked = sorted((-value, number) for number, value in enumerate(row.tolist()) if value > above)[:k]
        found.append(([number for _, number in ranked], [-value for value, _ in ranked]))
    return found


@pytest.mark.parametrize("above", [-np.inf, 1.0])
@pytest.mark.parametrize("k", [1, 4, 7, 100])
def test_blocks_find_what_one_matrix_would_ties_included(k: int, above: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brute_force, "QUERY_BLOCK", 3)
    draw = np.random.default_rng(0)
    queries = draw.integers(0, 2, (7, 4)).astype(np.float32)
    passages = draw.integers(0, 2, (50, 4)).astype(np.float32)  # scores from 0 to 4: nothing but ties
    largest = 0

    def score(some: np.ndarray, slab: np.ndarray) -> np.ndarray:
        nonlocal largest
        largest = max(largest, len(some) * len(slab))
        return some @ slab.T

    slabs = [passages[:20], passages[20:21], passages[21:]]
    found = search_slabs(queries, 7, slabs, score, lambda rows, some: rows[some], k, above=above)
    assert [(rows.tolist(), scores.tolist()) for rows, scores in found] == naive(queries @ passages.T, k, above)
    assert largest == 3 * 29


def test_the_best_rows_are_the_largest_and_among_equals_the_first() -> None:
    scores = np.array([1, 3, 2, 3, 3, 0], np.float32)
    assert best_rows(scores, 2).tolist() == [1, 3]
    assert best_rows(scores, 4).tolist() == [1, 3, 4, 2]
    assert best_rows(scores, 9).tolist() == [1, 3, 4, 2, 0, 5]
    assert best_rows(scores[:0], 3).tolist() == []
