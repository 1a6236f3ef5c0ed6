"""Fit the table of static queries (:mod:`dupmae.duplex.queries.static`) to what a model makes of texts.

The dense half of a text is taken for a sum of vectors, one for each of its tokens and for each pair of neighbours that
is frequent, over the root of their number. With a row of such features a text, X (n, V + P), and the model's dense
halves, unit vectors Y (n, d'), the vectors W (V + P, d') are those of ridge regression,

    min |X W - Y|^2 + strength |W - W_0|^2,

where W_0 has for each token what the model makes of that token alone, and nothing for pairs: tokens that the texts lack
keep it. Conjugate gradients solve it for all d' columns at once.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dupmae.config.sections import PseudoQueryConfig
from dupmae.corpus import Passage
from dupmae.corpus.pseudo_queries import draw_queries
from dupmae.duplex.queries import open_queries
from dupmae.duplex.queries.reading import QueryReader
from dupmae.duplex.queries.static import StaticTable, refuse_output_matrix, table_of
from dupmae.errors import DupmaeError
from dupmae.models import Model

logger = logging.getLogger(__name__)

QUERIES_PER_PASSAGE = 12
"""Texts drawn from a passage, at most."""
HELD_OUT = 0.02
"""Share of the texts that the table is measured on and not fitted to."""
LEAST_TEXTS = 50
"""Fewer texts are refused."""
LEAST_PAIR = 3
"""Texts that have a pair of tokens, at least, for it to have a vector."""
STRENGTH = 1.0
"""Of the prior, for tokens."""
STEPS = 40
"""Of conjugate gradients."""
SLAB = 4096
"""Texts encoded between two steps of the bar."""


@dataclass(frozen=True, slots=True)
class Distilled:
    """What came of fitting."""

    file: Path
    """The table."""
    texts: int
    """That it was fitted to."""
    pairs: int
    """That have a vector."""
    cosine: float
    """Of its sums and the model's dense halves, on average, for texts that were held out."""


def distil_queries(model: Model, passages: Iterable[Passage], *, texts: int, pairs: int, seed: int) -> Distilled:
    """Fit a table to texts drawn from passages, and write it beside the model.

    Args:
        model: A duplex model in a folder, whose queries have their own tokens as terms.
        passages: What will be searched, or general text; read once, and a sample kept.
        texts: Titles, sentences and runs of words to draw, at most.
        pairs: Pairs of tokens to give vectors to, at most.
        seed: Seeds all draws.

    Raises:
        DupmaeError: The model is none of that kind or has no dense half, or too few texts can be drawn.
    """
    reader = QueryReader(model)
    refuse_output_matrix(reader)
    if not reader.pooling.dense_dimension:
        raise DupmaeError(f"{model.label} has no dense half: its queries are look-ups already.")
    drawn = drawn_texts(passages, texts, seed)
    if len(drawn) < LEAST_TEXTS:
        raise DupmaeError(
            f"The corpus gives {len(drawn)} different titles, sentences and runs of words, and a table is fitted to "
            f"{LEAST_TEXTS} at least: give more text."
        )
    encoder = open_queries(model)
    rows, wanted = reader.token_ids(drawn), _encoded(encoder, drawn)
    alone = _encoded_tokens(encoder, reader)
    fitted = max(1, int(len(drawn) * (1 - HELD_OUT)))
    table = fit(rows[:fitted], wanted[:fitted], alone, pairs)
    cosines = [cosine(table.sum(ids), vector) for ids, vector in zip(rows[fitted:], wanted[fitted:], strict=True)]
    table.save(table_of(model), model.fingerprint)
    return Distilled(table_of(model), fitted, len(table.pairs), float(np.mean(cosines)))


def drawn_texts(passages: Iterable[Passage], count: int, seed: int) -> list[str]:
    """Draw different titles, sentences and runs of words from passages, at most `count`, in a random order."""
    draw, sample = random.Random(seed), list[Passage]()
    for number, passage in enumerate(passages):
        if len(sample) < count:
            sample.append(passage)
        elif (place := draw.randint(0, number)) < count:
            sample[place] = passage
    draw.shuffle(sample)
    each = min(QUERIES_PER_PASSAGE, -(-count // max(len(sample), 1)))
    config = PseudoQueryConfig(queries_per_passage=each, crop_weight=1.0, seed=seed)
    found = dict[str, None]()
    for passage in sample:
        queries, _ = draw_queries(passage, config)
        found |= dict.fromkeys(queries or filter(None, [passage.text.strip()]))
        if len(found) >= count:
            break
    return list(found)[:count]


def fit(
    rows: Sequence[NDArray[np.int64]], wanted: NDArray[np.float32], alone: NDArray[np.float32], pairs: int
) -> StaticTable:
    """Fit a table to texts.

    Args:
        rows: Token ids of n texts.
        wanted: Their dense halves, unit vectors (n, d').
        alone: Those of each token alone, (V, d').
        pairs: Pairs of tokens that get vectors, at most.
    """
    raise NotImplementedError
