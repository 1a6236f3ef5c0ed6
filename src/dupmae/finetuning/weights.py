"""The weights of the lexical half and of words beside the dense half, chosen on held-out queries after training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from dupmae.corpus import Benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.evaluation import evaluate_run
from dupmae.finetuning.validation import METRIC, rank_weighted
from dupmae.index.scoring.query import UNCHANGED, Weights

FACTORS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
"""What a scale may be multiplied with."""


def best_weights(figures: Mapping[Weights, float]) -> Weights:
    """Choose the weights with the best figure; of equal ones those nearest to 1."""

    def preference(weights: Weights) -> tuple[float, float]:
        return figures[weights], -abs(math.log(weights.lexical)) - abs(math.log(weights.words))

    return max(figures, key=preference)


def tune_weights(encoder: DuplexEncoder, pool: Benchmark) -> dict[str, float]:
    """Multiply the scales of the lexical half and of words by the factors that rank the queries best, in place.

    In training a passage has to beat those of its batch, a few dozen; how far each part is to be trusted shows only
    where it has to beat the corpus. Queries alone carry the scales, so that documents need not be encoded again.

    Args:
        encoder: A model with at least two of the parts. Where there is no dense half, words are weighed beside the
            lexical one.
        pool: Held-out queries, and the passages among which they look
            (:func:`dupmae.finetuning.validation.dev_pool`).

    Returns:
        `lexical` and `words`, the two of :data:`FACTORS` (1 for a part that the model does not have) with the best
        NDCG@10, of equal ones the nearest to 1; NDCG@10 `before` and `after`.
    """
    pooling = encoder.pooling
    lexical = FACTORS if pooling.top_k and pooling.dense_dimension else (1.0,)
    grid = [
        Weights(lexical=one, words=other)
        for one in lexical
        for other in (FACTORS if encoder.words is not None else (1.0,))
    ]
    runs = rank_weighted(encoder, pool, grid, show_progress_bar=True)
    figures = {weights: evaluate_run(run, pool.qrels)[METRIC] for weights, run in zip(grid, runs, strict=True)}
    best = best_weights(figures)
    with torch.no_grad():
        pooling.ot_log_scale.add_(math.log(best.lexical))
        if encoder.words is not None:
            pooling.word_log_scale.add_(math.log(best.words))
    return {"lexical": best.lexical, "words": best.words, "before": figures[UNCHANGED], "after": figures[best]}
