"""Where two systems differ, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dupmae.corpus import Benchmark, Passage, write_run
from dupmae.evaluation.benchmarks import Definition
from dupmae.evaluation.comparison import Comparison, compare
from dupmae.evaluation.insight import by_length, by_overlap, largest_differences

CORPUS = {
    "d1": "lighthouses guide ships",
    "d2": "vitamins and bones",
    "d3": "the keeper lives alone",
    "d4": "a history of bread",
}
QUERIES = {
    "short": "lighthouses",
    "half": "vitamins fractures",
    "none": "who stays in a tower by himself at night",
    "long": " ".join(["history of bread"] * 6),
}
ANSWERS = {"short": "d1", "half": "d2", "none": "d3", "long": "d4"}


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    passages = {name: Passage(name, "", text) for name, text in CORPUS.items()}
    data = Benchmark("hand", "test", passages, QUERIES, {query: {name: 1} for query, name in ANSWERS.items()})
    first = {query: {name: 1.0} for query, name in ANSWERS.items()} | {"none": {"d1": 1.0}}
    second = {
        "short": {"d2": 3.0, "d3": 2.0, "d1": 1.0},
        "half": {"d1": 2.0, "d2": 1.0},
        "none": {"d3": 1.0},
        "long": {"d4": 1.0},
    }
    for name, run in (("first", first), ("second", second)):
        write_run(tmp_path / f"{name}.trec", run, name)
    found = [tmp_path / "first.trec", tmp_path / "second.trec"]
    return compare(Definition(name="hand"), [data], [], found, tmp_path)


def test_queries_are_grouped_by_their_words(comparison: Comparison) -> None:
    groups = by_length(comparison, "mrr@10")
    assert [(group.name, group.queries) for group in groups] == [
        ("1 to 4 words", 2),
        ("9 to 14 words", 1),
        ("15 and more words", 1),
    ]
    first, second = (system.name for system in comparison.systems)
    assert groups[0].means == {first: 1.0, second: pytest.approx((1 / 3 + 1 / 2) / 2)}
    assert groups[1].means == {first: 0.0, second: 1.0}


def test_queries_are_grouped_by_the_share_of_their_words_that_an_answer_has(comparison: Comparison) -> None:
    assert [(group.name, group.queries) for group in by_overlap(comparison, "mrr@10")] == [
        ("0% to 25% of the words", 1),
        ("50% to 75% of the words", 1),
        ("75% and more of the words", 2),
    ]


def test_the_largest_differences_come_first_with_texts_ranks_and_what_went_wrong(comparison: Comparison) -> None:
    first, second = comparison.systems
    ahead, behind = largest_differences(comparison, "mrr@10", first, second, 5)
    assert [case.query for case in ahead] == ["short", "half"]
    assert [case.query for case in behind] == ["none"]
    assert ahead[0].values == (1.0, pytest.approx(1 / 3))
    assert ahead[0].relevant == [("d1", CORPUS["d1"], (1, 3))]
    assert ahead[0].wrong == ("d2", CORPUS["d2"], second.name)
    assert behind[0].relevant == [("d3", CORPUS["d3"], (None, 1))]
    assert behind[0].wrong == ("d1", CORPUS["d1"], first.name)
    assert len(largest_differences(comparison, "mrr@10", first, second, 1)[0]) == 1


def test_queries_of_parts_are_told_apart(tmp_path: Path) -> None:
    passages = {"d1": Passage("d1", "", "one"), "d2": Passage("d2", "", "two")}
    parts = [Benchmark(name, "test", passages, {"q": f"{name} query"}, {"q": {"d1": 1}}) for name in ("gis", "tex")]
    for name, run in (("a", {"q": {"d1": 1.0}}), ("b", {"q": {"d2": 1.0}})):
        for part in ("gis", "tex"):
            write_run(tmp_path / name / f"{part}.trec", run, name)
    found = compare(Definition(name="parts"), parts, [], [tmp_path / "a", tmp_path / "b"], tmp_path)
    first, second = found.systems
    ahead, _ = largest_differences(found, "mrr@10", first, second, 5)
    assert [(case.query, case.text) for case in ahead] == [("gis/q", "gis query"), ("tex/q", "tex query")]
    assert by_length(found, "mrr@10")[0].queries == 2
