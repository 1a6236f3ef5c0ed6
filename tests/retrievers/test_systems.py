"""Runs of dense and duplex models, and corpora made ready for searching by a system's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dupmae.corpus import Benchmark, Passage, read_benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.index import DuplexIndex
from dupmae.retrievers import dense_run, duplex_run, systems
from dupmae.retrievers.lengths import UNCHANGED, Lengths
from dupmae.retrievers.systems import open_retrievers, reuse_index, search_index


def benchmark(corpus: dict[str, str], queries: dict[str, str]) -> Benchmark:
    passages = {name: Passage(name, "", text) for name, text in corpus.items()}
    return Benchmark("small", "test", passages, queries, {name: {} for name in queries})


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


def test_an_index_that_is_there_is_used_again_unless_it_holds_other_passages_or_was_read_to_another_length(
    benchmark_folder: Path, duplex_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_benchmark(benchmark_folder, "test")
    name, encodings = str(duplex_folder), tmp_path / "encodings"
    encoder = DuplexEncoder(name)
    index = DuplexIndex.build(tmp_path / "index", encoder, data.corpus.values(), model=name, chunk_tokens=0)
    cut = DuplexIndex.build(tmp_path / "cut", encoder, data.corpus.values(), model=name)
    other = replace(data, corpus=dict(list(data.corpus.items())[1:]))
    reuse_index(index.folder, other, UNCHANGED, encodings)
    reuse_index(index.folder, data, Lengths(document=8), encodings)
    reuse_index(cut.folder, data, UNCHANGED, encodings)
    assert not encodings.exists()
    reuse_index(index.folder, data, UNCHANGED, encodings)
    monkeypatch.setattr(DuplexEncoder, "embed_documents", None)  # encoding would fail
    (retriever,) = open_retrievers(name, data, UNCHANGED, encodings)
    assert retriever.search({"q": "ba be"}, 5) == search_index(index, {"q": "ba be"}, 5)
    assert retriever.seconds is None
    reuse_index(index.folder, data, UNCHANGED, encodings)
    assert len(list(encodings.iterdir())) == 1


def test_the_time_of_an_interrupted_index_is_not_known(
    benchmark_folder: Path, duplex_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_benchmark(benchmark_folder, "test")

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(DuplexEncoder, "embed_documents", die)
        with pytest.raises(KeyboardInterrupt):
            open_retrievers(str(duplex_folder), data, UNCHANGED, tmp_path)
    (retriever,) = open_retrievers(str(duplex_folder), data, UNCHANGED, tmp_path)
    assert retriever.seconds is None
    assert retriever.search({"q": "ba"}, 3)["q"]
