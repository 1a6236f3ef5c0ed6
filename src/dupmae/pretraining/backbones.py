"""Encoders under pre-training: one small adapter per model family, and loading with a fresh head if need be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dupmae.errors import DupmaeError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Family:
    """Where a model family keeps its parts, as module paths inside its `...ForMaskedLM` class."""

    dense: str
    """Dense layer of the vocabulary head's transform."""
    norm: str
    """LayerNorm of that transform."""
    activation: Callable[[Any], Callable[[torch.Tensor], torch.Tensor]]
    """Gives the activation between the two, from the whole model."""
    position_ids: Callable[[torch.Tensor, Any], torch.Tensor]
    """Rows of the position table for padded ids (B, L), given the embedding layer: (L,) or (B, L)."""


def _counted_from_zero(input_ids: torch.Tensor, embeddings: Any) -> torch.Tensor:
    return torch.arange(input_ids.shape[1], device=input_ids.device)


def _counted_past_padding(input_ids: torch.Tensor, embeddings: Any) -> torch.Tensor:
    ids: torch.Tensor = embeddings.create_position_ids_from_input_ids(input_ids, embeddings.padding_idx)
    return ids


_ROBERTA = Family("lm_head.dense", "lm_head.layer_norm", lambda model: F.gelu, _counted_past_padding)
FAMILIES: dict[str, Family] = {
    "bert": Family(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        lambda model: model.cls.predictions.transform.transform_act_fn,
        _counted_from_zero,
    ),
    "distilbert": Family("vocab_transform", "vocab_layer_norm", lambda model: model.activation, _counted_from_zero),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""The supported families, by the `model_type` of their configuration."""


class Backbone(nn.Module):
    """A masked-language model, taken apart into what DupMAE needs.

    Args:
        model: A `...ForMaskedLM` model of one of :data:`FAMILIES`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        family = FAMILIES[model.config.model_type]
        self.model = model
        self.hidden_size: int = model.config.hidden_size
        self.heads: int = model.config.num_attention_heads
        self.vocab_size: int = model.config.vocab_size
        self.new_head = False
        """Whether the vocabulary head is new (:func:`fresh_head`)."""
        self._dense, self._norm = family.dense, family.norm
        self._activation = family.activation(model)
        self._position_ids = family.position_ids

    @property
    def encoder(self) -> Any:
        """The model without its vocabulary head."""
        return self.model.base_model

    @property
    def max_length(self) -> int:
        """The longest sequence that there are positions for."""
        table = self.encoder.embeddings.position_embeddings
        return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)  # type: ignore[no-any-return]

    def states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The encoder's last hidden states, (B, L, D), for ids and mask (B, L)."""
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]  # type: ignore[no-any-return]

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The encoder's embedding layer, e_i + p_i with everything it adds, (B, L, D)."""
        return self.encoder.embeddings(input_ids)  # type: ignore[no-any-return]

    def positions(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The position embeddings p_i alone, (1 or B, L, D)."""
        embeddings = self.encoder.embeddings
        positions: torch.Tensor = embeddings.position_embeddings(self._position_ids(input_ids, embeddings))
        return positions if positions.dim() == 3 else positions[None]

    @property
    def head_dense(self) -> nn.Linear:
        """The dense layer of the vocabulary head's transform."""
        return self.model.get_submodule(self._dense)  # type: ignore[no-any-return]

    @property
    def head_norm(self) -> nn.LayerNorm:
        """The LayerNorm of the vocabulary head's transform."""
        return self.model.get_submodule(self._norm)  # type: ignore[no-any-return]

    def transform(self, states: torch.Tensor) -> torch.Tensor:
        """The vocabulary head up to its output matrix: (..., D) -> (..., D)."""
        transformed: torch.Tensor = self.head_norm(self._activation(self.head_dense(states)))
        return transformed

    @property
    def output_weight(self) -> nn.Parameter:
        """The vocabulary head's output matrix, (V, D)."""
        return self.model.get_output_embeddings().weight  # type: ignore[no-any-return]

    @property
    def output_bias(self) -> nn.Parameter:
        """The vocabulary head's output bias, (V,)."""
        return self.model.get_output_embeddings().bias  # type: ignore[no-any-return]

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The encoder's parameters, embeddings included, and with them an output matrix that is tied to these."""
        return list(self.encoder.parameters())

    def head_parameters(self) -> list[nn.Parameter]:
        """The vocabulary head's own parameters: transform, bias, and the output matrix unless it is tied."""
        shared = {id(parameter) for parameter in self.encoder_parameters()}
        parts = [*self.head_dense.parameters(), *self.head_norm.parameters(), self.output_weight, self.output_bias]
        return [parameter for parameter in parts if id(parameter) not in shared]


def load_backbone(model: str) -> Backbone:
    """Load an encoder with its vocabulary head, or with a fresh one where the checkpoint has none.

    Args:
        model: A folder or a Hugging Face id.

    Returns:
        The backbone, in float32.

    Raises:
        DupmaeError: There is no such model, or it cannot be a masked-language-model encoder, or its family is not
            supported.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM
    from transformers.utils import logging as transformers_logging

    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise DupmaeError(f"Cannot read a model configuration from {model}: {str(error).splitlines()[0]}") from error
    refuse_unsuitable(model, config)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # its table of missing weights: what matters of it is said below
    try:
        loaded, report = AutoModelForMaskedLM.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise DupmaeError(f"Cannot load the weights of {model}: {str(error).splitlines()[0]}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    missing = set(report["missing_keys"])
    headless = f"{FAMILIES[config.model_type].dense}.weight" in missing
    lacking = sorted(name for name in missing if name.startswith(f"{loaded.base_model_prefix}."))
    if lacking:
        raise DupmaeError(
            f"The checkpoint {model} lacks encoder weights, the first of them {lacking[0]}: download it again."
        )
    backbone = Backbone(loaded)
    if headless:
        logger.warning(
            "%s has no vocabulary head: it gets a new one, its output matrix a copy of the input embeddings.",
            Path(model).name,
        )
        fresh_head(backbone)
    return backbone


def refuse_unsuitable(model: str, config: Any) -> None:
    """Raise `DupmaeError` unless `config` describes an encoder of one of :data:`FAMILIES`."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config.model_type
    advice = f"DupMAE pre-trains encoders of the families {', '.join(FAMILIES)}."
    if getattr(config, "is_encoder_decoder", False):
        raise DupmaeError(f"{model} is an encoder-decoder model ({kind}); {advice}")
    decoder_only = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if decoder_only or getattr(config, "is_decoder", False):
        raise DupmaeError(f"{model} is a decoder-only model ({kind}); {advice}")
    if kind not in FAMILIES:
        raise DupmaeError(f"{model} is of the unsupported model family {kind}; {advice}")


def fresh_head(backbone: Backbone) -> None:
    """Give `backbone` a new vocabulary head, in place.

    The transform's dense layer is drawn at random (deviation .02), its LayerNorm starts neutral, the output matrix is a
    copy of the input embeddings that is untied from them, so that it can learn while the encoder is frozen, and the
    bias is zero.
    """
    model, dense, norm = backbone.model, backbone.head_dense, backbone.head_norm
    nn.init.normal_(dense.weight, std=0.02)
    nn.init.zeros_(dense.bias)
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)
    output = model.get_output_embeddings()
    output.weight = nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    output.bias = nn.Parameter(torch.zeros_like(output.bias))
    model.config.tie_word_embeddings = False
    backbone.new_head = True
