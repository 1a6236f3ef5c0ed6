"""Linear layer and cross-entropy in one step, a chunk of rows at a time.

The gradient of a cross-entropy with respect to its logits is `softmax - one_hot`, known as soon as the logits are. So
each chunk of rows builds its logits, takes loss and gradients from them, and forgets them; the backward pass only
multiplies what is already there by the gradient that arrives. Where a processor multiplies in bfloat16, tiles take the
place of whole rows of logits (:mod:`dupmae.vocabulary.tiles`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from dupmae.vocabulary.precision import accumulation_dtype, compute_dtype
from dupmae.vocabulary.tiles import Sums, tiled_cross_entropy, tiles_pay

CHUNK_ROWS = 1024
"""Rows whose logits exist at the same time: large enough for efficient matrix products."""
BLOCK_ROWS = 16
"""Rows whose float32 softmax exists at the same time on a CPU: small enough to stay in its cache."""
LOWEST_EXPONENT = -60.0
"""Logits further than this below their row's largest count as this far: exp(-60) is nothing beside 1, and smaller
values become denormal numbers, which processors handle up to 60 times more slowly."""


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy of `hidden @ weight.T + bias` against `targets`, without ever holding all logits.

    Memory beyond inputs and gradients is at most `CHUNK_ROWS` times V numbers, whatever N is.

    Args:
        hidden: One state per prediction, (N, D).
        weight: Output matrix, (V, D).
        bias: Output bias, (V,), or None.
        targets: The vocabulary entry to predict in each row, (N,), integers in [0, V).

    Returns:
        The mean loss in nats, a scalar; 0 with zero gradients when N is 0.
    """
    dtype = compute_dtype(hidden, weight)
    loss: torch.Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, targets, dtype, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and gradients in the forward pass; the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        dtype: torch.dtype,
        with_gradients: bool,
    ) -> torch.Tensor:
        need_hidden, need_weight, need_bias = (with_gradients and need for need in ctx.needs_input_grad[:3])
        with torch.autocast(hidden.device.type, enabled=False):
            kernel = tiled_cross_entropy if tiles_pay(hidden.device, dtype) else _chunked_cross_entropy
            loss, *gradients = kernel(hidden, weight, bias, targets, dtype, need_hidden, need_weight or need_bias)
        count = max(1, len(hidden))
        ctx.gradients, ctx.count = gradients, count
        ctx.dtypes = hidden.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype
        return loss / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("The gradients of linear_cross_entropy are scaled in place: go backward only once.")
        gradients, ctx.gradients = ctx.gradients, None
        scale = grad / ctx.count
        scaled = (
            None if known is None or not needed else known.mul_(scale).to(dtype)
            for known, needed, dtype in zip(gradients, ctx.needs_input_grad[:3], ctx.dtypes, strict=True)
        )
        return *scaled, None, None, None


def _chunked_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    dtype: torch.dtype,
    need_hidden: bool,
    need_table: bool,
) -> Sums:
    """As :func:`dupmae.vocabulary.tiles.tiled_cross_entropy`, with all logits of `CHUNK_ROWS` rows at a time."""
    wide, device = accumulation_dtype(dtype), hidden.device
    loss = torch.zeros((), dtype=wide, device=device)
    grad_hidden = torch.empty_like(hidden, dtype=wide) if need_hidden else None
    grad_weight = torch.zeros_like(weight, dtype=wide) if need_table else None
    grad_bias = torch.zeros(len(weight), dtype=wide, device=device) if need_table else None
    table = weight.to(dtype)  # (V, D)
    wide_bias = None if bias is None else bias.to(wide)
    for start in range(0, len(hidden), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        states = hidden[rows].to(dtype)  # (n, D)
        logits = states @ table.T  # (n, V), becomes its own gradient
        loss += _softmax_minus_one_hot_(logits, wide_bias, targets[rows], grad_bias)
        if grad_hidden is not None:
            grad_hidden[rows] = logits @ table
        if grad_weight is not None:
            grad_weight += logits.T @ states
    return loss, grad_hidden, grad_weight, grad_bias


def _softmax_minus_one_hot_(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    grad_bias: torch.Tensor | None,
) -> torch.Tensor:
    """Replace `logits` (n, V) in place by the summed loss's gradient; add it up into `grad_bias`; return the loss."""
    wide = accumulation_dtype(logits.dtype)
    loss = torch.zeros((), dtype=wide, device=logits.device)
    block_rows = BLOCK_ROWS if logits.device.type == "cpu" else len(logits)
    for block, block_targets in zip(torch.split(logits, block_rows), torch.split(targets, block_rows), strict=True):
        index = block_targets[:, None]  # (n, 1)
        scores = block.to(wide)  # (n, V); the block itself where the data type is wide already
        if bias is not None:
            scores += bias
        scores -= scores.amax(dim=1, keepdim=True)
        of_target = scores.gather(1, index)  # (n, 1)
        scores.clamp_(min=LOWEST_EXPONENT).exp_()
        norm = scores.sum(dim=1, keepdim=True)  # (n, 1)
        loss += (norm.log() - of_target).sum()
        scores /= norm
        scores.scatter_add_(1, index, torch.full_like(norm, -1))
        if grad_bias is not None:
            grad_bias += scores.sum(dim=0)
        if scores is not block:
            block.copy_(scores)
    return loss
