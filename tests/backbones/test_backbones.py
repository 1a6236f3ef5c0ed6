"""Adapters of the model families, fresh heads, refusals."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, BartConfig, BertConfig, GPT2Config, XLNetConfig

from dupmae.backbones import FAMILIES, Backbone, load_backbone
from dupmae.backbones.backbone import sinusoids
from dupmae.backbones.unpadded import attends_here
from dupmae.config import PretrainConfig
from dupmae.errors import DupmaeError
from dupmae.pretraining.checkpoint import RECOMPUTING, load_for_pretraining, save_checkpoint
from dupmae.pretraining.masking import step_generator
from dupmae.pretraining.objective import DupMAE
from dupmae.pretraining.sharding import whole_weights
from dupmae.runtime.precision import prepare_for_training

KINDS = ["bert", "distilbert", "roberta", "xlm-roberta", "mpnet", "electra", "deberta", "modernbert"]
RELATIVE = ["deberta", "modernbert"]
UNPADDED = ["bert", "distilbert", "roberta", "xlm-roberta", "electra"]
IDS = torch.tensor([[2, 9, 30, 11, 3], [2, 8, 3, 0, 0]])
MASK = IDS != 0


def perturbed(backbone: Backbone) -> Backbone:
    """Biases and norms that are not neutral, so that a forgotten one shows."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return backbone.eval()


def batch(*lengths: int) -> dict[str, torch.Tensor]:
    """Texts of these lengths between [CLS] and [SEP]; 0 is a row of padding."""
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        if length:
            ids[row, :length] = torch.randint(5, 40, (length,))
            ids[row, 0], ids[row, length - 1] = 2, 3
    return {"input_ids": ids, "attention_mask": ids > 0, "word_starts": ids > 4}


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_put_together_are_the_whole_model(kind: str, checkpoint: Callable[[str], Path]) -> None:
    backbone = perturbed(load_backbone(str(checkpoint(kind))))
    with torch.no_grad():
        whole = backbone.model(input_ids=IDS, attention_mask=MASK).logits
        parts = backbone.transform(backbone.states(IDS, MASK)) @ backbone.output_weight.T + backbone.output_bias
    torch.testing.assert_close(parts[MASK], whole[MASK])


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_what_the_first_layer_sees_with_positions(kind: str, checkpoint: Callable[[str], Path]) -> None:
    backbone = perturbed(load_backbone(str(checkpoint(kind))))
    with torch.no_grad():
        whole = backbone.encoder(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states[0]
        if kind in RELATIVE:
            whole = whole + sinusoids(5, 16, IDS.device)
        torch.testing.assert_close(backbone.embed(IDS)[MASK], whole[MASK])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in RELATIVE])
def test_positions_are_the_part_of_the_embeddings_that_the_place_decides(
    kind: str, checkpoint: Callable[[str], Path]
) -> None:
    backbone = perturbed(load_backbone(str(checkpoint(kind))))
    layer = backbone.encoder.embeddings
    layer.LayerNorm = torch.nn.Identity()
    with torch.no_grad():
        words = layer.word_embeddings(IDS)
        if hasattr(layer, "token_type_embeddings"):
            words = words + layer.token_type_embeddings.weight[0]
        if kind == "electra":
            words = backbone.encoder.embeddings_project(words)
        torch.testing.assert_close((words + backbone.positions(IDS))[MASK], backbone.embed(IDS)[MASK])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_tokens_in_another_order_embed_differently_at_every_place(
    kind: str, checkpoint: Callable[[str], Path]
) -> None:
    backbone = load_backbone(str(checkpoint(kind))).eval()
    ids = torch.tensor([[2, 9, 9, 9, 9, 3]])
    with torch.no_grad():
        rows = backbone.embed(ids)[0, 1:5]
        positions = backbone.positions(ids)
    assert positions.shape == (1, 6, 16)
    assert torch.pdist(rows).min() > 1e-3
    assert torch.pdist(positions[0]).min() > 1e-3


def test_sinusoids_have_the_size_asked_for_and_tell_every_place_apart() -> None:
    assert sinusoids(7, 5, torch.device("cpu")).shape == (7, 5)
    table = sinusoids(600, 16, torch.device("cpu"))
    assert torch.equal(table[0], torch.tensor([0.0] * 8 + [1.0] * 8))
    torch.testing.assert_close(table[3, 0], torch.tensor(3.0).sin())
    assert torch.pdist(table).min() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_of_the_longest_length_ends_at_the_last_position(
    kind: str, checkpoint: Callable[[str], Path]
) -> None:
    folder = str(checkpoint(kind))
    backbone = load_backbone(folder).eval()
    ids = torch.full((1, backbone.max_length), 9)
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder).eval()(input_ids=ids, attention_mask=ids > 0)[0]
        torch.testing.assert_close(backbone.states(ids, ids > 0), expected)
        last = backbone.positions(ids)[0, -1]
    assert backbone.embed(ids).shape == (1, backbone.max_length, 16)
    if kind in RELATIVE:
        torch.testing.assert_close(last[0], torch.tensor(float(backbone.max_length - 1)).sin())
    else:
        table = backbone.encoder.embeddings.position_embeddings.weight[-1:]
        widen = backbone.encoder.embeddings_project.weight.T if kind == "electra" else torch.eye(16)
        torch.testing.assert_close(last, (table @ widen)[0])
        with pytest.raises((IndexError, RuntimeError)):
            backbone.states(torch.full((1, backbone.max_length + 1), 9), torch.ones(1, backbone.max_length + 1))


