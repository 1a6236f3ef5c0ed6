"""Metrics, computed by hand."""

from __future__ import annotations

import math

import pytest

from dupmae.errors import DupmaeError
from dupmae.evaluation import METRICS, evaluate_run, per_query


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


def test_unknown_metrics_and_missing_judgements_are_refused() -> None:
    with pytest.raises(DupmaeError, match="no metric 'map'"):
        per_query({}, {"q": {"a": 1}}, "map")
    with pytest.raises(DupmaeError, match="qrels are empty"):
        evaluate_run({"q": {"a": 1.0}}, {})
