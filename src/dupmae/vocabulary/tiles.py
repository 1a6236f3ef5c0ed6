"""Cross-entropy in tiles that stay in a processor's caches, for matrix products in bfloat16.

There a matrix product of D numbers costs less than writing its result to memory and reading it again. So logits live in
tiles of some rows times some entries of the vocabulary, and are computed twice: once for their sums, once for the
gradient of the weight. Tiles stand with the vocabulary first: then the long matrix is the one that matrix units read as
it is.

For rows s_i with targets t_i, and entries with weights w_v and biases b_v, a tile holds

    e_vi = exp(<w_v, s_i> + b_v - r_i),    r_i the target's logit, or the row's largest,

out of one product and one exponential, for bias and reference r ride along as further columns of both matrices. What is
left are sums and two more products:

    Z_i = sum_v e_vi,    loss_i = log Z_i + r_i - l_i,    ds_i = sum_v w_v e_vi / Z_i - w_{t_i},
    dw_v = sum_i e_vi s_i / Z_i - sum_{i: t_i = v} s_i.
"""

from __future__ import annotations

import torch

from dupmae.vocabulary.precision import accumulation_dtype

CHUNK_ROWS = 2048
"""Rows of a tile."""
TILE_ENTRIES = 2048
"""Entries of the vocabulary in a tile."""
ALIGNMENT = 32
"""Matrices get a multiple of this many columns, which is how matrix units read them."""

Sums = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
"""The summed loss, a scalar, and its gradients with respect to states (N, D), weight (V, D) and bias (V,)."""


def tiles_pay(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tiles are the faster way: for products in bfloat16 on a processor."""
    return device.type == "cpu" and dtype == torch.bfloat16


def tiled_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    dtype: torch.dtype,
    need_hidden: bool,
    need_table: bool,
) -> Sums:
    """Summed cross-entropy and its gradients.

    Args:
        hidden: (N, D).
        weight: (V, D).
        bias: (V,), or None.
        targets: (N,).
        dtype: Of the matrix products.
        need_hidden: Whether the gradient of `hidden` is wanted.
        need_table: Whether the gradients of `weight` and `bias` are wanted.

    Returns:
        All in the data type of accumulation; gradients that are not wanted are None.
    """
    wide, width = accumulation_dtype(dtype), weight.shape[1]
    table = _table(weight, bias, dtype)  # (V, K)
    loss = torch.zeros((), dtype=wide)
    grad_hidden = torch.empty_like(hidden, dtype=wide) if need_hidden else None
    grad_weight = torch.zeros_like(weight, dtype=wide) if need_table else None
    grad_bias = torch.zeros(len(weight), dtype=wide) if need_table else None
    for start in range(0, len(hidden), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        states, entries = hidden[rows].to(dtype), table[targets[rows]]  # (n, D), (n, K)
        logits = (states.to(wide) * entries[:, :width].to(wide)).sum(dim=1)  # (n,), of the targets
        if bias is not None:
            logits += bias[targets[rows]]
        columns = _columns(states, logits, table.shape[1])  # (n, K)
        norm, grad = _sums(table, columns, width, need_hidden)
        if not norm.isfinite().all():  # some logit is far above the target's
            plain = _columns(states, torch.zeros_like(logits), table.shape[1])
            columns = _columns(states, _largest(table, plain), table.shape[1])
            norm, grad = _sums(table, columns, width, need_hidden)
        reference = -columns[:, width + 2].to(wide)
        loss += (norm.log() + (reference - logits)).sum()
        if grad_hidden is not None and grad is not None:
            grad_hidden[rows] = grad / norm[:, None] - entries[:, :width]
        if grad_weight is not None and grad_bias is not None:
            _add_weight_gradient(grad_weight, grad_bias, table, columns, norm)
            grad_weight.index_add_(0, targets[rows], states.to(wide), alpha=-1)
            grad_bias.index_add_(0, targets[rows], torch.ones_like(norm), alpha=-1)
    return loss, grad_hidden, grad_weight, grad_bias


def _table(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """The entries' columns (V, K): weights, bias, what rounding has taken from it, 1 for the reference, zeros."""
    entries, width = weight.shape
    table = torch.zeros(entries, -(-(width + 3) // ALIGNMENT) * ALIGNMENT, dtype=dtype)
    table[:, :width] = weight
    if bias is not None:
        table[:, width] = bias
        table[:, width + 1] = bias - table[:, width]
    table[:, width + 2] = 1
    return table


def _columns(states: torch.Tensor, reference: torch.Tensor, count: int) -> torch.Tensor:
    """The rows' columns that meet those of :func:`_table`, (n, K)."""
    rows, width = states.shape
    columns = torch.zeros(rows, count, dtype=states.dtype)
    columns[:, :width] = states
    columns[:, width : width + 2] = 1
    columns[:, width + 2] = -reference
    return columns


def _sums(
    table: torch.Tensor, columns: torch.Tensor, width: int, with_gradient: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Over the vocabulary: the sum of exponentials (n,), and with them as factors the sum of weights (n, D)."""
    wide = accumulation_dtype(table.dtype)
    norm = torch.zeros(len(columns), dtype=wide)
    grad = torch.zeros(len(columns), width, dtype=wide) if with_gradient else None
    for part in torch.split(table, TILE_ENTRIES):
        factors = torch.mm(columns, part.T).exp_()  # (n, v)
        norm += factors.sum(dim=1)
        if grad is not None:
            grad += (factors @ part[:, :width]).to(wide)
    return norm, grad


def _largest(table: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """The largest logit of each row, (n,)."""
    return torch.stack([(part @ columns.T).amax(dim=0) for part in torch.split(table, TILE_ENTRIES)]).amax(dim=0)


def _add_weight_gradient(
    grad_weight: torch.Tensor, grad_bias: torch.Tensor, table: torch.Tensor, columns: torch.Tensor, norm: torch.Tensor
) -> None:
    """Add to (V, D) and (V,) what the exponentials contribute to them."""
    width = grad_weight.shape[1]
    scaled = (columns[:, : width + 1] / norm[:, None]).to(table.dtype)  # (n, D + 1)
    for start in range(0, len(table), TILE_ENTRIES):
        part = table[start : start + TILE_ENTRIES]
        factors = torch.mm(part, columns.T).exp_()  # (v, n)
        product = (factors @ scaled).to(grad_weight.dtype)  # (v, D + 1)
        grad_weight[start : start + TILE_ENTRIES] += product[:, :width]
        grad_bias[start : start + TILE_ENTRIES] += product[:, width]
