"""Approximate search and what `index tune` says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import FakeEncoder, V, embeddings

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import Approximate, DuplexIndex
from dupmae.index.tune import Trial, measure, propose

COUNT, D = 600, 16


@pytest.fixture
def index(tmp_path: Path) -> DuplexIndex:
    rng = np.random.default_rng(2)
    sparse = rng.exponential(size=(COUNT + 50, V)) * (rng.random((COUNT + 50, V)) < 0.2)
    encoder = FakeEncoder(rng.normal(size=(COUNT + 50, D)), sparse)
    corpus = [Passage(f"p{n:03}", "", f"{n}", {"half": str(n % 2)}) for n in range(COUNT)]
    return DuplexIndex.build(tmp_path / "i", encoder, corpus, model="m", segment_passages=250)


@pytest.fixture
def queries() -> Any:
    rng = np.random.default_rng(3)
    return embeddings(rng.normal(size=(12, D)), rng.exponential(size=(12, V)))


def recall(found: list[list[str]], wanted: list[list[str]]) -> float:
    return float(np.mean([len({*one} & {*other}) / len(other) for one, other in zip(found, wanted, strict=True)]))


def test_all_terms_and_all_candidates_are_exact_search(index: DuplexIndex, queries: Any) -> None:
    ids, scores = index.search_embeddings(queries, 20)
    found = index.search_embeddings(queries, 20, approximate=Approximate(V, COUNT))
    assert found[0] == ids
    np.testing.assert_allclose(found[1], scores, rtol=1e-13)


def test_scores_of_what_is_found_are_exact(index: DuplexIndex, queries: Any) -> None:
    exact = [dict(zip(*row, strict=True)) for row in zip(*index.search_embeddings(queries, COUNT), strict=True)]
    found = index.search_embeddings(queries, 20, approximate=Approximate(3, 25))
    for ids, scores, wanted in zip(*found, exact, strict=True):
        assert scores == pytest.approx([wanted[name] for name in ids], rel=1e-13)
        assert scores == sorted(scores, reverse=True)


def test_more_candidates_find_more(index: DuplexIndex, queries: Any) -> None:
    wanted, _ = index.search_embeddings(queries, 20)
    found = [
        recall(index.search_embeddings(queries, 20, approximate=Approximate(3, count))[0], wanted)
        for count in (20, 60, 200, COUNT)
    ]
    assert found == sorted(found)
    assert found[0] < 1.0 == found[-1]


def test_clusters_join_candidates_of_both_halves(index: DuplexIndex, queries: Any) -> None:
    pytest.importorskip("faiss", reason="the extra clusters is not installed")
    wanted, _ = index.search_embeddings(queries, 20)
    index.cluster()
    assert recall(index.search_embeddings(queries, 20, approximate=Approximate(V, COUNT, 1000))[0], wanted) == 1.0
    assert 0.3 < recall(index.search_embeddings(queries, 20, approximate=Approximate(8, 60, 4))[0], wanted) <= 1.0
    # the best dense half alone is found even if no heavy term points to it
    cls = index.search_embeddings(queries, 1, "dense")[0]
    near = index.search_embeddings(queries, 20, "dense", approximate=Approximate(1, 20, 1000))[0]
    assert [row[0] for row in near] == [row[0] for row in cls]


def test_clusters_know_of_deletions_additions_and_filters(index: DuplexIndex, queries: Any) -> None:
    pytest.importorskip("faiss", reason="the extra clusters is not installed")
    index.cluster()
    everything = Approximate(V, COUNT, 1000)
    index.delete([f"p{number:03}" for number in range(100)])
    index.add([Passage(f"q{number}", "", str(COUNT + number), {"half": "1"}) for number in range(50)])
    assert index.manifest.clusters is not None
    for where in (None, {"half": "1"}):
        found = index.search_embeddings(queries, 30, where=where, approximate=everything)
        assert found[0] == index.search_embeddings(queries, 30, where=where)[0]
    index.compact()
    assert index.manifest.clusters is None
    assert not list(index.folder.glob("clusters-*"))
    with pytest.raises(DupmaeError, match="no clusters"):
        index.search_embeddings(queries, 30, approximate=everything)


def test_a_damaged_cluster_file_is_refused(index: DuplexIndex, queries: Any) -> None:
    pytest.importorskip("faiss", reason="the extra clusters is not installed")
    index.cluster()
    assert index.manifest.clusters is not None
    path = index.folder / index.manifest.clusters["name"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DupmaeError, match="damaged"):
        DuplexIndex.open(index.folder).search_embeddings(queries, 3, approximate=Approximate(4, 9, 2))
    with pytest.raises(DupmaeError, match="damaged"):
        DuplexIndex.open(index.folder).verify()


@pytest.mark.parametrize("settings", [Approximate(0, 10), Approximate(3, 0), Approximate(3, 3, -1)])
def test_settings_without_sense_are_refused(index: DuplexIndex, queries: Any, settings: Approximate) -> None:
    with pytest.raises(DupmaeError, match="at least 1 term"):
        index.search_embeddings(queries, 3, approximate=settings)


def test_tuning_measures_recall_against_exact_search(index: DuplexIndex, queries: Any) -> None:
    trials = measure(index, queries, 10)
    assert trials[0].settings is None
    assert trials[0].recall == 1.0
    by_settings = {trial.settings: trial for trial in trials}
    wanted, _ = index.search_embeddings(queries, 10)
    settings = Approximate(8, 10)
    found, _ = index.search_embeddings(queries, 10, approximate=settings)
    assert by_settings[settings].recall == pytest.approx(recall(found, wanted))
    assert all(0 < trial.p50_ms <= trial.p95_ms for trial in trials)


def test_the_fastest_setting_with_enough_recall_is_proposed() -> None:
    exact = Trial(None, 1.0, 9.0, 9.0)
    slow, fast, poor = (
        Trial(Approximate(terms, 10), recall, time, time)
        for terms, recall, time in ((64, 1, 5), (32, 0.99, 3), (8, 0.9, 1))
    )
    assert propose([exact, slow, fast, poor], 0.99) is fast
    assert propose([exact, slow, fast, poor], 0.995) is slow
    assert propose([exact, poor], 0.99) is exact
