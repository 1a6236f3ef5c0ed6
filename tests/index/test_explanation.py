"""Explanations of a tiny index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dupmae import DuplexConfig, DuplexEncoder, DuplexIndex
from dupmae.cli.display import PlainConsole, show_explanation
from dupmae.corpus import read_benchmark
from dupmae.errors import DupmaeError
from dupmae.index import Weights
from dupmae.index.explanation import explain, explanation_as_record
from dupmae.index.highlights import highlight


@pytest.fixture(scope="module")
def index(benchmark_folder: Path, duplex_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> DuplexIndex:
    passages = read_benchmark(benchmark_folder, "test").corpus.values()
    folder = tmp_path_factory.mktemp("index") / "index"
    return DuplexIndex.build(folder, DuplexEncoder(str(duplex_folder)), passages, model=str(duplex_folder))


@pytest.fixture(scope="module")
def query(benchmark_folder: Path) -> str:
    return read_benchmark(benchmark_folder, "test").queries["q0"]


def test_a_passages_score_is_taken_apart_as_search_does_it(index: DuplexIndex, query: str) -> None:
    hits = index.search([query], 5)[0]
    explained = index.explain(query, [hit.id for hit in hits])
    assert [(hit.id, hit.matches, hit.dense_score) for hit in explained] == [
        (hit.id, hit.matches, hit.dense_score) for hit in hits
    ]
    assert [hit.score for hit in explained] == pytest.approx([hit.score for hit in hits])
    with pytest.raises(DupmaeError, match="has no passage 'nobody'"):
        index.explain(query, ["nobody"])


def test_no_passage_at_all_is_refused(index: DuplexIndex, query: str) -> None:
    with pytest.raises(DupmaeError, match="k is 0: ask for at least one passage"):
        explain(index, query, k=0)


def test_the_best_of_all_three_rankings_are_shown_with_their_ranks(index: DuplexIndex, query: str) -> None:
    explanation = explain(index, query, k=2, ids=["p00"])
    shown = {explained.hit.id: explained.ranks for explained in explanation.hits}
    embeddings = index.encoder.embed_queries([query])
    for place, part in enumerate(("all", "dense", "lexical")):
        ranking = index.search_embeddings(embeddings, 100, part)[0][0]
        assert set(ranking[:2]) <= shown.keys()
        for passage, ranks in shown.items():
            assert ranks[place] == (ranking.index(passage) + 1 if passage in ranking else None)
    assert [explained.ranks[0] for explained in explanation.hits[:2]] == [1, 2]
    assert "p00" in shown


def test_terms_are_matched_if_they_stand_in_both_texts_and_meant_otherwise(index: DuplexIndex, query: str) -> None:
    explanation = explain(index, query, k=3)
    asked = set(query.split())
    assert {term.token for term in explanation.terms if term.in_query} <= asked
    assert any(not term.in_query for term in explanation.terms)
    weights = [abs(term.weight) for term in explanation.terms]
    assert weights == sorted(weights, reverse=True)
    for explained in explanation.hits:
        there = set(f"{explained.hit.title} {explained.hit.text}".split())
        for term in (*explained.matched, *explained.expanded):
            both = term.token in asked and term.token in there
            assert (term in explained.matched) is both
        total = sum(term.weight for term in (*explained.matched, *explained.expanded))
        assert total == pytest.approx(explained.hit.lexical_score, rel=1e-5)


def test_the_command_prints_both_shares_or_json(
    index: DuplexIndex, query: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from dupmae.cli import entry as cli

    assert cli.main(["explain", str(index.folder), query, "--k", "1"]) == 0
    printed = capsys.readouterr().out
    for text in (query, "its words:", "added:", "rank 1, by the dense half", " dense + ", "in both:", "meant:"):
        assert text in printed
    assert cli.main(["explain", str(index.folder), query, "--k", "1", "--ids", "p00", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    opened = DuplexIndex.open(index.folder)  # with the encoder of queries that the command takes
    assert record == json.loads(json.dumps(explanation_as_record(explain(opened, query, 1, ["p00"]))))
    assert record["hits"][0]["rank"] == 1
    assert {"dense_rank", "lexical_rank", "matched", "expanded", "dense_score"} <= record["hits"][0].keys()


def test_whole_words_are_weighed_counted_and_ranked_by(
    bert_folder: Path, benchmark_folder: Path, query: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = read_benchmark(benchmark_folder, "test").corpus
    encoder = DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(dense_dimension=16, top_k=10))
    encoder.save(str(tmp_path / "model"))
    index = DuplexIndex.build(tmp_path / "index", encoder, corpus.values())
    explanation = explain(index, f"{query} unheard", 2, weights=Weights(words=2))
    there = [set(passage.full_text.split()) for passage in corpus.values()]
    assert {word.word: word.passages for word in explanation.words} == {
        word: sum(word in words for words in there) for word in {*query.split(), "unheard"}
    }
    assert [word.weight for word in explanation.words if word.word == "unheard"] == [0.0]
    embeddings = index.encoder.embed_queries([f"{query} unheard"])
    ranking = index.search_embeddings(embeddings, 100, "words")[0][0]
    by_word = {word.word: word.weight for word in explanation.words}
    for explained in explanation.hits:
        assert explained.ranks[3] == ranking.index(explained.hit.id) + 1
        assert explained.hit.word_score == pytest.approx(sum(added for _, added in explained.hit.words))
        assert all(0 < added < by_word[word] for word, added in explained.hit.words)
    assert set(ranking[:2]) <= {explained.hit.id for explained in explanation.hits}
    record = explanation_as_record(explanation)
    assert record["hits"][0].keys() >= {"word_rank", "word_score", "words"}
    shown = [highlight(explained.hit, query, encoder.tokenizer, "english") for explained in explanation.hits]
    show_explanation(PlainConsole(), explanation, shown)
    printed = capsys.readouterr().out
    assert "whole words: " in printed
    assert "unheard (in 0) 0.000" in printed
    assert f", by words {explanation.hits[0].ranks[3]}" in printed
