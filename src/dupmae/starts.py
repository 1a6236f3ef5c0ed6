"""What follows from a run's start, which may be an encoder or a duplex model that keeps its representation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.config import DuplexConfig, PretrainConfig
from dupmae.errors import DupmaeError
from dupmae.models import duplex_settings, is_duplex

if TYPE_CHECKING:
    from dupmae.corpus import Passage
    from dupmae.duplex import DuplexEncoder


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


def begin_duplex(
    start: str, checkpoint: str | None, config: DuplexConfig, corpus: Mapping[str, Passage], seed: int
) -> DuplexEncoder:
    """What fine-tuning begins with: a duplex start goes on being what it is, of any other encoder one is built.

    Args:
        start: What :func:`dupmae.models.resolve_model` returned.
        checkpoint: Folder of the checkpoint that pre-training made from it, if it did.
        config: The representation; of a duplex start only the lengths are read, where they are given.
        corpus: As for :func:`dupmae.duplex.start_duplex`.
        seed: As for :func:`dupmae.duplex.start_duplex`.

    Raises:
        DupmaeError: As :func:`dupmae.duplex.start_duplex` and :func:`dupmae.duplex.continue_duplex`.
    """
    if not is_duplex(start):
        from dupmae.duplex import start_duplex

        return start_duplex(checkpoint or start, config, corpus, seed)
    from dupmae.duplex import DuplexEncoder, continue_duplex

    encoder = DuplexEncoder(start) if checkpoint is None else continue_duplex(start, checkpoint)
    if config.query_max_length is not None or config.document_max_length is not None:
        _read_to(encoder, start, config)
    return encoder


def _read_to(encoder: DuplexEncoder, start: str, config: DuplexConfig) -> None:
    """Give a duplex model the lengths that are asked for, as far as its encoder has positions."""
    from dupmae.pretraining.backbones import load_backbone

    transformer, most = encoder[0], load_backbone(start).max_length
    if config.query_max_length is not None:
        transformer.query_length = min(config.query_max_length, most)
    if config.document_max_length is not None:
        transformer.document_length = transformer.max_seq_length = min(config.document_max_length, most)
