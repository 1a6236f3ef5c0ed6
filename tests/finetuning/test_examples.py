"""Which rows fine-tuning sees."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from dupmae.config import FinetuneConfig
from dupmae.corpus import Benchmark, Passage
from dupmae.errors import DupmaeError
from dupmae.finetuning.candidates import CandidateList
from dupmae.finetuning.examples import make_examples

PAIRS = 18  # of the toy benchmark: twelve queries, every other one with two positives


def rows(benchmark: Benchmark, config: FinetuneConfig, *given: Any, **named: Any) -> list[tuple[str, ...]]:
    examples = make_examples(benchmark, config, *given, **named)
    return [tuple(examples.texts(row).values()) for row in range(len(examples))]


def answers(benchmark: Benchmark) -> set[tuple[str, str]]:
    """Every pair of a query's and a positive's text."""
    return {
        (benchmark.queries[query], benchmark.corpus[passage].full_text)
        for query, judged in benchmark.qrels.items()
        for passage, grade in judged.items()
        if grade > 0
    }


def test_every_pair_is_one_row_an_epoch(benchmark, config):
    found = rows(benchmark, config)
    assert len(found) == 3 * PAIRS
    for epoch in range(3):
        pairs = Counter((query, positive) for query, positive, _ in found[epoch * PAIRS : (epoch + 1) * PAIRS])
        assert pairs == Counter(answers(benchmark))


def test_rows_fill_whole_batches(benchmark, config):
    config = replace(config, epochs=1.5, batch_size=8)
    assert len(rows(benchmark, config)) == 24  # of 27


@pytest.mark.parametrize("epochs", [0.2, 0.5, 0.9, 1.8])
def test_a_part_of_an_epoch_takes_the_queries_positives_in_turns(epochs, config):
    answers = {f"q{number}": [f"p{number}-{turn}" for turn in range(number)] for number in range(1, 9)}
    corpus = {name: Passage(name, "", name) for found in answers.values() for name in found}
    queries = {query: query for query in answers}
    benchmark = Benchmark("b", "train", corpus, queries, {q: dict.fromkeys(found, 1) for q, found in answers.items()})
    count = sum(map(len, answers.values()))
    found = rows(benchmark, replace(config, epochs=epochs, batch_size=1, negatives=0))
    whole, part = found[: int(epochs) * count], found[int(epochs) * count :]
    assert len(part) == int(count * epochs) % count
    assert len(set(part)) == len(part)
    assert len(set(whole)) == len(whole)
    taken = Counter(query for query, _ in part)
    naive: Counter[str] = Counter()  # a pair of each query that has one left, round after round
    while naive.total() < len(part):
        naive.update(query for query, found in answers.items() if naive[query] < len(found))
    for query, found in answers.items():
        assert naive[query] - 1 <= taken[query] <= naive[query] <= len(found)
    assert [int(query[1:]) for query, _ in part] != sorted(int(query[1:]) for query, _ in part)


def test_whole_epochs_are_in_the_same_order_whatever_part_of_one_follows(benchmark, config):
    long, short = (rows(benchmark, replace(config, epochs=epochs)) for epochs in (3, 2))
    assert long[: len(short)] == short
    assert rows(benchmark, replace(config, epochs=2.5))[: len(short)] == short


def test_epochs_differ_in_order_and_negatives(benchmark, config):
    found = rows(benchmark, config)
    first, second = found[:PAIRS], found[PAIRS : 2 * PAIRS]
    assert [row[:2] for row in first] != [row[:2] for row in second]
    assert {row[:2]: row[2] for row in first} != {row[:2]: row[2] for row in second}


def test_seed_alone_decides_the_rows(benchmark, config):
    assert rows(benchmark, config) == rows(benchmark, config)
    assert rows(benchmark, config) != rows(benchmark, replace(config, seed=1))


def test_negatives_are_never_positives_and_differ_within_a_row(benchmark, config):
    found = rows(benchmark, replace(config, negatives=3))
    for query, _, *negatives in found:
        assert len(set(negatives)) == 3
        assert not {(query, negative) for negative in negatives} & answers(benchmark)


@pytest.mark.parametrize("lists", [False, True])
def test_what_reads_like_a_positive_is_no_negative(benchmark, config, lists):
    positive = benchmark.corpus["p0a"]
    duplicate = replace(positive, id="duplicate", text=positive.text.upper())
    doubled = replace(benchmark, corpus=benchmark.corpus | {"duplicate": duplicate})
    given = {"q0": CandidateList("q0", {"p0a": 2.0}, {"duplicate": 1.9, "p1a": 1.0})} if lists else None
    examples = make_examples(doubled, replace(config, batch_size=1), given)
    number = examples.passages.index("duplicate")
    assert number in examples.positives[examples.queries.index("q0")]  # so the loss leaves it out wherever it stands
    if not lists:
        own = examples.rows[examples.rows[:, 0] == examples.queries.index("q0"), 1:]
        assert number not in own


@pytest.mark.parametrize(
    ("titled", "negatives", "warned"),
    [({"x", "y"}, 1, True), ({"x"}, 1, False), ({"x", "y", "p0a"}, 1, False), ({"x", "y"}, 0, False)],
)
def test_titles_that_no_answer_has_are_told_of(benchmark, config, caplog, titled, negatives, warned):
    corpus = benchmark.corpus | {name: Passage(name, "", "ba") for name in "xy"}
    corpus |= {name: replace(corpus[name], title="ba be") for name in titled}
    make_examples(replace(benchmark, corpus=corpus), replace(config, negatives=negatives))
    told = [record.message for record in caplog.records if "titles are wrong" in record.message]
    count = "No answer that toy trains on has a title, but 2 of its 26 passages have one"
    assert warned == bool(told and told[0].startswith(count))


def test_negatives_come_from_bm25s_best(config):
    texts = {"right": "alpha beta", "near": "alpha gamma", "nearest": "alpha beta beta gamma", "far": "delta"}
    texts |= {f"other{number}": f"epsilon{number}" for number in range(8)}
    corpus = {name: Passage(name, "", text) for name, text in texts.items()}
    benchmark = Benchmark("b", "train", corpus, {"q": "alpha beta"}, {"q": {"right": 1}})
    config = replace(config, batch_size=1, epochs=20)
    drawn = {row[2] for row in rows(benchmark, replace(config, negative_depth=2))}
    assert drawn == {texts["near"], texts["nearest"]}
    assert {row[2] for row in rows(benchmark, replace(config, negative_depth=1))} == {texts["nearest"]}


def test_other_passages_serve_where_bm25_finds_too_few(benchmark, config):
    queries = benchmark.queries | {"q0": "unheard"}
    benchmark = replace(benchmark, queries=queries)
    found = [row for row in rows(benchmark, replace(config, negatives=2)) if row[0] == "unheard"]
    assert len(found) == 3
    texts = {passage.full_text for passage in benchmark.corpus.values()}
    assert all(set(row[2:]) < texts - {row[1]} for row in found)


def test_what_reads_like_the_query_is_no_negative(benchmark, config):
    asked = {f"equal-{query}": Passage(f"equal-{query}", "", f" {text}") for query, text in benchmark.queries.items()}
    examples = make_examples(replace(benchmark, corpus=benchmark.corpus | asked), replace(config, epochs=20))
    drawn = {
        (examples.queries[query], examples.passages[passage])
        for query, _, *negatives in examples.rows.tolist()
        for passage in negatives
    }
    assert any(passage.startswith("equal-") for _, passage in drawn)  # another query's
    assert not any(passage == f"equal-{query}" for query, passage in drawn)


def test_numbers_name_what_stands_in_the_row(benchmark, config):
    examples = make_examples(benchmark, replace(config, negatives=2))
    texts: dict[tuple[bool, int], set[str]] = {}
    for row, (query, positive, *negatives) in enumerate(examples.rows.tolist()):
        assert positive in examples.positives[query]
        assert not set(negatives) & examples.positives[query]
        for place, (text, number) in enumerate(
            zip(examples.texts(row).values(), (query, positive, *negatives), strict=True)
        ):
            texts.setdefault((place == 0, number), set()).add(text)
    assert all(len(found) == 1 for found in texts.values())
    assert sum(map(len, examples.positives.values())) == PAIRS


def test_without_hard_negatives_there_are_pairs_alone(benchmark, config):
    examples = make_examples(benchmark, replace(config, negatives=0))
    assert examples.columns == ["query", "positive"] == list(examples.texts(0))


def test_rows_of_several_processes_fill_whole_steps(benchmark, config):
    assert len(make_examples(benchmark, replace(config, batch_size=4), processes=3)) == 48  # of 54


LISTS = {
    "q0": CandidateList("q0", {"p0a": 9.0}, {"p3a": 8.0, "p4a": 7.0, "p5a": 6.0, "p6a": 5.0}),
    "q1": CandidateList("q1", {"p1b": None}, {"p0b": 2.0}),
}
SCORES = {"q0": {"p0a": 4.0, "p3a": 0.5, "p4a": 1.5, "p5a": -2.0, "p6a": 0.0}, "q1": {"p1b": -1.0, "p0b": 1.0}}


def named_rows(benchmark: Benchmark, config: FinetuneConfig, *given: Any) -> list[list[str]]:
    """Ids of each row's query and passages."""
    examples = make_examples(benchmark, config, *given)
    return [
        [examples.queries[query], *(examples.passages[number] for number in passages)]
        for query, *passages in examples.rows.tolist()
    ]


