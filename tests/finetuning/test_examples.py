"""Which rows fine-tuning sees."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from dupmae.config import FinetuneConfig
from dupmae.corpus import Benchmark, Passage
from dupmae.errors import DupmaeError
from dupmae.finetuning.examples import make_examples

PAIRS = 18  # of the toy benchmark: twelve queries, every other one with two positives


def rows(benchmark: Benchmark, config: FinetuneConfig) -> list[tuple[str, ...]]:
    columns = make_examples(benchmark, config).columns
    return list(zip(*(column for name, column in columns.items() if name != "label"), strict=True))


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


def test_labels_number_what_stands_in_the_row(benchmark, config):
    examples = make_examples(benchmark, replace(config, negatives=2))
    names = ["query", "positive", "negative_1", "negative_2"]
    texts: dict[tuple[bool, int], set[str]] = {}
    for *row, label in zip(*(examples.columns[name] for name in [*names, "label"]), strict=True):
        assert label[1] in examples.positives[label[0]]
        assert not set(label[2:]) & examples.positives[label[0]]
        for place, (text, number) in enumerate(zip(row, label, strict=True)):
            texts.setdefault((place == 0, number), set()).add(text)
    assert all(len(found) == 1 for found in texts.values())
    assert sum(map(len, examples.positives.values())) == PAIRS


def test_without_hard_negatives_there_are_pairs_alone(benchmark, config):
    columns = make_examples(benchmark, replace(config, negatives=0)).columns
    assert list(columns) == ["query", "positive", "label"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 19}, "toy gives 18 training pairs, fewer than one batch of 19"),
        ({"batch_size": 10, "epochs": 0.5}, "toy gives 9 training pairs, fewer than one batch of 10"),
        ({"negatives": 23, "negative_depth": 30}, "has only 22 passages that are not its positives"),
        ({"negatives": 3, "negative_depth": 2}, "cannot be drawn from a negative_depth of 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(settings, sentence, benchmark, config):
    with pytest.raises(DupmaeError, match=sentence):
        make_examples(benchmark, replace(config, **settings))
