"""The anchor: a loss that draws dense vectors to others.

These are a finished embedder's own, so that it does not forget while its other states learn, or another model's, to
learn from (:mod:`dupmae.pretraining.anchor_vectors`).
"""

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


def isometry(own: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Find the projection that takes another model's vectors to an encoder's width and keeps their cosines.

    A text's vector is searched with as it is, so a layer that learns to lead from it to the other model's space, and
    that is thrown away, would take with it what it has learnt. Here the layer stands on the other side, and is fixed:
    of vectors wider than the encoder's those principal directions stay that hold most of their length; then they are
    turned (orthogonal Procrustes), which changes no cosine, such that they lie as near as they can to the vectors that
    the encoder has already. Of an encoder's own vectors this is the identity.

    Args:
        own: Vectors of some texts by the encoder, (n, d).
        theirs: Vectors of the same texts, and perhaps of more, by the other model, (n or more, D).

    Returns:
        The projection, (d, D), its min(d, D) singular values all 1.
    """
    own, theirs = F.normalize(own.double(), dim=1), F.normalize(theirs.double(), dim=1)
    width = min(own.shape[1], theirs.shape[1])
    directions = torch.linalg.eigh(theirs.T @ theirs).eigenvectors[:, -width:]  # (D, m), its values rise
    left, _, right = torch.linalg.svd(own.T @ theirs[: len(own)] @ directions, full_matrices=False)
    projection: torch.Tensor = left @ right @ directions.T
    return projection
