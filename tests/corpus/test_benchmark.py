import gzip
import json
import logging
import lzma
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from dupmae.corpus import Benchmark, Passage, read_benchmark, read_pairs, split_queries
from dupmae.errors import DupmaeError


def jsonl(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    (folder / "qrels").mkdir(parents=True)
    corpus = jsonl({"_id": "d1", "title": "T", "text": "one"}, {"_id": "d2", "title": "", "text": "two"})
    (folder / "corpus.jsonl.xz").write_bytes(lzma.compress(corpus))
    queries = jsonl(*({"_id": f"q{i}", "text": f"query {i}"} for i in (1, 2, 3)))
    (folder / "queries.jsonl.gz").write_bytes(gzip.compress(queries))
    head = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "train.tsv").write_text(f"{head}q1\td1\t1\n")
    (folder / "qrels" / "test.tsv.gz").write_bytes(gzip.compress(f"{head}q3\td1\t0\nq2\td2\t2\nq3\td2\t1\n".encode()))
    return folder


def test_a_beir_folder_gives_corpus_and_the_judged_queries_of_the_split(folder: Path) -> None:
    assert read_benchmark(folder, "test") == Benchmark(
        name="small",
        split="test",
        corpus={"d1": Passage("d1", "T", "one"), "d2": Passage("d2", "", "two")},
        queries={"q3": "query 3", "q2": "query 2"},
        qrels={"q3": {"d1": 0, "d2": 1}, "q2": {"d2": 2}},
    )
    assert read_benchmark(folder, "train").queries == {"q1": "query 1"}


@pytest.mark.parametrize("split", ["dev", "../qrels/train", ""])
def test_an_unknown_split_is_refused_with_those_that_exist(folder: Path, split: str) -> None:
    with pytest.raises(DupmaeError, match="its folder qrels holds test, train"):
        read_benchmark(folder, split)


def test_a_folder_that_lacks_files_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "queries.jsonl.gz").unlink()

    with pytest.raises(DupmaeError, match=r"small is not a benchmark in BEIR layout: it has no queries\.jsonl\."):
        read_benchmark(folder, "test")
    with pytest.raises(DupmaeError, match=r"it has no corpus\.jsonl and no queries\.jsonl"):
        read_benchmark(tmp_path / "nowhere", "test")


def test_judgements_of_unknown_queries_and_passages_are_counted_listed_and_refused(folder: Path) -> None:
    lines = ["q1\td1\t1", "q9\td1\t1", "q1\td7\t1", "q9\td8\t1", "q2\td9\t1", "q1\td10\t1"]
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines))

    expected = r"5 judgements name queries .* \(first: passage 'd7', passage 'd10', query 'q9'\)"
    with pytest.raises(DupmaeError, match=expected):
        read_benchmark(folder, "train")


@pytest.mark.parametrize(("name", "what"), [("corpus.jsonl", "passage"), ("queries.jsonl", "query")])
def test_ids_that_no_run_can_hold_are_refused_when_the_folder_is_read(folder: Path, name: str, what: str) -> None:
    next(folder.glob(f"{name}*")).unlink()
    (folder / name).write_bytes(jsonl({"_id": "fine", "text": "x"}, {"_id": "doc 152245", "text": "x"}))

    with pytest.raises(DupmaeError, match=rf"{name}: the {what} id 'doc 152245' is empty or holds white space"):
        read_benchmark(folder, "test")


def test_unknown_judgements_are_dropped_with_a_warning_when_allowed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\tno\t1\nq2\tno\t1\nno\td1\t1\n"
    )

    with caplog.at_level(logging.WARNING):
        benchmark = read_benchmark(folder, "train", allow_unknown=True)
    assert benchmark.qrels == {"q1": {"d1": 1}}
    assert benchmark.queries == {"q1": "query 1"}
    assert "3 judgements name" in caplog.text


def test_judgements_of_which_none_is_known_are_refused_even_when_allowed(folder: Path) -> None:
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tno\t1\n")

    with pytest.raises(DupmaeError, match="no judgement is left"):
        read_benchmark(folder, "train", allow_unknown=True)


def test_pairs_become_a_benchmark_with_equal_texts_merged(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl.gz"
    records = [
        {"query": "why", "positive": "because", "source": "x"},
        {"query": "how", "positive": ["so", "because"]},
        {"query": "why", "positive": "therefore"},
    ]
    path.write_bytes(gzip.compress(jsonl(*records)))

    assert read_pairs(path) == Benchmark(
        name="pairs",
        split="train",
        corpus={f"p{i}": Passage(f"p{i}", "", text) for i, text in enumerate(("because", "so", "therefore"), 1)},
        queries={"q1": "why", "q2": "how"},
        qrels={"q1": {"p1": 1, "p3": 1}, "q2": {"p2": 1, "p1": 1}},
    )


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"query": "x", "negative": "y"}, "no field 'positive'; its fields are 'query', 'negative'"),
        ({"positive": "y"}, "no field 'query'"),
        ({"query": 1, "positive": "y"}, "the field 'query' is a number"),
        ({"query": "x", "positive": ["y", None]}, "the field 'positive' is null"),
        ({"query": "x", "positive": []}, "is empty"),
        ({"query": "x", "positive": " "}, "is empty"),
        ({"query": "", "positive": "y"}, "is empty"),
    ],
)
def test_bad_pairs_are_refused_with_the_line(tmp_path: Path, record: object, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(jsonl({"query": "fine", "positive": "fine"}, record))

    with pytest.raises(DupmaeError) as caught:
        read_pairs(path)
    assert f"{path}, line 2: " in str(caught.value)
    assert message in str(caught.value)


def test_no_pairs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("\n")

    with pytest.raises(DupmaeError, match="holds no pairs"):
        read_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(DupmaeError, match="does not exist"):
        read_pairs(tmp_path / "none.jsonl")


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
def test_queries_whose_positives_read_the_same_stay_together(seed: int) -> None:
    whole = sharing(seed, passages=300)
    corpus = {f"p{i}": Passage(f"p{i}", "", f"text {i // 2}") for i in range(len(whole.corpus))}
    rest, held_out = split_queries(replace(whole, corpus=corpus), 0.3, seed=3)

    said = [{corpus[passage].text for passage in positives(part)} for part in (rest, held_out)]
    assert all(said)
    assert not said[0] & said[1]


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


def test_a_split_shares_the_queries_out_with_their_judgements() -> None:
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


def test_a_single_query_cannot_be_shared_out() -> None:
    with pytest.raises(DupmaeError, match="too few queries"):
        split_queries(benchmark_of(1), 0.5, seed=0)
