"""`dupmae search`: where queries come from, what is shown of a hit."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from dupmae.cli import entry as cli
from dupmae.index import Hit, Weights
from dupmae.index.where import read_filter


def test_search_shows_all_parts_of_the_score_and_the_matched_terms(opened, capsys):
    assert cli.main(["search", "folder", "bones", "--k", "2"]) == 0
    opened.search.assert_called_once_with(["bones"], 2)
    text = capsys.readouterr().out
    assert "  1 3.250 = 1.000 dense + 2.000 lexical + 0.250 words  On [bold]bones  p1\n" in text
    assert "  2 3.250 = 1.000 dense + 2.000 lexical + 0.250 words  On [bold]bones  p2\n" in text
    assert "terms: vitamin 1.500  -d 0.500" in text
    assert "words: vitamin 0.250" in text
    assert "Vitamin D and fractures." in text


def test_search_says_that_nothing_was_found(opened, capsys):
    opened.search.side_effect = lambda queries, k: [[]]
    assert cli.main(["search", "folder", "bones"]) == 0
    assert "no passage found" in capsys.readouterr().out


def test_search_json_is_a_line_a_hit_and_nothing_else(opened, capsys):
    assert cli.main(["search", "folder", "fracture null", "--json", "--k", "2"]) == 0
    captured = capsys.readouterr()
    results = [json.loads(line) for line in captured.out.splitlines()]
    assert [(result["query"], result["rank"], result["id"]) for result in results] == [
        ("fracture null", 1, "p1"),
        ("fracture null", 2, "p2"),
    ]
    assert results[:1] == [
        {
            "query": "fracture null",
            "rank": 1,
            "id": "p1",
            "score": 3.25,
            "dense_score": 1.0,
            "lexical_score": 2.0,
            "word_score": 0.25,
            "matches": [{"term": "vitamin", "contribution": 1.5}, {"term": "-d", "contribution": 0.5}],
            "words": [{"word": "vitamin", "contribution": 0.25}],
            "title": "On [bold]bones",
            "text": "Vitamin D and fractures.",
            "metadata": {"lang": "en"},
            "document": "p1",
            "headings": [],
            "start": 0,
            "end": 24,
            "snippet": "Vitamin D and fractures.",
            "snippet_start": 0,
            "highlights": [[14, 23]],
        }
    ]
    assert captured.err == ""


def test_search_takes_weights_of_the_parts_and_refuses_what_is_none(opened, capsys):
    options = ["--dense_weight", "0.5", "--lexical-weight", "2", "--word_weight", "0"]
    assert cli.main(["search", "folder", "bones", *options]) == 0
    opened.search.assert_called_once_with(["bones"], 10, weights=Weights(0.5, 2, 0))
    for given, message in (
        (["--word_weight", "-1"], "--word_weight must be at least 0 and at most 1000, not -1"),
        (["--dense_weight", "nan"], "--dense_weight takes a number, not 'nan'"),
        (["--lexical_weight", "many"], "--lexical_weight"),
        (["--dense_weight", "0", "--lexical_weight", "0", "--word_weight", "0"], "weights of all parts"),
    ):
        for command in ("search", "explain"):
            capsys.readouterr()
            assert cli.main([command, "folder", "bones", *given]) == 2
            error = capsys.readouterr().err
            assert message in error
            assert "Traceback" not in error


def test_search_json_of_no_query_at_all_is_no_line(opened, capsys, pipe):
    pipe(b"")
    assert cli.main(["search", "folder", "--json"]) == 0
    assert capsys.readouterr().out == ""
    opened.search.assert_not_called()


def test_search_answers_a_query_a_line_from_a_pipe_before_it_reads_on(opened, capsys, pipe):
    pipe("\ufefffirst\r\n\n  z\u00fcrich \n".encode())
    before, find = [], opened.search.side_effect
    opened.search.side_effect = lambda queries, k: before.append(capsys.readouterr().out) or find(queries, k)
    assert cli.main(["search", "folder", "--json", "--k", "1"]) == 0
    assert [call.args for call in opened.search.call_args_list] == [(["first"], 1), (["z\u00fcrich"], 1)]
    assert before[0] == ""
    assert json.loads(before[1])["query"] == "first"
    assert json.loads(capsys.readouterr().out)["query"] == "z\u00fcrich"


@pytest.mark.parametrize("command", ["search", "explain"])
def test_an_empty_query_is_refused(command, opened, capsys):
    assert cli.main([command, "folder", " "]) == 2
    assert "the query is empty" in capsys.readouterr().err
    opened.search.assert_not_called()


def test_what_is_piped_is_neither_wrapped_nor_padded(opened, capsys):
    opened.search.side_effect = lambda queries, k: [
        [Hit("p", 1.0, 1.0, 0.0, 0.0, [], [], "T " * 200, "word " * 300, {}, "d", ("Top", "Below"), 1000, 2500)]
    ]
    assert cli.main(["search", "folder", "bones"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("T   d")
    assert lines[2:4] == ["    Top > Below, characters 1,000 to 2,500", "    " + "word " * 59 + "word ..."]
    assert not any(line.endswith(" ") for line in lines)


def test_search_refuses_queries_from_a_pipe_that_are_not_utf8(opened, capsys, pipe):
    pipe(b"first\nz\xfcrich\n")
    assert cli.main(["search", "folder", "--json"]) == 2
    assert "standard input, line 2: byte 2 is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["", EOFError()])
def test_search_prompts_at_a_terminal_until_an_empty_line_or_the_end(ending, opened, monkeypatch):
    answers = iter(["first", "second", ending, "never asked"])

    def ask(prompt: str) -> str:
        answer = next(answers)
        if isinstance(answer, EOFError):
            raise answer
        return answer

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert cli.main(["search", "folder", "--k", "1"]) == 0
    assert [call.args for call in opened.search.call_args_list] == [(["first"], 1), (["second"], 1)]
    assert next(answers) == "never asked"


def test_search_takes_filters_and_what_is_ranked(opened, capsys):
    limits = ["--where", "year>=2020", "lang=en", "lang=de", "--group", "none"]
    assert cli.main(["search", "folder", "bones", *limits]) == 0
    where = read_filter("lang in (en, de) and year>=2020")
    opened.search.assert_called_once_with(["bones"], 10, where=where, group="none")
    for command in ("search", "explain"):
        capsys.readouterr()
        assert cli.main([command, "folder", "bones", "--where", "year>>3"]) == 2
        assert "The filter 'year>>3' cannot be read (from '>3' on)" in capsys.readouterr().err
        assert cli.main([command, "folder", "bones", "--group", "chunks"]) == 2
        assert "--group" in capsys.readouterr().err
