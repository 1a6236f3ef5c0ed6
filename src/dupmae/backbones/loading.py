"""Load an encoder with its vocabulary head, or with a fresh one where it has none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from dupmae.backbones.backbone import Backbone
from dupmae.backbones.families import FAMILIES
from dupmae.backbones.opening import check_numbers, check_report, opening
from dupmae.errors import DupmaeError
from dupmae.models import WEIGHTS, Model, check_files, pooling_folder
from dupmae.models.files import refuse_no_model

logger = logging.getLogger(__name__)


def load_backbone(model: Model | str) -> Backbone:
    """Load an encoder with its vocabulary head, or with a fresh one where the checkpoint has none.

    Args:
        model: A model, a folder or a Hugging Face id. A duplex model's head is that of its lexical half.

    Returns:
        The backbone, in float32.

    Raises:
        DupmaeError: There is no such model, or it cannot be a masked-language-model encoder, or its family is not
            supported, or its weights are not whole.
    """
    model = _found(model)
    loaded, headless = _load(model)
    backbone = Backbone(loaded)
    if headless:
        fresh_head(backbone)
    if headless and model.kind == "duplex":
        _take_duplex_head(backbone, model)
    elif headless:
        logger.warning(
            "%s has no vocabulary head: it gets a new one, its output matrix a copy of the input embeddings.",
            Path(model.path).name,
        )
    return backbone


def _found(model: Model | str) -> Model:
    """Make a model of a folder or an id."""
    found = model if isinstance(model, Model) else Model(model)
    refuse_no_model(found.path, found.label)
    return found


def _load(model: Model) -> tuple[Any, bool]:
    """Load and check a masked-language model; tell whether its head is missing, and thus random."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    with opening(model.label):
        config = AutoConfig.from_pretrained(model.encoder_path)
    refuse_unsuitable(model.label, config)
    if Path(model.path).is_dir():
        check_files(Path(model.path), model.label)
    family = FAMILIES[config.model_type]
    switched = {name: value for name, value in family.settings.items() if getattr(config, name, value) != value}
    for name, value in family.settings.items():
        setattr(config, name, value)
    with opening(model.label):  # which silences a table of missing weights: what matters of it is said below
        loaded, report = AutoModelForMaskedLM.from_pretrained(
            model.encoder_path,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    headless = _lacks_head(loaded, report)
    if switched:  # biases that the checkpoint has none of are zeros
        report["missing_keys"] = {name for name in report["missing_keys"] if not name.endswith(".bias")}
    check_report(report, loaded, model.label, "encoder" if headless else "states")
    check_numbers(loaded, model.label)
    return loaded, headless


def _lacks_head(loaded: Any, report: dict[str, Any]) -> bool:
    """Tell whether none of the weights of a vocabulary head's transform is there: half of one is a damaged one."""
    family = FAMILIES[loaded.config.model_type]
    transform = {
        f"{path}.{name}"
        for path in (family.dense, family.norm)
        for name, _ in loaded.get_submodule(path).named_parameters()
    }
    return transform <= set(report["missing_keys"])


def refuse_unsuitable(model: str, config: Any) -> None:
    """Refuse a model that is no encoder of one of :data:`FAMILIES`.

    Args:
        model: What it is called in the error.
        config: Its configuration, of transformers.

    Raises:
        DupmaeError: It is a decoder, an encoder-decoder, or of another family.
    """
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
    norm.reset_parameters()
    output = model.get_output_embeddings()
    output.weight = nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    output.bias = nn.Parameter(torch.zeros_like(output.bias))
    model.config.tie_word_embeddings = False
    backbone.new_head = True


def _take_duplex_head(backbone: Backbone, model: Model) -> None:
    """Replace a fresh head by that of a duplex model, in place; a linear one has no transform."""
    with opening(model.label):
        weights = load_file(pooling_folder(Path(model.path)) / WEIGHTS)
        output, shift = weights["output.weight"].float(), weights["output.bias"].float()
        if "transform.0.weight" in weights:
            dense, norm = backbone.head_dense, backbone.head_norm
            dense.load_state_dict({name: weights[f"transform.0.{name}"] for name in dense.state_dict()})
            norm.load_state_dict({name: weights[f"transform.2.{name}"] for name in norm.state_dict()})
            if "bias" not in norm.state_dict():
                shift = shift + output @ weights["transform.2.bias"].float()
        with torch.no_grad():
            backbone.output_weight.copy_(output)
            backbone.output_bias.copy_(shift)
    check_numbers(backbone, model.label)
    backbone.new_head, backbone.duplex_head = False, True