def losses_and_gradient(
    folder: Path, attention: str, precision: torch.dtype
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Of a step over a long text, very short ones and a row of padding; the gradient of all parameters in a row."""
    torch.manual_seed(0)
    objective = DupMAE(load_backbone(str(folder)), [0, 1, 2, 3, 4], 4, PretrainConfig())
    prepare_for_training(objective.backbone.model, 0.0)
    objective.backbone.model.set_attn_implementation(attention)
    objective.train()
    torch.manual_seed(1)
    texts = batch(30, 4, 3, 2, 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        losses = objective(**texts, generator=step_generator(torch.device("cpu"), 0))
    losses["loss"].backward()
    learning = [parameter for group in objective.parameter_groups().values() for parameter in group]
    assert all(parameter.grad is not None for parameter in learning)
    return losses, torch.cat([parameter.grad.flatten() for parameter in learning if parameter.grad is not None])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_padding_and_very_short_texts_train_alike_in_every_attention_and_precision(
    kind: str, attention: str, precision: torch.dtype, checkpoint: Callable[[str], Path]
) -> None:
    folder = checkpoint(kind)
    expected, gradient = losses_and_gradient(folder, "eager", torch.float32)
    for loss in ("mlm", "cls", "bow"):  # an untrained head guesses: ln V
        assert expected[loss].item() == pytest.approx(math.log(40), abs=0.1)
    losses, found = losses_and_gradient(folder, attention, precision)
    exact = precision == torch.float32
    for loss, value in losses.items():
        assert value.item() == pytest.approx(expected[loss].item(), abs=1e-4 if exact else 5e-3)
    torch.testing.assert_close(found, gradient, atol=1e-5 if exact else 0.05, rtol=1e-3 if exact else 0.1)
    assert gradient.norm() > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_texts_states_do_not_depend_on_how_far_it_is_padded(kind: str, checkpoint: Callable[[str], Path]) -> None:
    backbone = perturbed(load_backbone(str(checkpoint(kind))))
    alone, padded = batch(4), batch(4, 25)
    padded["input_ids"][0, :4] = alone["input_ids"][0]
    with torch.no_grad():
        short = backbone.states(alone["input_ids"], alone["attention_mask"])[0]
        long = backbone.states(padded["input_ids"], padded["attention_mask"])[0, :4]
    torch.testing.assert_close(long, short, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", UNPADDED)
@pytest.mark.parametrize("recomputing", [False, True])
def test_without_padding_states_and_gradients_are_the_same(
    kind: str, recomputing: bool, checkpoint: Callable[[str], Path]
) -> None:
    backbone = perturbed(load_backbone(str(checkpoint(kind)))).train(recomputing)
    prepare_for_training(backbone.model, 0.0)
    if recomputing:
        backbone.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=RECOMPUTING)
    texts = batch(9, 30, 2, 17)
    ids, mask = texts["input_ids"], texts["attention_mask"]
    weight = torch.randn(*ids.shape, backbone.hidden_size)
    results = []
    for unpadded in (False, True):
        assert not unpadded or backbone.drop_padding(torch.device("cpu"), torch.float32)
        states = backbone.states(ids, mask)
        parameters = [parameter for parameter in backbone.encoder_parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad((states * weight)[mask].sum(), parameters, allow_unused=True)
        results.append([states[mask], *(gradient for gradient in gradients if gradient is not None)])
    assert not backbone.states(ids, mask)[~mask].any()
    assert len(results[0]) == len(results[1])
    for padded, unpadded in zip(*results, strict=True):
        torch.testing.assert_close(unpadded, padded, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNPADDED])
def test_padding_stays_in_families_whose_attention_needs_it(kind: str, checkpoint: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(checkpoint(kind)))
    before = backbone.model.config._attn_implementation
    assert not backbone.drop_padding(torch.device("cpu"), torch.float32)
    assert (backbone.unpadded, backbone.model.config._attn_implementation) == (False, before)


@pytest.mark.parametrize("fault", ["raises", "mixes the texts up"])
def test_padding_stays_where_attention_without_it_does_not_work(
    fault: str, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(str(checkpoint("bert")))

    def attend(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> Any:
        if fault == "raises":
            raise RuntimeError("no kernel")
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2), None

    for dtype in (torch.float32, torch.bfloat16):
        assert attends_here(2, 8, torch.device("cpu"), dtype)
    monkeypatch.setattr("dupmae.backbones.unpadded.attend", attend)
    for dtype in (torch.float32, torch.bfloat16):
        assert not backbone.drop_padding(torch.device("cpu"), dtype)
    assert not backbone.unpadded


@pytest.mark.parametrize("kind", ["modernbert", "distilbert", "deberta"])
def test_no_dropout_means_none(kind: str, checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint(kind)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= dict.fromkeys(("attention_dropout", "embedding_dropout", "mlp_dropout"), 0.5)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    backbone = load_backbone(str(folder))
    prepare_for_training(backbone.model, 0.0)
    backbone.train()
    assert torch.equal(*(backbone.states(IDS, MASK) for _ in range(2)))
    prepare_for_training(backbone.model, 0.5)
    assert not torch.equal(*(backbone.states(IDS, MASK) for _ in range(2)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_output_matrix_belongs_to_the_encoder(kind: str, checkpoint: Callable[[str], Path]) -> None:
    backbone = load_backbone(str(checkpoint(kind)))
    assert any(parameter is backbone.output_weight for parameter in backbone.encoder_parameters())
    assert not any(parameter is backbone.output_weight for parameter in backbone.head_parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["", "-without-head"])
def test_a_saved_checkpoint_loads_with_the_same_outputs(
    kind: str, head: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    config = PretrainConfig()
    objective, tokenizer = load_for_pretraining(str(checkpoint(kind + head)), config)
    backbone = perturbed(objective.backbone)
    save_checkpoint(tmp_path / "saved", objective, whole_weights(objective), tokenizer)
    masked_lm, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"]
    encoder = AutoModel.from_pretrained(tmp_path / "saved").eval()
    again, _ = load_for_pretraining(str(tmp_path / "saved"), config)
    with torch.no_grad():
        expected = backbone.model(input_ids=IDS, attention_mask=MASK).logits
        states = backbone.states(IDS, MASK)
        torch.testing.assert_close(
            masked_lm.eval()(input_ids=IDS, attention_mask=MASK).logits[MASK], expected[MASK], atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            encoder(input_ids=IDS, attention_mask=MASK)[0][MASK], states[MASK], atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            again.backbone.eval().model(input_ids=IDS, attention_mask=MASK).logits, expected, atol=1e-4, rtol=1e-4
        )
    assert not again.backbone.new_head


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_head_is_made_said_and_untied(
    kind: str, checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="dupmae"):
        backbone = load_backbone(str(checkpoint(f"{kind}-without-head")))
    assert "no vocabulary head" in caplog.text
    assert backbone.new_head
    words = backbone.model.get_input_embeddings().weight
    assert torch.equal(backbone.output_weight, words)
    assert any(parameter is backbone.output_weight for parameter in backbone.head_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_present_head_is_kept_and_nothing_is_said(
    kind: str, checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint(kind)
    stored = load_file(folder / "model.safetensors")
    with caplog.at_level(logging.WARNING, logger="dupmae"):
        backbone = load_backbone(str(folder))
    assert torch.equal(backbone.head_dense.weight, stored[f"{backbone.family.dense}.weight"])
    assert "vocabulary head" not in caplog.text


def test_a_head_that_belongs_to_another_decoder_counts_as_none(
    checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint("deberta")
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("cls.predictions.transform", "lm_predictions.lm_head"): t for name, t in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING, logger="dupmae"):
        assert load_backbone(str(folder)).new_head
    assert "no vocabulary head" in caplog.text


def test_a_linear_projection_through_a_narrower_output_matrix_is_refused(checkpoint: Callable[[str], Path]) -> None:
    folder = str(checkpoint("electra"))
    with pytest.raises(DupmaeError, match="8 wide and the encoder 16"):
        load_for_pretraining(folder, PretrainConfig(lexical_projection="linear"))
    load_for_pretraining(folder, PretrainConfig(lexical_projection="linear", bow_weight=0))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (GPT2Config(), "decoder-only"),
        (BertConfig(is_decoder=True), "decoder-only"),
        (BartConfig(), "encoder-decoder"),
        (XLNetConfig(), "unsupported model family|decoder-only"),
    ],
)
def test_unsuitable_models_are_refused_with_the_supported_families(config: Any, reason: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(DupmaeError, match=rf"(?:{reason}).*{', '.join(FAMILIES)}\.$"):
        load_backbone(str(tmp_path))


def test_recomputing_the_layers_of_a_family_that_cannot_is_refused(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(DupmaeError, match="family mpnet cannot compute their layers again"):
        load_for_pretraining(str(checkpoint("mpnet")), PretrainConfig(gradient_checkpointing=True))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DupmaeError, match="holds no model"):
        load_backbone(str(tmp_path))


def test_a_checkpoint_without_all_encoder_weights_is_refused(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("modernbert")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.attn.Wo.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DupmaeError, match=r"lacks encoder weights.*layers\.1\.attn\.Wo"):
        load_backbone(str(folder))
