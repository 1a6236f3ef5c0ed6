"""The score that whole words give training queries and passages: a constant of each pair."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from dupmae.duplex.words import WORD_DIMENSIONS, Words, inner_products
from dupmae.finetuning.examples import Examples

REMEMBERED = 1 << 16
"""Texts whose words are remembered from step to step."""
Weights = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Dimensions of the words of a text, and their weights."""


class WordScores:
    """Score queries and passages, given by their numbers in `examples`, by their words, not yet scaled."""

    def __init__(self, words: Words, examples: Examples) -> None:
        def query(number: int) -> Weights:
            return _only(words.rare(words.space.queries([examples.train.queries[examples.queries[number]]])))

        def passage(number: int) -> Weights:
            return _only(words.space.passages([examples.train.corpus[examples.passages[number]].full_text]))

        self._query, self._passage = lru_cache(REMEMBERED)(query), lru_cache(REMEMBERED)(passage)

    def __call__(self, queries: npt.NDArray[np.int64], passages: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Score q queries and n passages: (q, n)."""
        return inner_products(
            _stacked([self._query(number) for number in queries.tolist()]),
            _stacked([self._passage(number) for number in passages.tolist()]),
        )


def _only(row: sp.csr_array) -> Weights:
    """Take the weights of one text."""
    return row.indices, row.data


def _stacked(rows: list[Weights]) -> sp.csr_array:
    """Stack the weights of texts, (n, `WORD_DIMENSIONS`)."""
    indptr = np.cumsum([0, *(len(indices) for indices, _ in rows)])
    indices, weights = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return sp.csr_array((weights, indices, indptr), shape=(len(rows), WORD_DIMENSIONS))
