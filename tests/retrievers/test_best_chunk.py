"""Documents by their best chunk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dupmae.corpus import Benchmark, Passage, Run
from dupmae.retrievers.best_chunk import by_best_chunk, cut_corpus
from dupmae.retrievers.lengths import UNCHANGED
from dupmae.retrievers.several import Systems


def test_a_corpus_is_cut_into_chunks_that_know_their_documents_and_short_ones_stay() -> None:
    corpus = {"d": Passage("d", "T", "one two three four five six seven"), "s": Passage("s", "", "one two")}
    chunks = cut_corpus(corpus, 4, 0)
    assert [(name, chunk.document, chunk.full_text) for name, chunk in chunks.items()] == [
        ("d::1", "d", "T one two three four"),
        ("d::2", "d", "T five six seven"),
        ("s", "s", "one two"),
    ]


def test_a_document_scores_what_its_best_chunk_scores_however_many_chunks_come_before() -> None:
    scores = {f"long::{n}": 10.0 - n / 100 for n in range(50)} | {"b::1": 3.0, "b::2": 4.0, "a": 4.0, "c::7": 1.0}
    documents = {name: name.partition("::")[0] for name in scores if "::" in name}
    asked: list[int] = []

    def search(queries: Mapping[str, str], k: int) -> Run:
        asked.append(k)
        ranked = sorted(scores, key=lambda name: (-scores[name], name))
        return {query: {name: scores[name] for name in ranked[:k]} for query in queries}

    found = by_best_chunk(search, documents)({"q": "text", "r": "text"}, 3)
    assert list(found["q"].items()) == [("long", 10.0), ("a", 4.0), ("b", 4.0)]
    assert found["r"] == found["q"]
    assert asked == [6, 12, 24, 48, 96]
    assert list(by_best_chunk(search, documents)({"q": "text"}, 9)["q"]) == ["long", "a", "b", "c"]


@pytest.mark.parametrize("system", ["bm25", "duplex"])
def test_every_system_ranks_documents_by_their_best_chunk(
    system: str, duplex_folder: Path, words: list[str], tmp_path: Path
) -> None:
    name = str(duplex_folder) if system == "duplex" else system
    corpus = {f"d{n}": Passage(f"d{n}", "", " ".join(words[n : n + 5 + 20 * n])) for n in range(4)}
    data = Benchmark("b", "test", corpus, {"q": " ".join(words[40:43])}, {"q": {"d3": 1}})
    (documents,) = Systems(data, [name], UNCHANGED, tmp_path, chunks=(12, 3)).open(name)
    chunks = cut_corpus(corpus, 12, 3)
    alone = {key: Passage(key, one.title, one.text) for key, one in chunks.items()}  # which know no document
    (passages,) = Systems(Benchmark("c", "test", alone, {}, {}), [name], UNCHANGED, tmp_path).open(name)
    best: dict[str, float] = {}
    for chunk, score in passages.search(data.queries, 99)["q"].items():
        best[chunks[chunk].document] = max(score, best.get(chunks[chunk].document, score))
    assert len(best) > 1
    assert documents.search(data.queries, 9)["q"] == pytest.approx(best, rel=1e-5)
