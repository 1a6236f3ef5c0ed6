"""What follows from a run's start, which may be an encoder or a duplex model that keeps its representation."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.config import DuplexConfig, PretrainConfig
from dupmae.errors import DupmaeError
from dupmae.models import duplex_settings, is_duplex, model_file
from dupmae.runtime.processes import is_first_process

if TYPE_CHECKING:
    from dupmae.corpus import Passage
    from dupmae.duplex import DuplexEncoder

logger = logging.getLogger(__name__)


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


def trained_pooling(model: str) -> str | None:
    """Which vector of its states an encoder was trained for, if its files say so and it is one of ours: cls, mean."""
    from dupmae.models import RECORD_FILE

    if is_duplex(model):
        return str(duplex_settings(Path(model))["dense_pooling"])
    record_file, modules_file = model_file(model, RECORD_FILE), model_file(model, "modules.json")
    if record_file is not None:
        return str(json.loads(record_file.read_text(encoding="utf-8"))["dense_pooling"])
    if modules_file is not None:
        from sentence_transformers.sentence_transformer.modules import Pooling

        for module in json.loads(modules_file.read_text(encoding="utf-8")):
            if module["type"].endswith(".Pooling"):
                mode = Pooling.load(model, subfolder=module["path"]).pooling_mode
                return mode if mode in ("cls", "mean") else None
    return None


def trained_prompts(model: str) -> dict[str, str]:
    """What an encoder was trained to read before a `query` and a `document`, as far as its files say so.

    Args:
        model: What :func:`dupmae.models.resolve_model` returned: an embedder of sentence-transformers, whose prompt of
            documents may have another name, or a checkpoint of ours, which has taken over what its start had.
    """
    from dupmae.models import RECORD_FILE

    found: dict[str, str] = {}
    for name in ("config_sentence_transformers.json", RECORD_FILE):
        file = model_file(model, name)
        if file is not None:
            found = json.loads(file.read_text(encoding="utf-8")).get("prompts") or {}
    document = (found[name] for name in ("document", "passage", "corpus") if name in found)
    return {"query": found.get("query", ""), "document": next(document, "")}


def warn_of_pooling(model: str, pooling: str) -> None:
    """Tell of an encoder that is read off another vector than it was trained for.

    Args:
        model: What :func:`dupmae.models.resolve_model` returned.
        pooling: The vector, as `dense_pooling` says: `cls` or `mean`.
    """
    trained = trained_pooling(model)
    if trained not in (None, pooling) and is_first_process():
        logger.warning(
            "%s was trained with the pooling %s, and dense_pooling is %s: set it to %s to keep what the model knows.",
            model,
            trained,
            pooling,
            trained,
        )


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

        warn_of_pooling(checkpoint or start, config.dense_pooling)
        return start_duplex(checkpoint or start, config, corpus, seed)
    from dupmae.duplex import DuplexEncoder, continue_duplex

    encoder = DuplexEncoder(start) if checkpoint is None else continue_duplex(start, checkpoint)
    _warn_of_representation(start, config)
    if config.query_max_length is not None or config.document_max_length is not None:
        _read_to(encoder, start, config)
    return encoder


def _warn_of_representation(start: str, config: DuplexConfig) -> None:
    """Tell of settings that are not the defaults, and which a duplex start does not follow."""
    own, asked, default = duplex_settings(Path(start)), asdict(config), asdict(DuplexConfig())
    ignored = [name for name in own if name in asked and asked[name] not in (default[name], own[name])]
    if ignored and is_first_process():
        logger.warning(
            "%s keeps its representation: %s. For another one, start from an encoder.",
            start,
            ", ".join(f"{name} stays {own[name]}, not {asked[name]}" for name in ignored),
        )


def _read_to(encoder: DuplexEncoder, start: str, config: DuplexConfig) -> None:
    """Give a duplex model the lengths that are asked for, as far as its encoder has positions."""
    from dupmae.pretraining.backbones import load_backbone

    transformer, most = encoder[0], load_backbone(start).max_length
    if config.query_max_length is not None:
        transformer.query_length = min(config.query_max_length, most)
    if config.document_max_length is not None:
        transformer.document_length = transformer.max_seq_length = min(config.document_max_length, most)
