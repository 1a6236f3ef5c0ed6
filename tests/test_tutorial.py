"""The tutorial and its sample: the data are in order, every command shows its output, and the first two run."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import sys
from pathlib import Path

import pytest

from dupmae import cli
from dupmae.corpus import read_benchmark, read_pairs, read_passages

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def refreshing():
    """The script that fills in the outputs."""
    spec = importlib.util.spec_from_file_location("refresh_tutorial", ROOT / "docs" / "refresh_tutorial.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_samples_passages_are_in_order():
    passages = list(read_passages(SAMPLE / "corpus.jsonl", metadata_fields=["topic", "url"], need_ids=True))
    assert len(passages) == 200
    assert len({passage.id for passage in passages}) == 200
    assert len({passage.text for passage in passages}) == 200
    for passage in passages:
        assert passage.title
        assert passage.metadata["topic"]
        assert passage.metadata["url"] == f"https://en.wikipedia.org/?curid={passage.id}"


def test_the_samples_judgements_name_its_passages_and_questions():
    train, test = read_benchmark(SAMPLE, "train"), read_benchmark(SAMPLE, "test")  # unknown ones would be refused
    assert (len(train.qrels), len(test.qrels)) == (60, 32)
    assert not train.qrels.keys() & test.qrels.keys()
    assert len(set(train.queries.values()) | set(test.queries.values())) == 92
    answers = [set().union(*judged.qrels.values()) for judged in (train, test)]
    assert not answers[0] & answers[1]


def test_the_samples_pairs_are_its_training_questions():
    pairs, train = read_pairs(SAMPLE / "pairs.jsonl"), read_benchmark(SAMPLE, "train")
    judged = {
        (train.queries[query], train.corpus[one].full_text) for query in train.qrels for one in train.qrels[query]
    }
    given = {(pairs.queries[query], pairs.corpus[one].full_text) for query in pairs.qrels for one in pairs.qrels[query]}
    assert given == judged


def test_the_sample_is_small():
    assert sum(file.stat().st_size for file in SAMPLE.rglob("*") if file.is_file()) < 150_000


def test_every_command_of_the_tutorial_shows_its_output(refreshing):
    steps = list(refreshing.read_steps(TUTORIAL))
    assert sum(bool(step.commands) for step in steps) == TUTORIAL.count("```sh\n")
    assert sum(step.shown is not None for step in steps) == TUTORIAL.count("```text\n")
    for step in steps:
        if step.what == "none":
            assert step.shown is None, step.commands
        else:
            assert step.shown, f"run docs/refresh_tutorial.py: nothing is shown of {step.commands or step.what}"


def test_the_tutorials_first_two_commands_run(tmp_path, monkeypatch, capsys, refreshing):
    (tmp_path / "data" / "sample").mkdir(parents=True)
    with (SAMPLE / "corpus.jsonl").open(encoding="utf-8") as file:
        first = list(itertools.islice(file, 20))
    (tmp_path / "data" / "sample" / "corpus.jsonl").write_text("".join(first), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for step in itertools.islice(refreshing.read_steps(TUTORIAL), 2):
        assert cli.main(shlex.split(step.commands)[1:]) in (None, 0)
    printed = capsys.readouterr().out
    assert "Written: runs/tutorial/index" in printed
    assert re.search(r"^ +2 ", printed, re.MULTILINE)


def test_a_refreshed_document_holds_what_its_commands_print(tmp_path, refreshing):
    (tmp_path / "page.html").write_text(
        "<h3>Against a &amp; b</h3><table><tr><th>name</th><th>n</th></tr><tr><td>x</td><td>1,000</td></tr></table>"
    )
    document = (
        "A\n\n```sh\necho one  \n```\n\n```text\nold\n```\n\nB\n\n<!-- output: none -->\n```sh\necho two > two\n```\n\n"
        "<!-- output: lines 1-1, 3-3 -->\n```sh\ncat two two two two\n```\n\n```text\n```\n\n"
        "<!-- table: Against, page.html -->\n```text\n```\n\n```sh\necho three\n```\n\nC\n"
    )
    wanted = document.replace("old\n", "one\n").replace(
        "two two\n```\n\n```text\n", "two two\n```\n\n```text\ntwo\n...\ntwo\n...\n"
    )
    wanted = wanted.replace("page.html -->\n```text\n", "page.html -->\n```text\nname      n\nx     1,000\n")
    assert refreshing.refresh(document, tmp_path) == wanted
    assert refreshing.refresh(wanted, tmp_path) == wanted


def test_an_output_is_shown_from_or_until_a_line(refreshing):
    assert refreshing.shorten("a\n![b]\nc\n", "until ![") == "a\n...\n"
    assert refreshing.shorten("a\n![b]\nc\n", "from ![") == "...\n![b]\nc\n"
    with pytest.raises(ValueError, match="no line of the output begins with 'd'"):
        refreshing.shorten("a\nc\n", "from d")


@pytest.mark.parametrize("what", ["line 1-2", "lines 1", "lines"])
def test_a_misspelt_comment_is_refused(what, refreshing):
    with pytest.raises(ValueError, match="not understood"):
        refreshing.shorten("a\nb\n", what)
