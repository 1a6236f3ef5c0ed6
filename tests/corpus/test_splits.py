"""Queries held out of a benchmark."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from dupmae.corpus import Benchmark, Passage, split_queries
from dupmae.errors import DupmaeError


def benchmark_of(count: int) -> Benchmark:
    queries = {f"q{i}": f"query {i}" for i in range(count)}
    return Benchmark("b", "train", {"d": Passage("d", "", "t")}, queries, {query: {"d": 1} for query in queries})


def sharing(seed: int, queries: int = 60, passages: int = 90) -> Benchmark:
    """Queries with one to three positives, some of them shared, and judgements of 0, which tie nothing together."""
    draw = random.Random(seed)
    corpus = {f"p{i}": Passage(f"p{i}", "", f"text {i}") for i in range(passages)}
    qrels = {
        f"q{i}": dict.fromkeys(draw.sample(sorted(corpus), 3), 0)
        | dict.fromkeys(draw.sample(sorted(corpus), draw.choice([1, 1, 1, 2, 3])), 1)
        for i in range(queries)
    }
    return Benchmark("b", "train", corpus, {query: f"text of {query}" for query in qrels}, qrels)


def positives(part: Benchmark) -> set[str]:
    return {passage for grades in part.qrels.values() for passage, grade in grades.items() if grade > 0}


def naive_groups(benchmark: Benchmark) -> list[set[str]]:
    """Every query a group; groups with a positive in common are joined until none has."""
    groups = [
        ({query}, {name for name, grade in benchmark.qrels[query].items() if grade}) for query in benchmark.queries
    ]
    joined = True
    while joined:
        joined = False
        for one in groups:
            for other in groups:
                if one is not other and one[1] & other[1]:
                    one[0].update(other[0])
                    one[1].update(other[1])
                    groups.remove(other)
                    joined = True
                    break
    return [queries for queries, _ in groups]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.7])
def test_held_out_queries_share_no_positive_with_the_others_and_groups_stay_whole(seed: int, fraction: float) -> None:
    whole = sharing(seed)
    rest, held_out = split_queries(whole, fraction, seed=3)

    assert Counter([*rest.queries, *held_out.queries]) == Counter(list(whole.queries))
    assert not positives(rest) & positives(held_out)
    taken = [group for group in naive_groups(whole) if group <= held_out.queries.keys()]
    left = [group for group in naive_groups(whole) if group <= rest.queries.keys()]
    assert len(taken) + len(left) == len(naive_groups(whole))
    missing = round(fraction * len(whole.queries)) - len(held_out.queries)
    assert missing <= min(map(len, left)) / 2  # no group is left that would bring it nearer
    assert -missing < max(map(len, taken)) / 2


def test_passages_are_held_out_alike_whatever_the_order_of_the_files() -> None:
    whole = sharing(1)
    turned = replace(
        whole,
        queries=dict(reversed(whole.queries.items())),
        qrels={query: dict(reversed(grades.items())) for query, grades in reversed(whole.qrels.items())},
    )

    assert split_queries(turned, 0.3, 42)[1].queries == split_queries(whole, 0.3, 42)[1].queries
    assert sorted(split_queries(sharing(2, 12), 0.3, 42)[1].queries) == ["q1", "q11", "q5", "q6"]


@pytest.mark.parametrize("seed", range(10))
def test_queries_whose_positives_are_duplicates_stay_together(seed: int) -> None:
    whole = sharing(seed, passages=300)
    corpus = {f"p{i}": Passage(f"p{i}", "", f"text {i // 2}") for i in range(len(whole.corpus))}
    rest, held_out = split_queries(replace(whole, corpus=corpus), 0.3, seed=3)

    texts = [{corpus[passage].text for passage in positives(part)} for part in (rest, held_out)]
    assert all(texts)
    assert not texts[0] & texts[1]


def test_a_query_without_a_positive_is_a_group_of_its_own() -> None:
    queries = {f"q{i}": "x" for i in range(4)}
    rest, held_out = split_queries(Benchmark("b", "train", {}, queries, {query: {"d": 0} for query in queries}), 0.5, 0)

    assert len(rest.queries) == len(held_out.queries) == 2


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_each_side_gets_at_least_one_group(fraction: float) -> None:
    apart = benchmark_of(5)
    corpus = {query: Passage(query, "", f"answer to {query}") for query in apart.queries}
    apart = replace(apart, corpus=corpus, qrels={query: {query: 1} for query in apart.queries})
    rest, held_out = split_queries(apart, fraction, seed=0)

    assert min(len(rest.queries), len(held_out.queries)) == 1


def test_queries_that_all_share_their_passages_are_refused_with_the_ways_out() -> None:
    with pytest.raises(
        DupmaeError, match=r"only 0 of 40 can be held out .*, not 4: name a split .* \(hold_out queries\)"
    ):
        split_queries(benchmark_of(40), 0.1, seed=0)


def test_a_split_divides_the_queries_with_their_judgements() -> None:
    whole = benchmark_of(1_000)
    rest, held_out = split_queries(whole, 0.2, seed=1, hold_out="queries")

    assert Counter([*rest.queries, *held_out.queries]) == Counter(list(whole.queries))
    assert 150 < len(held_out.queries) < 250
    for part in (rest, held_out):
        assert list(part.qrels) == list(part.queries)
        assert part.corpus is whole.corpus
    assert (rest.split, held_out.split) == ("train", "train-held-out")


def test_a_query_keeps_its_side_when_others_come_or_go() -> None:
    few, many = (split_queries(benchmark_of(count), 0.3, 7, "queries")[1].queries for count in (100, 400))

    assert few.items() <= many.items()
    assert set(many) & set(benchmark_of(100).queries) == set(few)


def test_the_split_is_the_same_on_every_machine() -> None:
    assert list(split_queries(benchmark_of(20), 0.2, 42, "queries")[1].queries) == ["q1", "q6"]


def test_another_seed_gives_another_split() -> None:
    for benchmark, hold_out in ((benchmark_of(100), "queries"), (sharing(5), "passages")):
        splits = [list(split_queries(benchmark, 0.5, seed, hold_out)[1].queries) for seed in (1, 2)]

        assert splits[0] != splits[1]


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_each_side_gets_at_least_one_query(fraction: float) -> None:
    rest, held_out = split_queries(benchmark_of(5), fraction, 0, "queries")

    assert min(len(rest.queries), len(held_out.queries)) == 1


def test_nothing_is_held_out_with_a_fraction_of_zero() -> None:
    rest, held_out = split_queries(benchmark_of(5), 0, seed=0)

    assert (len(rest.queries), len(held_out.queries)) == (5, 0)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(DupmaeError, match="at least 0 and below 1"):
        split_queries(benchmark_of(5), fraction, seed=0)


def test_a_single_query_cannot_be_divided() -> None:
    with pytest.raises(DupmaeError, match="too few queries"):
        split_queries(benchmark_of(1), 0.5, seed=0)
