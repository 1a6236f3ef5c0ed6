"""A document's terms with no pass of all numbers through the output matrix: most terms are ruled out in bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dupmae.duplex.pooling import DuplexPooling
from dupmae.kernels.screening import in_bytes, max_pool_of_terms, rough_max_pool, screening_pays

MARGIN = 128
"""Terms that are computed in full beyond the `top_k` that are kept."""


def screened(pooling: DuplexPooling) -> Callable[[dict[str, Any]], torch.Tensor] | None:
    """Make a function that computes documents' vectors (B, V + d') from features, as `pooling` does but for rounding.

    Returns:
        The function, which keeps the output matrix in bytes, or None where the machine or a vocabulary this small gains
        nothing by it.
    """
    candidates = pooling.top_k + MARGIN
    if not pooling.top_k or 2 * candidates > pooling.vocabulary_size or not screening_pays(pooling.output.weight):
        return None
    weight, bias, table = pooling.output.weight, pooling.output.bias, in_bytes(pooling.output.weight)

    def vectors(features: dict[str, Any]) -> torch.Tensor:
        tokens = pooling.pooled_tokens(features)
        rows, counts = pooling.transform(features["token_embeddings"])[tokens], tokens.sum(dim=1)
        rough = rough_max_pool(rows, counts, table) + bias
        order = pooling.weighted(rough) + rough.clamp(max=0)  # what is roughly 0 may not be
        terms = order.masked_fill(pooling.special, -torch.inf).topk(candidates, dim=1).indices
        mu = pooling.weighted(max_pool_of_terms(rows, counts, weight, bias, terms), terms)
        kept = mu.masked_fill((counts == 0)[:, None], 0.0).topk(pooling.top_k, dim=1)
        lexical = torch.zeros(len(mu), pooling.vocabulary_size)
        lexical.scatter_(1, terms.gather(1, kept.indices), kept.values)
        return torch.cat([pooling.scaled(lexical, "document"), pooling.dense_half(features, "document")], dim=1)

    return vectors
