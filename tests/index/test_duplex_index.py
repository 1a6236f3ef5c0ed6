"""Index: ranking against an obvious exhaustive search, hits, opening, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import (
    D,
    FakeEncoder,
    V,
    build,
    embeddings,
    exhaustive,
    passages,
    random_rows,
    ranking,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 40),
    segment=st.integers(1, 17),
    k=st.integers(1, 45),
    part=st.sampled_from(["all", "dense", "lexical"]),
    queries=st.integers(1, 70),
)
def test_ranking_and_scores_equal_a_dense_product_over_vocabulary_and_dense_dimensions(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, segment: int, k: int, part: Any, queries: int
) -> None:
    rng = np.random.default_rng(seed)
    cls, sparse = random_rows(rng, count)
    query_cls, query_sparse = random_rows(rng, queries, terms=20)
    corpus = passages(count)
    folder = tmp_path_factory.mktemp("index") / "index"
    index = DuplexIndex.build(folder, FakeEncoder(cls, sparse), corpus, model="m", segment_passages=segment)
    found = index.search_embeddings(embeddings(query_cls, query_sparse), k, part)
    dense_weight, lexical_weight = {"all": (1, 1), "dense": (1, 0), "lexical": (0, 1)}[part]
    documents = np.hstack([sparse, cls])
    wanted = exhaustive(corpus, documents, np.hstack([lexical_weight * query_sparse, dense_weight * query_cls]), k)
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
    for part in ("all", "dense", "lexical"):
        ids, scores = index.search_embeddings(queries, 23, part)
        by_part[part] = [dict(zip(*row, strict=True)) for row in zip(ids, scores, strict=True)]
    for both, dense, lexical in zip(*by_part.values(), strict=True):
        assert both == {name: dense[name] + lexical[name] for name in both}
        assert any(dense.values())
        assert any(lexical.values())


def test_a_hit_tells_text_parts_and_matched_terms(tmp_path: Path) -> None:
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


def test_the_former_names_of_a_hits_parts_answer_with_a_warning(tmp_path: Path) -> None:
    index, _, _ = build(tmp_path / "i")
    hit = index.search(["1"])[0][0]
    for former, name in (("cls_score", "dense_score"), ("ot_score", "lexical_score")):
        with pytest.warns(DeprecationWarning, match=f"{former} is called Hit.{name} now") as warned:
            assert getattr(hit, former) == getattr(hit, name) != 0
        assert warned[0].filename == __file__


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
    assert found == exhaustive(passages(12), documents, documents, 12)


def test_negative_weights_are_kept(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(6), 15)
    sparse = -sparse
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(15), model="m")
    documents = np.hstack([sparse, cls])
    assert index.search_embeddings(embeddings(cls, np.abs(sparse)), 15) == exhaustive(
        passages(15), documents, np.hstack([np.abs(sparse), cls]), 15
    )


def test_an_index_moved_together_with_its_model_finds_it_and_a_changed_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dupmae.duplex

    loaded = []
    monkeypatch.setattr(dupmae.duplex, "DuplexEncoder", lambda path: loaded.append(path) or "encoder", raising=False)
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}", encoding="utf-8")
    (model / "tokenizer.json").write_text("{}", encoding="utf-8")
    save_file({"weight": np.zeros(2, np.float32)}, model / "model.safetensors")
    cls, sparse = random_rows(np.random.default_rng(0), 3)
    DuplexIndex.build(tmp_path / "run" / "index", FakeEncoder(cls, sparse), passages(3), model=str(model))
    (tmp_path / "run").rename(tmp_path / "moved")
    index = DuplexIndex.open(tmp_path / "moved" / "index")
    assert index.encoder == "encoder"
    assert [model.path for model in loaded] == [str(tmp_path / "moved" / "model")]
    save_file({"weight": np.ones(2, np.float32)}, tmp_path / "moved" / "model" / "model.safetensors")
    with pytest.raises(DupmaeError, match="not the one that built the index"):
        _ = DuplexIndex.open(tmp_path / "moved" / "index").encoder


def test_k_below_one_and_unknown_parts_are_refused(tmp_path: Path) -> None:
    index, encoder, _ = build(tmp_path / "i")
    with pytest.raises(DupmaeError, match="k is 0"):
        index.search(["1"], k=0)
    with pytest.raises(DupmaeError, match="no part 'other'"):
        index.search_embeddings(encoder.embed_queries(["1"]), 3, "other")


@pytest.mark.parametrize(("former", "part"), [("cls", "dense"), ("ot", "lexical"), ("both", "all")])
def test_the_former_names_of_the_parts_are_taken_with_a_warning(tmp_path: Path, former: Any, part: Any) -> None:
    index, encoder, _ = build(tmp_path / "i")
    queries = encoder.embed_queries(["1", "2"])
    with pytest.warns(DeprecationWarning, match=f"'{former}' is called '{part}' now") as warned:
        found = index.search_embeddings(queries, 5, former)
    assert warned[0].filename == __file__
    assert found == index.search_embeddings(queries, 5, part)
    assert (found == index.search_embeddings(queries, 5)) is (part == "all")


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
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DupmaeError, match="holds files that are no index"):
        build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_index_may_have_more_segments_than_a_process_may_have_files_open(
    tmp_path: Path,
) -> None:
    resource = pytest.importorskip("resource")
    index, _, _ = build(tmp_path / "i", count=120, segment=2)
    wanted = ranking(index)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (sum(1 for _ in Path("/dev/fd").iterdir()) + 12, limits[1]))
    try:
        opened = DuplexIndex.open(index.folder)
        opened.encoder = index.encoder
        assert ranking(opened) == wanted
        opened.delete(["d0"])
        opened.compact()
        assert len(opened.search(["1"], 200)[0]) == 119
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_forked_child_of_a_process_that_has_searched_searches_on(index: DuplexIndex) -> None:
    code = (
        "import os, sys\n"
        "from dupmae.index.scoring import threads\n"
        "threads.cores = lambda: 4\n"
        "work = lambda tasks: threads.in_parallel(list, tasks)\n"
        "assert len(work(['a'] * 8)) == 8\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    import signal; signal.alarm(20)\n"
        "    os._exit(len(work(['a'] * 8)) != 8)\n"
        "sys.exit(os.waitpid(child, 0)[1] != 0)\n"
    )
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=False).returncode == 0


def test_opening_loads_neither_an_encoder_nor_torch(index: DuplexIndex) -> None:
    code = (
        "import sys; from pathlib import Path; from dupmae import DuplexIndex;"
        f"print(len(DuplexIndex.open(Path({str(index.folder)!r}))), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["60", "False"]
