"""The data types that a kernel computes and accumulates in."""

from __future__ import annotations

import torch


def compute_dtype(hidden: torch.Tensor, weight: torch.Tensor) -> torch.dtype:
    """Choose the data type of the matrix products: autocast's where it is on, else the wider of both inputs'."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return torch.promote_types(hidden.dtype, weight.dtype)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Choose the data type of softmax and sums: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
