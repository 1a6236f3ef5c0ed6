"""Make a duplex model that is ready for fine-tuning on a corpus, of an encoder or a duplex model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import set_seed

from dupmae.backbones import load_backbone
from dupmae.backbones.declared import warn_of_pooling
from dupmae.config import DuplexConfig
from dupmae.corpus import Passage
from dupmae.duplex.calibration import (
    SAMPLE_OF_TOKENS,
    SAMPLE_PER_DIMENSION,
    calibrate,
    calibration_sample,
    project_on_principal_directions,
    weigh_tokens,
)
from dupmae.duplex.encoder import DuplexEncoder, take_transform
from dupmae.duplex.words import Words, WordSpace
from dupmae.errors import DupmaeError
from dupmae.models import Model, duplex_settings, open_model
from dupmae.runtime.processes import is_first_process

logger = logging.getLogger(__name__)


def start_duplex(model: str | Model, config: DuplexConfig, corpus: Mapping[str, Passage], seed: int) -> DuplexEncoder:
    """Build a duplex model from an encoder and calibrate it; the same arguments give the same model.

    Words are counted in a sample of the corpus. A dense half that is narrower than the encoder begins with its
    principal directions, and queries that have their own tokens alone begin with those weighted by their rarity. With
    `config.calibrate` false only words are counted.

    Args:
        model: As for :meth:`DuplexEncoder.from_encoder`.
        config: The representation.
        corpus: What will be searched; some passages of it are read.
        seed: Seeds what is random in new layers, and which passages are read.

    Raises:
        DupmaeError: As :meth:`DuplexEncoder.from_encoder`.
    """
    set_seed(seed)
    encoder = DuplexEncoder.from_encoder(model, config)
    count_words(encoder, corpus, seed)
    if not config.calibrate:
        return encoder
    pooling = encoder.pooling
    if 0 < pooling.dense_dimension < pooling.hidden_size:
        sample = calibration_sample(corpus, seed, SAMPLE_PER_DIMENSION * pooling.hidden_size)
        project_on_principal_directions(encoder, sample)
    calibrate(encoder, calibration_sample(corpus, seed))
    if pooling.query_terms == "tokens":
        weigh_tokens(encoder, calibration_sample(corpus, seed, SAMPLE_OF_TOKENS))
    return encoder


@torch.no_grad()
def continue_duplex(model: str | Model, checkpoint: str) -> DuplexEncoder:
    """Open a duplex model with what pre-training has made of its encoder and head since.

    Its dense projection, thresholds and scales stay. Pre-training has scaled the head's logits for a softmax
    (:func:`dupmae.pretraining.warm_start.warm_start_head`); its output matrix gets its old length back.

    Args:
        model: A duplex model, or its folder.
        checkpoint: Folder of the checkpoint that pre-training made from it.

    Raises:
        DupmaeError: As :class:`DuplexEncoder` and :func:`dupmae.backbones.load_backbone`.
    """
    encoder, backbone = DuplexEncoder(model), load_backbone(checkpoint)
    pooling, weight = encoder.pooling, backbone.output_weight
    missing = encoder[0].model.load_state_dict(backbone.encoder.state_dict(), strict=False).missing_keys
    assert all(name.startswith("pooler.") for name in missing), missing
    pooling.output.weight.copy_(weight * (pooling.output.weight.norm() / weight.norm()))
    take_transform(pooling, backbone)
    return encoder


def begin_duplex(
    base_model: Model, checkpoint: str | None, config: DuplexConfig, corpus: Mapping[str, Passage], seed: int
) -> DuplexEncoder:
    """Make the model that fine-tuning begins with: a duplex model goes on, of any other encoder one is built.

    Args:
        base_model: The model.
        checkpoint: Folder of the checkpoint that pre-training made from it, if it did.
        config: The representation; of a duplex model only the lengths are read, where they are given.
        corpus: As for :func:`start_duplex`.
        seed: As for :func:`start_duplex`.

    Raises:
        DupmaeError: As :func:`start_duplex` and :func:`continue_duplex`.
    """
    if base_model.kind != "duplex":
        encoder = base_model if checkpoint is None else open_model(checkpoint)
        warn_of_pooling(encoder, config.dense_pooling)
        return start_duplex(encoder, config, corpus, seed)
    duplex = DuplexEncoder(base_model) if checkpoint is None else continue_duplex(base_model, checkpoint)
    count_words(duplex, corpus, seed)
    _warn_of_representation(base_model.path, duplex, config)
    if config.query_max_length is not None or config.document_max_length is not None:
        _read_to(duplex, base_model, config)
    return duplex


def count_words(encoder: DuplexEncoder, corpus: Mapping[str, Passage], seed: int) -> None:
    """Let a model with words count those of a sample of the corpus, and their number a passage, in place."""
    if encoder.words is not None:
        sample = calibration_sample(corpus, seed, SAMPLE_OF_TOKENS)
        encoder.words = Words.counted(sample, encoder.words.space)


def add_words(encoder: DuplexEncoder, config: DuplexConfig, texts: Sequence[str]) -> None:
    """Give a model whole words as a third part of its score, in place; those that it had are replaced.

    Args:
        encoder: The model.
        config: Says how words are read, and what they are multiplied by to begin with.
        texts: Passages that words are counted in.

    Raises:
        DupmaeError: `config.words` is `none`.
    """
    if config.words == "none":
        raise DupmaeError("words is none: name the language of the words to be added.")
    encoder.words = Words.counted(texts, WordSpace(language=config.words, k1=config.word_k1, b=config.word_b))
    encoder.pooling.add_words(config.word_scale)


def _warn_of_representation(base_model: str, duplex: DuplexEncoder, config: DuplexConfig) -> None:
    """Warn of settings that are not the defaults and that a duplex model does not follow."""
    own, asked, default = duplex_settings(Path(base_model)), asdict(config), asdict(DuplexConfig())
    own["words"] = "none" if duplex.words is None else duplex.words.space.language
    ignored = [name for name in own if name in asked and asked[name] not in (default[name], own[name])]
    if ignored and is_first_process():
        logger.warning(
            "%s keeps its representation: %s. For another one, start from an encoder.",
            base_model,
            ", ".join(f"{name} stays {own[name]}, not {asked[name]}" for name in ignored),
        )


def _read_to(encoder: DuplexEncoder, base_model: Model, config: DuplexConfig) -> None:
    """Give a duplex model the lengths that are asked for, as far as its encoder has positions."""
    transformer, most = encoder[0], load_backbone(base_model).max_length
    if config.query_max_length is not None:
        transformer.query_length = min(config.query_max_length, most)
    if config.document_max_length is not None:
        transformer.document_length = transformer.max_seq_length = min(config.document_max_length, most)
