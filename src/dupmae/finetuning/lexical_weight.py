"""The weight of the lexical half beside the dense half: one number, chosen on held-out queries after training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from dupmae.corpus import Benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.evaluation import evaluate_run
from dupmae.finetuning.validation import METRIC, rank_weighted

FACTORS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
"""What the lexical half's scale may be multiplied with."""


def best_factor(figures: Mapping[float, float]) -> float:
    """Choose the factor with the best figure; of equal ones the nearest to 1."""
    return max(figures, key=lambda factor: (figures[factor], -abs(math.log(factor))))


def tune_lexical_weight(encoder: DuplexEncoder, pool: Benchmark) -> dict[str, float]:
    """Multiply the lexical half's scale by the factor that ranks the queries best, in place.

    In training a passage has to beat those of its batch, a few dozen; how far each half is to be trusted shows only
    where it has to beat the corpus. Queries alone carry the scale, so that documents need not be encoded again.

    Args:
        encoder: A model with both halves.
        pool: Held-out queries, and the passages among which they look
            (:func:`dupmae.finetuning.validation.dev_pool`).

    Returns:
        `factor`, the one of :data:`FACTORS` with the best NDCG@10, of equal ones the nearest to 1; NDCG@10 `before`
        and `after`.
    """
    runs = rank_weighted(encoder, pool, FACTORS, show_progress_bar=True)
    figures = {factor: evaluate_run(run, pool.qrels)[METRIC] for factor, run in zip(FACTORS, runs, strict=True)}
    best = best_factor(figures)
    with torch.no_grad():
        encoder.pooling.ot_log_scale.add_(math.log(best))
    return {"factor": best, "before": figures[1.0], "after": figures[best]}
