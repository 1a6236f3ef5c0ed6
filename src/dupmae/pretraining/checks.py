"""Refuse what pre-training cannot do before any of its work: before text is tokenised and anything is written."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from dupmae.config import PretrainConfig
from dupmae.errors import DupmaeError
from dupmae.models import Model
from dupmae.pretraining.anchor_vectors import open_anchor_model
from dupmae.pretraining.checkpoint import load_for_pretraining
from dupmae.pretraining.sharding import refuse_unshardable
from dupmae.runtime.processes import join_processes


def refuse_impossible(config: PretrainConfig) -> None:
    """Refuse settings that no text and no encoder would do for.

    Raises:
        DupmaeError: All losses are switched off, `anchor_model` names nothing that vectors can be had from, or there is
            nothing to shard over.
    """
    if not config.decodes and config.anchor_model is None:
        raise DupmaeError(
            "All three loss weights are 0: set at least one of mlm_weight, cls_weight and bow_weight, or an "
            "anchor_model with an anchor_weight to learn vectors alone."
        )
    open_anchor_model(config)
    if config.shard:
        refuse_unshardable(join_processes())


def refuse_no_tracker(config: PretrainConfig) -> None:
    """Refuse an experiment tracker that is not installed, before text is tokenised.

    Raises:
        DupmaeError: It is not.
    """
    if config.report_to != "none" and find_spec(config.report_to) is None:
        raise DupmaeError(
            f"report_to is {config.report_to}, which is not installed: pip install 'dupmae[{config.report_to}]'"
        )


def tokenizer_and_length(model: Model | str, config: PretrainConfig) -> tuple[Any, int]:
    """Load an encoder once to find out whether it can be pre-trained.

    Returns:
        Its tokenizer, and the tokens of the longest sequence that it has positions for.

    Raises:
        DupmaeError: As :func:`dupmae.pretraining.checkpoint.load_for_pretraining`.
    """
    objective, tokenizer = load_for_pretraining(model, config)
    return tokenizer, objective.backbone.max_length
