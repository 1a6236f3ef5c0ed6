"""BM25 on corpora small enough to rank by hand."""

from __future__ import annotations

import math

import pytest

from dupmae.corpus import Benchmark, Passage
from dupmae.retrievers import bm25_run
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


def test_queries_that_find_nothing_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    bm25_run(benchmark(CORPUS, {"q": "cat"}))
    assert "BM25 finds" not in caplog.text
    bm25_run(benchmark(CORPUS, {"q1": "cat", "q2": "zebra", "q3": ""}))
    assert "BM25 finds nothing for 2 of the 3 queries of small (test), such as 'q2'" in caplog.text


def test_a_corpus_without_a_word_is_searched_in_vain() -> None:
    assert bm25_run(benchmark({"a": "?!", "b": ""}, {"q": "cat"})) == {"q": {}}
