"""Linear layer and max-pool over tokens in one step (Eq. 6-7).

Only one token wins each term of the vocabulary, so the backward pass has B x V numbers to distribute, not B x L x V.
Both of its sums, over the sequences for the weight and over the won terms for the states, are weighted sums of table
rows: torch's `embedding_bag`. (On a CPU it beat scattering into an (L, V) buffer with a matrix product by a factor of
2 to 5, and `index_add_` by 2 to 4; for the states, where it needs the terms sorted by their winners first, a loop
that sorts nothing is twice as fast again.)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from dupmae.kernels.dtypes import accumulation_dtype, compute_dtype
from dupmae.kernels.max_pool_cpu import gradient_of_rows, pooled_in_tiles, segments_pay

CHUNK_ROWS = 256
"""Tokens whose logits exist at the same time."""
TILE_TERMS = 1024
"""On a processor, terms whose logits do: with `CHUNK_ROWS` tokens they fit its caches."""
SPARSE = 0.1
"""Share of the gradient's B x V numbers that are not 0 up to which the backward pass picks them out: after a ReLU and a
top-k cut, as in fine-tuning, few are left; after a softmax over the vocabulary, as in pre-training, all are."""


def linear_max_pool(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, mask: torch.Tensor
) -> torch.Tensor:
    """Pool the largest logit of each term among the tokens of each sequence: mu of Eq. 7.

    Args:
        hidden: Token states, (B, L, D).
        weight: Output matrix, (V, D).
        bias: Output bias, (V,), or None. It is the same for every token, so it is added after the maximum.
        mask: True for the tokens that are pooled, (B, L).

    Returns:
        The pooled logits, (B, V), in float32 (float64 for float64 input). A sequence without a pooled token gets
        zeros, through which no gradient flows. Where tokens tie, the gradient goes to the first of them.
    """
    return linear_max_pool_packed(hidden[mask], mask.sum(dim=1), weight, bias)


def linear_max_pool_packed(
    rows: torch.Tensor, counts: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Compute :func:`linear_max_pool` from the pooled tokens alone, sequence after sequence without gaps.

    Args:
        rows: States of the pooled tokens of all sequences, (R, D).
        counts: How many of the rows belong to each sequence, (B,); they sum to R.
        weight: Output matrix, (V, D).
        bias: Output bias, (V,), or None.

    Returns:
        The pooled logits, (B, V), as described there.
    """
    dtype = compute_dtype(rows, weight)
    if torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad):
        pooled: torch.Tensor = _LinearMaxPool.apply(rows, counts, weight, dtype)  # type: ignore[no-untyped-call]
    else:
        with torch.autocast(rows.device.type, enabled=False):
            pooled = _pooled(rows.to(dtype), counts, weight.to(dtype), with_winners=False)[0]
    if bias is not None:
        pooled = torch.where((counts > 0)[:, None], pooled + bias, 0.0)
    return pooled


