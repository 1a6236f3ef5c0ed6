"""The warm start: a new vocabulary head that is solved for instead of searched for.

The encoder already knows its tokens: a linear map can read a token off its state. That map has a closed form, linear
discriminant analysis with the vocabulary as its classes, and needs one pass over a little text. A head that starts
there names 19 of 20 of MiniLM's tokens before the first step of training; gradient descent from a random head spends
most of its steps on getting that far.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dupmae.backbones import Backbone
from dupmae.kernels import linear_max_pool
from dupmae.pretraining.data import NOTHING, Sequences, collator, shuffled, without
from dupmae.pretraining.objective import DupMAE
from dupmae.runtime.bars import bar
from dupmae.runtime.precision import autocast

logger = logging.getLogger(__name__)

OPENNESS = 3.0
"""Bias of the head's dense layer before its activation: there, GELU lets ordinary states pass nearly unchanged."""
SHRINKAGE = 2.0
"""Occurrences that the prediction from the input embedding counts for in a token's mean state."""
TEMPERATURES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05)
"""Factors of the logits of a solved head, to choose from."""
DUPLEX_TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.2, 16.0)
"""Factors of the logits of a duplex model's head, which are of the order of 1, to choose from."""
RIDGE = 1e-2
"""Share of the mean variance within tokens added to every direction, so that the covariance can be inverted."""
RIDGE_FLOOR = 1e-4
"""The least to add, as a share of the mean variance over all tokens: the states of a token may hardly differ."""


@torch.no_grad()
def warm_start_head(
    objective: DupMAE,
    store: Sequences,
    pad_token_id: int,
    sequences: int,
    seed: int,
    left_out: npt.NDArray[np.int64] = NOTHING,
) -> None:
    """Solve for a head that predicts tokens, in place, where it is new or a duplex model's, from clean chunks.

    A new head's transform is first made transparent (identity, or random orthonormal directions where the output matrix
    is narrower than the encoder; open activation; neutral LayerNorm). Then, with m_v the mean state of token v, m the
    mean of all and S the covariance within tokens, the logit of v at state h is
    t (h - m)' S^-1 (m_v - m) / |m_v - m| + log p_v, the length taken in the metric of S^-1 and p_v the token's
    frequency. Without the division rare tokens, whose means are noise, would shout down all others. A token not seen
    gets the mean state that a ridge regression predicts from its input embedding. The temperature t is the one of
    `TEMPERATURES` with the lowest bag-of-words loss (Eq. 8) on some of the chunks.

    A duplex model's head keeps its output matrix: fine-tuning has scaled it for an inner product, and its biases are
    thresholds. With w_v its row of v the logit becomes t (h - m)' w_v + log p_v, t one of `DUPLEX_TEMPERATURES`.

    Args:
        objective: Backbone and settings; only the vocabulary head changes.
        store: The tokenised text.
        pad_token_id: Padding.
        sequences: Chunks to look at, drawn by `seed`; 40 a second on two cores.
        seed: Draws the chunks.
        left_out: Chunks that are not looked at, in rising order, (K,).
    """
    backbone = objective.backbone
    if backbone.new_head:
        _make_transparent(backbone)
    batches = _batches(objective, store, pad_token_id, sequences, seed, left_out)
    sums, counts, square = _accumulate(objective, batches)
    if backbone.new_head:
        backbone.output_weight.copy_(_solve(backbone, sums, counts, square))
    shift = -(backbone.output_weight.double() @ (sums.sum(dim=0) / counts.sum()))  # (V,)
    prior = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts))).log()  # (V,)
    temperatures = TEMPERATURES if backbone.new_head else DUPLEX_TEMPERATURES
    best = _best_temperature(objective, batches[-1], shift, prior, temperatures)
    backbone.output_weight.mul_(best)
    backbone.output_bias.copy_(prior + best * shift)
    logger.info(
        "The vocabulary head begins with %d tokens of %d kinds, at temperature %g.",
        counts.sum(),
        (counts > 0).sum(),
        best,
    )


def _make_transparent(backbone: Backbone) -> None:
    """Let the transform pass states on as they are, or random orthonormal directions of them where it narrows."""
    dense = backbone.head_dense
    if backbone.head_size == backbone.hidden_size:
        nn.init.eye_(dense.weight)
    else:
        nn.init.orthogonal_(dense.weight)
    nn.init.constant_(dense.bias, OPENNESS)
    backbone.head_norm.reset_parameters()


