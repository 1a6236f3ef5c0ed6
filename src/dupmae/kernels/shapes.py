"""Padding that gives matrix products few shapes.

The library under torch compiles a program for every new shape of a product on a processor, which takes longer than most
products of a training step do. Sequences of any length, and any number of tokens that are masked, pooled or predicted,
would give every batch shapes of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LENGTH_MULTIPLE = 16
"""Sequences are padded to a multiple of this many tokens, where the encoder has positions for them."""
ROWS_MULTIPLE = 128
"""Matrix products over tokens picked out of a batch get a multiple of this many rows."""


def padded_length(length: int, most: int) -> int:
    """Round `length` up to the next multiple of `LENGTH_MULTIPLE`, but not above `most`."""
    return min(-(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, most)


def padded_rows(count: int) -> int:
    """Round `count` up to the next multiple of `ROWS_MULTIPLE`."""
    return -(-count // ROWS_MULTIPLE) * ROWS_MULTIPLE


def pad_rows(rows: torch.Tensor) -> torch.Tensor:
    """Append rows of zeros to those of (N, D), up to the next multiple of `ROWS_MULTIPLE`."""
    return F.pad(rows, (0, 0, 0, padded_rows(len(rows)) - len(rows)))
