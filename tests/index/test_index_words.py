"""Whole words in an index: their scores beside a slow twin's, their rarity through changes, spaces that differ."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from fake_index import SPACE, WORDY_QUERIES, FakeEncoder, embeddings, random_rows, twin, wordy

from dupmae.corpus import Passage
from dupmae.duplex.words import WORD_DIMENSIONS, WordSpace, rarity
from dupmae.errors import DupmaeError
from dupmae.files import fingerprint
from dupmae.index import Approximate, DuplexIndex, Weights
from dupmae.index.storage import segments as segments_module

ROWS = random_rows(np.random.default_rng(7), 100)
TEXTS = {f"p{number:02}": wordy(number) for number in range(60)}
WEIGHTS = (Weights(), Weights(words=0), Weights(dense=0), Weights(0, 0, 1), Weights(0.5, 2, 0.25))


def built(folder: Path, texts: dict[str, str], segment: int = 25, space: WordSpace | None = SPACE) -> DuplexIndex:
    corpus = [Passage(name, "", text, {"parity": str(int(text.split()[0]) % 2)}) for name, text in texts.items()]
    return DuplexIndex.build(folder, FakeEncoder(*ROWS, space=space), corpus, model="m", segment_passages=segment)


@pytest.fixture
def index(tmp_path: Path) -> DuplexIndex:
    return built(tmp_path / "i", TEXTS)


def found(index: DuplexIndex, k: int = 100, **options: Any) -> tuple[list[list[str]], list[list[float]]]:
    return index.search_embeddings(index.encoder.embed_queries(WORDY_QUERIES), k, **options)


def encoder_of(index: DuplexIndex) -> Any:
    return index.encoder


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_all_parts_and_weights_score_as_a_slow_twin_to_the_bit(index: DuplexIndex, weights: Weights) -> None:
    for k in (3, 100):
        assert found(index, k, weights=weights) == twin(encoder_of(index), TEXTS, WORDY_QUERIES, k, weights)


def test_small_blocks_and_deleted_passages_change_no_bit(
    index: DuplexIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = found(index)
    monkeypatch.setattr(segments_module, "BLOCK_PASSAGES", 7)
    small = built(tmp_path / "small", TEXTS)
    assert found(small) == whole
    gone = [f"p{number:02}" for number in range(0, 60, 7)]
    small.delete(gone)
    left = {name: text for name, text in TEXTS.items() if name not in gone}
    assert found(small) == twin(encoder_of(small), left, WORDY_QUERIES, 100)


def test_a_part_alone_is_what_it_adds_to_the_whole(index: DuplexIndex) -> None:
    whole, *parts = (
        [dict(zip(*row, strict=True)) for row in zip(*found(index, part=part), strict=True)]
        for part in ("all", "dense", "lexical", "words")
    )
    for total, dense, lexical, words in zip(whole, *parts, strict=True):
        assert total == pytest.approx({name: dense[name] + lexical[name] + words[name] for name in total}, rel=1e-12)
    assert found(index, part="words") == found(index, weights=Weights(0, 0, 1))


def test_words_score_as_scipy_multiplies_them(index: DuplexIndex) -> None:
    stored, asked = SPACE.passages(list(TEXTS.values())), SPACE.queries(WORDY_QUERIES)
    having = np.asarray((stored != 0).sum(axis=0)).ravel()
    asked.data = asked.data * rarity(len(TEXTS), having[asked.indices]) * min(1, stored.nnz / len(TEXTS) / 60)
    wanted = (asked @ stored.T).toarray()
    for names, scores, row in zip(*found(index, part="words"), wanted, strict=True):
        np.testing.assert_allclose(scores, [row[list(TEXTS).index(name)] for name in names], rtol=1e-12)
        assert scores == sorted(scores, reverse=True)


def test_changes_leave_the_scores_of_a_fresh_build_to_the_bit(tmp_path: Path, index: DuplexIndex) -> None:
    state = dict(TEXTS)
    for number in range(12):  # the small additions are merged on the way
        more = {f"p{place:02}": wordy(place + 31) for place in (number, number + 55)}
        index.add([Passage(name, "", text, {"parity": "0"}) for name, text in more.items()])
        state |= more
        index.delete([f"p{20 + number:02}"])
        del state[f"p{20 + number:02}"]
    fresh = built(tmp_path / "fresh", state)
    assert found(index) == found(fresh)
    index.compact()
    assert found(index) == found(fresh)
    rows = index.snapshot.segments[0].rows()
    assert rows.words.shape == (len(rows), WORD_DIMENSIONS)
    assert rows.words.has_canonical_format


def test_a_filter_does_not_make_words_rarer(index: DuplexIndex) -> None:
    everywhere = [dict(zip(*row, strict=True)) for row in zip(*found(index), strict=True)]
    for names, scores, wanted in zip(*found(index, where={"parity": "1"}), everywhere, strict=True):
        assert len(names) == 30
        assert scores == [wanted[name] for name in names]


def test_approximate_search_counts_all_words_and_gives_exact_scores(index: DuplexIndex) -> None:
    exact = [dict(zip(*row, strict=True)) for row in zip(*found(index), strict=True)]
    for names, scores, wanted in zip(*found(index, 5, approximate=Approximate(1, 20)), exact, strict=True):
        assert scores == [wanted[name] for name in names]
    assert found(index, 5, approximate=Approximate(1, 5), weights=Weights(0, 0, 1)) == found(
        index, 5, weights=Weights(0, 0, 1)
    )


def test_probes_find_by_words_what_no_term_and_no_cluster_leads_to(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="the extra clusters is not installed")
    cls, sparse = ROWS[0].copy(), np.zeros_like(ROWS[1])
    encoder = FakeEncoder(cls, sparse, space=SPACE)
    corpus = [Passage(name, "", text) for name, text in TEXTS.items()]
    index = DuplexIndex.build(tmp_path / "i", encoder, corpus, model="m")
    index.cluster()
    asked = [f"{number} storm gull" for number in range(6)]
    queries = encoder.embed_queries(asked)
    options = {"weights": Weights(0, 1, 1)}
    approximate = index.search_embeddings(queries, 5, approximate=Approximate(1, 5, 1), **options)
    assert approximate == index.search_embeddings(queries, 5, **options)


def test_a_passage_without_words_a_query_without_words_and_unknown_words_add_nothing(tmp_path: Path) -> None:
    texts = {"none": "10 the and", "some": "11 lamp", "more": "12 lamp sea"}
    space = WordSpace(language="english", average_length=1)
    corpus = [Passage(name, "", text) for name, text in texts.items()]
    encoder = FakeEncoder(*ROWS, space=space)
    encoder.embed_documents = (
        lambda texts, **_: embeddings(  # type: ignore[method-assign]
            ROWS[0][:3], ROWS[1][:3], space.passages([text.split(" ", 1)[1] for text in texts])
        )
    )
    index = DuplexIndex.build(tmp_path / "i", encoder, corpus, model="m")

    def by_words(text: str) -> dict[str, float]:
        asked = embeddings(ROWS[0][:1], ROWS[1][:1], space.queries([text]))
        ids, scores = index.search_embeddings(asked, 9, "words")
        return dict(zip(ids[0], scores[0], strict=True))

    assert by_words("the and") == by_words("unheard") == by_words("") == {"more": 0.0, "none": 0.0, "some": 0.0}
    lamp = by_words("lamp unheard")
    assert lamp["none"] == 0
    assert lamp["some"] > lamp["more"] > 0
    index.delete(["some", "more"])
    assert by_words("lamp") == {"none": 0.0}  # a word of deleted passages alone is unknown again


def test_an_index_of_passages_without_any_word_has_words(tmp_path: Path) -> None:
    nothing = sp.csr_array((3, WORD_DIMENSIONS), dtype=np.float32)
    encoder = FakeEncoder(*ROWS, space=SPACE)
    encoder.embed_documents = (
        lambda texts, **_: embeddings(  # type: ignore[method-assign]
            ROWS[0][:3], ROWS[1][:3], nothing
        )
    )
    index = DuplexIndex.build(tmp_path / "i", encoder, [Passage(str(n), "", "x") for n in range(3)], model="m")
    assert index.info()["word_bytes_per_passage"] == round((4 * 2 + 4) / 3)
    assert found(index, part="words")[1] == [[0.0] * 3] * len(WORDY_QUERIES)
    index.verify()
    index.compact()


def test_a_hit_and_an_explanation_name_the_words_of_the_query(tmp_path: Path) -> None:
    texts = {"a": "1 Lamps, and lamps by the sea", "b": "2 a boat"}
    index = built(tmp_path / "i", texts)
    first = index.search(["1 which LAMP in the harbour or Sea"], 5)[0][0]
    assert first.id == "a"
    assert [word for word, _ in first.words] == ["lamp", "1", "sea"]
    assert first.word_score == pytest.approx(sum(added for _, added in first.words))
    assert first.score == pytest.approx(first.dense_score + first.lexical_score + first.word_score)
    (again,) = index.explain("1 which LAMP in the harbour or Sea", ["a"], Weights(words=2))
    assert again.word_score == pytest.approx(2 * first.word_score)
    assert again.dense_score == first.dense_score


def test_info_tells_the_language_and_the_bytes_of_each_part(index: DuplexIndex) -> None:
    info = index.info()
    stored = SPACE.passages(list(TEXTS.values()))
    assert info["words"] == "english"
    assert 3 * stored.nnz < 60 * info["word_bytes_per_passage"] + 30 < 3 * stored.nnz + 60 * 30
    parts = sum(info[f"{part}_bytes_per_passage"] for part in ("dense", "lexical", "word"))
    assert parts <= info["vector_bytes_per_passage"] + 1


def test_an_index_of_the_former_format_opens_without_words_and_grows_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = built(tmp_path / "i", TEXTS, space=None)
    former = found(index, part="dense"), found(index, part="lexical"), found(index)
    path = index.folder / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for key in ("format", "format_version", "check", "words", "chunks"):
        del values[key]
    head = {"format": "dupmae-index", "format_version": 3, "check": fingerprint(values)}
    path.write_text(json.dumps(head | values), encoding="utf-8")
    opened = DuplexIndex.open(index.folder)
    with caplog.at_level(logging.WARNING):
        opened.encoder = FakeEncoder(*ROWS, space=SPACE)
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        f"The index {index.folder} is without words"
    ]
    assert (found(opened, part="dense"), found(opened, part="lexical"), found(opened)) == former
    opened.add([Passage("new", "", wordy(70), {"parity": "0"})])
    assert opened.info()["words"] == "none"
    assert json.loads(path.read_text(encoding="utf-8"))["format_version"] == 5
    assert len(caplog.records) == 1
    assert opened.search(["3 lamp"])[0][0].words == []
    with pytest.raises(DupmaeError, match="has no words to rank by"):
        found(opened, part="words")


@pytest.mark.parametrize(
    ("space", "described"),
    [
        (None, "the model reads none"),
        (replace(SPACE, language="unstemmed"), r"the model reads unstemmed \(k1 0.9, b 0.4, average length 5\)"),
        (replace(SPACE, average_length=6.0), "average length 6"),
    ],
)
def test_a_model_that_reads_words_otherwise_is_refused(index: DuplexIndex, space: Any, described: str) -> None:
    other = FakeEncoder(*ROWS, space=space)
    with pytest.raises(DupmaeError, match=described) as caught:
        index.encoder = other
    assert len(str(caught.value)) <= 500
    with pytest.raises(DupmaeError, match=described):
        DuplexIndex.build(index.folder, other, [Passage("p00", "", TEXTS["p00"])], model="m")


def test_queries_without_words_are_refused_unless_words_do_not_count(index: DuplexIndex) -> None:
    bare = replace(index.encoder.embed_queries(WORDY_QUERIES), words=None)
    with pytest.raises(DupmaeError, match="have no words and the index has"):
        index.search_embeddings(bare, 5)
    with_words = index.encoder.embed_queries(WORDY_QUERIES)
    for options in ({"part": "dense"}, {"part": "lexical"}, {"weights": Weights(words=0)}):
        assert index.search_embeddings(bare, 5, **options) == index.search_embeddings(with_words, 5, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_queries_whose_words_are_no_numbers_are_refused(index: DuplexIndex, value: float) -> None:
    asked = index.encoder.embed_queries(WORDY_QUERIES)
    asked.words.data[3] = value
    with pytest.raises(DupmaeError, match="not finite or too large"):
        index.search_embeddings(asked, 5)


@pytest.mark.parametrize("value", [np.nan, 0.0, 1.0, 0.3, -0.5])
def test_passages_whose_words_are_no_steps_are_refused(tmp_path: Path, value: float) -> None:
    encoder = FakeEncoder(*ROWS, space=SPACE)
    embed = encoder.embed_documents

    def embed_documents(texts: list[str], **options: Any) -> Any:
        found = embed(texts, **options)
        found.words.data[-1] = value
        return found

    encoder.embed_documents = embed_documents  # type: ignore[method-assign, assignment]
    with pytest.raises(DupmaeError, match=r"The embedding of passage 'p\d\d' holds numbers"):
        DuplexIndex.build(tmp_path / "i", encoder, [Passage("p05", "", wordy(5))], model="m")


def test_a_model_that_forgets_its_words_is_refused(tmp_path: Path) -> None:
    encoder = FakeEncoder(*ROWS, space=SPACE)
    encoder.embed_documents = lambda texts, **_: embeddings(ROWS[0][:1], ROWS[1][:1])  # type: ignore[method-assign]
    with pytest.raises(DupmaeError, match="'p05' has no words"):
        DuplexIndex.build(tmp_path / "i", encoder, [Passage("p05", "", wordy(5))], model="m")


def test_a_build_goes_on_with_the_words_that_were_spooled(tmp_path: Path, index: DuplexIndex) -> None:
    corpus = [Passage(name, "", text, {"parity": "0"}) for name, text in TEXTS.items()]
    killed = FakeEncoder(*ROWS, fail_after=30, space=SPACE)
    with pytest.raises(KeyboardInterrupt):
        DuplexIndex.build(tmp_path / "k", killed, corpus, model="m", batch_size=2, segment_passages=60)
    again = FakeEncoder(*ROWS, space=SPACE)
    finished = DuplexIndex.build(tmp_path / "k", again, corpus, model="m", batch_size=2, segment_passages=60)
    assert 0 < len(again.embedded) < len(corpus)
    assert found(finished) == found(index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dense": -1}, "dense must be at least 0 and at most 1000, not -1"),
        ({"words": float("nan")}, "words must be at least 0 and at most 1000, not nan"),
        ({"lexical": float("inf")}, "lexical must be at least 0 and at most 1000, not inf"),
        ({"dense": 0, "lexical": 0, "words": 0}, "weights of all parts of the score are 0"),
    ],
)
def test_weights_that_are_none_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(DupmaeError, match=message):
        Weights(**options)


def test_the_index_and_the_products_of_encoded_vectors_agree(
    bert_folder: Path, texts: list[str], tmp_path: Path
) -> None:
    from dupmae import DuplexEncoder
    from dupmae.config import DuplexConfig
    from dupmae.duplex.words import Words

    encoder = DuplexEncoder.from_encoder(
        str(bert_folder), DuplexConfig(dense_dimension=16, top_k=10, word_scale=0.4)
    ).to("cpu")
    assert encoder.words is not None
    encoder.words = Words.counted(texts, encoder.words.space)  # as the index will count them
    encoder.precision = "float32"
    encoder.save(str(tmp_path / "model"))
    corpus = [Passage(f"p{number:02}", "", text) for number, text in enumerate(texts)]
    index = DuplexIndex.build(tmp_path / "i", encoder, corpus)
    queries = [" ".join(texts[1].split()[:5]), "unheard " + texts[3], "unheard"]
    asked, stored = encoder.encode_query(queries), encoder.encode_document(texts)
    products = encoder.similarity(asked, stored).to_dense().numpy()
    behind = encoder.pooling.get_embedding_dimension()
    words = (as_scipy(asked)[:, behind:] @ as_scipy(stored)[:, behind:].T).toarray()
    assert words[:2].any()
    for query, row, by_words in zip(queries, products, words, strict=True):
        hits = index.search([query], len(texts))[0]
        assert len(hits) == len(texts)
        for hit in hits:
            number = int(hit.id[1:])
            assert hit.score == pytest.approx(row[number], rel=2e-3, abs=2e-3)  # 16 bits a number of the halves
            assert hit.word_score == pytest.approx(by_words[number], rel=1e-6, abs=1e-9)
            assert {word for word, _ in hit.words} <= set(query.split())


def as_scipy(tensor: Any) -> Any:
    """A sparse tensor of PyTorch as scipy's."""
    found = tensor.coalesce()
    return sp.csr_array((found.values().numpy(), found.indices().numpy()), shape=tuple(found.shape))
