"""The max-pool of linear_max_pool in whole numbers of 8 bits: a first look at all terms that few are chosen by.

A processor with dot products of bytes multiplies them four to five times as fast as float32 numbers. With each row of
the output matrix, and the rows of each sequence together, scaled to 127, a logit is off by a hundredth of its standard
deviation: too much for a result, but enough to tell which terms can be among the largest. Those are computed in full.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from dupmae.kernels.max_pool import CHUNK_ROWS, TILE_TERMS, row_chunks
from dupmae.kernels.shapes import pad_rows

LARGEST = 127
"""What the largest number of a row becomes."""


def screening_pays(weight: torch.Tensor) -> bool:
    """Tell whether the matrix is one of float32 on a processor that has dot products of bytes.

    Without them (AVX2 alone) encoding was as slow as in full, and pairs of products may not fit their 16 bits.
    """
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.cpu._is_vnni_supported()


class ByteRows(NamedTuple):
    """A matrix in bytes."""

    numbers: torch.Tensor
    """int8, (V, D)."""
    scales: torch.Tensor
    """What each row is to be multiplied by, (V,), float32."""


def in_bytes(table: torch.Tensor) -> ByteRows:
    """Scale each row of a matrix (V, D) to whole numbers."""
    scales = _scales(table.abs().amax(dim=1))
    return ByteRows((table / scales[:, None]).round().to(torch.int8), scales)


def rough_max_pool(rows: torch.Tensor, counts: torch.Tensor, table: ByteRows) -> torch.Tensor:
    """Pool the largest logit of each term among the tokens of each sequence, roughly.

    Args:
        rows: States of the pooled tokens, sequence after sequence, (R, D).
        counts: How many of the rows belong to each sequence, (B,).
        table: Output matrix, (V, D).

    Returns:
        The pooled logits without a bias, (B, V), float32; of a sequence without rows they mean nothing.
    """
    sequence = torch.repeat_interleave(torch.arange(len(counts)), counts)  # (R,)
    scales = _scales(torch.zeros(len(counts)).scatter_reduce(0, sequence, rows.abs().amax(dim=1), "amax"))  # (B,)
    numbers = pad_rows((rows / scales[sequence, None]).round().to(torch.int8))
    best = torch.full((len(counts), len(table.numbers)), torch.iinfo(torch.int32).min, dtype=torch.int32)
    for start, segments in row_chunks(counts.tolist()):
        chunk = numbers[start : start + CHUNK_ROWS]
        for begin in range(0, len(table.numbers), TILE_TERMS):
            terms = slice(begin, begin + TILE_TERMS)
            logits = torch._int_mm(chunk, table.numbers[terms].T)  # (n, v), int32
            for place, first, last in segments:
                known = best[place, terms]
                torch.maximum(logits[first - start : last - start].amax(dim=0), known, out=known)
    return best.float() * scales[:, None] * table.scales


def max_pool_of_terms(
    rows: torch.Tensor, counts: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, terms: torch.Tensor
) -> torch.Tensor:
    """Pool the largest logit of some terms, each sequence's own.

    Args:
        rows: States of the pooled tokens, sequence after sequence, (R, D).
        counts: How many of the rows belong to each sequence, (B,).
        weight: Output matrix, (V, D).
        bias: Output bias, (V,).
        terms: Numbers of the terms, (B, K).

    Returns:
        The pooled logits, (B, K), 0 for a sequence without rows.
    """
    pooled = torch.zeros(terms.shape)
    for place, states in enumerate(torch.split(rows, counts.tolist())):
        if len(states):
            pooled[place] = (weight[terms[place]] @ states.T).amax(dim=1) + bias[terms[place]]
    return pooled


def _scales(largest: torch.Tensor) -> torch.Tensor:
    """Turn the largest number of each row into what its bytes are to be multiplied by, 1 where all are 0."""
    return torch.where(largest > 0, largest / LARGEST, 1.0)
