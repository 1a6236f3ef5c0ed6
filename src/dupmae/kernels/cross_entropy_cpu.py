"""Cross-entropy in tiles that stay in a processor's caches.

Logits are computed in tiles of some rows times some terms. For rows s_i with targets t_i, and terms with weights w_v
and biases b_v, a tile holds

    e_vi = exp(<w_v, s_i> + b_v - r_i),    r_i the target's logit, or the row's largest,

out of one product and one exponential, for bias and reference r ride along as further columns of both matrices. What is
left are sums and two more products; with a_i the share that row i has in the total,

    Z_i = sum_v e_vi,    loss_i = log Z_i + r_i - l_i,    ds_i = a_i (sum_v w_v e_vi / Z_i - w_{t_i}),
    dw_v = sum_i a_i e_vi s_i / Z_i - sum_{i: t_i = v} a_i s_i.

The tiles of `CHUNK_ROWS` rows wait for their Z: reading them again costs less than computing them twice. They stand
with the vocabulary first, and the table is kept transposed as well: then no large matrix is read across its rows, which
halves a product's speed.

Rows and vocabulary are padded, so that all products have one of a few shapes (:mod:`dupmae.kernels.shapes`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from dupmae.kernels.dtypes import accumulation_dtype
from dupmae.kernels.shapes import pad_rows, padded_rows

CHUNK_ROWS = 1024
"""Rows of a tile."""
TILE_TERMS = 2048
"""Terms in a tile: with 1,024 rows it fits the cores' caches; half or twice the size was slower."""
ALIGNMENT = 32
"""Matrices get a multiple of this many columns, which is how matrix units read them."""
NEVER = -1e30
"""Logit of the terms that pad the vocabulary."""

Found = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
"""Each row's loss, (N,), and the gradients of the total with respect to states (N, D), weight (V, D), bias (V,)."""


class Predictions(NamedTuple):
    """What a cross-entropy is taken of, and which gradients are wanted."""

    hidden: torch.Tensor
    """States, (N, D)."""
    weight: torch.Tensor
    """Output matrix, (V, D)."""
    bias: torch.Tensor | None
    """Output bias, (V,)."""
    targets: torch.Tensor
    """Each row's term, (N,)."""
    shares: torch.Tensor
    """What each row's loss counts in the total, (N,)."""
    dtype: torch.dtype
    """Of the matrix products."""
    need_hidden: bool
    """Whether the gradient of `hidden` is wanted."""
    need_table: bool
    """Whether the gradients of `weight` and `bias` are wanted."""


def tiles_pay(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether tiles are the faster way: on a processor, in the numbers that people train with."""
    return device.type == "cpu" and dtype in (torch.bfloat16, torch.float32)


@torch.no_grad()
def tiled_cross_entropy(given: Predictions) -> Found:
    """Compute cross-entropies and the gradients of their total.

    Returns:
        All in the data type of accumulation; gradients that are not wanted are None.
    """
    hidden, weight, bias, targets, shares, dtype, need_hidden, need_table = given
    wide, (terms, width) = accumulation_dtype(dtype), weight.shape
    table = _table(weight, bias, dtype)  # (V', K), V' a multiple of TILE_TERMS
    parts = torch.stack([part.T for part in torch.split(table, TILE_TERMS)])  # (V' / v, K, v)
    shares, losses = shares.to(wide), torch.empty(len(hidden), dtype=wide)
    grad_hidden = torch.empty_like(hidden, dtype=wide) if need_hidden else None
    grad_table = torch.empty_like(table, dtype=wide) if need_table else None
    if grad_table is not None and len(hidden) == 0:
        grad_table.zero_()
    space = torch.empty(padded_rows(min(CHUNK_ROWS, len(hidden))) * len(table), dtype=dtype)
    for start in range(0, len(hidden), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        states, of_target = hidden[rows].to(dtype), table[targets[rows]]  # (n, D), (n, K)
        logits = (states.to(wide) * of_target[:, :width].to(wide)).sum(dim=1)  # (n,), of the targets
        if bias is not None:
            logits += bias[targets[rows]]
        columns = _columns(states, logits, table.shape[1])  # (n', K)
        factors, sums = _sums(table, parts, columns, space)
        if not sums.isfinite().all():  # some logit is far above the target's
            plain = _columns(states, torch.zeros_like(logits), table.shape[1])
            columns = _columns(states, _largest(table, plain)[: len(states)], table.shape[1])
            factors, sums = _sums(table, parts, columns, space)
        count, norm = len(states), sums[:, width + 2]  # (n',)
        reference = -columns[:count, width + 2].to(wide)
        losses[rows] = norm[:count].log() + (reference - logits)
        share = shares[rows, None]  # (n, 1)
        if grad_hidden is not None:
            grad_hidden[rows] = (sums[:count, :width] / norm[:count, None] - of_target[:, :width]) * share
        if grad_table is not None:
            scaled = (columns * pad_rows(share) / norm[:, None]).to(dtype)  # (n', K)
            for tile, part in zip(factors, torch.split(grad_table, TILE_TERMS), strict=True):
                product = tile @ scaled
                if start:
                    part += product
                else:
                    part.copy_(product)
            grad_table.index_add_(0, targets[rows], columns[:count] * share, alpha=-1)
    if grad_table is None:
        return losses, grad_hidden, None, None
    return losses, grad_hidden, grad_table[:terms, :width], grad_table[:terms, width]


def _table(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Lay out the terms' columns (V', K): weights, bias, what rounding took from it, 1 for the reference, zeros."""
    terms, width = weight.shape
    height = -(-terms // TILE_TERMS) * TILE_TERMS
    table = torch.empty(height, -(-(width + 3) // ALIGNMENT) * ALIGNMENT, dtype=dtype)
    table[:terms, :width] = weight
    table[terms:, :width] = 0
    table[:, width:] = 0
    if bias is not None:
        table[:terms, width] = bias
        table[:terms, width + 1] = bias - table[:terms, width]
    table[terms:, width] = NEVER
    table[:, width + 2] = 1
    return table


def _columns(states: torch.Tensor, reference: torch.Tensor, count: int) -> torch.Tensor:
    """Lay out the rows' columns that meet those of :func:`_table`, (n', K); the rows that pad them are zeros."""
    rows, width = states.shape
    columns = torch.zeros(padded_rows(rows), count, dtype=states.dtype)
    columns[:rows, :width] = states
    columns[:rows, width : width + 2] = 1
    columns[:rows, width + 2] = -reference
    return columns


def _sums(
    table: torch.Tensor, parts: torch.Tensor, columns: torch.Tensor, space: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put exponentials, tile after tile, in `space`, (V' / v, v, n'), and sum the table (n', K) with them as factors.

    The table's column of ones sums up Z, the first D columns the gradient of the states.
    """
    factors = space[: len(table) * len(columns)].view(-1, TILE_TERMS, len(columns))
    sums = torch.zeros(columns.shape[::-1], dtype=accumulation_dtype(columns.dtype))
    for tile, part, transposed in zip(factors, torch.split(table, TILE_TERMS), parts, strict=True):
        torch.mm(part, columns.T, out=tile).exp_()
        sums += transposed @ tile
    return factors, sums.T.contiguous()


def _largest(table: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Find the largest logit of each row, (n',)."""
    parts = torch.split(table, TILE_TERMS)
    return torch.stack([torch.mm(part, columns.T).amax(dim=0) for part in parts]).amax(dim=0)
