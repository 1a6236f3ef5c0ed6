"""The compact form of many encoded texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from naive_duplex import V

from dupmae.duplex import DuplexEmbeddings, screening
from dupmae.duplex.embeddings import FILE
from dupmae.duplex.inference import _sizes
from dupmae.errors import DupmaeError
from dupmae.kernels.shapes import padded_length


def dense(embeddings: DuplexEmbeddings) -> np.ndarray:
    """The vectors over V + d' dimensions, (N, V + d')."""
    vectors = np.zeros((len(embeddings), V), np.float32)
    np.add.at(vectors, (np.arange(len(embeddings))[:, None], embeddings.ids), embeddings.weights)
    return np.concatenate([vectors, embeddings.cls], axis=1)


@pytest.fixture
def embeddings() -> DuplexEmbeddings:
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(V)[:5] for _ in range(7)])
    return DuplexEmbeddings(
        rng.standard_normal((7, 4), np.float32), ids.astype(np.uint16), rng.random((7, 5), np.float32)
    )


def same(one: DuplexEmbeddings, other: DuplexEmbeddings) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("cls", "ids", "weights")
    )


# Embedding


@pytest.mark.parametrize("activation", ["log1p_relu", "none"])
@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_embedded_texts_are_the_encoded_ones_in_their_order(activation, batch_size, make_encoder, texts):
    encoder = make_encoder(lexical_activation=activation)
    texts = [*texts, ""]
    for embed, encode in (
        (encoder.embed_queries, encoder.encode_query),
        (encoder.embed_documents, encoder.encode_document),
    ):
        expected = np.stack([encode(text).to_dense().numpy() for text in texts])
        np.testing.assert_allclose(dense(embed(texts, batch_size=batch_size)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("document_norm", ["unit", "own"])
@pytest.mark.parametrize("activation", ["log1p_relu", "none"])
def test_terms_that_bytes_rule_out_are_none_of_a_document_s(
    activation, document_norm, make_encoder, texts, monkeypatch
):
    encoder = make_encoder(lexical_activation=activation, document_norm=document_norm)
    texts = [*texts, "", "baba"]
    expected = dense(encoder.embed_documents(texts))
    seen = []
    monkeypatch.setattr("dupmae.duplex.inference.SCREENED_TEXTS", len(texts))
    monkeypatch.setattr("dupmae.duplex.screening.MARGIN", 20)
    monkeypatch.setattr("dupmae.duplex.screening.screening_pays", lambda _: True)
    original = screening.max_pool_of_terms
    monkeypatch.setattr(screening, "max_pool_of_terms", lambda *a: seen.append(a[-1].shape[1]) or original(*a))
    np.testing.assert_allclose(dense(encoder.embed_documents(texts)), expected, atol=1e-5, rtol=1e-4)
    assert set(seen) == {30}
    seen.clear()
    encoder.embed_documents(texts[:-1])
    encoder.embed_queries(texts)
    monkeypatch.setattr("dupmae.duplex.screening.MARGIN", 100)  # the vocabulary has 176 terms
    encoder.embed_documents(texts)
    assert not seen


def test_embedding_in_bfloat16_gives_the_same_up_to_rounding(make_encoder, texts, monkeypatch):
    encoder = make_encoder(query_terms="logits", document_norm="unit")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    exact = encoder.embed_documents(texts), encoder.embed_queries(texts)
    monkeypatch.setattr("dupmae.duplex.inference.bfloat16_pays", lambda _: True)
    rounded = encoder.embed_documents(texts), encoder.embed_queries(texts)
    for one, other, least in zip(exact, rounded, (0.95, 0.999), strict=True):  # a document's last entry may be another
        a, b = dense(one), dense(other)
        assert not np.array_equal(a, b)
        cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosines.min() > least
        assert np.median(cosines) > 0.999
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_slabs_and_padding_on_either_side_do_not_show(make_encoder, texts, monkeypatch):
    encoder = make_encoder()
    together = dense(encoder.embed_documents(texts))
    monkeypatch.setattr("dupmae.duplex.inference.SLAB_BATCHES", 2)
    np.testing.assert_allclose(dense(encoder.embed_documents(texts, batch_size=2)), together, atol=1e-5, rtol=1e-4)
    shapes = []
    encoder[0].register_forward_pre_hook(lambda _, arguments: shapes.append(arguments[0]["input_ids"].shape))
    encoder.embed_documents(texts, batch_size=4)
    assert [shape[0] for shape in shapes] == [4, 4, 4]
    sizes = sorted((len(text.split()) + 2 for text in texts), reverse=True)
    # rounded up, but no wider than the slab
    assert [shape[1] for shape in shapes] == [
        padded_length(sizes[row], sizes[slab]) for row, slab in ((0, 0), (4, 0), (8, 8))
    ]


def test_a_processors_batches_hold_few_tokens_and_one_text_at_least(make_encoder, texts, monkeypatch):
    encoder = make_encoder()
    together = dense(encoder.embed_documents(texts))
    shapes = []
    encoder[0].register_forward_pre_hook(lambda _, arguments: shapes.append(arguments[0]["input_ids"].shape))
    monkeypatch.setattr("dupmae.duplex.inference.CACHED_TOKENS", 40)
    np.testing.assert_allclose(dense(encoder.embed_documents(texts)), together, atol=1e-5, rtol=1e-4)
    assert sum(rows for rows, _ in shapes) == len(texts)
    assert all(rows == 1 or rows * length <= 40 for rows, length in shapes)
    assert {rows for rows, _ in shapes} == {1, 2}
    assert _sizes([48, 32, 16], 32, torch.device("cuda")) == [3]


def test_document_rows_are_k_wide_and_heaviest_first(make_encoder, texts):
    embeddings = make_encoder().embed_documents(texts)
    assert embeddings.cls.shape == (12, 16)
    assert embeddings.ids.shape == embeddings.weights.shape == (12, 10)
    assert (np.diff(embeddings.weights, axis=1) <= 0).all()
    assert (embeddings.cls.dtype, embeddings.ids.dtype, embeddings.weights.dtype) == ("f4", "u2", "f4")


@pytest.mark.parametrize(("settings", "shapes"), [({"top_k": 0}, (16, 0)), ({"dense_dimension": 0}, (0, 10))])
def test_half_that_is_left_out_has_no_columns(settings, shapes, make_encoder, texts):
    embeddings = make_encoder(**settings).embed_documents(texts)
    assert (embeddings.cls.shape[1], embeddings.ids.shape[1]) == shapes


def test_no_texts_give_no_rows(make_encoder):
    encoder = make_encoder()
    for embeddings in (encoder.embed_queries([]), encoder.embed_documents([])):
        assert len(embeddings) == 0
        assert embeddings.cls.shape == (0, 16)
        assert embeddings.ids.dtype == np.uint16


def test_one_string_instead_of_a_list_is_refused(make_encoder):
    encoder = make_encoder()
    for embed in (encoder.embed_queries, encoder.embed_documents):
        with pytest.raises(DupmaeError, match=r"texts is the string 'dogs', not a list of strings"):
            embed("dogs")


def test_empty_text_has_no_weights(make_encoder):
    embeddings = make_encoder().embed_documents(["", "baba bedi"])
    assert not embeddings.weights[0].any()
    assert embeddings.weights[1].all()
    assert np.linalg.norm(embeddings.cls[0]) == pytest.approx(1, abs=1e-5)


# The container


def test_saved_embeddings_are_the_same_when_loaded(embeddings, tmp_path):
    embeddings[::-2].save(tmp_path / "e")  # not contiguous in memory
    assert same(DuplexEmbeddings.load(tmp_path / "e"), embeddings[::-2])
    assert same(DuplexEmbeddings.load(str(tmp_path / "e")), embeddings[::-2])


def test_rows_are_chosen_by_slices_and_arrays(embeddings):
    assert len(embeddings[2:5]) == 3
    assert same(embeddings[2:5], embeddings[np.array([2, 3, 4])])
    np.testing.assert_array_equal(embeddings[np.array([6, 0])].ids, embeddings.ids[[6, 0]])


def test_arrays_that_do_not_fit_together_are_refused(embeddings):
    with pytest.raises(ValueError, match="do not fit together"):
        DuplexEmbeddings(embeddings.cls[:3], embeddings.ids, embeddings.weights)
    with pytest.raises(ValueError, match="do not fit together"):
        DuplexEmbeddings(embeddings.cls, embeddings.ids[:, :2], embeddings.weights)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def scramble(file: Path) -> None:
    file.write_bytes(b"\0" * 100)


def take_weights(file: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({name: array for name, array in load_file(file).items() if name != "weights"}, file)


@pytest.mark.parametrize("damage", [truncate, scramble, take_weights, Path.unlink])
def test_damaged_embeddings_are_refused(damage, embeddings, tmp_path):
    embeddings.save(tmp_path / "e")
    damage(tmp_path / "e" / FILE)
    with pytest.raises(DupmaeError, match="does not hold duplex embeddings"):
        DuplexEmbeddings.load(tmp_path / "e")


def test_saving_over_something_else_is_refused_and_over_older_embeddings_not(embeddings, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(DupmaeError, match="holds something else"):
        embeddings.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    embeddings.save(tmp_path / "e")
    embeddings[:2].save(tmp_path / "e")
    assert len(DuplexEmbeddings.load(tmp_path / "e")) == 2