def _pooled(
    states: torch.Tensor, counts: torch.Tensor, table: torch.Tensor, with_winners: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pool the logits without a bias and, if asked, tell the numbers of the rows that won, (B, V) both."""
    if segments_pay(states.device, table.dtype):
        return pooled_in_tiles(states, counts.tolist(), table, with_winners)
    wide = accumulation_dtype(table.dtype)
    best = torch.full((len(counts), len(table)), -torch.inf, dtype=wide, device=table.device)  # (B, V)
    winner = torch.zeros_like(best, dtype=torch.int32) if with_winners else None  # (B, V)
    tile = TILE_TERMS if states.device.type == "cpu" else len(table)
    for start, segments in row_chunks(counts.tolist()):
        chunk = states[start : start + CHUNK_ROWS]
        for begin in range(0, len(table), tile):
            terms = slice(begin, begin + tile)
            # (n, v) either way; what runs along memory is what the maximum is faster on
            logits = chunk @ table[terms].T if winner is None else (table[terms] @ chunk.T).T
            for sequence, first, last in segments:
                part, known = logits[first - start : last - start], best[sequence, terms]
                if winner is None:
                    torch.maximum(known, part.amax(dim=0), out=known)
                    continue
                value, index = part.max(dim=0)  # (v,)
                better = value > known
                winner[sequence, terms] = torch.where(better, index.int() + first, winner[sequence, terms])
                torch.maximum(value.to(wide), known, out=known)  # unlike `better`, it lets a NaN through
    best[counts == 0] = 0.0
    return best, winner


class _LinearMaxPool(torch.autograd.Function):
    """Running maximum with the winning row; the backward pass visits winners only."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, counts: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        states, table = rows.to(dtype), weight.to(dtype)
        with torch.autocast(rows.device.type, enabled=False):
            best, winner = _pooled(states, counts, table, with_winners=True)  # (B, V)
        ctx.save_for_backward(states, weight, winner, counts == 0)
        ctx.rows_dtype = rows.dtype
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, weight, winner, empty = ctx.saved_tensors
        if len(states) == 0:  # nothing won; embedding_bag cannot be asked about an empty table
            return states.to(ctx.rows_dtype), None, torch.zeros_like(weight), None
        grad = grad.masked_fill(empty[:, None], 0.0)  # (B, V)
        grad_rows: torch.Tensor | None
        grad_weight: torch.Tensor | None
        with torch.autocast(states.device.type, enabled=False):
            if torch.count_nonzero(grad) < SPARSE * grad.numel():
                grad_rows, grad_weight = _sparse_gradients(grad, winner, weight, states)
            else:
                grad_rows = _gradient_of_rows(grad, winner, weight, states) if ctx.needs_input_grad[0] else None
                grad_weight = _gradient_of_weight(grad, winner, states) if ctx.needs_input_grad[2] else None
        return (
            None if grad_rows is None else grad_rows.to(ctx.rows_dtype),
            None,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None,
        )


def _sparse_gradients(
    grad: torch.Tensor, winner: torch.Tensor, weight: torch.Tensor, states: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute both gradients, (R, D) and (V, D), visiting only terms whose gradient is not zero."""
    sequence, term = grad.nonzero(as_tuple=True)  # (K,)
    row = winner[sequence, term].long()
    factor = grad[sequence, term][:, None]  # (K, 1)
    grad_rows = torch.zeros_like(states, dtype=grad.dtype).index_add_(0, row, factor * weight[term])
    grad_weight = torch.zeros_like(weight, dtype=grad.dtype).index_add_(0, term, factor * states[row])
    return grad_rows, grad_weight


def _gradient_of_rows(
    grad: torch.Tensor, winner: torch.Tensor, weight: torch.Tensor, states: torch.Tensor
) -> torch.Tensor:
    """Sum `grad * weight` over the terms that each row won: (R, D)."""
    if segments_pay(states.device, states.dtype):
        return gradient_of_rows(grad, winner, weight.float(), len(states))
    by_row, order = winner.flatten().sort()  # (B V,)
    rows = torch.arange(len(states), dtype=by_row.dtype, device=by_row.device)
    table, factors = weight.to(states.dtype), grad.flatten()[order].to(states.dtype)
    starts = torch.searchsorted(by_row, rows)  # (R,)
    return F.embedding_bag(order % len(table), table, starts, mode="sum", per_sample_weights=factors)


def _gradient_of_weight(grad: torch.Tensor, winner: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Sum `grad * state of the winner` over the sequences for each term: (V, D)."""
    return F.embedding_bag(
        winner.T.contiguous(), states, mode="sum", per_sample_weights=grad.T.to(states.dtype).contiguous()
    )


def row_chunks(counts: list[int]) -> list[tuple[int, list[tuple[int, int, int]]]]:
    """Cut rows into chunks of `CHUNK_ROWS`: (first row, [(sequence, first row, end row) of each part in it])."""
    chunks: list[tuple[int, list[tuple[int, int, int]]]] = []
    row = 0
    for sequence, count in enumerate(counts):
        end = row + count
        while row < end:
            start = row - row % CHUNK_ROWS
            if not chunks or chunks[-1][0] != start:
                chunks.append((start, []))
            last = min(end, start + CHUNK_ROWS)
            chunks[-1][1].append((sequence, row, last))
            row = last
    return chunks
