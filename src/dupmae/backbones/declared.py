"""What follows for training from what an encoder's files declare (:class:`dupmae.models.Model`)."""

from __future__ import annotations

import logging

from dupmae.models import Model
from dupmae.models.files import read_settings
from dupmae.models.model import DOCUMENT_PROMPTS
from dupmae.runtime.processes import is_first_process

logger = logging.getLogger(__name__)

FOLLOWED = ("Transformer", "Pooling", "Normalize", "DuplexPooling")
"""Modules of sentence-transformers that a start takes over, or that its own representation has a setting for."""


def warn_of_pooling(model: Model, pooling: str) -> None:
    """Warn if an encoder is read off another vector than it was trained for, or declares what a start does not follow.

    Args:
        model: The encoder.
        pooling: The vector, as `dense_pooling` says: `cls` or `mean`.
    """
    if not is_first_process():
        return
    if model.pooling not in (None, pooling):
        logger.warning(
            "%s was trained with the pooling %s, and dense_pooling is %s: set it to %s to keep what the model knows.",
            model.path,
            model.pooling,
            pooling,
            model.pooling,
        )
    if beside := not_followed(model):
        logger.warning(
            "%s declares %s, which training from it does not follow: its encoder alone is taken over.",
            model.path,
            ", ".join(beside),
        )


def not_followed(model: Model) -> list[str]:
    """List what an embedder's files declare and a start from it leaves out: modules, poolings and prompts."""
    found = [
        f"the module {kind} ({module['path']})"
        for module in model.modules
        if (kind := module["type"].rpartition(".")[2]) not in FOLLOWED
    ]
    if model.pooling_mode is not None and model.pooling is None:
        found.append(f"the pooling {model.pooling_mode}")
    used = {"query", *DOCUMENT_PROMPTS}
    others = [name for name, prompt in model.own_prompts.items() if prompt and name not in used]
    if others:
        found.append(f"the prompts {', '.join(others)}")
    return found


def lower_cases(model: Model) -> bool:
    """Tell whether sentence-transformers' files ask for texts to be lower-cased, which the tokenizer's do not say."""
    return read_settings(model.encoder_path, "sentence_bert_config.json").get("do_lower_case") is True
