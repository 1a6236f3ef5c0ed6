"""Stored numbers: their precision, the bound of the scan, and the way to disk and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_index import V, embeddings, passages, random_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.index.scoring.loops import dense_scores
from dupmae.index.scoring.scanning import scan_dense
from dupmae.index.storage import segments as segments_module
from dupmae.index.storage.manifest import Manifest, SegmentEntry
from dupmae.index.storage.passages import passage_table
from dupmae.index.storage.quantise import Rows, concatenate_rows, dense_slack, quantise
from dupmae.index.storage.segments import Segment, write_segment


def exact_scores(query: np.ndarray, rows: Rows) -> np.ndarray:
    return dense_scores(query, (rows.high, rows.low, rows.dense_units, dense_slack(rows)), np.arange(len(rows)))


def gaussian(rng: np.random.Generator, count: int, dimension: int, scale: float = 1.0) -> DuplexEmbeddings:
    weights = rng.exponential(size=(count, V)) * (rng.random((count, V)) < 0.3) * rng.choice([-1, 1], (count, V))
    return embeddings(scale * rng.normal(size=(count, dimension)), scale * weights)


def test_stored_numbers_are_off_by_at_most_a_32512th_of_the_passages_largest() -> None:
    given_rows = gaussian(np.random.default_rng(2), 200, 96)
    rows = quantise(given_rows, V)
    stored = (256 * rows.high.astype(np.float64) + rows.low) * rows.dense_units[:, None]
    largest = np.abs(given_rows.cls).max(axis=1, keepdims=True)
    assert np.all(np.abs(stored - given_rows.cls) <= largest / 32_512)
    weights = np.zeros((200, V))
    np.put_along_axis(weights, given_rows.ids.astype(np.int64), given_rows.weights, axis=1)
    heaviest = np.abs(weights).max(axis=1, keepdims=True)
    assert np.all(np.abs(rows.lexical.toarray() * rows.lexical_units[:, None] - weights) <= heaviest / 32_767)


@pytest.mark.parametrize("largest", [127.5, 1.0, 127 * 256, 65_504.0, 1e-30, 0.0])
def test_extreme_numbers_stay_within_eight_bits_and_come_back(largest: float) -> None:
    rows = quantise(embeddings(np.array([[largest, -largest, 0.0]]), np.array([[largest] + [0.0] * (V - 1)])), V)
    stored = (256 * rows.high.astype(np.float64) + rows.low) * rows.dense_units[:, None]
    np.testing.assert_allclose(stored, [[largest, -largest, 0.0]], rtol=1 / 32_512, atol=0)
    np.testing.assert_allclose(rows.lexical.toarray()[0, 0] * rows.lexical_units[0], largest, rtol=1 / 32_512, atol=0)


def test_whole_numbers_are_stored_exactly() -> None:
    rows = quantise(embeddings(*random_rows(np.random.default_rng(0), 20)), V)
    again = (256 * rows.high.astype(np.float64) + rows.low) * rows.dense_units[:, None]
    np.testing.assert_array_equal(again, random_rows(np.random.default_rng(0), 20)[0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), dimension=st.sampled_from([1, 7, 64, 384]), scale=st.sampled_from([1e-6, 1.0, 1e4]))
def test_the_scan_is_never_off_by_more_than_the_bound(seed: int, dimension: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    rows = quantise(gaussian(rng, 51, dimension, scale), V)
    # random queries, and those that point along what the scan leaves out, where the bound is tight
    queries = np.vstack([rng.normal(size=(5, dimension)), rows.low[:5], rows.high[:5]]).astype(np.float32)
    slack = dense_slack(rows).astype(np.float64)
    together = scan_dense(queries, rows.high, rows.dense_units)
    for query, scanned in zip(queries, together, strict=True):
        length = np.linalg.norm(query.astype(np.float64))
        alone = scan_dense(query[None], rows.high, rows.dense_units)[0]
        exact = exact_scores(query, rows)
        assert np.all(np.abs(scanned.astype(np.float64) - exact) <= length * slack)
        assert np.all(np.abs(alone.astype(np.float64) - exact) <= length * slack)


def test_exact_dense_scores_are_those_of_the_stored_numbers() -> None:
    rng = np.random.default_rng(5)
    rows = quantise(gaussian(rng, 30, 40), V)
    query = rng.normal(size=40).astype(np.float32)
    stored = (256 * rows.high.astype(np.float64) + rows.low) * rows.dense_units[:, None]
    found = exact_scores(query, rows)
    np.testing.assert_allclose(found, stored @ query.astype(np.float64), rtol=1e-12)


@pytest.mark.parametrize("block", [3, 7, 1000])
def test_a_segment_gives_back_exactly_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(segments_module, "BLOCK_PASSAGES", block)
    rng = np.random.default_rng(8)
    given_rows = gaussian(rng, 31, 9)
    given_rows.weights[:20, 0], given_rows.ids[:20, 0] = 3.0, 1  # a term that more than half of them have
    given_rows = DuplexEmbeddings(given_rows.cls, given_rows.ids[:, :1], given_rows.weights[:, :1])
    rows = concatenate_rows([quantise(given_rows[:11], V), quantise(given_rows[11:], V)])
    table = passage_table(passages(31))
    files = write_segment(tmp_path, "s", rows, table)
    manifest = Manifest(
        **{"model": "m", "model_relative": None, "model_fingerprint": "", "cls_dimension": 9, "vocabulary_size": V},
        **{"top_k": 1, "segment_passages": 31},
    )
    segment = Segment(tmp_path, manifest, SegmentEntry(name="s", passages=31, fingerprint="", files=files))
    order = np.argsort(table.column("id").to_pylist())
    wanted, found = rows.take(order), segment.rows()
    for name in ("high", "low", "dense_units", "lexical_units"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    np.testing.assert_array_equal(found.lexical.toarray(), wanted.lexical.toarray())
    assert segment.passages.ids.to_pylist() == sorted(table.column("id").to_pylist())
    assert any(len(part.column_ids) for part in segment.blocks)
    assert any(len(part.documents) for part in segment.blocks)
