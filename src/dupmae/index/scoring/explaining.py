"""The score of one passage for a query, taken apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from dupmae.index.hits import Hit
from dupmae.index.scoring.loops import contributions, dense_scores
from dupmae.index.scoring.query import Query
from dupmae.index.storage.segments import Segment


def explain_hit(
    segment: Segment, row: int, query: Query, tokenizer: Any, identifier: str, score: float | None = None
) -> Hit:
    """Take the score of a stored passage apart.

    Args:
        segment: Where it is stored.
        row: Its row there.
        query: The query.
        tokenizer: Gives terms their names.
        identifier: The passage's id.
        score: Eq. 12, where a search has summed it up; None sums the two halves.
    """
    block = next(block for block in segment.blocks if row < block.first + len(block))
    rows = np.array([row - block.first])
    parts: Any = contributions(query.terms, block.lists, rows[0])  # (m,)
    shared = np.flatnonzero(parts)
    heaviest = shared[np.argsort(-parts[shared], kind="stable")]
    tokens = tokenizer.convert_ids_to_tokens(query.ids[heaviest].tolist())
    dense: Any = dense_scores(query.dense, block.dense, rows)
    passage = segment.passages.passage(row)
    return Hit(
        id=identifier,
        score=float(dense[0] + parts.sum()) if score is None else score,
        dense_score=float(dense[0]),
        lexical_score=float(parts.sum()),
        matches=[(token, float(parts[place])) for token, place in zip(tokens, heaviest, strict=True)],
        title=passage.title,
        text=passage.text,
        metadata=passage.metadata,
    )
