"""Check what the files of a duplex model declare: what is missing or of no use would silently take a default."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dupmae.errors import DupmaeError
from dupmae.models import Model, duplex_settings
from dupmae.models.files import read_settings


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: value in words


SETTINGS: dict[str, Callable[[Any], bool]] = {
    "hidden_size": _is_count,
    "vocabulary_size": _is_count,
    "dense_dimension": _is_count,
    "top_k": _is_count,
    "special_ids": lambda value: isinstance(value, list) and all(map(_is_count, value)),
    "dense_pooling": _is_one_of("cls", "mean"),
    "lexical_projection": _is_one_of("mlm_head", "linear"),
    "lexical_activation": _is_one_of("log1p_relu", "relu", "none"),
    "head_activation": lambda value: isinstance(value, str),
    "layer_norm_eps": lambda value: isinstance(value, (int, float)) and 0 <= value < 1,
    "head_size": lambda value: value is None or _is_count(value),
    "normalize": lambda value: isinstance(value, bool),
    "query_terms": _is_one_of("logits", "tokens"),
    "document_norm": _is_one_of("unit", "own"),
    "words": lambda value: isinstance(value, bool),
}
"""What the configuration of the pooling module says -> whether a value is one of that."""


ADDED = ("words",)
"""Settings that models of former versions do not have, and do not need."""


def check_declared(model: Model) -> None:
    """Refuse a duplex model whose settings are not all there, or of no use.

    Raises:
        DupmaeError: A setting is missing or of another kind.
    """
    settings, again = duplex_settings(Path(model.path)), "fetch or save the model again."
    for name, is_valid in SETTINGS.items():
        if name not in settings and name in ADDED:
            continue
        if name not in settings:
            raise DupmaeError(f"{model.label}: the DuplexPooling's config.json lacks {name}: {again}")
        if not is_valid(settings[name]):
            shown = repr(settings[name])[:60]
            raise DupmaeError(f"{model.label}: the DuplexPooling's config.json has the {name} {shown}: {again}")
    declared = read_settings(model.path, "config_sentence_transformers.json")
    prompts = declared.get("prompts")
    texts = isinstance(prompts, dict) and all(isinstance(text, str) for text in prompts.values())
    if not texts or declared.get("model_type") != "SparseEncoder" or declared.get("similarity_fn_name") != "dot":
        raise DupmaeError(
            f"{model.label}: config_sentence_transformers.json is not a duplex model's (its prompts, its model_type "
            f"SparseEncoder, its similarity_fn_name dot): {again}"
        )
