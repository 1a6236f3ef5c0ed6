"""Cross-entropy in tiles that stay in a processor's caches.

Logits are computed in tiles of some rows times some entries of the vocabulary. For rows s_i with targets t_i, and
entries with weights w_v and biases b_v, a tile holds

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

import torch

from dupmae.kernels.dtypes import accumulation_dtype
from dupmae.kernels.shapes import pad_rows, padded_rows

CHUNK_ROWS = 1024
"""Rows of a tile."""
TILE_ENTRIES = 2048
"""Entries of the vocabulary in a tile: with 1,024 rows it fits the cores' caches; half or twice the size was slower."""
ALIGNMENT = 32
"""Matrices get a multiple of this many columns, which is how matrix units read them."""
NEVER = -1e30
"""Logit of the entries that pad the vocabulary."""

Found = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
"""Each row's loss, (N,), and the gradients of the total with respect to states (N, D), weight (V, D), bias (V,)."""


def tiles_pay(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tiles are the faster way: on a processor, in the numbers that people train with."""
    return device.type == "cpu" and dtype in (torch.bfloat16, torch.float32)


@torch.no_grad()
def tiled_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    shares: torch.Tensor,
    dtype: torch.dtype,
    need_hidden: bool,
    need_table: bool,
) -> Found:
    """Cross-entropies, and the gradients of their total.

    Args:
        hidden: (N, D).
        weight: (V, D).
        bias: (V,), or None.
        targets: (N,).
        shares: What each row's loss counts in the total, (N,).
        dtype: Of the matrix products.
        need_hidden: Whether the gradient of `hidden` is wanted.
        need_table: Whether the gradients of `weight` and `bias` are wanted.

    Returns:
        All in the data type of accumulation; gradients that are not wanted are None.
    """
    wide, (entries, width) = accumulation_dtype(dtype), weight.shape
    table = _table(weight, bias, dtype)  # (V', K), V' a multiple of TILE_ENTRIES
    parts = torch.stack([part.T for part in torch.split(table, TILE_ENTRIES)])  # (V' / v, K, v)
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
            for tile, part in zip(factors, torch.split(grad_table, TILE_ENTRIES), strict=True):
                product = tile @ scaled
                if start:
                    part += product
                else:
                    part.copy_(product)
            grad_table.index_add_(0, targets[rows], columns[:count] * share, alpha=-1)
    if grad_table is None:
        return losses, grad_hidden, None, None
    return losses, grad_hidden, grad_table[:entries, :width], grad_table[:entries, width]


def _table(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """The entries' columns (V', K): weights, bias, what rounding has taken from it, 1 for the reference, zeros."""
    entries, width = weight.shape
    height = -(-entries // TILE_ENTRIES) * TILE_ENTRIES
    table = torch.empty(height, -(-(width + 3) // ALIGNMENT) * ALIGNMENT, dtype=dtype)
    table[:entries, :width] = weight
    table[entries:, :width] = 0
    table[:, width:] = 0
    if bias is not None:
        table[:entries, width] = bias
        table[:entries, width + 1] = bias - table[:entries, width]
    table[entries:, width] = NEVER
    table[:, width + 2] = 1
    return table


def _columns(states: torch.Tensor, reference: torch.Tensor, count: int) -> torch.Tensor:
    """The rows' columns that meet those of :func:`_table`, (n', K); the rows that pad them are zeros."""
    rows, width = states.shape
    columns = torch.zeros(padded_rows(rows), count, dtype=states.dtype)
    columns[:rows, :width] = states
    columns[:rows, width : width + 2] = 1
    columns[:rows, width + 2] = -reference
    return columns


def _sums(
    table: torch.Tensor, parts: torch.Tensor, columns: torch.Tensor, space: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The exponentials, tile after tile, in `space`, (V' / v, v, n'), and with them as factors the table's sum (n', K).

    The table's column of ones sums up Z, the first D columns the gradient of the states.
    """
    factors = space[: len(table) * len(columns)].view(-1, TILE_ENTRIES, len(columns))
    sums = torch.zeros(columns.shape[::-1], dtype=accumulation_dtype(columns.dtype))
    for tile, part, transposed in zip(factors, torch.split(table, TILE_ENTRIES), parts, strict=True):
        torch.mm(part, columns.T, out=tile).exp_()
        sums += transposed @ tile
    return factors, sums.T.contiguous()


def _largest(table: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """The largest logit of each row, (n',)."""
    parts = torch.split(table, TILE_ENTRIES)
    return torch.stack([torch.mm(part, columns.T).amax(dim=0) for part in parts]).amax(dim=0)
