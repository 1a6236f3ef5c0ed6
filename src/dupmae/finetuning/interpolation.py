"""Interpolation of the weights before fine-tuning and those after it.

Interpolated weights have much of what was learnt and have forgotten little: Wortsman et al. (2022), "Robust fine-tuning
of zero-shot models".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dupmae.duplex import DuplexEncoder


def weights_of(encoder: DuplexEncoder) -> list[torch.Tensor]:
    """Copy all weights, in the order of `encoder.parameters()`."""
    return [parameter.detach().clone() for parameter in encoder.parameters()]


@contextmanager
def interpolated(encoder: DuplexEncoder, before: list[torch.Tensor], alpha: float) -> Iterator[None]:
    """Set each weight w, within the context, to b + alpha (w - b), where b is what it was before training.

    Args:
        encoder: The model in training; its weights come back unchanged, bit by bit.
        before: What :func:`weights_of` returned before training.
        alpha: How far to go; at 1 nothing is done.
    """
    if alpha == 1:
        yield
        return
    now = weights_of(encoder)
    with torch.no_grad():
        for parameter, weight in zip(encoder.parameters(), before, strict=True):
            parameter.copy_(weight.to(parameter.device).lerp(parameter, alpha))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, weight in zip(encoder.parameters(), now, strict=True):
                parameter.copy_(weight)
