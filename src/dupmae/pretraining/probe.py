"""A retrieval probe without judgements: how well a text's title, or its beginning, finds the rest of the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from dupmae.pretraining.objective import DupMAE

LEAST_TOKENS = 2
"""Ordinary tokens that a query and a passage need at least."""
QUERY_SHARE = 4
"""Where there is no title, one token in this many is the query."""
QUERY_TOKENS = 24
"""Tokens that a query has at most."""
DEPTH = 10
"""Ranks at which a passage counts as found."""

Pair = tuple[Mapping[str, Any], Mapping[str, Any]]
"""A query and the passage that it is to find, each as a token store's item."""


def known_item_pairs(items: Sequence[Mapping[str, Any]], titles: Sequence[int]) -> list[Pair]:
    """Cut each chunk into a query and the passage that it is to find.

    The query is the title, if there is one and something follows it; else the first quarter, up to a word border. What
    has too few tokens for both is left out.

    Args:
        items: Chunks of a token store, a special token at both ends.
        titles: How many tokens after the first are a title, a number a chunk.
    """
    pairs = []
    for item, title in zip(items, titles, strict=True):
        ids, words = item["input_ids"], item["word_starts"]
        length = len(ids) - 2
        borders = np.flatnonzero(words) - 1  # ordinary tokens that stand before each word
        cut = title
        if not LEAST_TOKENS <= cut <= length - LEAST_TOKENS:
            fitting = borders[borders <= max(length // QUERY_SHARE, LEAST_TOKENS)]
            cut = int(fitting[-1]) if len(fitting) else 0
        if LEAST_TOKENS <= cut <= length - LEAST_TOKENS:
            query = np.arange(1, min(cut, QUERY_TOKENS) + 1)
            passage = np.arange(cut + 1, length + 1)
            pairs.append((_part(ids, words, query), _part(ids, words, passage)))
    return pairs


def _part(ids: Any, words: Any, places: Any) -> Mapping[str, Any]:
    """Cut out some ordinary tokens, between the two special ones."""
    rows = np.concatenate([[0], places, [len(ids) - 1]])
    return {"input_ids": ids[rows], "word_starts": words[rows]}


@torch.no_grad()
def probe(
    objective: DupMAE,
    pairs: Sequence[Pair],
    collate: Callable[[list[Mapping[str, Any]]], dict[str, torch.Tensor]],
    batch_size: int,
) -> dict[str, float]:
    """Measure how well each query finds its passage among all passages: MRR@10.

    The representation is what pre-training offers before fine-tuning: h_cls; and log(1 + ReLU) of mu, which is
    max-pooled over all ordinary tokens. From both the mean over the queries, or over the passages, is subtracted
    first, because what is common to all texts tells none from another. Scores are cosines, and their sum for `both`.

    Args:
        objective: The model, in evaluation mode.
        pairs: Queries and their passages.
        collate: Pads items to a batch.
        batch_size: Texts encoded at a time.

    Returns:
        `mrr_cls`, and `mrr_ot` and `mrr_both` unless `bow_weight` is 0; nothing if there are fewer than two pairs.
    """
    if len(pairs) < 2:
        return {}
    sides = [_encode(objective, [pair[side] for pair in pairs], collate, batch_size) for side in (0, 1)]
    (query_cls, query_ot), (passage_cls, passage_ot) = sides
    scores = {"mrr_cls": query_cls @ passage_cls.T}  # (K, K)
    if objective.settings.bow_weight:
        scores["mrr_ot"] = query_ot @ passage_ot.T
        scores["mrr_both"] = scores["mrr_cls"] + scores["mrr_ot"]
    return {name: mean_reciprocal_rank(matrix) for name, matrix in scores.items()}


def _encode(
    objective: DupMAE, items: list[Mapping[str, Any]], collate: Any, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode both halves of texts, centred and of unit length: (K, D) and (K, V); without a bag of words (K, 0)."""
    device = objective.special.device
    order = np.argsort([len(item["input_ids"]) for item in items], kind="stable")
    dense, bags = [], []
    for start in range(0, len(items), batch_size):
        batch = collate([items[row] for row in order[start : start + batch_size]])
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        states = objective.backbone.states(ids, mask)  # (B, L, D)
        dense.append(objective.h_cls(states, mask).float())
        if objective.settings.bow_weight:
            bags.append(objective.pool(states, mask & ~objective.special[ids]).float())
    back = torch.from_numpy(np.argsort(order)).to(device)
    h_cls = torch.cat(dense)[back]
    h_cls = F.normalize(h_cls - h_cls.mean(dim=0), dim=1)
    if not bags:
        return h_cls, h_cls[:, :0]
    mu = torch.cat(bags)[back]
    return h_cls, F.normalize((mu - mu.mean(dim=0)).relu().log1p(), dim=1)


def mean_reciprocal_rank(scores: torch.Tensor) -> float:
    """Average 1 / rank of passage i for query i, 0 beyond rank 10; equal scores are ranked by the passages' ids.

    Args:
        scores: Of every query and passage, (K, K); an id is a passage's number, compared as text.
    """
    place = torch.tensor(sorted(range(len(scores)), key=str), device=scores.device).argsort()  # (K,)
    own = scores.diagonal()[:, None]  # (K, 1)
    # not `>`: a score that is not a number must not rank first
    ranks = (~(scores <= own) | (scores == own) & (place < place[:, None])).sum(dim=1) + 1  # (K,)
    return torch.where(ranks <= DEPTH, 1 / ranks.double(), 0.0).mean().item()
