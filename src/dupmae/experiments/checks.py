"""Refuse settings that contradict each other or the data, before any work."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.config import DuplexConfig, PretrainConfig
from dupmae.corpus import Benchmark
from dupmae.errors import DupmaeError
from dupmae.models import Model, duplex_settings

if TYPE_CHECKING:
    from dupmae.config import AdaptConfig, Recipe


def pretrains(base_model: Model, pretrain: PretrainConfig) -> bool:
    """Tell whether a run has a stage of pre-training; without steps it still solves for a head that is lacking.

    Args:
        base_model: What the run begins with.
        pretrain: The pre-training.
    """
    return pretrain.all_steps > 0 or base_model.kind != "duplex"


def refuse_disagreement(base_model: Model, pretrain: PretrainConfig, duplex: DuplexConfig) -> None:
    """Refuse pre-training that reads another vector off the encoder than the representation does.

    Args:
        base_model: What the run begins with; a duplex model has a representation of its own.
        pretrain: The pre-training.
        duplex: The representation of any other base model.

    Raises:
        DupmaeError: There is pre-training, and `dense_pooling` or `lexical_projection` differ.
    """
    if not pretrains(base_model, pretrain):
        return
    settings, where = asdict(duplex), "duplex."
    if base_model.kind == "duplex":
        settings, where = duplex_settings(Path(base_model.path)), "the base model's "
    for name in ("dense_pooling", "lexical_projection"):
        before, after = getattr(pretrain, name), settings[name]
        if before != after:
            raise DupmaeError(f"pretrain.{name} is {before} and {where}{name} is {after}: give both the same")


def refuse_impossible(config: Recipe | AdaptConfig) -> None:
    """Refuse numbers that only a later stage would find to contradict each other.

    Raises:
        DupmaeError: More negatives are asked for than are drawn from, ranks hold no passage, nothing is distilled, or
            pre-training's anchor is no model that gives vectors.
    """
    if config.pretrain.anchor_model is not None:
        from dupmae.pretraining.anchor_vectors import open_anchor_model

        open_anchor_model(config.pretrain)
    for name in ("finetune", "hard_negatives", "distil")[: config.stages]:
        section = getattr(config, name)
        if section.negatives > section.negative_depth:
            raise DupmaeError(
                f"{name}.negatives is {section.negatives}, more than the {section.negative_depth} of "
                f"{name}.negative_depth that they are drawn from: raise it"
            )
    if config.stages > 1 and config.mining.first > config.mining.last:
        raise DupmaeError(
            f"mining.first is {config.mining.first} and mining.last {config.mining.last}, ranks that hold no passage: "
            "last must be at least first"
        )
    if config.stages == 3 and not config.distil.negatives:
        raise DupmaeError("distil.negatives is 0, but distillation compares a positive with hard negatives: raise it")


def refuse_few_pairs(train: Benchmark, config: Recipe | AdaptConfig) -> None:
    """Refuse queries of which a stage would have not one full batch.

    Raises:
        DupmaeError: A stage's `batch_size` is more than the pairs of its epochs.
    """
    from dupmae.finetuning.examples import refuse_few

    pairs = sum(grade > 0 for query in train.queries for grade in train.qrels.get(query, {}).values())
    for name in ("finetune", "hard_negatives", "distil")[: config.stages]:
        section = getattr(config, name)
        refuse_few(train.name, pairs, section.epochs, section.batch_size, f"{name}.")
