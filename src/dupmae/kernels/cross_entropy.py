"""Linear layer and cross-entropy in one step, a chunk of rows at a time.

The gradient of a cross-entropy with respect to its logits is `softmax - one_hot`, known as soon as the logits are. So
each chunk of rows builds its logits, takes loss and gradients from them, and forgets them; the backward pass only
multiplies what is already there by the gradient that arrives. On a processor tiles take the place of whole rows of
logits (:mod:`dupmae.kernels.cross_entropy_cpu`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from subprocess import SubprocessError
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from dupmae.kernels.cross_entropy_cpu import Found, Predictions, tiled_cross_entropy, tiles_pay
from dupmae.kernels.dtypes import accumulation_dtype, compute_dtype

logger = logging.getLogger(__name__)

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
    """Compute the mean cross-entropy of `hidden @ weight.T + bias` against `targets` without holding all logits.

    Memory beyond inputs and gradients is at most `CHUNK_ROWS` times V numbers, whatever N is.

    Args:
        hidden: One state per prediction, (N, D).
        weight: Output matrix, (V, D).
        bias: Output bias, (V,), or None.
        targets: The term to predict in each row, (N,), integers in [0, V).

    Returns:
        The mean loss in nats, a scalar; 0 with zero gradients when N is 0.
    """
    shares = hidden.new_full((len(hidden),), 1 / max(1, len(hidden)), dtype=accumulation_dtype(hidden.dtype))
    return weighted_linear_cross_entropy(hidden, weight, bias, targets, shares)[0]


def weighted_linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum cross-entropies that count differently: several means over parts of the rows cost as much as one over all.

    Args:
        hidden: As in :func:`linear_cross_entropy`, and so are `weight`, `bias` and `targets`.
        weight: (V, D).
        bias: (V,), or None.
        targets: (N,).
        shares: What each row's loss is multiplied with, (N,), not negative; no gradient flows to them.

    Returns:
        The sum of `shares` times the losses, a scalar, and each row's loss in nats, (N,), which has no gradient.
    """
    dtype = compute_dtype(hidden, weight)
    total, losses = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, shares, dtype, torch.is_grad_enabled()
    )
    return total, losses


class _LinearCrossEntropy(torch.autograd.Function):
    """Losses and gradients in the forward pass; the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        shares: torch.Tensor,
        dtype: torch.dtype,
        with_gradients: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        need_hidden, need_weight, need_bias = (with_gradients and need for need in ctx.needs_input_grad[:3])
        # the largest share counts 1 until the end: a narrow data type must not take small ones for nothing
        largest = shares.amax().clamp(min=torch.finfo(shares.dtype).tiny) if len(shares) else shares.new_ones(())
        parts = shares / largest
        with torch.autocast(hidden.device.type, enabled=False):
            kernel = tiled_cross_entropy if tiles_pay(hidden.device, dtype) else _chunked_cross_entropy
            given = Predictions(
                hidden, weight, bias, targets, parts, dtype, need_hidden, need_table=need_weight or need_bias
            )
            losses, *gradients = kernel(given)
        ctx.gradients, ctx.largest = gradients, largest
        ctx.dtypes = hidden.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype
        ctx.mark_non_differentiable(losses)
        return (losses * shares).sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("The gradients of linear_cross_entropy are scaled in place: go backward only once.")
        gradients, ctx.gradients = ctx.gradients, None
        scale = grad * ctx.largest
        scaled = (
            None if known is None or not needed else known.mul_(scale).to(dtype)
            for known, needed, dtype in zip(gradients, ctx.needs_input_grad[:3], ctx.dtypes, strict=True)
        )
        return *scaled, None, None, None, None


def _chunked_cross_entropy(given: Predictions) -> Found:
    """Compute what `cross_entropy_cpu.tiled_cross_entropy` does, with all logits of `CHUNK_ROWS` rows at a time."""
    hidden, weight, bias, targets, shares, dtype, need_hidden, need_table = given
    wide, device = accumulation_dtype(dtype), hidden.device
    losses = torch.empty(len(hidden), dtype=wide, device=device)
    grad_hidden = torch.empty_like(hidden, dtype=wide) if need_hidden else None
    grad_weight = torch.zeros_like(weight, dtype=wide) if need_table else None
    grad_bias = torch.zeros(len(weight), dtype=wide, device=device) if need_table else None
    table = weight.to(dtype)  # (V, D)
    wide_bias = None if bias is None else bias.to(wide)
    for start in range(0, len(hidden), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        states = hidden[rows].to(dtype)  # (n, D)
        logits = states @ table.T  # (n, V), becomes its own gradient
        losses[rows] = _gradient_in_place(logits, wide_bias, targets[rows], shares[rows], grad_bias)
        if grad_hidden is not None:
            grad_hidden[rows] = logits @ table
        if grad_weight is not None:
            grad_weight += logits.T @ states
    return losses, grad_hidden, grad_weight, grad_bias


def _gradient_in_place(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    shares: torch.Tensor,
    grad_bias: torch.Tensor | None,
) -> torch.Tensor:
    """Replace `logits` (n, V) by the gradient of the total; add it up into `grad_bias`; return the losses (n,)."""
    losses = []
    wide, of_block = accumulation_dtype(logits.dtype), _of_block(logits.device)
    block_rows = BLOCK_ROWS if logits.device.type == "cpu" else len(logits)
    blocks = (torch.split(part, block_rows) for part in (logits, targets[:, None], shares.to(wide)[:, None]))
    for block, index, share in zip(*blocks, strict=True):  # (n, V), (n, 1), (n, 1)
        loss, in_all = of_block(block, bias, index, share, grad_bias is not None)
        losses.append(loss)
        if grad_bias is not None and in_all is not None:
            grad_bias += in_all
    return torch.cat(losses)


def _gradient_of_block(
    block: torch.Tensor, bias: torch.Tensor | None, index: torch.Tensor, share: torch.Tensor, with_sum: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Replace logits (n, V) by their gradient; return the losses (n,) and, if asked, the gradient's sum (V,)."""
    scores = block.to(share.dtype)  # the block itself where the data type is wide already
    if bias is not None:
        scores += bias
    scores -= scores.amax(dim=1, keepdim=True)
    of_target = scores.gather(1, index)  # (n, 1)
    scores.clamp_(min=LOWEST_EXPONENT).exp_()
    norm = scores.sum(dim=1, keepdim=True)  # (n, 1)
    scores *= share / norm
    scores.scatter_add_(1, index, -share)
    if scores is not block:
        block.copy_(scores)
    return (norm.log() - of_target)[:, 0], scores.sum(dim=0) if with_sum else None


@cache
def _of_block(device: torch.device) -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    """Compile :func:`_gradient_of_block` for a GPU, where its dozen passes over the logits become a few.

    Compiling needs tools that not every machine has: what it makes is tried first, and left if it is not the same.
    """
    if device.type != "cuda":
        return _gradient_of_block
    compiled = torch.compile(_gradient_of_block, dynamic=True)
    logits = torch.linspace(-99, 99, 5 * 64, device=device).sin().view(5, 64)
    index, share = torch.arange(5, device=device)[:, None], torch.full((5, 1), 0.2, device=device)
    plain, tried = logits.bfloat16(), logits.bfloat16()
    try:
        wanted = *_gradient_of_block(plain, logits[0], index, share, True), plain
        found = *compiled(tried, logits[0], index, share, True), tried
        torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-2)
    except (RuntimeError, AssertionError, OSError, SubprocessError) as error:
        logger.info("The cross-entropy is not compiled on this machine: %s", str(error).splitlines()[0])
        return _gradient_of_block
    return compiled
