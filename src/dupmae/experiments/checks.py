"""Refuse settings that contradict each other or the data, before any work."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from dupmae.config import DuplexConfig, PretrainConfig
from dupmae.errors import DupmaeError
from dupmae.models import duplex_settings, is_duplex


def pretrains(start: str, pretrain: PretrainConfig) -> bool:
    """Whether a run has a stage of pre-training; without steps it still solves for the head that an encoder lacks.

    Args:
        start: What :func:`dupmae.models.resolve_model` returned.
        pretrain: The pre-training.
    """
    return pretrain.all_steps > 0 or not is_duplex(start)


def refuse_disagreement(start: str, pretrain: PretrainConfig, duplex: DuplexConfig) -> None:
    """Refuse pre-training that reads another vector off the encoder than the representation does.

    Args:
        start: What :func:`dupmae.models.resolve_model` returned; a duplex model has a representation of its own.
        pretrain: The pre-training.
        duplex: The representation of any other start.

    Raises:
        DupmaeError: There is pre-training, and `dense_pooling` or `ot_projection` differ.
    """
    if not pretrains(start, pretrain):
        return
    settings, where = asdict(duplex), "duplex."
    if is_duplex(start):
        settings, where = duplex_settings(Path(start)), "the start's "
    for name in ("dense_pooling", "ot_projection"):
        before, after = getattr(pretrain, name), settings[name]
        if before != after:
            raise DupmaeError(f"pretrain.{name} is {before} and {where}{name} is {after}: give both the same")
