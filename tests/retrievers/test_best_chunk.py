"""Documents by their best chunk."""

from __future__ import annotations

from collections.abc import Mapping

from dupmae.corpus import Passage, Run
from dupmae.retrievers.best_chunk import by_best_chunk, cut_corpus


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
