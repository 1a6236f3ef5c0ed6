"""Exact search: the ranking of slow, obvious, exhaustive search, whatever configuration, blocks and ties are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_index import FakeEncoder, V, embeddings, passages, random_rows

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.index import DuplexIndex
from dupmae.index.scoring import exact, threads
from dupmae.index.scoring.query import prepare_queries
from dupmae.index.storage import segments as segments_module


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments_module, "BLOCK_PASSAGES", 50)


def exhaustive_of_stored(
    index: DuplexIndex, queries: DuplexEmbeddings, k: int
) -> tuple[list[list[str]], list[list[float]]]:
    """Eq. 12 over V + d' dimensions, from the stored numbers, in double precision, every passage sorted."""
    names: list[str] = []
    matrices = []
    for segment in index.snapshot.segments:
        rows = segment.rows()
        dense = (256 * rows.high.astype(np.float64) + rows.low) * rows.dense_units[:, None]
        matrices.append(np.hstack([rows.lexical.toarray() * rows.lexical_units[:, None].astype(np.float64), dense]))
        names += segment.passages.ids.to_pylist()
    documents, all_ids, all_scores = np.vstack(matrices), [], []
    for cls, ids, weights in zip(queries.cls, queries.ids, queries.weights, strict=True):
        query = np.zeros(index.manifest.vocabulary_size)
        np.add.at(query, ids, weights)
        scores = documents @ np.concatenate([query, cls])
        ranking = sorted(zip(-scores, names, strict=True))[:k]
        all_ids.append([name for _, name in ranking])
        all_scores.append([-score for score, _ in ranking])
    return all_ids, all_scores


def real_rows(rng: np.random.Generator, count: int, dimension: int, terms: int) -> tuple[np.ndarray, np.ndarray]:
    sparse = rng.exponential(size=(count, V)) * (rng.random((count, V)).argsort(axis=1) < terms)
    sparse[:, 0] = rng.exponential(size=count)  # a term that all passages have
    return rng.normal(size=(count, dimension)), sparse * (terms > 0)


@pytest.mark.parametrize(("dimension", "terms"), [(64, 0), (0, 12), (32, 12), (32, 8)])
@pytest.mark.parametrize("queries", [1, 20])
def test_every_configuration_ranks_like_exhaustive_search(
    tmp_path: Path, small_blocks: None, dimension: int, terms: int, queries: int
) -> None:
    rng = np.random.default_rng(dimension + terms)
    cls, sparse = real_rows(rng, 400, dimension, terms)
    encoder = FakeEncoder(cls, sparse)
    index = DuplexIndex.build(tmp_path / "i", encoder, passages(400), model="m", segment_passages=170)
    asked = embeddings(*real_rows(rng, queries, dimension, V if terms else 0))
    for k in (1, 10, 400, 500):
        ids, scores = index.search_embeddings(asked, k)
        wanted_ids, wanted_scores = exhaustive_of_stored(index, asked, k)
        assert ids == wanted_ids
        np.testing.assert_allclose(scores, wanted_scores, rtol=1e-12)


def test_passages_that_differ_in_their_low_bytes_alone_are_told_apart(tmp_path: Path, small_blocks: None) -> None:
    rng = np.random.default_rng(3)
    cls = np.tile(rng.integers(-100, 100, 24) * 256.0, (300, 1))
    cls += rng.integers(-100, 100, cls.shape)
    cls[:, 0] = 127 * 256  # the same unit for all
    sparse = np.zeros((300, V))
    sparse[:, 3] = 1
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(300), model="m")
    high = index.snapshot.segments[0].rows().high
    assert np.all(high == high[0])
    asked = embeddings(rng.normal(size=(12, 24)), rng.exponential(size=(12, V)))
    assert index.search_embeddings(asked, 5)[0] == exhaustive_of_stored(index, asked, 5)[0]
    assert index.search_embeddings(asked[:1], 5)[0] == exhaustive_of_stored(index, asked[:1], 5)[0]


def test_few_passages_are_scored_exactly_when_the_rest_is_far_below(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is of use: without it every passage would have to be scored again."""
    rng = np.random.default_rng(3)
    cls, sparse = real_rows(rng, 2000, 64, 0)
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(2000), model="m")
    block = index.snapshot.segments[0].blocks[0]
    query = prepare_queries(embeddings(cls[:1], sparse[:1]), index.manifest, "all")[0]
    scores = cls @ cls[0]
    bound = query.length * block.slack.max()
    assert np.sum(scores + 2 * bound >= np.sort(scores)[-10]) < 40


@pytest.mark.parametrize("cores", [1, 3])
def test_the_number_of_cores_changes_nothing(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    rng = np.random.default_rng(9)
    cls, sparse = random_rows(rng, 300)  # small whole numbers: many ties
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(300), model="m", segment_passages=120)
    asked = embeddings(*random_rows(rng, 30, terms=20))
    monkeypatch.setattr(exact, "cores", lambda: cores)
    monkeypatch.setattr(threads, "cores", lambda: cores)
    threads._threads.cache_clear()
    found = index.search_embeddings(asked, 25)
    threads._threads.cache_clear()
    assert found[0] == exhaustive_of_stored(index, asked, 25)[0]
    for row in range(30):
        assert index.search_embeddings(asked[row : row + 1], 25)[1][0] == found[1][row]


def test_a_query_without_any_term_of_the_index_ranks_by_id(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(1), 30)
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(30), model="m", segment_passages=8)
    ids, scores = index.search_embeddings(embeddings(np.zeros((1, cls.shape[1])), np.zeros((1, V))), 7)
    assert ids[0] == sorted(passage.id for passage in passages(30))[:7]
    assert scores[0] == [0.0] * 7


def test_the_same_term_twice_in_a_query_counts_twice(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(1), 30)
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(30), model="m")
    asked = DuplexEmbeddings(cls[:1].astype(np.float32), np.array([[4, 9, 4]], np.uint16), np.ones((1, 3), np.float32))
    assert index.search_embeddings(asked, 30) == exhaustive_of_stored(index, asked, 30)


def test_a_query_finds_the_same_alone_and_in_a_batch(tmp_path: Path) -> None:
    """Queries of a batch are scanned four at a time, and tasks are cut by the number of cores: all end the same."""
    rng = np.random.default_rng(11)
    cls, sparse = real_rows(rng, 500, 48, 10)
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(500), model="m", segment_passages=200)
    asked = embeddings(*real_rows(rng, 90, 48, V))
    together = index.search_embeddings(asked, 20)
    alone = [index.search_embeddings(asked[row : row + 1], 20) for row in range(90)]
    assert together[0] == [ids[0] for ids, _ in alone]
    assert together[1] == [scores[0] for _, scores in alone]
