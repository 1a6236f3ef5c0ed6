"""The [CLS] decoder: one transformer layer that rebuilds the text from a single vector (Eq. 2-5)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

INITIAL_DEVIATION = 0.02
"""Standard deviation of new weights."""


class ClsDecoder(nn.Module):
    """One post-LayerNorm transformer layer whose queries and whose context are two streams.

    The feed-forward width is four times the hidden size. Attention has no dropout: what a row sees is sampled already.

    Args:
        hidden_size: Width D of the encoder.
        heads: Attention heads; must divide D.
        dropout: Share of each sub-layer's output that is dropped in training.
    """

    def __init__(self, hidden_size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.attention_output = nn.Linear(hidden_size, hidden_size)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=1e-12)
        self.inner = nn.Linear(hidden_size, 4 * hidden_size)
        self.output = nn.Linear(4 * hidden_size, hidden_size)
        self.output_norm = nn.LayerNorm(hidden_size, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=INITIAL_DEVIATION)
                nn.init.zeros_(layer.bias)

    def forward(
        self, h_cls: torch.Tensor, positions: torch.Tensor, embeddings: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """Rebuild a state for every position.

        Args:
            h_cls: The text as one vector, (B, D).
            positions: Position embeddings p_i, (B or 1, L, D).
            embeddings: Embeddings with positions of the clean text, e_i + p_i, (B, L, D).
            visible: Which positions each row may look at, (B, L, L), no row empty: see
                :func:`dupmae.pretraining.masking.decoder_visibility`.

        Returns:
            The rebuilt states, (B, L, D), ready for the vocabulary head.
        """
        cls = h_cls[:, None]  # (B, 1, D)
        queries = cls + positions  # (B, L, D): Eq. 2, H1
        context = torch.cat([cls.to(embeddings.dtype), embeddings[:, 1:]], dim=1)  # (B, L, D): Eq. 2, H2
        attended = _attend(  # Eq. 3-4
            self._split(self.query(queries)),
            self._split(self.key(context)),
            self._split(self.value(context)),
            visible[:, None],
        )  # (B, heads, L, D / heads)
        attended = self.attention_output(attended.transpose(1, 2).flatten(2))  # (B, L, D)
        states = self.attention_norm(queries + self.dropout(attended))
        rebuilt: torch.Tensor = self.output_norm(states + self.dropout(self.output(F.gelu(self.inner(states)))))
        return rebuilt

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        """Divide states (B, L, D) among the heads: (B, heads, L, D / heads)."""
        return states.view(*states.shape[:2], self.heads, -1).transpose(1, 2)


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Attend by scaled dot products, all (B, heads, L, d), where `visible` (B, 1, L, L) is True.

    On a processor the fused function's backward pass in bfloat16 takes 5 to 10 times as long as the plain products do.
    """
    if queries.device.type != "cpu":
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible)
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])  # (B, heads, L, L)
    attended: torch.Tensor = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1) @ values
    return attended
