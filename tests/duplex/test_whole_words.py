"""Whole words as terms: against BM25 one word at a time, in models that are saved, opened, damaged and trained."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import Stemmer
import torch
from sentence_transformers import SparseEncoder

from dupmae.config import DuplexConfig, WordLanguage
from dupmae.corpus import Benchmark, Passage
from dupmae.corpus.words import terms_of
from dupmae.duplex import DuplexEmbeddings, DuplexEncoder
from dupmae.duplex.embeddings import FILE as EMBEDDINGS_FILE
from dupmae.duplex.starting import add_words, begin_duplex
from dupmae.duplex.words import FILE, WORD_DIMENSIONS, Words, WordSpace, brevity, dimension_of, inner_products, rarity
from dupmae.errors import DupmaeError
from dupmae.finetuning.examples import Examples
from dupmae.finetuning.word_scores import WordScores
from dupmae.models import Model, open_model, write_checksums

SPACE = WordSpace(k1=1.2, b=0.75, average_length=4)
PASSAGES = ["Lamps, lamps and a LIGHTHOUSE", "", "the", "bread is baked; breads bake", "灯塔的光"]
QUERIES = ["which lamp bakes bread?", "of the", "灯塔", "lamp lamps"]


def naive_score(query: str, passage: str, space: WordSpace, having: dict[str, int], passages: int) -> float:
    """BM25 of a query's words, one at a time, each of the query's words once and sharing their weight."""
    (asked,), (there,) = terms_of([query], space.language), terms_of([passage], space.language)
    frequencies, total = Counter(there), 0.0
    for word in set(asked):
        if not frequencies[word]:
            continue
        found = frequencies[word]
        saturated = found / (found + space.k1 * (1 - space.b + space.b * len(there) / space.average_length))
        with_word = having.get(word, 1)
        rare = math.log(1 + (passages - with_word + 0.5) / (with_word + 0.5))
        total += round(256 * saturated) / 256 * rare
    return (
        math.sqrt(8 / max(len(set(asked)), 1)) * total * (2.2 / 40) ** 2
    )  # so few different words have the passages above


def counted() -> Words:
    return Words.counted(PASSAGES, SPACE)


def test_words_are_counted_with_their_passages_and_the_length_of_these() -> None:
    words = counted()
    assert words.passages == 5
    assert words.words_per_passage == 2.2
    assert words.space == WordSpace(k1=1.2, b=0.75, average_length=2.8)  # 3 + 0 + 0 + 4 + 7 words of five passages
    assert words.frequencies["lamp"] == words.frequencies["bread"] == words.frequencies["灯塔"] == 1
    assert "the" not in words.frequencies
    assert Words.counted([], SPACE).space.average_length == 1


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("passage", PASSAGES)
def test_the_inner_product_is_bm25_one_word_at_a_time(query: str, passage: str) -> None:
    words = counted()
    found = inner_products(words.rare(words.space.queries([query])), words.space.passages([passage]))
    assert found.shape == (1, 1)
    assert found[0, 0] == pytest.approx(naive_score(query, passage, words.space, dict(words.frequencies), 5), rel=1e-6)


def test_inner_products_of_many_are_those_of_whole_vectors() -> None:
    words = counted()
    queries, passages = words.rare(words.space.queries(QUERIES)), words.space.passages(PASSAGES)
    whole = (queries @ passages.T).toarray()
    assert whole.any()
    np.testing.assert_allclose(inner_products(queries, passages), whole, rtol=1e-6)
    assert inner_products(queries[:0], passages).shape == (0, 5)
    assert inner_products(queries, passages[:0]).shape == (4, 0)


def test_saturated_frequencies_are_multiples_of_a_256th_between_0_and_1() -> None:
    passages = WordSpace(average_length=1).passages(["a " + "lamp " * 5000, "lamp " + "bread " * 5000, "x"])
    assert (passages.data * 256 == np.rint(passages.data * 256)).all()
    assert passages.data.min() >= 1 / 256
    assert passages.data.max() <= 255 / 256


def test_ninety_words_weigh_as_much_as_eight_do_times_the_root_of_their_ratio() -> None:
    eight, many = (WordSpace().queries([" ".join(f"w{place}" for place in range(count))]) for count in (8, 72))
    assert set(eight.data.tolist()) == {1.0}
    assert many.data.tolist() == pytest.approx([1 / 3] * 72)


def test_rarity_falls_with_the_passages_that_have_a_word_and_is_nothing_where_none_has_it() -> None:
    found = rarity(10, np.array([0, 1, 5, 10]))
    assert found[0] == 0
    assert found[1:].tolist() == pytest.approx([math.log(1 + 9.5 / 1.5), math.log(2), math.log(1 + 0.5 / 10.5)])


def test_words_count_less_among_passages_of_few_different_ones() -> None:
    assert [brevity(count) for count in (0, 20, 40, 600)] == [0, 0.25, 1, 1]
    words = Words.counted([" ".join(f"w{place}" for place in range(count)) for count in (10, 30)], SPACE)
    asked = SPACE.queries(["w1 w20"])
    assert words.words_per_passage == 20
    assert words.rare(asked).data.tolist() == pytest.approx((asked.data * words.rarity(asked.indices) / 4).tolist())


def test_a_word_that_was_not_counted_is_as_rare_as_one_that_one_passage_has() -> None:
    words = counted()
    here, nowhere = words.rarity(np.array([dimension_of("lamp"), dimension_of("nowhere")]))
    assert here == nowhere > 0
    assert Words(space=SPACE).rarity(np.array([3])).tolist() == pytest.approx([math.log(1 + 0.5 / 1.5)])


def test_languages_are_those_of_the_stemmer() -> None:
    ours = set(get_args(WordLanguage)) - {"none", "unstemmed"}
    assert ours <= set(Stemmer.algorithms())
    assert terms_of(["Häuser des Hauses"], "german") == [["haus", "des", "haus"]]
    assert terms_of(["Lamps of the houses"], "unstemmed") == [["lamps", "of", "the", "houses"]]
    assert terms_of(["Lamps of the houses"]) == [["lamp", "hous"]]


def test_dimensions_do_not_change_between_versions() -> None:
    assert [dimension_of(word) for word in ("lamp", "灯塔")] == [88653, 3636287]
    assert WORD_DIMENSIONS == 4194304


@pytest.fixture
def encoder(bert_folder: Path) -> DuplexEncoder:
    """A model with words, counted."""
    torch.manual_seed(3)
    made = DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(dense_dimension=16, top_k=10, word_scale=0.3))
    made.words = counted()
    return made.to("cpu").eval()


def plain(encoder: DuplexEncoder, texts: list[str], task: str) -> torch.Tensor:
    """What sentence-transformers makes of the other parts."""
    words, encoder.words = encoder.words, None
    found = encoder.encode(texts, task=task)
    encoder.words = words
    return found


def test_encoded_vectors_hold_the_words_behind_the_other_parts(encoder: DuplexEncoder) -> None:
    queries, passages = encoder.encode_query(QUERIES), encoder.encode_document(PASSAGES)
    assert queries.shape[1] == encoder.get_embedding_dimension() == encoder.pooling.vocabulary_size + 16 + 2**22
    others = encoder.similarity(plain(encoder, QUERIES, "query"), plain(encoder, PASSAGES, "document"))
    assert encoder.words is not None
    words = [
        [0.3 * naive_score(query, text, encoder.words.space, dict(encoder.words.frequencies), 5) for text in PASSAGES]
        for query in QUERIES
    ]
    torch.testing.assert_close(
        encoder.similarity(queries, passages), others + torch.tensor(words), rtol=1e-5, atol=1e-5
    )
    one = encoder.encode_query(QUERIES[0])
    torch.testing.assert_close(
        one.to_sparse().to_dense() if not one.is_sparse else one.to_dense(), queries[0].to_dense()
    )
    listed = encoder.encode_document(PASSAGES, convert_to_tensor=False)
    assert isinstance(listed, list)
    torch.testing.assert_close(listed[0].to_dense(), passages[0].to_dense())
    assert encoder.encode_document([]).shape[0] == 0


def test_dimensions_have_names(encoder: DuplexEncoder) -> None:
    found = encoder.encode_query(QUERIES[:1]).coalesce().indices()[1].tolist()
    names = encoder.name_dimensions(found, QUERIES[:1])
    assert names[-4:] == sorted(names[-4:], key=names[-4:].index)
    assert set(names[-4:]) == {'"which"', '"lamp"', '"bakes"', '"bread"'}
    vocabulary = encoder.pooling.vocabulary_size
    assert encoder.name_dimensions([5, vocabulary + 2, vocabulary + 16 + 7]) == [
        encoder.tokenizer.convert_ids_to_tokens(5),
        "dense 2",
        "word 7",
    ]


@pytest.mark.parametrize("asked", [{"convert_to_sparse_tensor": False}, {"max_active_dims": 8}])
def test_dense_and_cut_vectors_of_a_model_with_words_are_refused(encoder: DuplexEncoder, asked: dict[str, Any]) -> None:
    with pytest.raises(DupmaeError, match="whole sparse tensors: leave"):
        encoder.encode_query(QUERIES, **asked)


def test_embeddings_hold_passages_words_and_queries_shares(encoder: DuplexEncoder) -> None:
    queries, passages = encoder.embed_queries(QUERIES), encoder.embed_documents(PASSAGES)
    assert encoder.words is not None
    assert queries.words is not None
    assert passages.words is not None
    assert (passages.words != encoder.words.space.passages(PASSAGES)).nnz == 0
    assert queries.words[0].data.tolist() == pytest.approx([0.3 * math.sqrt(2)] * 4)
    some = passages[np.array([3, 0])].words
    assert some is not None
    assert (some != passages.words[[3, 0]]).nnz == 0


def test_embeddings_come_back_from_disk_and_damaged_words_do_not(encoder: DuplexEncoder, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    passages = encoder.embed_documents(PASSAGES)
    passages.save(tmp_path / "embeddings")
    found = DuplexEmbeddings.load(tmp_path / "embeddings")
    assert passages.words is not None
    assert found.words is not None
    assert (found.words != passages.words).nnz == 0
    file = tmp_path / "embeddings" / EMBEDDINGS_FILE
    arrays = load_file(file)
    for name, value in (
        ("word_ids", arrays["word_ids"] + np.uint32(WORD_DIMENSIONS)),
        ("word_starts", arrays["word_starts"][:-1]),
        ("word_starts", arrays["word_starts"] + 1),
        ("word_weights", arrays["word_weights"][:-1]),
        ("word_weights", arrays["word_weights"].astype(np.float64)),
    ):
        save_file(arrays | {name: value}, file)
        with pytest.raises(DupmaeError, match="does not hold duplex embeddings"):
            DuplexEmbeddings.load(tmp_path / "embeddings")
    with pytest.raises(ValueError, match="do not fit"):
        DuplexEmbeddings(passages.cls, passages.ids, passages.weights, passages.words[:2])


def test_a_saved_model_reads_words_as_before(encoder: DuplexEncoder, tmp_path: Path) -> None:
    encoder.save(str(tmp_path / "model"))
    opened = DuplexEncoder(str(tmp_path / "model"))
    assert opened.words == encoder.words
    assert opened.pooling.word_scale == pytest.approx(0.3)
    before = open_model(str(tmp_path / "model")).fingerprint
    encoder.words = Words.counted(PASSAGES[:2], SPACE)
    encoder.save(str(tmp_path / "other"))
    assert open_model(str(tmp_path / "other")).fingerprint != before


def test_plain_sentence_transformers_says_that_it_leaves_words_out(
    encoder: DuplexEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder.save(str(tmp_path / "model"))
    with caplog.at_level(logging.WARNING):
        other = SparseEncoder(str(tmp_path / "model"), trust_remote_code=True)
    assert "third part of this model's score, whole words, is left out" in caplog.text
    assert other.encode_query(QUERIES).shape[1] == encoder.pooling.get_embedding_dimension()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        DuplexEncoder(str(tmp_path / "model"))
    assert "left out" not in caplog.text
    assert "words" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("space"),
        lambda values: values.pop("frequencies"),
        lambda values: values["space"].update(language="klingon"),
        lambda values: values["space"].update(language="none"),
        lambda values: values["space"].update(k1=-1.0),
        lambda values: values["space"].update(b=1.5),
        lambda values: values["space"].update(average_length=0),
        lambda values: values["space"].update(k1=float("nan")),
        lambda values: values["space"].update(k1=True),
        lambda values: values["space"].update(more=1),
        lambda values: values.update(passages="five"),
        lambda values: values.update(words_per_passage=-1),
        lambda values: values.pop("words_per_passage"),
        lambda values: values.update(passages=-1),
        lambda values: values.update(frequencies=[1]),
        lambda values: values["frequencies"].update(lamp=6),
        lambda values: values["frequencies"].update(lamp=1.5),
        None,
    ],
)
def test_damaged_words_of_a_model_are_refused_in_one_sentence(
    encoder: DuplexEncoder, tmp_path: Path, change: Any
) -> None:
    folder = tmp_path / "model"
    encoder.save(str(folder))
    values = json.loads((folder / FILE).read_text(encoding="utf-8"))
    if change is None:
        (folder / FILE).unlink()
    else:
        change(values)
        (folder / FILE).write_text(json.dumps(values), encoding="utf-8")
    write_checksums(folder)
    with pytest.raises(DupmaeError, match=r"words\.json, which says how the model reads words, is missing or damaged"):
        DuplexEncoder(str(folder))


def test_words_are_added_to_a_model_that_had_none(bert_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    encoder = DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(dense_dimension=16, top_k=10, words="none"))
    assert encoder.words is None
    assert "word_log_scale" not in dict(encoder.pooling.named_parameters())
    add_words(encoder, DuplexConfig(words="german", word_scale=0.7, word_k1=1.1, word_b=0.2), ["Häuser", "ein Haus"])
    encoder.save(str(tmp_path / "model"))
    opened = DuplexEncoder(str(tmp_path / "model"))
    assert opened.words is not None
    assert opened.words.space == WordSpace(language="german", k1=1.1, b=0.2, average_length=1.5)
    assert dict(opened.words.frequencies) == {"haus": 2, "ein": 1}
    assert opened.pooling.word_scale == pytest.approx(0.7)
    with pytest.raises(DupmaeError, match="words is none"):
        add_words(encoder, DuplexConfig(words="none"), [])


def test_a_model_that_goes_on_counts_the_words_of_its_new_corpus(
    encoder: DuplexEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder.save(str(tmp_path / "model"))
    corpus = {name: Passage(name, "", f"{name} lamp") for name in ("one", "two")}
    with caplog.at_level(logging.WARNING):
        begun = begin_duplex(Model(str(tmp_path / "model")), None, DuplexConfig(words="german"), corpus, seed=0)
    assert begun.words == Words.counted([passage.full_text for passage in corpus.values()], SPACE)
    assert "words stays english, not german" in caplog.text


def test_training_scores_words_as_the_model_does() -> None:
    words = counted()
    corpus = {f"p{place}": Passage(f"p{place}", "", text) for place, text in enumerate(PASSAGES)}
    queries = {f"q{place}": text for place, text in enumerate(QUERIES)}
    train = Benchmark("toy", "train", corpus, queries, {})
    examples = Examples(train, sorted(queries), sorted(corpus), np.zeros((0, 2), np.int64), {})
    found = WordScores(words, examples)(np.array([2, 0, 0]), np.array([4, 4, 0, 3]))
    assert found.shape == (3, 4)
    for row, query in enumerate((2, 0, 0)):
        for column, passage in enumerate((4, 4, 0, 3)):
            expected = naive_score(QUERIES[query], PASSAGES[passage], words.space, dict(words.frequencies), 5)
            assert found[row, column] == pytest.approx(expected, rel=1e-6)
