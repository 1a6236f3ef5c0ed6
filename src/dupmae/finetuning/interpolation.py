"""Weights part of the way between those before fine-tuning and those after it.

They have much of what was learnt and have forgotten little: Wortsman et al. (2022), "Robust fine-tuning of zero-shot
models".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dupmae.duplex import DuplexEncoder


def weights_of(encoder: DuplexEncoder) -> list[torch.Tensor]:
    """A copy of all weights, in the order of `encoder.parameters()`."""
    return [parameter.detach().clone() for parameter in encoder.parameters()]


@contextmanager
def interpolated(encoder: DuplexEncoder, start: list[torch.Tensor], alpha: float) -> Iterator[None]:
    """Within the context each weight w is s + alpha (w - s), where s is what it was at the start.

    Args:
        encoder: The model in training; its weights come back unchanged, bit by bit.
        start: What :func:`weights_of` said before training.
        alpha: How far to go; at 1 nothing is done.
    """
    if alpha == 1:
        yield
        return
    now = weights_of(encoder)
    with torch.no_grad():
        for parameter, before in zip(encoder.parameters(), start, strict=True):
            parameter.copy_(before.to(parameter.device).lerp(parameter, alpha))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, after in zip(encoder.parameters(), now, strict=True):
                parameter.copy_(after)
