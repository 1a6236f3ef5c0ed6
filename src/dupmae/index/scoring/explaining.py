"""The score of one passage for a query, taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.index.hits import Hit
from dupmae.index.scoring.choice import loops_for
from dupmae.index.scoring.query import Query
from dupmae.index.storage.segments import Segment


def explain_hit(
    segment: Segment,
    row: int,
    query: Query,
    tokenizer: Any,
    names: Mapping[int, str],
    score: float | None = None,
) -> Hit:
    """Take the score of a stored passage apart.

    Args:
        segment: Where it is stored.
        row: Its row there.
        query: The query.
        tokenizer: Gives terms their names.
        names: The query's words, by dimension.
        score: The score, where a search has summed it up; None sums its parts.
    """
    block = next(block for block in segment.blocks if row < block.first + len(block))
    rows = np.array([row - block.first])
    loops = loops_for(1)
    parts: Any = loops.contributions(query.terms, block.lists, rows[0])  # (m,)
    shared = np.flatnonzero(parts)
    heaviest = shared[np.argsort(-parts[shared], kind="stable")]
    tokens = tokenizer.convert_ids_to_tokens(query.ids[heaviest].tolist())
    dense: Any = loops.dense_scores(query.dense, block.dense, rows)
    words: Any = loops.word_contributions(query.words, block.words, rows[0])  # (w,)
    return Hit.of(
        segment.passages.passage(row),
        float(dense[0] + parts.sum() + words.sum()) if score is None else score,
        dense_score=float(dense[0]),
        lexical_score=float(parts.sum()),
        word_score=float(words.sum()),
        matches=[(token, float(parts[place])) for token, place in zip(tokens, heaviest, strict=True)],
        words=named_words(query.word_ids, words, names),
    )


def named_words(
    ids: NDArray[np.int64], parts: NDArray[np.float64], names: Mapping[int, str]
) -> list[tuple[str, float]]:
    """Name the words that contribute something, heaviest first.

    Args:
        ids: Their dimensions (w,).
        parts: What each contributes (w,).
        names: The query's words, by dimension.
    """
    shared = np.flatnonzero(parts)
    heaviest = shared[np.argsort(-parts[shared], kind="stable")]
    return [
        (names.get(dimension, f"word {dimension}"), contribution)
        for dimension, contribution in zip(ids[heaviest].tolist(), parts[heaviest].tolist(), strict=True)
    ]
