"""Metrics, computed by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import pytrec_eval

from dupmae.errors import DupmaeError
from dupmae.evaluation import ALL_METRICS, METRICS, evaluate_run, per_query
from dupmae.evaluation.metrics import values_per_query


def test_graded_judgements_weigh_in_ndcg_and_any_positive_grade_is_relevant_elsewhere() -> None:
    qrels = {"q": {"a": 2, "b": 1, "z": 0}}
    run = {"q": {"z": 4.0, "b": 3.0, "x": 2.0, "a": 1.0}}
    values = evaluate_run(run, qrels)
    gained = 1 / math.log2(3) + 2 / math.log2(5)
    assert values["ndcg@10"] == pytest.approx(gained / (2 + 1 / math.log2(3)))
    assert values["mrr@10"] == pytest.approx(1 / 2)
    assert values["recall@100"] == 1.0


def test_equal_scores_are_ranked_by_id_for_every_metric() -> None:
    run = {"q": {"b": 1.0, "a": 1.0, "c": 1.0}}
    for relevant, place in [("a", 1), ("b", 2), ("c", 3)]:
        values = evaluate_run(run, {"q": {relevant: 1}})
        assert values["mrr@10"] == pytest.approx(1 / place)
        assert values["ndcg@10"] == pytest.approx(1 / math.log2(place + 1))


def test_scores_too_close_for_single_precision_are_not_ties() -> None:
    run = {"q": {"a": 1.0, "b": 1.0 + 1e-12}}
    assert evaluate_run(run, {"q": {"b": 1}})["ndcg@10"] == 1.0


def test_a_query_missing_from_the_run_counts_zero_and_one_without_judgements_does_not_count() -> None:
    qrels = {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 1}}
    run = {"q1": {"a": 1.0}, "q3": {}, "other": {"a": 1.0}}
    assert evaluate_run(run, qrels) == dict.fromkeys(METRICS, pytest.approx(1 / 3))
    assert per_query(run, qrels, "mrr@10") == {"q1": 1.0, "q2": 0.0, "q3": 0.0}


def test_an_empty_run_scores_zero() -> None:
    assert evaluate_run({}, {"q": {"a": 1}}) == dict.fromkeys(METRICS, 0.0)


def test_cutoffs_are_ten_and_a_hundred() -> None:
    def run(place: int) -> dict[str, dict[str, float]]:
        return {"q": {("hit" if n == place else f"d{n}"): -float(n) for n in range(1, 121)}}

    qrels = {"q": {"hit": 1}}
    assert evaluate_run(run(10), qrels)["mrr@10"] == pytest.approx(0.1)
    assert evaluate_run(run(11), qrels)["mrr@10"] == 0.0
    assert evaluate_run(run(10), qrels)["ndcg@10"] > 0
    assert evaluate_run(run(11), qrels)["ndcg@10"] == 0.0
    assert evaluate_run(run(100), qrels)["recall@100"] == 1.0
    assert evaluate_run(run(101), qrels)["recall@100"] == 0.0


def test_recall_is_the_share_of_the_relevant_that_were_found() -> None:
    qrels = {"q": {"a": 1, "b": 3, "c": 1, "n": 0}}
    assert evaluate_run({"q": {"b": 2.0, "n": 1.0}}, qrels)["recall@100"] == pytest.approx(1 / 3)


def test_all_metrics_at_once_are_those_taken_one_by_one() -> None:
    for seed in range(5):
        run, qrels = random_case(random.Random(seed))
        found = values_per_query(run, qrels, ALL_METRICS, relevant_from=2)
        assert found == {metric: per_query(run, qrels, metric, relevant_from=2) for metric in ALL_METRICS}


def test_unknown_metrics_and_missing_judgements_are_refused() -> None:
    with pytest.raises(DupmaeError, match="no metric 'ndcg@11': take one of ndcg@10, mrr@10"):
        per_query({}, {"q": {"a": 1}}, "ndcg@11")
    with pytest.raises(DupmaeError, match="qrels are empty"):
        evaluate_run({"q": {"a": 1.0}}, {})


def ranking(*passages: str) -> dict[str, float]:
    return {passage: -float(place) for place, passage in enumerate(passages)}


def test_mean_average_precision_is_taken_over_all_relevant_passages_found_or_not() -> None:
    qrels = {"q1": {"a": 1, "b": 1, "c": 1, "n": 0}, "q2": {"d": 1}}
    run = {"q1": ranking("a", "n", "b"), "q2": ranking("x", "d")}
    assert evaluate_run(run, qrels, ["map"])["map"] == pytest.approx(((1 / 1 + 2 / 3) / 3 + 1 / 2) / 2)


def test_mrr_at_a_hundred_looks_to_the_hundredth_passage_and_no_further() -> None:
    for place, value in [(11, 1 / 11), (100, 1 / 100), (101, 0.0)]:
        run = {"q": ranking(*(("hit" if n == place else f"d{n}") for n in range(1, 200)))}
        assert evaluate_run(run, {"q": {"hit": 1}}, ["mrr@100"])["mrr@100"] == pytest.approx(value)


def test_recall_at_a_thousand_looks_to_the_thousandth_passage_and_no_further() -> None:
    for place, value in [(101, 1.0), (1000, 1.0), (1001, 0.0)]:
        run = {"q": ranking(*(("hit" if n == place else f"d{n}") for n in range(1, 1100)))}
        assert evaluate_run(run, {"q": {"hit": 1}}, ["recall@1000"])["recall@1000"] == value


def test_judged_is_the_share_of_the_first_ten_that_somebody_has_judged_for_this_query() -> None:
    qrels = {"q1": {"a": 1, "n": 0, "bad": -2, "far": 1}, "q2": {"x": 1}, "q3": {"x": 1}}
    first = ranking("a", "n", "bad", "x", "d5", "d6", "d7", "d8", "d9", "d10", "far")
    values = per_query({"q1": first, "q2": ranking("x", "y")}, qrels, "judged@10")
    assert values == {"q1": 0.3, "q2": 0.5, "q3": 0.0}


def test_a_grade_from_which_a_passage_is_relevant_moves_all_but_the_graded_metrics() -> None:
    qrels = {"q": {"related": 1, "perfect": 3, "high": 2}}
    run = {"q": ranking("related", "perfect", "x")}
    strict = evaluate_run(run, qrels, ALL_METRICS, relevant_from=2)
    assert strict["mrr@10"] == strict["mrr@100"] == 1 / 2
    assert strict["recall@100"] == strict["recall@1000"] == 1 / 2
    assert strict["map"] == pytest.approx((1 / 2) / 2)
    plain = evaluate_run(run, qrels, ALL_METRICS)
    assert (strict["ndcg@10"], strict["judged@10"]) == (plain["ndcg@10"], plain["judged@10"])
    assert plain["ndcg@10"] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 2 / math.log2(3) + 1 / math.log2(4)))
    assert plain["mrr@10"] == 1.0


def test_grades_below_zero_count_as_zero() -> None:
    run = {"q": ranking("spam", "a")}
    values = evaluate_run(run, {"q": {"a": 1, "spam": -2}}, ALL_METRICS)
    assert values == evaluate_run(run, {"q": {"a": 1, "spam": 0}}, ALL_METRICS)
    assert values["ndcg@10"] == pytest.approx(1 / math.log2(3))


def test_a_query_without_a_relevant_passage_counts_zero() -> None:
    qrels = {"q1": {"a": 0}, "q2": {"b": 1}}
    run = {"q1": ranking("a"), "q2": ranking("b")}
    assert evaluate_run(run, qrels, ["ndcg@10", "mrr@10", "map", "recall@100"]) == {
        "ndcg@10": 0.5,
        "mrr@10": 0.5,
        "map": 0.5,
        "recall@100": 0.5,
    }


def test_trec_evals_rule_for_ties_puts_the_larger_id_first_and_compares_in_single_precision() -> None:
    run = {"q": {"b": 1.0, "a": 1.0 + 1e-12, "c": 0.5}}
    assert evaluate_run(run, {"q": {"a": 1}}, ["mrr@10"], ties="id")["mrr@10"] == 1.0
    assert evaluate_run(run, {"q": {"a": 1}}, ["mrr@10"], ties="trec_eval")["mrr@10"] == 1 / 2


def random_case(draw: random.Random) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """A run full of ties and judgements with grades from 0 to 3; some queries are in one of them only."""
    names = [f"d{n}" for n in range(30)]
    run = {f"q{n}": {name: draw.choice([0.5, 1.0, 1.5]) for name in draw.sample(names, 20)} for n in range(8)}
    qrels = {f"q{n}": {name: draw.randint(0, 3) for name in draw.sample(names, 12)} for n in range(2, 10)}
    return run, qrels


def test_with_trec_evals_ties_the_numbers_are_those_of_trec_eval() -> None:
    theirs = {"ndcg@10": "ndcg_cut_10", "map": "map", "recall@100": "recall_100", "recall@1000": "recall_1000"}
    for seed in range(20):
        run, qrels = random_case(random.Random(seed))
        found = pytrec_eval.RelevanceEvaluator(qrels, set(theirs.values())).evaluate(run)
        for ours, measure in theirs.items():
            expected = {query: found.get(query, {}).get(measure, 0.0) for query in qrels}
            assert per_query(run, qrels, ours, ties="trec_eval") == pytest.approx(expected)


def ms_marco_mrr(ranked: dict[str, list[str]], relevant: dict[str, set[str]], depth: int) -> float:
    """What MS MARCO's script computes from a file of query, passage and rank, in plain words."""
    total = 0.0
    for query, passages in ranked.items():
        for place, passage in enumerate(passages[:depth], 1):
            if query in relevant and passage in relevant[query]:
                total += 1 / place
                break
    return total / len(relevant)


def test_mrr_is_that_of_ms_marcos_script_over_all_judged_queries() -> None:
    for seed in range(20):
        run, graded = random_case(random.Random(seed))
        qrels = {query: {name: 1 for name, grade in grades.items() if grade == 3} for query, grades in graded.items()}
        qrels = {query: grades for query, grades in qrels.items() if grades}
        ranked = {query: sorted(scores, key=lambda name: (-scores[name], name)) for query, scores in run.items()}
        relevant = {query: set(grades) for query, grades in qrels.items()}
        assert evaluate_run(run, qrels)["mrr@10"] == pytest.approx(ms_marco_mrr(ranked, relevant, 10))
        assert evaluate_run(run, qrels, ["mrr@100"])["mrr@100"] == pytest.approx(ms_marco_mrr(ranked, relevant, 100))


def test_scores_may_be_numpys() -> None:
    assert evaluate_run({"q": {"a": np.float32(1)}}, {"q": {"a": 1}}, ties="trec_eval")["mrr@10"] == 1.0
