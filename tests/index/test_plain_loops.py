"""The loops in NumPy find and explain what the compiled ones do, and are taken while there is little to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import SPACE, WORDY_QUERIES, D, FakeEncoder, V, chunked

from dupmae.index import DuplexIndex
from dupmae.index.scoring import choice, exact, explaining, plain, words
from dupmae.index.storage import segments as segments_module


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DuplexIndex:
    """300 passages of 100 documents in several blocks of two segments, some equal, some deleted, terms as columns."""
    rng = np.random.default_rng(3)
    sparse = rng.exponential(size=(300, V)) * (rng.random((300, V)) < 0.2)
    sparse[:, 0] = rng.exponential(size=300)
    cls = rng.normal(size=(300, D))
    cls[50:60], sparse[50:60] = cls[50], sparse[50]
    documents = {f"d{number:03}": range(3 * number, 3 * number + 3) for number in range(100)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments_module, "BLOCK_PASSAGES", 64)
        folder: Path = tmp_path_factory.mktemp("plain") / "index"
        encoder = FakeEncoder(cls, sparse, space=SPACE)
        made = DuplexIndex.build(folder, encoder, chunked(documents), model="m", segment_passages=170)
        made.delete([f"d{number:03}" for number in range(0, 100, 7)])
        made.snapshot.segments[0].blocks, made.snapshot.segments[1].blocks
    return made


def in_numpy(patch: pytest.MonkeyPatch) -> None:
    """Compute everything in NumPy, although the compiled loops are loaded."""
    for module in (exact, explaining, words):
        patch.setattr(module, "loops_for", lambda passages: plain)


@pytest.mark.parametrize("group", ["document", "none"])
@pytest.mark.parametrize("k", [1, 7, 1000])
def test_searches_find_the_same(index: DuplexIndex, group: Any, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = index.encoder.embed_queries(WORDY_QUERIES)
    for part in ("all", "dense", "lexical", "words"):
        with monkeypatch.context() as patch:
            in_numpy(patch)
            ids, scores = index.search_embeddings(queries, k, part, group=group)
        compiled_ids, compiled_scores = index.search_embeddings(queries, k, part, group=group)
        assert ids == compiled_ids
        for mine, compiled in zip(scores, compiled_scores, strict=True):
            np.testing.assert_allclose(mine, compiled, rtol=1e-13, atol=1e-13)
            if part in ("lexical", "words"):
                assert mine == compiled


def test_hits_are_explained_alike(index: DuplexIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = index.explain(WORDY_QUERIES[2], ["d001", "d030::2", "d099"])
    in_numpy(monkeypatch)
    for hit, other in zip(index.explain(WORDY_QUERIES[2], ["d001", "d030::2", "d099"]), compiled, strict=True):
        assert (hit.id, hit.matches, hit.words) == (other.id, other.matches, other.words)
        assert (hit.lexical_score, hit.word_score) == (other.lexical_score, other.word_score)
        assert hit.dense_score == pytest.approx(other.dense_score, rel=1e-13)
    assert compiled[0].matches
    assert compiled[0].words


def test_equal_passages_score_the_same_wherever_they_stand() -> None:
    rng = np.random.default_rng(0)
    high = np.tile(rng.integers(-128, 128, (1, 384)).astype(np.int8), (2500, 1))
    dense = high, np.tile(rng.integers(-128, 128, (1, 384)).astype(np.int8), (2500, 1)), np.ones(2500, np.float32), None
    scores = plain.dense_scores(rng.normal(size=384).astype(np.float32), dense, np.arange(2500))
    assert len(set(scores.tolist())) == 1


def test_the_compiled_loops_are_taken_once_there_is_more_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "FEW_PASSAGES", 100)
    monkeypatch.setattr(choice._Work, "passages", 0)
    monkeypatch.delitem(sys.modules, "dupmae.index.scoring.loops", raising=False)
    assert [choice.loops_for(count) is plain for count in (60, 40, 1)] == [True, True, False]
    assert choice.loops_for(0) is not plain
