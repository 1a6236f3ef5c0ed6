"""The anchor: a loss that holds a finished embedder's dense vectors where they were while its other states learn."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

from dupmae.backbones import Backbone


class Anchor:
    """A frozen copy of an encoder. It is no module: it neither learns nor is saved, and moves to where it is asked.

    Args:
        backbone: The encoder as it is before training.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = copy.deepcopy(backbone).requires_grad_(False).eval()

    @torch.no_grad()
    def states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Encode texts: their last hidden states, (B, L, D), for ids and mask (B, L)."""
        return self._backbone.to(input_ids.device).states(input_ids, attention_mask)


def distances(vectors: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Subtract from 1 the cosine of each text's two vectors: (B,), of both (B, D)."""
    return 1 - F.cosine_similarity(vectors.float(), before.float(), dim=1)
