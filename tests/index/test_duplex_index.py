"""Index: ranking against an obvious twin, hits, building, resuming, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import D, FakeEncoder, V, build, embeddings, passages, random_rows, twin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 40),
    segment=st.integers(1, 17),
    k=st.integers(1, 45),
    part=st.sampled_from(["both", "dense", "lexical"]),
    queries=st.integers(1, 70),
)
def test_ranking_and_scores_equal_a_dense_product_over_vocabulary_and_dense_dimensions(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, segment: int, k: int, part: Any, queries: int
) -> None:
    rng = np.random.default_rng(seed)
    cls, sparse = random_rows(rng, count)
    query_cls, query_sparse = random_rows(rng, queries, entries=20)
    corpus = passages(count)
    folder = tmp_path_factory.mktemp("index") / "index"
    index = DuplexIndex.build(folder, FakeEncoder(cls, sparse), corpus, model="m", segment_passages=segment)
    found = index.search_embeddings(embeddings(query_cls, query_sparse), k, part)
    weight_cls, weight_ot = {"both": (1, 1), "dense": (1, 0), "lexical": (0, 1)}[part]
    documents = np.hstack([sparse, cls])
    wanted = twin(corpus, documents, np.hstack([weight_ot * query_sparse, weight_cls * query_cls]), k)
    assert found == wanted


def test_real_numbers_are_scored_within_the_stored_precision(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    cls, sparse = rng.normal(size=(300, 96)), rng.exponential(size=(300, V)) * (rng.random((300, V)) < 0.2)
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(300), model="m")
    ids, scores = index.search_embeddings(embeddings(cls[:5], sparse[:5]), 300)
    places = {passage.id: n for n, passage in enumerate(passages(300))}
    exact = cls[:5] @ cls.T + sparse[:5] @ sparse.T
    for row in range(5):
        np.testing.assert_allclose(scores[row], exact[row, [places[name] for name in ids[row]]], rtol=0, atol=0.02)
        assert scores[row] == sorted(scores[row], reverse=True)


def test_equal_passages_tie_exactly_wherever_they_lie_and_however_many_queries_come_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cls, sparse = rng.normal(size=(1, 97)).repeat(700, 0), np.zeros((700, V))
    sparse[:, :7] = rng.exponential(size=7)
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(700), model="m", segment_passages=333)
    queries = embeddings(rng.normal(size=(100, 97)), rng.exponential(size=(100, V)))
    ids, scores = index.search_embeddings(queries, 700)  # enough work for several threads
    assert all(row == sorted(row) for row in ids)
    assert all(len(set(row)) == 1 for row in scores)
    assert index.search_embeddings(queries[99:], 700)[1][0] == scores[99]


def test_the_two_parts_add_up_to_the_whole_score(tmp_path: Path) -> None:
    index, encoder, _ = build(tmp_path / "i")
    queries = encoder.embed_queries([str(n) for n in range(23)])
    by_part = {}
    for part in ("both", "dense", "lexical"):
        ids, scores = index.search_embeddings(queries, 23, part)
        by_part[part] = [dict(zip(*row, strict=True)) for row in zip(ids, scores, strict=True)]
    for both, cls, ot in zip(*by_part.values(), strict=True):
        assert both == {name: cls[name] + ot[name] for name in both}
        assert any(cls.values())
        assert any(ot.values())


def test_a_hit_tells_text_parts_and_matched_entries(tmp_path: Path) -> None:
    cls = np.array([[1.0, 0.0], [0.5, 1.0]])
    sparse = np.zeros((2, V))
    sparse[0, [3, 4, 5]] = [2, 1, 1]
    sparse[1, [4, 3, 9]] = [8, 2, 7]
    corpus = [Passage("a", "0", "first"), Passage("b", "", "1 second")]
    encoder = FakeEncoder(cls, sparse)
    index = DuplexIndex.build(tmp_path / "i", encoder, corpus, model="m")
    first, second = index.search(["0"])[0]
    assert (first.id, first.score, first.dense_score, first.lexical_score) == ("b", 12.5, 0.5, 12.0)
    assert first.matches == [("token4", 8.0), ("token3", 4.0)]
    assert (first.title, first.text) == ("", "1 second")
    assert (second.id, second.score, second.title, second.text) == ("a", 7.0, "0", "first")
    assert second.matches == [("token3", 4.0), ("token4", 1.0), ("token5", 1.0)]


def test_an_opened_index_answers_like_the_one_that_was_built(tmp_path: Path) -> None:
    index, encoder, _ = build(tmp_path / "i")
    queries = encoder.embed_queries(["3", "4"])
    opened = DuplexIndex.open(tmp_path / "i")
    assert len(opened) == 23
    assert opened.search_embeddings(queries, 9) == index.search_embeddings(queries, 9)
    opened.verify()


@pytest.mark.parametrize(("dense", "vocabulary"), [(D, 0), (0, 1)])
def test_either_half_may_be_absent(tmp_path: Path, dense: int, vocabulary: int) -> None:
    cls, sparse = random_rows(np.random.default_rng(5), 12)
    cls, sparse = cls[:, :dense], sparse * vocabulary
    DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(12), model="m")
    found = DuplexIndex.open(tmp_path / "i").search_embeddings(embeddings(cls, sparse), 12)
    documents = np.hstack([sparse, cls])
    assert found == twin(passages(12), documents, documents, 12)


def test_negative_weights_are_kept(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(6), 15)
    sparse = -sparse
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(15), model="m")
    documents = np.hstack([sparse, cls])
    assert index.search_embeddings(embeddings(cls, np.abs(sparse)), 15) == twin(
        passages(15), documents, np.hstack([np.abs(sparse), cls]), 15
    )


def test_a_killed_build_goes_on_without_encoding_finished_segments_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "killed", fail_after=20)
    with pytest.raises(DupmaeError, match=r"unfinished \(20 passages so far\)"):
        DuplexIndex.open(tmp_path / "killed")
    resumed, encoder, _ = build(tmp_path / "killed")
    assert sorted(int(text.split()[0]) for text in encoder.embedded) == [20, 21, 22]
    whole, _, _ = build(tmp_path / "whole")
    assert resumed.manifest == whole.manifest  # file checksums included


def test_a_kill_in_the_middle_of_a_segment_leaves_nothing_that_disturbs_the_next_build(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    with pytest.raises(KeyboardInterrupt):
        build(folder, fail_after=10)
    (folder / "segment-000002").mkdir()  # written, but not yet committed
    (folder / "segment-000002" / "vectors.safetensors").write_bytes(b"half")
    (folder / ".segment-000003.99.tmp").mkdir()
    (folder / ".manifest.json.99.tmp").write_text("{")
    index, encoder, _ = build(folder)
    index.verify()
    assert len(encoder.embedded) == 13
    assert sorted(path.name for path in folder.iterdir()) == [
        "lock",
        "manifest.json",
        "segment-000001",
        "segment-000002",
        "segment-000003",
    ]


def test_building_a_finished_index_again_encodes_nothing(tmp_path: Path) -> None:
    build(tmp_path / "i")
    index, encoder, _ = build(tmp_path / "i")
    assert (len(index), encoder.embedded) == (23, [])


def test_passages_are_encoded_longest_first_so_that_batches_are_even(tmp_path: Path) -> None:
    _, encoder, _ = build(tmp_path / "i", count=40, segment=40)
    lengths = [len(text) for text in encoder.embedded]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


@pytest.mark.parametrize("change", ["text", "fewer", "more", "order"])
def test_other_passages_are_refused_and_the_index_stays(tmp_path: Path, change: str) -> None:
    index, encoder, corpus = build(tmp_path / "i", count=20)
    before = (tmp_path / "i" / "manifest.json").read_bytes()
    corpus = {
        "text": [replace(corpus[0], text="0 other"), *corpus[1:]],
        "fewer": corpus[:10],
        "more": [*corpus, Passage("new", "", "1")],
        "order": corpus[::-1],
    }[change]
    with pytest.raises(DupmaeError, match="index of other passages"):
        DuplexIndex.build(tmp_path / "i", encoder, corpus, model="m", batch_size=2)
    assert (tmp_path / "i" / "manifest.json").read_bytes() == before
    index.verify()


def test_a_batch_of_no_passages_is_refused_and_leaves_no_index(tmp_path: Path) -> None:
    encoder = FakeEncoder(*random_rows(np.random.default_rng(0), 5))
    for size in (0, -1):
        with pytest.raises(DupmaeError, match=f"at least one passage, not {size}"):
            DuplexIndex.build(tmp_path / "i", encoder, passages(5), model="m", batch_size=size)
    assert encoder.embedded == []
    assert not (tmp_path / "i" / "manifest.json").exists()


def test_another_models_index_is_refused(tmp_path: Path) -> None:
    _, encoder, corpus = build(tmp_path / "i")
    with pytest.raises(DupmaeError, match="another model"):
        DuplexIndex.build(tmp_path / "i", encoder, corpus, model="other")


def test_an_index_moved_together_with_its_model_finds_it_and_a_changed_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dupmae.duplex

    loaded = []
    monkeypatch.setattr(dupmae.duplex, "DuplexEncoder", lambda path: loaded.append(path) or "encoder", raising=False)
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    cls, sparse = random_rows(np.random.default_rng(0), 3)
    DuplexIndex.build(tmp_path / "run" / "index", FakeEncoder(cls, sparse), passages(3), model=str(model))
    (tmp_path / "run").rename(tmp_path / "moved")
    index = DuplexIndex.open(tmp_path / "moved" / "index")
    assert index.encoder == "encoder"
    assert loaded == [str(tmp_path / "moved" / "model")]
    (tmp_path / "moved" / "model" / "model.safetensors").write_bytes(b"changed")
    with pytest.raises(DupmaeError, match="not the one that built the index"):
        _ = DuplexIndex.open(tmp_path / "moved" / "index").encoder


def test_an_empty_corpus_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(0), 1)
    with pytest.raises(DupmaeError, match="the corpus is empty"):
        DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), [], model="m")
    assert not (tmp_path / "i").exists()


def test_an_id_that_comes_twice_is_refused_across_segments(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(0), 3)
    corpus = [Passage("a", "", "0"), Passage("b", "", "1"), Passage("a", "", "2")]
    with pytest.raises(DupmaeError, match="Two passages have the id 'a'"):
        DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), corpus, model="m", segment_passages=2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_an_embedding_that_cannot_be_stored_is_refused_by_the_passages_id(tmp_path: Path, value: float) -> None:
    cls, sparse = random_rows(np.random.default_rng(0), 4)
    cls[2, 1] = value
    with pytest.raises(DupmaeError, match="passage 'd7' holds numbers"):
        DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(4), model="m")


def test_k_below_one_and_unknown_parts_are_refused(tmp_path: Path) -> None:
    index, encoder, _ = build(tmp_path / "i")
    with pytest.raises(DupmaeError, match="k is 0"):
        index.search(["1"], k=0)
    with pytest.raises(DupmaeError, match="no part 'words'"):
        index.search_embeddings(encoder.embed_queries(["1"]), 3, "words")


@pytest.mark.parametrize(("former", "part"), [("cls", "dense"), ("ot", "lexical")])
def test_the_former_names_of_the_parts_are_taken_with_a_warning(tmp_path: Path, former: Any, part: Any) -> None:
    index, encoder, _ = build(tmp_path / "i")
    queries = encoder.embed_queries(["1", "2"])
    with pytest.warns(DeprecationWarning, match=f"'{former}' is called '{part}' now") as warned:
        found = index.search_embeddings(queries, 5, former)
    assert warned[0].filename == __file__
    assert found == index.search_embeddings(queries, 5, part) != index.search_embeddings(queries, 5)


def test_a_string_where_a_list_belongs_is_refused(tmp_path: Path) -> None:
    index, _, _ = build(tmp_path / "i")
    with pytest.raises(DupmaeError, match=r"queries is the string '12', not a list of strings: put it in brackets"):
        index.search("12")
    for use in (index.delete, lambda ids: index.explain("1", ids)):
        with pytest.raises(DupmaeError, match="ids is the string 'd1'"):
            use("d1")
    assert len(index) == 23


def test_queries_of_another_model_are_refused(tmp_path: Path) -> None:
    index, _, _ = build(tmp_path / "i")
    with pytest.raises(DupmaeError, match="3 dimensions and the index's 8"):
        index.search_embeddings(embeddings(np.ones((1, 3)), np.ones((1, V))), 3)
    with pytest.raises(DupmaeError, match="name term 50 and the index's vocabulary has 50"):
        index.search_embeddings(embeddings(np.ones((1, D)), np.ones((1, V + 1))), 3)
    with pytest.raises(DupmaeError, match="not finite"):
        index.search_embeddings(embeddings(np.full((1, D), np.nan), np.ones((1, V))), 3)


def test_folders_that_are_no_index_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DupmaeError, match="not an index"):
        DuplexIndex.open(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DupmaeError, match="holds files that are no index"):
        build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_newer_format_and_a_damaged_manifest_are_refused(tmp_path: Path) -> None:
    build(tmp_path / "i")
    path = tmp_path / "i" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["passages"] == 23
    path.write_text(json.dumps(manifest | {"format_version": 3}))
    with pytest.raises(DupmaeError, match=r"format version 3 .* install a newer"):
        DuplexIndex.open(tmp_path / "i")
    path.write_text('{"format": "dupmae-index", "format_version": 2}')
    with pytest.raises(DupmaeError, match="damaged"):
        DuplexIndex.open(tmp_path / "i")
    for content in (b"{", b'{"format": "\xff"}'):
        path.write_bytes(content)
        with pytest.raises(DupmaeError, match="damaged"):
            DuplexIndex.open(tmp_path / "i")


def test_a_flipped_bit_is_named_by_verify_and_a_missing_or_truncated_file_by_open(tmp_path: Path) -> None:
    index, _, _ = build(tmp_path / "i")
    path = tmp_path / "i" / "segment-000002" / "vectors.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DupmaeError, match=r"segment-000002/vectors\.safetensors does not have the checksum"):
        index.verify()
    path.write_bytes(content[:-2])
    with pytest.raises(
        DupmaeError, match=rf"vectors\.safetensors has {len(content) - 2} bytes instead of {len(content)}"
    ):
        DuplexIndex.open(tmp_path / "i")
    path.unlink()
    with pytest.raises(DupmaeError, match=r"vectors\.safetensors is missing"):
        DuplexIndex.open(tmp_path / "i")
