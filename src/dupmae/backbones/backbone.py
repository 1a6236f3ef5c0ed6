"""One view of the masked-language models of all supported families."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from dupmae.backbones.families import FAMILIES
from dupmae.backbones.unpadded import ATTENTION, attends_here, encode

WAVELENGTH = 10_000.0
"""The slowest of the sinusoids that stand in for positions turns once in 2 pi times this many tokens."""


class Backbone(nn.Module):
    """A masked-language model, taken apart into what DupMAE needs.

    B texts of L tokens, encoder width D, vocabulary of V terms, width E of the output matrix (D, but for families
    that factorise their embeddings).

    Args:
        model: A `...ForMaskedLM` model of one of :data:`FAMILIES`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.family = FAMILIES[model.config.model_type]
        self.hidden_size: int = model.config.hidden_size
        self.heads: int = model.config.num_attention_heads
        self.vocab_size: int = model.config.vocab_size
        self.head_activation = self.family.activation(model.config)
        """Name of the activation in the vocabulary head's transform."""
        self.new_head = False
        """Whether the vocabulary head is new (:func:`dupmae.backbones.fresh_head`)."""
        self.duplex_head = False
        """Whether it is a duplex model's, whose logits are no masked-language model's: their scale and biases are
        others (:func:`dupmae.pretraining.warm_start.warm_start_head`)."""
        self.unpadded = False
        """Whether texts are encoded without padding (:meth:`drop_padding`)."""
        self._activation = ACT2FN[self.head_activation]

    @property
    def encoder(self) -> Any:
        """The model without its vocabulary head."""
        return self.model.base_model

    @property
    def max_length(self) -> int:
        """The longest sequence that there are positions for."""
        table = self._position_table
        if table is None:
            return self.model.config.max_position_embeddings  # type: ignore[no-any-return]
        return table.num_embeddings - self._first_position

    def states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Compute the encoder's last hidden states, (B, L, D), for ids and mask (B, L)."""
        if self.unpadded:
            return encode(self.encoder, input_ids, attention_mask, self._first_position)
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]  # type: ignore[no-any-return]

    def drop_padding(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Encode texts without padding from now on, if family, device and data type can; tell whether they can."""
        if self.family.unpadded and attends_here(self.heads, self.hidden_size // self.heads, device, dtype):
            self.model.set_attn_implementation(ATTENTION)
            self.unpadded = True
        return self.unpadded

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Compute what the encoder's first layer sees, e_i + p_i with all that the embedding layer adds, (B, L, D).

        A family that tells positions in its attention alone has embeddings without them: they get sinusoids, because a
        decoder without positions could only rebuild a bag of words.
        """
        embeddings: torch.Tensor = self.encoder.embeddings(input_ids)
        if self.family.projection == "embeddings_project":  # the other one is a part of the embedding layer
            embeddings = self._widen(embeddings)
        if self._position_table is None:
            embeddings = embeddings + self.positions(input_ids).to(embeddings.dtype)
        return embeddings

    def positions(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Compute the position embeddings p_i, (1 or B, L, D): the encoder's own, or sinusoids where it has none."""
        length, device = input_ids.shape[1], input_ids.device
        table = self._position_table
        if table is None:
            return sinusoids(length, self.hidden_size, device)[None]
        if table.padding_idx is None:
            return self._widen(table(torch.arange(length, device=device)[None]), with_bias=False)
        tokens = input_ids != table.padding_idx  # families that leave rows to padding count past them
        return self._widen(table(tokens.cumsum(dim=1) * tokens + table.padding_idx), with_bias=False)

    @property
    def head_size(self) -> int:
        """Width E of the vocabulary head's output matrix."""
        return self.output_weight.shape[1]

    @property
    def head_dense(self) -> nn.Linear:
        """The dense layer of the vocabulary head's transform."""
        return self.model.get_submodule(self.family.dense)  # type: ignore[no-any-return]

    @property
    def head_norm(self) -> nn.LayerNorm:
        """The LayerNorm of the vocabulary head's transform; some families' has no bias."""
        return self.model.get_submodule(self.family.norm)  # type: ignore[no-any-return]

    def transform(self, states: torch.Tensor) -> torch.Tensor:
        """Run the vocabulary head up to its output matrix: (..., D) -> (..., E)."""
        transformed: torch.Tensor = self.head_norm(self._activation(self.head_dense(states)))
        return transformed

    @property
    def output_weight(self) -> nn.Parameter:
        """The vocabulary head's output matrix, (V, E)."""
        return self.model.get_output_embeddings().weight  # type: ignore[no-any-return]

    @property
    def output_bias(self) -> nn.Parameter:
        """The vocabulary head's output bias, (V,)."""
        return self.model.get_output_embeddings().bias  # type: ignore[no-any-return]

    def encoder_parameters(self) -> list[nn.Parameter]:
        """List the encoder's parameters, with its embeddings and an output matrix that is tied to these."""
        return list(self.encoder.parameters())

    def head_parameters(self) -> list[nn.Parameter]:
        """List the vocabulary head's own parameters: transform, bias, and the output matrix unless it is tied."""
        shared = {id(parameter) for parameter in self.encoder_parameters()}
        parts = [*self.head_dense.parameters(), *self.head_norm.parameters(), self.output_weight, self.output_bias]
        return [parameter for parameter in parts if id(parameter) not in shared]

    @property
    def _position_table(self) -> nn.Embedding | None:
        """The encoder's absolute position embeddings, if it has any."""
        return getattr(self.encoder.embeddings, "position_embeddings", None)

    @property
    def _first_position(self) -> int:
        """The row of the position embeddings that a text's first token gets."""
        table = self._position_table
        return 0 if table is None or table.padding_idx is None else table.padding_idx + 1

    def _widen(self, embeddings: torch.Tensor, with_bias: bool = True) -> torch.Tensor:
        """Widen embeddings (..., E) -> (..., D) as the encoder does where both differ."""
        if not self.family.projection or embeddings.shape[-1] == self.hidden_size:
            return embeddings
        layer = self.encoder.get_submodule(self.family.projection)
        return F.linear(embeddings, layer.weight, layer.bias if with_bias else None)


def sinusoids(length: int, size: int, device: torch.device) -> torch.Tensor:
    """Encode places as sines and cosines of wavelengths that rise geometrically, (length, size), float32."""
    half = (size + 1) // 2
    rates = WAVELENGTH ** (-torch.arange(half, device=device) / half)  # (size / 2,)
    angles = torch.arange(length, device=device)[:, None] * rates  # (length, size / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :size]
