"""Which arithmetic a forward pass runs in."""

from __future__ import annotations

import contextlib

import torch


def bfloat16_pays(precision: str) -> bool:
    """Whether the forward pass runs in bfloat16; `auto` asks the processor for bfloat16 matrix units."""
    if precision == "auto":
        if torch.cuda.is_available():
            return bool(torch.cuda.is_bf16_supported())
        return bool(torch.cpu._is_amx_tile_supported())
    return precision == "bfloat16"


def autocast(device_type: str, precision: str = "auto") -> contextlib.AbstractContextManager[object]:
    """A context in which matrix products run in bfloat16 where `precision` says so."""
    if bfloat16_pays(precision):
        return torch.autocast(device_type, torch.bfloat16)
    return contextlib.nullcontext()
