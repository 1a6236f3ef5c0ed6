"""Duplex models over encoders of every supported family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naive_duplex import V, naive_score, unsettle
from sentence_transformers import SparseEncoder
from transformers import (
    AutoModelForMaskedLM,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from dupmae.backbones import load_backbone
from dupmae.config import DuplexConfig, PretrainConfig
from dupmae.duplex import DuplexEncoder, continue_duplex
from dupmae.errors import DupmaeError
from dupmae.pretraining.checkpoint import load_for_pretraining, save_checkpoint

WIDTHS: dict[str, Any] = {
    "vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 66, "pad_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip
DEBERTA_V3: dict[str, Any] = {
    "relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0,
    "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_buckets": 8,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "distilbert": DistilBertConfig(
        vocab_size=V, dim=32, n_layers=2, n_heads=4, hidden_dim=48, initializer_range=0.2, max_position_embeddings=66
    ),
    "roberta": RobertaConfig(**WIDTHS, hidden_act="relu"),  # its vocabulary head has GELU all the same
    "mpnet": MPNetConfig(**WIDTHS),
    "electra": ElectraConfig(**WIDTHS, embedding_size=12),
    "deberta": DebertaV2Config(**WIDTHS, **DEBERTA_V3),
    "modernbert": ModernBertConfig(
        **WIDTHS, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3, local_attention=8
    ),
}

SETTINGS = DuplexConfig(dense_dimension=16, top_k=10, words="none")


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, write_tokenizer: Any) -> Path:
    """A masked-language model of a family, no number of it neutral."""
    model = AutoModelForMaskedLM.from_config(CONFIGS[request.param])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "base")
    write_tokenizer(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("folder", CONFIGS, indirect=True)
def test_the_lexical_half_starts_from_the_familys_own_head(folder: Path, texts: list[str]) -> None:
    encoder = DuplexEncoder.from_encoder(str(folder), DuplexConfig(top_k=10, words="none")).to("cpu").eval()
    masked_lm = AutoModelForMaskedLM.from_pretrained(folder).eval()
    features = encoder.preprocess(texts, task="document")
    ids, mask = features["input_ids"], features["attention_mask"].bool()
    with torch.no_grad():
        logits = masked_lm(input_ids=ids, attention_mask=mask).logits
        actual = encoder.pooling.logits(encoder[0](features))
    ordinary = mask & (ids > 4)
    expected = logits.masked_fill(~ordinary[:, :, None], -torch.inf).amax(dim=1)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("folder", CONFIGS, indirect=True)
def test_terms_of_queries_are_those_of_the_whole_lexical_half_uncut(folder: Path, texts: list[str]) -> None:
    encoder = DuplexEncoder.from_encoder(str(folder), SETTINGS).to("cpu").eval()
    unsettle(encoder)
    queries, documents = (encoder.preprocess(texts[:5], task=task) for task in ("query", "document"))
    occurs = encoder.pooling.terms_of(queries)
    assert occurs is not None
    terms = occurs.nonzero()[:, 0].numpy()
    assert 5 < len(terms) < V / 2
    with torch.no_grad():
        some = [encoder(columns | {"terms": terms})["sentence_embedding"] for columns in (queries, documents)]
        encoder.pooling.top_k = V
        for part, columns in zip(some, (queries, documents), strict=True):
            whole = encoder(columns)["sentence_embedding"]
            kept = torch.cat([whole[:, terms], whole[:, V:]], dim=1)
            torch.testing.assert_close(part, kept, atol=1e-5, rtol=1e-4)
            assert part[:, : len(terms)].any()


@pytest.mark.parametrize("folder", CONFIGS, indirect=True)
def test_a_saved_model_of_any_family_gives_the_same_scores(folder: Path, texts: list[str], tmp_path: Path) -> None:
    encoder = DuplexEncoder.from_encoder(str(folder), SETTINGS).to("cpu")
    unsettle(encoder)
    encoder.save_pretrained(str(tmp_path / "model"))
    expected = encoder.similarity(encoder.encode_query(texts), encoder.encode_document(texts)).numpy()
    for kind, settings in ((DuplexEncoder, {}), (SparseEncoder, {"trust_remote_code": True})):
        loaded = kind(str(tmp_path / "model"), device="cpu", **settings)
        scores = loaded.similarity(loaded.encode_query(texts), loaded.encode_document(texts)).numpy()
        np.testing.assert_array_equal(scores, expected)
    assert naive_score(encoder, texts[1], texts[3]) == pytest.approx(expected[1, 3], rel=1e-3)


@pytest.mark.parametrize("folder", ["electra"], indirect=True)
def test_a_linear_projection_through_a_narrower_output_matrix_is_refused(folder: Path) -> None:
    with pytest.raises(DupmaeError, match="12 wide and the encoder 32: use mlm_head"):
        DuplexEncoder.from_encoder(str(folder), DuplexConfig(top_k=10, lexical_projection="linear"))


@pytest.mark.parametrize("folder", CONFIGS, indirect=True)
def test_pretraining_goes_on_with_a_duplex_models_own_head(folder, tmp_path):
    encoder = DuplexEncoder.from_encoder(str(folder), SETTINGS).to("cpu")
    unsettle(encoder)
    encoder.save(str(tmp_path / "duplex"))
    backbone = load_backbone(str(tmp_path / "duplex"))
    assert backbone.duplex_head
    assert not backbone.new_head
    states = torch.randn(3, 5, 32)
    with torch.no_grad():
        found = backbone.transform(states) @ backbone.output_weight.T + backbone.output_bias
        torch.testing.assert_close(
            found, encoder.pooling.output(encoder.pooling.transform(states)), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("folder", CONFIGS, indirect=True)
def test_a_duplex_model_is_itself_again_after_pretraining_that_only_scaled_its_logits(folder, tmp_path):
    encoder = DuplexEncoder.from_encoder(str(folder), SETTINGS).to("cpu")
    unsettle(encoder)
    if "bias" not in load_backbone(str(folder)).head_norm.state_dict():
        torch.nn.init.zeros_(encoder.pooling.transform[2].bias)  # a head without it cannot carry it along
    encoder.save(str(tmp_path / "duplex"))
    objective, tokenizer = load_for_pretraining(str(tmp_path / "duplex"), PretrainConfig(precision="float32"))
    with torch.no_grad():
        objective.backbone.output_weight.mul_(3.0)
        objective.backbone.output_bias.add_(1.0)
    save_checkpoint(tmp_path / "checkpoint", objective, dict(objective.state_dict()), tokenizer)
    again = continue_duplex(str(tmp_path / "duplex"), str(tmp_path / "checkpoint")).to("cpu")
    texts = ["ba be bi", "bo bu ba be bo"]
    np.testing.assert_allclose(
        again.embed_documents(texts).cls, encoder.embed_documents(texts).cls, atol=1e-4, rtol=1e-4
    )
    with torch.no_grad():
        for name, value in encoder.pooling.state_dict().items():
            torch.testing.assert_close(again.pooling.state_dict()[name], value, atol=1e-5, rtol=1e-5)
