"""Dropout: 0 means none anywhere, in every family; the decoder's may be another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import CONFIGS

from dupmae.config import PretrainConfig
from dupmae.pretraining.checkpoint import load_for_pretraining
from dupmae.pretraining.masking import step_generator
from dupmae.retrievers.scorers import start_cross_encoder
from dupmae.runtime.precision import prepare_for_training

IDS = torch.tensor([[2, *range(6, 16), 3], [2, *range(16, 26), 3]])


def loss(folder: Path, **settings: Any) -> list[float]:
    """The loss of one batch in training, drawn three times over."""
    objective, _ = load_for_pretraining(str(folder), PretrainConfig(precision="float32", **settings))
    objective.train()
    mask = torch.ones_like(IDS, dtype=torch.bool)
    return [objective(IDS, mask, mask, step_generator(torch.device("cpu"), 1))["loss"].item() for _ in range(3)]


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_dropout_means_none_in_encoder_attention_head_and_decoder(
    kind: str, checkpoint: Callable[[str], Path]
) -> None:
    folder = checkpoint(kind)
    assert len(set(loss(folder))) == 1
    assert len(set(loss(folder, dropout=0.2))) == 3


def test_the_decoder_may_have_a_dropout_of_its_own(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("bert")
    for settings, decoders, encoders in (
        ({"dropout": 0.2}, 0.2, 0.2),
        ({"dropout": 0.2, "decoder_dropout": 0.0}, 0.0, 0.2),
        ({"decoder_dropout": 0.1}, 0.1, 0.0),
    ):
        objective, _ = load_for_pretraining(str(folder), PretrainConfig(**settings))
        assert objective.decoder.dropout.p == decoders
        drops = {module.p for module in objective.backbone.modules() if isinstance(module, torch.nn.Dropout)}
        assert drops == {encoders}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_teacher_has_none_either(kind: str, checkpoint: Callable[[str], Path]) -> None:
    model = start_cross_encoder(str(checkpoint(kind)))
    for dropout, different in ((0.0, 1), (0.5, 3)):
        prepare_for_training(model.transformers_model, dropout, "float32")
        encoder = model.transformers_model.train()
        scores = [encoder(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits.sum().item() for _ in range(3)]
        assert len(set(scores)) == different
