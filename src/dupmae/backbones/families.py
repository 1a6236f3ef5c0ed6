"""The supported model families, and where each of them keeps the parts that DupMAE needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Family:
    """Where a model family keeps its parts, as module paths inside its `...ForMaskedLM` class."""

    dense: str
    """Dense layer of the vocabulary head's transform, (D -> E): E is the width of the output matrix."""
    norm: str
    """LayerNorm of that transform, after the activation."""
    activation: Callable[[Any], str] = lambda config: "gelu"
    """Name of the activation between the two, from the model's configuration."""
    projection: str = ""
    """Where the encoder widens embeddings of width E to D: a linear layer, or None where there is nothing to widen."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the configuration must say so that the head has these parts."""
    unpadded: bool = False
    """Whether its attention, which then looks at whole texts, can be told to take them without padding."""


_BERT = Family(
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
    lambda config: str(config.hidden_act),
    unpadded=True,
)
_ROBERTA = Family("lm_head.dense", "lm_head.layer_norm", unpadded=True)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "distilbert": Family("vocab_transform", "vocab_layer_norm", lambda config: str(config.activation), unpadded=True),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "mpnet": replace(_ROBERTA, unpadded=False),
    # a discriminator, which is what most ELECTRA checkpoints are, has no vocabulary head
    "electra": Family(
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        projection="embeddings_project",
        unpadded=True,
    ),
    # DeBERTa v2 and v3. Microsoft's own vocabulary heads belong to a decoder that transformers does not have, and stand
    # under other names (not "legacy"): such a checkpoint counts as one without a head.
    "deberta-v2": Family(
        _BERT.dense, _BERT.norm, _BERT.activation, projection="embeddings.embed_proj", settings={"legacy": True}
    ),
    # both biases may be switched off; zeros in their place change nothing and give every head the same parts
    "modernbert": Family(
        "head.dense",
        "head.norm",
        lambda config: str(config.classifier_activation),
        settings={"classifier_bias": True, "decoder_bias": True},
    ),
}
"""The supported families, by the `model_type` of their configuration."""
