"""What an encoded text holds, and that the dot product of two is Eq. 12."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_duplex import V, naive_halves, naive_score, unsettle
from sentence_transformers.base.modules import Transformer

from dupmae.duplex import DuplexEncoder, DuplexPooling


@pytest.fixture(scope="module")
def transformer(bert_folder: Path) -> Transformer:
    return Transformer(str(bert_folder), max_seq_length=40, query_length=12, document_length=40)


@st.composite
def poolings(draw: Any) -> DuplexPooling:
    """Any representation with at least one half."""
    dense_dimension = draw(st.sampled_from([0, 1, 16, 32]))
    top_k = draw(st.sampled_from([0, 1, 10, 100, V] if dense_dimension else [1, 10, 100, V]))
    torch.manual_seed(draw(st.integers(0, 3)))
    return DuplexPooling(
        hidden_size=32,
        vocabulary_size=V,
        dense_dimension=dense_dimension,
        top_k=top_k,
        special_ids=[0, 1, 2, 3, 4],
        dense_pooling=draw(st.sampled_from(["cls", "mean"])),
        lexical_projection=draw(st.sampled_from(["mlm_head", "linear"])),
        lexical_activation=draw(st.sampled_from(["log1p_relu", "relu", "none"])),
        normalize=draw(st.booleans()),
        query_terms=draw(st.sampled_from(["logits", "tokens"])),
        document_norm=draw(st.sampled_from(["unit", "own"])),
    )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(pooling=poolings(), pair=st.tuples(st.integers(0, 11), st.integers(0, 11)))
def test_dot_product_of_an_encoded_query_and_document_is_equation_12(pooling, pair, transformer, texts):
    encoder = DuplexEncoder(modules=[transformer, pooling], device="cpu")
    unsettle(encoder)
    query, document = texts[pair[0]], texts[pair[1]]
    q, d = encoder.encode_query(query).to_dense(), encoder.encode_document(document).to_dense()
    assert q.shape == d.shape == (V + pooling.dense_dimension,)
    expected = naive_score(encoder, query, document)
    size = float(q.norm() * d.norm())
    assert float(q @ d) == pytest.approx(expected, abs=1e-5 * size + 1e-6)
    assert float(encoder.similarity(q, d)) == pytest.approx(expected, abs=1e-5 * size + 1e-6)


@pytest.mark.parametrize("activation", ["log1p_relu", "relu", "none"])
def test_document_keeps_its_k_heaviest_terms_and_a_query_of_logits_all(activation, make_encoder, texts):
    encoder = make_encoder(lexical_activation=activation, normalize=False, query_terms="logits")
    for text in texts[:4]:
        _, mu = naive_halves(encoder, text, "document")
        document = encoder.encode_document(text).to_dense()[:V].numpy()
        assert set(np.flatnonzero(document)) == set(np.argsort(-mu)[:10])
        _, mu = naive_halves(encoder, text, "query")
        query = encoder.encode_query(text).to_dense()[:V].numpy()
        assert (query != 0).tolist() == (mu != 0).tolist()
        assert (query != 0).sum() > 30


def test_a_query_of_own_tokens_has_no_other_term_and_never_meets_the_output_matrix(make_encoder, texts, monkeypatch):
    encoder = make_encoder(query_terms="tokens")
    documents = encoder.embed_documents(texts)
    monkeypatch.setattr(encoder.pooling, "logits", None)
    queries = encoder.embed_queries([*texts, "[UNK] [UNK]"])
    special = set(encoder.tokenizer.all_special_ids)
    for row, text in enumerate(texts):
        own = set(encoder.preprocess([text], task="query")["input_ids"][0].tolist()) - special
        assert set(queries.ids[row][queries.weights[row] != 0].tolist()) == own
    assert not queries.weights[-1].any()
    assert ((documents.weights != 0).sum(axis=1) == 10).all()


def test_normalised_document_halves_are_unit_vectors_and_query_halves_carry_the_scales(make_encoder, texts):
    encoder = make_encoder(document_norm="unit")
    encoder.pooling.cls_log_scale.data.fill_(np.log(20))
    encoder.pooling.ot_log_scale.data.fill_(np.log(10))
    documents, queries = encoder.encode_document(texts).to_dense(), encoder.encode_query(texts).to_dense()
    for vectors, dense, lexical in ((documents, 1, 1), (queries, 20, 10)):
        torch.testing.assert_close(vectors[:, V:].norm(dim=1), torch.full((12,), float(dense)))
        torch.testing.assert_close(vectors[:, :V].norm(dim=1), torch.full((12,), float(lexical)))


@pytest.mark.parametrize("dense_pooling", ["cls", "mean"])
def test_longer_neighbours_in_a_batch_do_not_change_a_vector(dense_pooling, make_encoder, texts):
    encoder = make_encoder(dense_pooling=dense_pooling)
    for encode in (encoder.encode_query, encoder.encode_document):
        together = encode(texts, batch_size=12).to_dense()
        alone = torch.stack([encode(text).to_dense() for text in texts])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_special_tokens_and_padding_never_reach_the_lexical_half(make_encoder, texts):
    encoder = make_encoder()
    features = encoder.preprocess(["bedi [MASK] bifu xq", texts[1]], task="document")
    states = encoder.eval()[0](features)["token_embeddings"].detach()
    unpooled = torch.isin(features["input_ids"], torch.tensor(encoder.tokenizer.all_special_ids))
    assert unpooled[0].sum() >= 4  # [CLS], [MASK], [SEP], padding
    before = encoder.pooling.halves(features | {"token_embeddings": states}, "document")
    moved = states + 100 * unpooled[:, :, None]
    after = encoder.pooling.halves(features | {"token_embeddings": moved}, "document")
    assert torch.equal(before[1], after[1])
    assert not torch.allclose(before[0], after[0])  # the dense half does look at [CLS]
    moved = states + 100 * ~unpooled[:, :, None]
    assert not torch.allclose(before[1], encoder.pooling.halves(features | {"token_embeddings": moved}, "document")[1])


def test_special_tokens_are_no_terms_of_the_lexical_half(make_encoder, texts):
    encoder = make_encoder()
    encoder.pooling.output.bias.data[encoder.tokenizer.all_special_ids] = 1000.0
    assert not encoder.encode_query(texts).to_dense()[:, encoder.tokenizer.all_special_ids].any()


def test_text_without_a_word_has_a_dense_half_and_no_term(make_encoder):
    encoder = make_encoder()
    scale = float(encoder.pooling.cls_log_scale.exp())
    for task, encode, size in (("query", encoder.encode_query, scale), ("document", encoder.encode_document, 1.0)):
        vector = encode("").to_dense().numpy()
        dense, _ = naive_halves(encoder, "", task)
        assert not vector[:V].any()
        np.testing.assert_allclose(vector[V:], size * dense / np.linalg.norm(dense), atol=1e-5)


def test_query_and_document_are_cut_at_their_own_lengths(make_encoder, words):
    encoder = make_encoder(query_max_length=6, document_max_length=9)
    text = " ".join(words[:30])
    for encode, kept in ((encoder.encode_query, 4), (encoder.encode_document, 7)):
        cut = " ".join(words[:kept])
        torch.testing.assert_close(encode(text).to_dense(), encode(cut).to_dense())
        assert not torch.allclose(encode(text).to_dense(), encode(" ".join(words[: kept - 1])).to_dense())


def test_lengths_beyond_the_encoders_positions_are_cut_to_them(make_encoder, words):
    encoder = make_encoder(query_max_length=500, document_max_length=500)
    for task in ("query", "document"):
        assert encoder.preprocess([" ".join(words)], task=task)["input_ids"].shape == (1, 64)
    whole, cut = (encoder.encode_document(" ".join(some)).to_dense() for some in (words, words[:62]))
    torch.testing.assert_close(whole, cut)
    assert not torch.allclose(whole, encoder.encode_document(" ".join(words[:61])).to_dense())