def _solve(backbone: Backbone, sums: torch.Tensor, counts: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    """Solve for the output matrix S^-1 (m_v - m) / |m_v - m|, (V, E), given what :func:`_accumulate` returns."""
    total = counts.sum()
    seen = counts > 0
    mean = sums.sum(dim=0) / total  # (E,)
    means = sums / counts.clamp(min=1)[:, None] - mean  # (V, E)
    means[~seen] = 0
    overall = square / total - torch.outer(mean, mean)  # (E, E)
    within = overall - (means.T * (counts / total)) @ means  # (E, E)
    ridge = torch.maximum(RIDGE * within.diagonal().mean(), RIDGE_FLOOR * overall.diagonal().mean())
    within += ridge * torch.eye(len(within), dtype=within.dtype, device=within.device)

    table = backbone.model.get_input_embeddings().weight.double()
    table = torch.cat([table, torch.ones_like(table[:, :1])], dim=1)  # (V, E + 1)
    known = table[seen] * counts[seen].clamp(max=50).sqrt()[:, None]
    gram = known.T @ known + torch.eye(table.shape[1], dtype=table.dtype, device=table.device)
    predicted = table @ torch.linalg.solve(gram, known.T @ (means[seen] * counts[seen].clamp(max=50).sqrt()[:, None]))
    means = (counts[:, None] * means + SHRINKAGE * predicted) / (counts + SHRINKAGE)[:, None]

    weight = torch.linalg.solve(within, means.T).T  # (V, E)
    length = (weight * means).sum(dim=1, keepdim=True).clamp(min=1e-12).sqrt()
    solved: torch.Tensor = weight / length
    return solved


def _batches(
    objective: DupMAE,
    store: Sequences,
    pad_token_id: int,
    sequences: int,
    seed: int,
    left_out: npt.NDArray[np.int64],
) -> list[dict[str, torch.Tensor]]:
    """Draw clean chunks by `seed`, in batches of similar length, the longest last."""
    backbone = objective.backbone
    collate = collator(pad_token_id, backbone.vocab_size, backbone.max_length)
    count = len(store) - len(left_out)
    rows = without(shuffled(np.arange(min(sequences, count)), count, [seed]), left_out)
    rows = rows[store.lengths[rows].argsort(kind="stable")]
    device = backbone.output_weight.device
    return [
        {
            name: value.to(device)
            for name, value in collate([store[int(row)] for row in rows[start : start + 32]]).items()
        }
        for start in range(0, len(rows), 32)
    ]


def _states(objective: DupMAE, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode a batch up to the output matrix of Eq. 6, (B, L, E), and tell which are ordinary tokens (B, L)."""
    ordinary = batch["attention_mask"].bool() & ~objective.special[batch["input_ids"]]
    with autocast(ordinary.device.type, objective.settings.precision):
        states = objective.backbone.states(batch["input_ids"], batch["attention_mask"]).float()
    if objective.settings.lexical_projection == "mlm_head" or not objective.settings.bow_weight:
        states = objective.backbone.transform(states)
    return states, ordinary


def _accumulate(
    objective: DupMAE, batches: list[dict[str, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum up these states by token (V, E), count them (V,), and sum up their outer products (E, E)."""
    device, size = objective.backbone.output_weight.device, objective.backbone.head_size
    sums = torch.zeros(objective.backbone.vocab_size, size, dtype=torch.float64, device=device)
    counts = torch.zeros(objective.backbone.vocab_size, dtype=torch.float64, device=device)
    square = torch.zeros(size, size, dtype=torch.float64, device=device)
    training = objective.training
    objective.eval()
    for batch in bar(batches, "Solve for the new head", "batches"):
        states, ordinary = _states(objective, batch)
        states, ids = states[ordinary], batch["input_ids"][ordinary]  # (R, E), (R,)
        sums.index_add_(0, ids, states.double())
        counts += torch.bincount(ids, minlength=len(counts))
        square += (states.T @ states).double()
    objective.train(training)
    return sums, counts, square


def _best_temperature(
    objective: DupMAE,
    batch: dict[str, torch.Tensor],
    shift: torch.Tensor,
    prior: torch.Tensor,
    temperatures: Sequence[float],
) -> float:
    """Choose the temperature with the lowest bag-of-words loss (Eq. 8) on a batch, for the present output matrix."""
    states, ordinary = _states(objective, batch)
    mu = linear_max_pool(states, objective.backbone.output_weight, shift.float(), ordinary)  # (B, V)
    unique = torch.zeros_like(mu).scatter_(1, batch["input_ids"], 1.0) * ~objective.special  # (B, V)
    share = unique / unique.sum(dim=1, keepdim=True).clamp(min=1)
    losses = {
        temperature: -(share * (temperature * mu + prior.float()).log_softmax(dim=1)).sum(dim=1).mean().item()
        for temperature in temperatures
    }
    return min(losses, key=losses.__getitem__)