def test_lists_give_the_pairs_and_the_negatives_drawn_afresh_each_epoch(benchmark, config):
    config = replace(config, batch_size=1, epochs=20, negatives=2, negative_depth=3)
    found = named_rows(benchmark, config, LISTS)
    assert len(found) == 40
    for epoch in range(20):
        assert {tuple(row[:2]) for row in found[2 * epoch : 2 * epoch + 2]} == {("q0", "p0a"), ("q1", "p1b")}
    draws = Counter(frozenset(row[2:]) for row in found if row[0] == "q0")
    assert set(draws) == {frozenset(pair) for pair in (("p3a", "p4a"), ("p3a", "p5a"), ("p4a", "p5a"))}  # the best 3


def test_a_short_list_is_filled_with_other_passages_none_of_them_a_positive(benchmark, config):
    config = replace(config, batch_size=1, epochs=200, negatives=2, negative_depth=50)
    drawn = [row[2:] for row in named_rows(benchmark, config, LISTS) if row[0] == "q1"]
    assert all(LISTS["q1"].negatives.keys() <= set(row) for row in drawn)  # the one that was mined is always there
    # p1a is judged to be a positive, though not in the list
    assert {name for row in drawn for name in row} == set(benchmark.corpus) - {"p1a", "p1b"}


