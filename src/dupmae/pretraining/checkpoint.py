"""Pre-trained checkpoints: Hugging Face folders that also hold what it takes to go on pre-training.

| file | what |
|---|---|
| `config.json`, `model.safetensors`, tokenizer | what `AutoModelForMaskedLM`, `AutoModel` and `AutoTokenizer` load |
| `decoder.safetensors` | the [CLS] decoder |
| `dupmae.json` | settings, `dense_pooling`, `lexical_projection`, steps done, losses, held-out figures, fingerprints |
| `README.md`, `curves.png` | the model card |
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dupmae.backbones import load_backbone, open_tokenizer
from dupmae.backbones.opening import check_numbers, checked
from dupmae.config import PretrainConfig
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, write_json
from dupmae.models import RECORD_FILE, Model, model_file
from dupmae.pretraining.objective import DupMAE
from dupmae.runtime.precision import bfloat16_pays, prepare_for_training

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the layout, written to `dupmae.json`."""
DECODER_FILE = "decoder.safetensors"
"""Name of the decoder's file in a checkpoint."""
RECOMPUTING = {"use_reentrant": False, "determinism_check": "none"}
"""How torch computes layers again; its check compares shapes, which not all nested tensors have."""


def load_for_pretraining(model: Model | str, config: PretrainConfig) -> tuple[DupMAE, Any]:
    """Load an encoder for pre-training: one of ours with its decoder, any other with a new decoder.

    What has to be new is drawn from torch's global generator.

    Args:
        model: A model that was found, a folder (a checkpoint of ours or any Hugging Face or sentence-transformers one)
            or a Hugging Face id.
        config: The settings of the pre-training to come.

    Returns:
        The objective, and the tokenizer.

    Raises:
        DupmaeError: The model cannot be loaded, is not a suitable encoder, has no tokenizer with a mask token, its
            decoder does not fit, or its family knows no gradient checkpointing.
    """
    model = checked(model)
    backbone = load_backbone(model)
    prepare_for_training(backbone.model, config.dropout, config.precision)
    if torch.cuda.is_available():
        dtype = torch.bfloat16 if bfloat16_pays(config.precision) else torch.float32
        if not backbone.drop_padding(torch.device("cuda"), dtype):
            logger.info("Batches are padded: attention without padding is not to be had for %s here.", model.label)
    tokenizer = open_tokenizer(model, backbone.vocab_size)
    if tokenizer.mask_token_id is None:
        raise DupmaeError(f"The tokenizer of {model.label} has no mask token, which masked pre-training needs.")
    if config.gradient_checkpointing:
        try:
            backbone.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=RECOMPUTING)
        except ValueError as error:
            raise DupmaeError(
                f"Encoders of the family {backbone.model.config.model_type} cannot compute their layers again in the "
                "backward pass: set gradient_checkpointing to false."
            ) from error
    objective = DupMAE(backbone, tokenizer.all_special_ids, tokenizer.mask_token_id, config)
    decoder_file = model_file(model.path, DECODER_FILE)
    if decoder_file is not None:
        try:
            objective.decoder.load_state_dict(load_file(decoder_file))
            check_numbers(objective.decoder, str(decoder_file))
        except (SafetensorError, RuntimeError, OSError) as error:
            raise DupmaeError(
                f"{decoder_file} does not hold a decoder for this encoder: delete it to begin with a new one."
            ) from error
        logger.info("Pre-training goes on with the decoder of %s.", model.label)
    return objective, tokenizer


def save_checkpoint(folder: Path, objective: DupMAE, weights: dict[str, torch.Tensor], tokenizer: Any) -> None:
    """Write a checkpoint, whole or not at all; its `dupmae.json` holds the settings.

    Args:
        folder: Where to; what is there is replaced.
        objective: Encoder, head and decoder.
        weights: All their weights: see :func:`dupmae.pretraining.sharding.whole_weights`.
        tokenizer: Their tokenizer.
    """
    settings = objective.settings
    with atomic_folder(folder) as temporary:
        objective.backbone.model.save_pretrained(temporary, state_dict=_part(weights, "backbone.model."))
        tokenizer.save_pretrained(temporary)
        save_file(_part(weights, "decoder."), temporary / DECODER_FILE)
        write_json(
            temporary / RECORD_FILE,
            {
                "format": FORMAT,
                "dense_pooling": settings.dense_pooling,
                "lexical_projection": settings.lexical_projection,
                "settings": asdict(settings),
            },
        )


def _part(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Pick the weights whose names begin with `prefix`, and drop it from them."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
