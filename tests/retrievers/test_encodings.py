"""Encoded corpora: searched exactly, kept, found again, gone on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from dupmae.corpus import Passage, read_benchmark
from dupmae.errors import DupmaeError
from dupmae.models import Model
from dupmae.retrievers import encodings
from dupmae.retrievers.encodings import encode_corpus, search_encodings
from dupmae.retrievers.lengths import Lengths
from dupmae.retrievers.vectors import DenseVectors, SparseVectors, limit_lengths, split_kind

PLAIN = Lengths()


class Letters:
    """Counts of the letters a, b and c, dense or sparse; remembers what it encoded."""

    def __init__(self, fingerprint: str = "letters", sparse: bool = False) -> None:
        self.fingerprint, self.sparse, self.encoded = fingerprint, sparse, list[str]()
        self.above = 0.0 if sparse else -np.inf

    def embed(self, texts: Sequence[str], task: str) -> np.ndarray | csr_matrix:
        if task == "document":
            self.encoded += texts
        counts = np.array([[text.count(letter) for letter in "abc"] for text in texts], np.float32)
        return csr_matrix(counts) if self.sparse else counts

    def score(self, queries, passages) -> np.ndarray:  # type: ignore[no-untyped-def]
        return (queries @ passages.T).toarray() if self.sparse else queries @ passages.T


def corpus(**texts: str) -> dict[str, Passage]:
    return {name: Passage(name, "", text) for name, text in texts.items()}


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "SLAB", 2)


FIVE = corpus(z="aa", y="ab", x="abc", w="c", v="aa")


@pytest.mark.parametrize("sparse", [False, True])
def test_the_best_passages_come_from_all_slabs_with_ties_by_id(sparse: bool, tmp_path: Path) -> None:
    vectors = Letters(sparse=sparse)
    found = search_encodings(vectors, encode_corpus(vectors, FIVE, tmp_path), {"q": "a", "r": "cc"}, 3)
    assert list(found["q"].items()) == [("v", 2.0), ("z", 2.0), ("x", 1.0)]
    dense = [("w", 2.0), ("x", 2.0), ("v", 0.0)]
    assert list(found["r"].items()) == (dense[:2] if sparse else dense)  # what shares no term is not found


def test_a_corpus_is_encoded_once_and_found_again(tmp_path: Path) -> None:
    first, again = Letters(), Letters()
    before = encode_corpus(first, FIVE, tmp_path)
    after = encode_corpus(again, dict(reversed(FIVE.items())), tmp_path)  # the order does not matter
    assert (len(first.encoded), again.encoded) == (5, [])
    assert (before.ids, before.seconds, before.stored) == (after.ids, after.seconds, after.stored)
    assert search_encodings(first, before, {"q": "ab"}, 5) == search_encodings(again, after, {"q": "ab"}, 5)


def test_another_model_and_another_text_are_encoded_afresh(tmp_path: Path) -> None:
    encode_corpus(Letters(), FIVE, tmp_path)
    other = Letters("other")
    encode_corpus(other, FIVE, tmp_path)
    changed = Letters()
    encode_corpus(changed, FIVE | corpus(v="changed"), tmp_path)
    assert (len(other.encoded), len(changed.encoded)) == (5, 5)


def test_an_interrupted_encoding_goes_on_with_the_missing_slabs(tmp_path: Path) -> None:
    class Dies(Letters):
        def embed(self, texts: Sequence[str], task: str) -> np.ndarray | csr_matrix:
            if len(self.encoded) == 4:
                raise KeyboardInterrupt
            return super().embed(texts, task)

    with pytest.raises(KeyboardInterrupt):
        encode_corpus(Dies(), FIVE, tmp_path)
    rest = Letters()
    encoded = encode_corpus(rest, FIVE, tmp_path)
    assert rest.encoded == ["aa"]
    assert [len(slab) for slab in encoded.slabs] == [2, 2, 1]


def test_a_dense_models_run_is_that_of_its_own_similarity(
    embedder_folder: Path, benchmark_folder: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    benchmark = read_benchmark(benchmark_folder, "test")
    vectors = DenseVectors(Model(str(embedder_folder)), PLAIN)
    run = search_encodings(vectors, encode_corpus(vectors, benchmark.corpus, tmp_path), benchmark.queries, 100)
    model = SentenceTransformer(str(embedder_folder))
    ids = sorted(benchmark.corpus)
    texts = [benchmark.corpus[name].full_text for name in ids]
    expected = model.similarity(model.encode(list(benchmark.queries.values())), model.encode(texts))
    for scores, row in zip(run.values(), expected.tolist(), strict=True):
        assert scores == pytest.approx(dict(zip(ids, row, strict=True)), abs=0.02)  # bfloat16, where that pays


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_a_sparse_models_run_is_that_of_its_own_similarity(
    similarity: str, bert_folder: Path, benchmark_folder: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SparseEncoder

    folder = tmp_path / "sparse"
    SparseEncoder(str(bert_folder), similarity_fn_name=similarity).save_pretrained(str(folder))
    assert split_kind(str(folder)) == ("sparse", Model(str(folder)))
    benchmark = read_benchmark(benchmark_folder, "test")
    vectors = SparseVectors(Model(str(folder)), PLAIN)
    run = search_encodings(vectors, encode_corpus(vectors, benchmark.corpus, tmp_path), benchmark.queries, 100)
    ids = sorted(benchmark.corpus)
    texts = [benchmark.corpus[name].full_text for name in ids]
    model = SparseEncoder(str(folder))
    expected = model.similarity(model.encode_query(list(benchmark.queries.values())), model.encode_document(texts))
    for scores, row in zip(run.values(), expected.to_dense().tolist(), strict=True):
        assert scores == pytest.approx({n: v for n, v in zip(ids, row, strict=True) if v > 0}, rel=0.05)


def test_a_models_kind_is_read_from_its_files_or_its_prefix(
    embedder_folder: Path, bert_folder: Path, duplex_folder: Path, tmp_path: Path
) -> None:
    assert split_kind(str(embedder_folder)) == ("dense", Model(str(embedder_folder)))
    assert split_kind(str(duplex_folder)) == ("duplex", Model(str(duplex_folder)))
    assert split_kind(str(bert_folder))[0] == "dense"
    assert split_kind(f"sparse:{bert_folder}") == ("sparse", Model(str(bert_folder)))
    folder = Path(shutil.copytree(bert_folder, tmp_path / "classifier"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert split_kind(str(folder))[0] == "dense"  # a classifier's encoder may be read as any other
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}', encoding="utf-8")
    with pytest.raises(DupmaeError, match="is a cross-encoder, which cannot search: give it as --reranker"):
        split_kind(str(folder))


def test_a_benchmarks_lengths_are_kept_and_never_exceed_the_models(duplex_folder: Path, embedder_folder: Path) -> None:
    from dupmae import DuplexEncoder

    model = DuplexEncoder(str(duplex_folder))
    assert limit_lengths(model, PLAIN) == [64, 48]
    model[0].query_length = 8
    assert limit_lengths(model, Lengths(document=20)) == [8, 20]
    assert limit_lengths(model, Lengths(512, 512)) == [64, 20]
    vectors = DenseVectors(Model(str(embedder_folder)), Lengths(document=2))
    (one, two) = vectors.embed(["ba be bi bo", "ba da di do"], "document")
    assert one == pytest.approx(two)  # nothing but the special tokens is left of both


@pytest.mark.parametrize("limit", [48, 50])
def test_texts_are_padded_to_few_lengths_unless_that_exceeds_the_models_limit(
    limit: int, embedder_folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    vectors = DenseVectors(Model(str(embedder_folder)), Lengths(document=limit))
    read: list[torch.Size] = []
    forward = vectors.model.forward

    def noted(features: dict[str, torch.Tensor], **options: str) -> dict[str, torch.Tensor]:
        read.append(features["input_ids"].shape)
        return forward(features, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(vectors.model, "forward", noted)
    texts = [" ".join(words[:count]) for count in (60, 11, 13, 5)]
    found = vectors.embed(texts, "document")
    alone = np.concatenate([vectors.embed([text], "document") for text in texts])
    lengths = [{48: 48, 50: 50}[limit], {48: 16, 50: 13}[limit], {48: 16, 50: 15}[limit], {48: 16, 50: 7}[limit]]
    assert read == [(4, lengths[0]), *((1, length) for length in lengths)]
    assert found == pytest.approx(alone, abs=0.02)  # bfloat16, where that pays
