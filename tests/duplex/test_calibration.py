"""Where the lexical half's logits begin to count, and where the dense half's projection begins."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from naive_duplex import V

from dupmae.config import DuplexConfig
from dupmae.corpus import Passage
from dupmae.duplex import DuplexEncoder, calibrate, calibration_sample, start_duplex
from dupmae.duplex.calibration import project_on_principal_directions, weigh_tokens


def logits(encoder: DuplexEncoder, texts: list[str]) -> np.ndarray:
    """The pooled logits of each text, (N, V)."""
    with torch.no_grad():
        features = [encoder[0](encoder.preprocess([text], task="document")) for text in texts]
        return np.concatenate([encoder.pooling.logits(each).double().numpy() for each in features])


def test_logits_are_centred_by_entry_then_cut_and_scaled_by_their_largest(make_encoder, texts, monkeypatch):
    monkeypatch.setattr("dupmae.duplex.calibration.autocast", lambda *_: contextlib.nullcontext())
    encoder = make_encoder()
    before = logits(encoder.eval(), texts)
    calibrate(encoder, texts, batch_size=5)
    centred = before - before.mean(axis=0)
    largest = -np.sort(-centred, axis=1)[:, :20]  # twice the 10 terms that a document keeps
    threshold = largest[:, -1].mean()
    expected = (centred - threshold) / (largest.mean() - threshold)
    np.testing.assert_allclose(logits(encoder, texts), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("document_norm", "expected"),
    [
        ("unit", {"1.output.weight", "1.output.bias"}),
        ("own", {"1.output.weight", "1.output.bias", "1.entry_log_scale"}),
    ],
)
def test_calibration_moves_the_output_layer_and_the_norm_of_documents_that_keep_theirs(
    document_norm, expected, make_encoder, texts
):
    encoder = make_encoder(document_norm=document_norm)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    calibrate(encoder, texts)
    after = encoder.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved == expected


@pytest.mark.parametrize("lexical_activation", ["log1p_relu", "relu", "none"])
def test_documents_that_keep_their_norm_have_1_on_average(lexical_activation, make_encoder, texts, monkeypatch):
    monkeypatch.setattr("dupmae.duplex.calibration.autocast", lambda *_: contextlib.nullcontext())
    encoder = make_encoder(document_norm="own", lexical_activation=lexical_activation)
    encoder.pooling.entry_log_scale.data.zero_()
    calibrate(encoder, texts, batch_size=5)
    lengths = np.linalg.norm(encoder.embed_documents(texts).weights, axis=1)
    assert lengths.mean() == pytest.approx(1, abs=1e-3)
    assert lengths.std() > 0.02


def test_tokens_of_queries_weigh_what_bm25_calls_their_idf(make_encoder):
    encoder = make_encoder(query_terms="tokens")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    weigh_tokens(encoder, ["baba bedi", "baba baba", "baba", "bedi bifu"], batch_size=3)
    weights = encoder.pooling.token_log_scale.detach().exp()
    for word, having in (("baba", 3), ("bedi", 2), ("bifu", 1), ("dado", 0)):
        (term,) = encoder.tokenizer.convert_tokens_to_ids([word])
        assert float(weights[term]) == pytest.approx(np.log(1 + (4 - having + 0.5) / (having + 0.5)))
    after = encoder.state_dict()
    assert {name for name, tensor in before.items() if not torch.equal(tensor, after[name])} == {"1.token_log_scale"}


def test_encoder_without_a_lexical_half_is_left_alone(make_encoder, texts):
    encoder = make_encoder(top_k=0)
    before = encoder.pooling.output.weight.clone()
    calibrate(encoder, texts)
    assert torch.equal(encoder.pooling.output.weight, before)


def test_one_text_alone_is_centred_and_not_divided_by_its_deviation_of_zero(make_encoder, monkeypatch):
    monkeypatch.setattr("dupmae.duplex.calibration.autocast", lambda *_: contextlib.nullcontext())
    encoder = make_encoder(top_k=V)  # twice as many terms as there are would be counted
    before = logits(encoder.eval(), ["baba bedi", "bifu"])
    calibrate(encoder, ["baba bedi"])
    centred, other = logits(encoder, ["baba bedi", "bifu"]) * 1e-6  # the least that is divided by
    np.testing.assert_allclose(centred, np.zeros(V), atol=1e-5)
    np.testing.assert_allclose(other, before[1] - before[0], atol=1e-5)


def test_sample_is_drawn_by_the_seed_and_at_most_256_passages():
    corpus = {f"p{number}": Passage(f"p{number}", "", f"text {number}") for number in range(300)}
    sample = calibration_sample(corpus, 1)
    assert len(set(sample)) == 256
    assert sample == calibration_sample(dict(reversed(corpus.items())), 1)
    assert sample != calibration_sample(corpus, 2)
    assert len(calibration_sample({"p0": corpus["p0"]}, 1)) == 1


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_principal_directions_keep_inner_products_best(make_encoder, texts, monkeypatch, pooling):
    monkeypatch.setattr("dupmae.duplex.calibration.autocast", lambda *_: contextlib.nullcontext())
    encoder = make_encoder(dense_pooling=pooling, dense_dimension=6)
    random_directions = torch.linalg.qr(torch.randn(32, 6)).Q
    with torch.no_grad():
        states = torch.cat(
            [encoder.pooling.text_states(encoder[0](encoder.preprocess([t], task="document"))) for t in texts]
        )
    project_on_principal_directions(encoder, texts, batch_size=3)
    directions = encoder.pooling.cls_projection.weight.detach().T
    torch.testing.assert_close(directions.T @ directions, torch.eye(6), atol=1e-4, rtol=0)
    whole = states @ states.T
    lost = [((states @ d) @ (states @ d).T - whole).norm() for d in (directions, random_directions)]
    assert lost[0] < 0.5 * lost[1]
    least = torch.linalg.svdvals(states)[6:].square().norm()  # Eckart and Young: no six directions lose less
    torch.testing.assert_close(lost[0], least, rtol=1e-2, atol=1e-2)


def test_a_narrow_dense_half_starts_with_principal_directions_and_a_full_one_with_the_identity(bert_folder, texts):
    corpus = {f"p{number}": Passage(f"p{number}", "", text) for number, text in enumerate(texts)}
    narrow, full = (
        start_duplex(str(bert_folder), DuplexConfig(dense_dimension=width, top_k=10), corpus, seed=1)
        for width in (6, 32)
    )
    expected = start_duplex(str(bert_folder), DuplexConfig(dense_dimension=6, top_k=10), corpus, seed=1)
    project_on_principal_directions(expected, texts)
    torch.testing.assert_close(
        narrow.pooling.cls_projection.weight.abs(), expected.pooling.cls_projection.weight.abs(), atol=1e-2, rtol=0
    )
    assert torch.equal(full.pooling.cls_projection.weight.cpu(), torch.eye(32))
