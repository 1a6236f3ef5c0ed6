"""Fit the table of static queries (:mod:`dupmae.duplex.queries.static`) to what a model makes of texts.

The dense half of a text is taken for a sum of vectors of its n tokens over the root of n. With a row of such features a
text, X (N, V), and the model's dense halves, unit vectors Y (N, d'), the table W (V, d') is that of ridge regression,

    min |X W - Y|^2 + strength |W - W_0|^2,

where W_0 has for each token, times a number that fits best, what the model makes of that token alone. Every token alone
is also one of the texts; without these the special tokens around a text, which all have, would be fitted to long texts,
and short queries would come out wrong. Conjugate gradients solve it for all columns at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from dupmae.config.sections import PseudoQueryConfig
from dupmae.corpus import Passage
from dupmae.corpus.pseudo_queries import draw_queries
from dupmae.duplex.queries.onnx import OnnxQueries
from dupmae.duplex.queries.static import StaticTable, refuse_output_matrix, unit_rows
from dupmae.errors import DupmaeError
from dupmae.models import Model
from dupmae.models.files import STATIC_FILE
from dupmae.runtime.bars import bar

PER_PASSAGE = 12
"""Texts drawn from a passage, at most."""
HELD_OUT = 0.02
"""Share of the texts that the table is measured on and not fitted to."""
LEAST_TEXTS = 100
"""Fewer texts are refused."""
STRENGTH = 0.1
"""Of the prior. On queries of SciFact, NFCorpus and WikiQA .03 and .3 are worse, though by little."""
STEPS = 30
"""Of conjugate gradients."""
SLAB = 2048
"""Texts encoded between two steps of the bar."""


@dataclass(frozen=True, slots=True)
class Distilled:
    """What came of fitting."""

    file: Path
    """The table."""
    texts: int
    """That it was fitted to, without the tokens."""
    cosine: float
    """Of its sums and the model's dense halves, on average, for texts that were held out."""


def distil_queries(
    model: Model, passages: Iterable[Passage], queries: Sequence[str] = (), *, texts: int, seed: int
) -> Distilled:
    """Fit a table to texts, and write it beside the model.

    Args:
        model: A duplex model in a folder, whose queries have their own tokens as terms.
        passages: What will be searched, or general text; read once, and a sample kept.
        queries: Queries of the kind that will be asked, all of which are fitted to.
        texts: Titles, sentences and runs of words to draw from the passages, at most.
        seed: Seeds all draws.

    Raises:
        DupmaeError: The model is none of that kind or has no dense half, or too few texts can be drawn.
    """
    encoder = OnnxQueries(model)
    reader = encoder.reader
    refuse_output_matrix(reader)
    if not reader.pooling.dense_dimension:
        raise DupmaeError(f"{model.label} has no dense half: its queries are look-ups already.")
    drawn = list(dict.fromkeys([*drawn_texts(passages, texts, seed), *queries]))
    if len(drawn) < LEAST_TEXTS:
        raise DupmaeError(
            f"The corpus gives {len(drawn)} different titles, sentences, runs of words and queries, and a table is "
            f"fitted to {LEAST_TEXTS} at least: give more text."
        )
    random.Random(seed).shuffle(drawn)
    tokens = [reader.around(token) for token in range(reader.pooling.vocabulary_size)]
    rows = reader.token_ids(drawn)
    wanted = _encoded(encoder, [*rows, *tokens])
    fitted = len(drawn) - max(1, int(len(drawn) * HELD_OUT))
    vectors = fit(rows[:fitted], wanted[:fitted], tokens, wanted[len(drawn) :])
    table = StaticTable.of(vectors)
    sums = np.stack([table.sum(ids) for ids in rows[fitted:]])
    cosine = float((unit_rows(sums) * wanted[fitted : len(drawn)]).sum(axis=1).mean())
    file = Path(model.path) / STATIC_FILE
    table.save(file, model.fingerprint, cosine)
    return Distilled(file, fitted, cosine)


