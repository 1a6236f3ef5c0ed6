"""Adapters of the model families, fresh heads, refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, BartConfig, ElectraConfig, GPT2Config

from dupmae.errors import DupmaeError
from dupmae.pretraining.backbones import load_backbone

FAMILIES = ["bert", "distilbert", "roberta"]
IDS = torch.tensor([[2, 9, 30, 11, 3], [2, 8, 3, 0, 0]])
MASK = IDS != 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_put_together_are_the_whole_model(family: str, checkpoint: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(checkpoint(family))).eval()
    with torch.no_grad():
        whole = backbone.model(input_ids=IDS, attention_mask=MASK).logits
        parts = backbone.transform(backbone.states(IDS, MASK)) @ backbone.output_weight.T + backbone.output_bias
    torch.testing.assert_close(parts[MASK], whole[MASK])


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_words_plus_the_positions_given(family: str, checkpoint: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(checkpoint(family))).eval()
    layer = backbone.encoder.embeddings
    with torch.no_grad():
        total = layer.word_embeddings(IDS) + backbone.positions(IDS)
        if hasattr(layer, "token_type_embeddings"):
            total = total + layer.token_type_embeddings.weight[0]
        torch.testing.assert_close(backbone.embed(IDS)[MASK], layer.LayerNorm(total)[MASK])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sequence_of_the_longest_length_runs(family: str, checkpoint: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(checkpoint(family))).eval()
    ids = torch.full((1, backbone.max_length), 9)
    assert backbone.states(ids, ids > 0).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        backbone.states(torch.full((1, backbone.max_length + 1), 9), torch.ones(1, backbone.max_length + 1))


def test_a_tied_output_matrix_belongs_to_the_encoder(checkpoint: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(checkpoint("bert")))
    assert any(parameter is backbone.output_weight for parameter in backbone.encoder_parameters())
    assert not any(parameter is backbone.output_weight for parameter in backbone.head_parameters())


def test_a_missing_head_is_made_said_and_untied(
    checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.WARNING, logger="dupmae"):
        backbone = load_backbone(str(checkpoint("bert-without-head")))
    assert "no vocabulary head" in caplog.text
    words = backbone.model.get_input_embeddings().weight
    assert torch.equal(backbone.output_weight, words)
    assert any(parameter is backbone.output_weight for parameter in backbone.head_parameters())
    with torch.no_grad():
        backbone.output_weight.add_(1.0)
        backbone.output_bias.add_(2.0)
    backbone.model.save_pretrained(tmp_path / "saved")
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved").get_output_embeddings()
    assert torch.equal(again.weight, backbone.output_weight)
    assert torch.equal(again.bias, backbone.output_bias)


def test_a_present_head_is_kept_and_nothing_is_said(
    checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint("bert")
    expected = AutoModelForMaskedLM.from_pretrained(folder).cls.predictions.transform.dense.weight
    with caplog.at_level(logging.WARNING, logger="dupmae"):
        backbone = load_backbone(str(folder))
    assert torch.equal(backbone.model.cls.predictions.transform.dense.weight, expected)
    assert "vocabulary head" not in caplog.text


@pytest.mark.parametrize(
    ("config", "reason"),
    [(GPT2Config(), "decoder-only"), (BartConfig(), "encoder-decoder"), (ElectraConfig(), "unsupported model family")],
)
def test_unsuitable_models_are_refused_with_the_supported_families(config: Any, reason: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(DupmaeError, match=rf"{reason}.*bert, distilbert, roberta"):
        load_backbone(str(tmp_path))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DupmaeError, match="Cannot read a model configuration"):
        load_backbone(str(tmp_path))