def test_a_query_knows_judged_positives_that_its_list_lacks(benchmark, config):
    examples = make_examples(benchmark, replace(config, batch_size=1), LISTS)
    number = examples.queries.index("q1")
    assert {examples.passages[passage] for passage in examples.positives[number]} == {"p1a", "p1b"}


def test_a_teachers_scores_stand_beside_their_passages(benchmark, config):
    config = replace(config, batch_size=1, epochs=9, negatives=3)
    examples = make_examples(benchmark, config, LISTS, SCORES)
    for row, logits in zip(named_rows(benchmark, config, LISTS, SCORES), examples.teacher.tolist(), strict=True):
        if row[0] == "q0":
            assert logits == [SCORES["q0"][name] for name in row[1:]]
        else:  # there is but one negative; the positive stands in the other places, and has no score there
            assert row[1:] == ["p1b", "p0b", "p1b", "p1b"]
            assert logits == [-1.0, 1.0, -math.inf, -math.inf]
    assert examples.rows.shape == (18, 5)
    assert make_examples(benchmark, config, LISTS).teacher is None


def test_distillation_without_negatives_is_refused(benchmark, config):
    with pytest.raises(DupmaeError, match="negatives is 0, but distillation"):
        make_examples(benchmark, replace(config, negatives=0), LISTS, SCORES)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 19}, "toy gives 18 training pairs, fewer than one batch of 19"),
        ({"batch_size": 10, "epochs": 0.5}, "toy gives 9 training pairs, fewer than one batch of 10"),
        ({"negatives": 23, "negative_depth": 30}, "has only 22 passages that are not its positives"),
        ({"batch_size": 7, "processes": 3}, "toy gives 18 training pairs, fewer than one batch of 21"),
        ({"negatives": 3, "negative_depth": 2}, "cannot be drawn from a negative_depth of 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(settings, sentence, benchmark, config):
    processes = settings.get("processes", 1)
    settings = {name: value for name, value in settings.items() if name != "processes"}
    with pytest.raises(DupmaeError, match=sentence):
        make_examples(benchmark, replace(config, **settings), processes=processes)


def strangers(benchmark: Benchmark, some: int) -> Benchmark:
    """The benchmark with queries of which so many share no word with any passage."""
    unknown = dict(list(benchmark.queries.items())[:some])
    return replace(benchmark, queries=benchmark.queries | {query: f"unheard{query}" for query in unknown})


def test_queries_that_bm25_finds_no_hard_negative_for_are_counted(benchmark, config, caplog):
    heard = replace(
        benchmark,
        corpus=dict(benchmark.corpus),
        queries={query: f"{text} lala" for query, text in benchmark.queries.items()},
    )
    heard.corpus["p"] = Passage("p", "", "lala")
    make_examples(heard, config)
    assert "BM25 finds" not in caplog.text
    found = make_examples(strangers(heard, 5), config)
    assert "BM25 finds nothing for 5 of the 12 queries of toy (train), such as 'q0': no passage but" in caplog.text
    assert found.rows.shape == (3 * PAIRS, 3)


def test_hard_negatives_that_bm25_cannot_find_for_any_query_are_refused(benchmark, config):
    with pytest.raises(DupmaeError, match=r"no hard negative for any of the 12 queries of toy.*set negatives to 0"):
        make_examples(strangers(benchmark, 12), config)
    assert len(make_examples(strangers(benchmark, 12), replace(config, negatives=0))) == 3 * PAIRS


def test_lists_without_a_negative_are_counted_and_refused_if_all_are(benchmark, config, caplog):
    full = {query: CandidateList(query, {f"p{query[1:]}a": 1.0}, {}) for query in benchmark.queries}
    with pytest.raises(DupmaeError, match="hold no negative for any of their 12 queries"):
        make_examples(benchmark, config, full)
    some = full | {"q0": replace(full["q0"], negatives={"p5a": 1.0})}
    make_examples(benchmark, config, some)
    assert "hold no negative for 11 of their 12 queries: any other passages serve" in caplog.text
