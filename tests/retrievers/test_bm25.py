"""Runs of the baselines on corpora small enough to rank by hand."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dupmae.corpus import Benchmark, Passage
from dupmae.retrievers import bm25_run, dense_run, duplex_run, systems
from dupmae.retrievers.bm25 import bm25_searcher


def benchmark(corpus: dict[str, str], queries: dict[str, str]) -> Benchmark:
    passages = {name: Passage(name, "", text) for name, text in corpus.items()}
    return Benchmark("small", "test", passages, queries, {name: {} for name in queries})


CORPUS = {"d2": "the cat sat", "d1": "cats cats and dogs", "d4": "a bird sang", "d3": "the cat sat"}


def test_bm25_scores_are_lucenes_formula_over_stemmed_words_without_stop_words() -> None:
    run = bm25_run(benchmark(CORPUS, {"q": "The cat!"}))
    idf = math.log(1 + (4 - 3 + 0.5) / (3 + 0.5))

    def score(frequency: int, length: int) -> float:
        mean = (2 + 3 + 2 + 2) / 4  # "a", "and" and "the" are gone
        return idf * frequency / (frequency + 0.9 * (1 - 0.4 + 0.4 * length / mean))

    assert run["q"] == pytest.approx({"d1": score(2, 3), "d2": score(1, 2), "d3": score(1, 2)}, rel=1e-5)


def test_bm25_cuts_ties_by_id() -> None:
    assert list(bm25_run(benchmark(CORPUS, {"q": "cat"}), k=2)["q"]) == ["d1", "d2"]
    same = benchmark(dict.fromkeys("hgfedcba", "cat"), {"q": "cat"})
    assert list(bm25_run(same, k=3)["q"]) == ["a", "b", "c"]


def test_bm25_finds_nothing_for_queries_without_a_known_word() -> None:
    assert bm25_run(benchmark(CORPUS, {"q1": "the", "q2": "zebra", "q3": ""})) == {"q1": {}, "q2": {}, "q3": {}}


def test_bm25_searches_titles_too() -> None:
    data = Benchmark("small", "test", {"d": Passage("d", "Zebra", "grass")}, {"q": "zebra"}, {"q": {}})
    assert list(bm25_run(data)["q"]) == ["d"]


def test_bm25_of_fields_adds_up_title_and_text_each_with_its_own_statistics() -> None:
    corpus = {
        "a": Passage("a", "Zebra", "grass grass"),
        "b": Passage("b", "Lion", "zebra meat"),
        "c": Passage("c", "Fish", "water"),
    }
    found = bm25_searcher(corpus, fields=True)({"q": "zebra"}, 5)["q"]
    titles, texts = ({n: Passage(n, "", getattr(p, field)) for n, p in corpus.items()} for field in ("title", "text"))
    alone = [bm25_searcher(part)({"q": "zebra"}, 5)["q"] for part in (titles, texts)]
    assert found == pytest.approx({"a": alone[0]["a"], "b": alone[1]["b"]})
    assert bm25_searcher(texts, fields=True)({"q": "grass"}, 5) == bm25_searcher(texts)({"q": "grass"}, 5)


def test_a_dense_run_finds_a_text_by_itself_and_cuts_passages_where_asked(embedder_folder: Path) -> None:
    data = benchmark({"y": "ba be bi", "x": "do du", "z": "ba be bi", "w": "do be"}, {"q": "ba be bi"})
    run = dense_run(str(embedder_folder), data, k=2)
    assert run["q"] == pytest.approx({"y": 1.0, "z": 1.0}, abs=0.01)
    cut = dense_run(str(embedder_folder), data, max_length=2)["q"]
    assert set(cut) == set(data.corpus)
    assert len(set(cut.values())) == 1


@pytest.mark.parametrize("at_a_time", [1, 1024])
def test_a_duplex_run_asks_the_index_for_the_part_and_keeps_query_ids(
    at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "QUERIES_AT_A_TIME", at_a_time)
    asked = []

    def search(embeddings: list[str], k: int, part: str) -> tuple[list[list[str]], list[list[float]]]:
        asked.append((embeddings, k, part))
        found = {"first": (["b", "a"], [2.0, 1.0]), "second": (["a"], [3.0])}
        ids, scores = zip(*(found[query] for query in embeddings), strict=True)
        return list(ids), list(scores)

    index: Any = SimpleNamespace(encoder=SimpleNamespace(embed_queries=list), search_embeddings=search)
    data = benchmark({"a": "a", "b": "b"}, {"q9": "first", "q1": "second"})
    assert duplex_run(index, data, k=7, part="lexical") == {"q9": {"b": 2.0, "a": 1.0}, "q1": {"a": 3.0}}
    asked_for = [["first"], ["second"]] if at_a_time == 1 else [["first", "second"]]
    assert asked == [(queries, 7, "lexical") for queries in asked_for]
