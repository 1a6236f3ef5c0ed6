"""Encode the texts of a batch without padding, one after the other in a single row.

All layers of a transformer but its attention look at one token at a time and do not care which text it belongs to.
Attention gets the row as a nested tensor, for which PyTorch has kernels on GPUs that keep the texts apart.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

ATTENTION = "dupmae_unpadded"
"""What transformers knows :func:`attend` as, once this module is imported."""
TOLERANCE = 0.05
"""By how much bfloat16 may be off; tokens of another text make a larger difference."""


def encode(encoder: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, first_position: int) -> torch.Tensor:
    """Compute the last hidden states of a batch of texts for their tokens alone.

    Args:
        encoder: A transformers encoder whose attention is :data:`ATTENTION`.
        input_ids: Padded texts, (B, L).
        attention_mask: 1 or True on tokens, 0 on the padding after them, (B, L).
        first_position: The position id of each text's first token.

    Returns:
        The states, (B, L, D), zeros on padding.
    """
    batch, length = input_ids.shape
    places = attention_mask.flatten().nonzero()[:, 0]  # (T,): where the tokens stand in the padded batch
    borders = F.pad(attention_mask.sum(dim=1, dtype=torch.long).cumsum(dim=0), (1, 0))  # (B + 1,)
    states: torch.Tensor = encoder(
        input_ids=input_ids.flatten()[places][None],
        position_ids=(places % length + first_position)[None],
        cu_seq_lens_q=borders,
        max_length_q=length,
    )[0][0]  # (T, D)
    padded = states.new_zeros(batch * length, states.shape[1]).index_copy(0, places, states)
    return padded.view(batch, length, -1)


def attends_here(heads: int, size: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether :func:`attend` runs on a device, forwards and backwards, and keeps two small texts apart.

    Args:
        heads: Attention heads.
        size: Width d of a head.
        device: Where the encoder is going to run.
        dtype: What it is going to compute in.
    """
    borders = torch.tensor([0, 3, 8], device=device)
    rows = torch.linspace(-99, 99, 3 * heads * 8 * size, device=device).sin().to(dtype).view(3, 1, heads, 8, size)
    query, key, value = rows.requires_grad_().unbind()
    try:
        found, _ = attend(None, query, key, value, None, cu_seq_lens_q=borders, max_length_q=16)
        gradient = torch.autograd.grad(found.square().sum(), rows)[0]
    except RuntimeError:
        return False
    expected = torch.cat(
        [
            F.scaled_dot_product_attention(query[:, :, text], key[:, :, text], value[:, :, text])
            for text in (slice(0, 3), slice(3, 8))
        ],
        dim=2,
    ).transpose(1, 2)
    pairs = ((found, expected), (gradient, torch.autograd.grad(expected.square().sum(), rows)[0]))
    return all(torch.allclose(here, there, atol=TOLERANCE) for here, there in pairs)


def attend(
    module: torch.nn.Module | None,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from every token to all tokens of its own text (scaled dot product), as transformers wants it.

    Args:
        module: The layer that asks; not used.
        query: Queries, (1, heads, T, d); `key` and `value` are as large.
        key: Keys.
        value: Values.
        attention_mask: Not used: there is no padding.
        cu_seq_lens_q: Where the texts begin in the row, and T, (B + 1,).
        max_length_q: No text is longer than this.
        scaling: What scores are multiplied with.
        dropout: Fraction of the attention weights that is dropped.

    Returns:
        The attended values, (1, T, heads, d), and no attention weights.
    """

    def apart(rows: torch.Tensor) -> torch.Tensor:
        """Split (1, heads, T, d) into (B, heads, tokens of the text, d)."""
        tokens = rows[0].transpose(0, 1).contiguous()  # (T, heads, d)
        return torch.nested.nested_tensor_from_jagged(
            tokens, cu_seq_lens_q, min_seqlen=1, max_seqlen=max_length_q
        ).transpose(1, 2)

    attended = F.scaled_dot_product_attention(apart(query), apart(key), apart(value), dropout_p=dropout, scale=scaling)
    return attended.transpose(1, 2).values()[None], None


AttentionInterface.register(ATTENTION, attend)