def drawn_texts(passages: Iterable[Passage], count: int, seed: int) -> list[str]:
    """Draw different titles, sentences and runs of words from passages, at most `count`, in a random order."""
    draw, sample = random.Random(seed), list[Passage]()
    for number, passage in enumerate(passages):
        if len(sample) < count:
            sample.append(passage)
        elif (place := draw.randint(0, number)) < count:
            sample[place] = passage
    draw.shuffle(sample)
    each = min(PER_PASSAGE, -(-count // max(len(sample), 1)))
    config = PseudoQueryConfig(queries_per_passage=each, crop_weight=1.0, seed=seed)
    found = dict[str, None]()
    for passage in sample:
        queries, _ = draw_queries(passage, config)
        found |= dict.fromkeys(queries or filter(None, [passage.text.strip()]))
        if len(found) >= count:
            break
    return list(found)[:count]


def fit(
    rows: Sequence[NDArray[np.int64]],
    wanted: NDArray[np.float32],
    tokens: Sequence[NDArray[np.int64]],
    alone: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Fit the vectors of all tokens, (V, d').

    Args:
        rows: Token ids of N texts.
        wanted: Their dense halves, unit vectors (N, d').
        tokens: Token ids of V texts, each of one token and what stands around it.
        alone: Their dense halves, unit vectors (V, d').
    """
    features = _features([*rows, *tokens], len(tokens))
    targets = np.concatenate([wanted, alone])
    prior = _best_multiple(features, alone, targets)
    rest = targets - features @ prior
    return prior + _ridge(features, rest)


def _features(rows: Sequence[NDArray[np.int64]], vocabulary: int) -> sp.csr_array:
    """Lay texts out as how often each has each token over the root of how many tokens it has: float32 (n, V)."""
    lengths = np.array([len(ids) for ids in rows])
    values = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    texts = np.repeat(np.arange(len(rows)), lengths)
    shape = (len(rows), vocabulary)
    return sp.csr_array((values, (texts, np.concatenate(rows))), shape=shape, dtype=np.float32)


def _best_multiple(
    features: sp.csr_array, vectors: NDArray[np.float32], targets: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Multiply vectors (V, d') with the number that brings the sums of them closest to the targets."""
    sums = features @ vectors
    best = float((sums * targets).sum() / max(float(np.square(sums).sum()), 1e-12))
    return vectors * np.float32(best)


def _ridge(features: sp.csr_array, targets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Solve (X^T X + strength) W = X^T Y by conjugate gradients, divided by the diagonal first: (V, d')."""
    turned = features.T.tocsr()
    scale = 1 / (np.asarray(features.multiply(features).sum(axis=0)).ravel()[:, None] + STRENGTH)
    scale = scale.astype(np.float32)
    rest = turned @ targets
    found = np.zeros_like(rest)
    step = scale * rest
    size = (rest * step).sum(axis=0)
    for _ in range(STEPS):
        change = turned @ (features @ step) + np.float32(STRENGTH) * step
        length = size / np.maximum((step * change).sum(axis=0), 1e-20)
        found += length * step
        rest -= length * change
        new = scale * rest
        previous, size = size, (rest * new).sum(axis=0)
        step = new + size / np.maximum(previous, 1e-20) * step
    return np.asarray(found, np.float32)


def _encoded(encoder: OnnxQueries, rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Let a model encode texts, given as token ids: unit vectors (n, d')."""
    found = np.zeros((len(rows), encoder.pooling.dense_dimension), np.float32)
    with bar(None, "Encode", "texts", len(rows)) as progress:
        for start in range(0, len(rows), SLAB):
            found[start : start + SLAB], _ = encoder.computed(rows[start : start + SLAB])
            progress.update(len(rows[start : start + SLAB]))
    return unit_rows(found)
