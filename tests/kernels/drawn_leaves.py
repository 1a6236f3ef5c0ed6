"""Random inputs of the kernels, with gradients."""

from __future__ import annotations

import torch

V, D = 37, 6


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(sum(shape) for shape in shapes))
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]
