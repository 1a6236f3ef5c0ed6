"""Runs of the baselines on corpora small enough to rank by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dupmae.corpus import Benchmark, Passage
from dupmae.evaluation import bm25_run, dense_run, duplex_run


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


class FakeDense:
    """A sentence-transformers model whose vectors are letter counts."""

    similarity = staticmethod(lambda first, second: first @ second.T)
    max_seq_length = 512
    made: list[FakeDense] = []  # noqa: RUF012

    device = torch.device("cpu")

    def __init__(self, name: str) -> None:
        self.name = name
        self.made.append(self)

    def encode_document(self, texts: list[str], **_: Any) -> torch.Tensor:
        return torch.tensor([[float(text.count(letter)) for letter in "abc"] for text in texts])

    encode_query = encode_document


def test_a_dense_run_ranks_by_the_models_own_similarity(monkeypatch: pytest.MonkeyPatch) -> None:
    import sentence_transformers

    import dupmae.models

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", FakeDense)
    monkeypatch.setattr(dupmae.models, "resolve_model", lambda name: f"resolved {name}")
    data = benchmark({"y": "aab", "x": "aaaa", "z": "c"}, {"q1": "a", "q2": "ccb"})
    run = dense_run("m", data, k=2, max_length=99)
    assert list(run["q1"].items()) == [("x", 4.0), ("y", 2.0)]
    assert list(run["q2"].items()) == [("z", 2.0), ("y", 1.0)]
    assert (FakeDense.made[-1].name, FakeDense.made[-1].max_seq_length) == ("resolved m", 99)


def test_a_duplex_run_asks_the_index_for_the_part_and_keeps_query_ids() -> None:
    asked = []

    def search(embeddings: np.ndarray, k: int, part: str) -> tuple[list[list[str]], list[list[float]]]:
        asked.append((embeddings, k, part))
        return [["b", "a"], ["a"]], [[2.0, 1.0], [3.0]]

    index: Any = SimpleNamespace(encoder=SimpleNamespace(embed_queries=list), search_embeddings=search)
    data = benchmark({"a": "a", "b": "b"}, {"q9": "first", "q1": "second"})
    assert duplex_run(index, data, k=7, part="ot") == {"q9": {"b": 2.0, "a": 1.0}, "q1": {"a": 3.0}}
    assert asked == [(["first", "second"], 7, "ot")]
