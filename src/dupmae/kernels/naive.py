"""The kernels written as one reads them in the paper: every logit at once. For tests and benchmarks."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> torch.Tensor:
    """Compute :func:`dupmae.kernels.linear_cross_entropy` from all (N, V) logits."""
    if len(hidden) == 0:
        return hidden.sum() * 0.0
    return F.cross_entropy(F.linear(hidden, weight, bias), targets)


def weighted_linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute :func:`dupmae.kernels.weighted_linear_cross_entropy` from all (N, V) logits."""
    losses = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none")
    return (shares * losses).sum(), losses.detach()


def linear_max_pool(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, mask: torch.Tensor
) -> torch.Tensor:
    """Compute :func:`dupmae.kernels.linear_max_pool` from all (B, L, V) logits."""
    logits = F.linear(hidden, weight, bias)  # (B, L, V)
    pooled = logits.masked_fill(~mask[:, :, None], -torch.inf).amax(dim=1)  # (B, V)
    return torch.where(mask.any(dim=1)[:, None], pooled, 0.0)
