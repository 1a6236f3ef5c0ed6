"""Measure a run against judgements, by `ir_measures`.

One ranking serves all measures: by falling score, equal scores by id, or by the rule of trec_eval where its very
numbers are wanted. (Left to themselves, trec_eval and MS MARCO's script break ties in opposite ways, and two columns of
a table would rank differently.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import ir_measures
import numpy as np
from ir_measures import AP, RR, Judged, R, nDCG

from dupmae.corpus import Qrels, Run
from dupmae.corpus.trec import MOST_GRADE
from dupmae.errors import DupmaeError, is_unicode

Ties = Literal["id", "trec_eval"]
"""`id`: equal scores are ordered by passage id. `trec_eval`: scores are compared in single precision, and equal ones
ordered by falling id, as that program does."""

_MEASURES = {
    "ndcg@10": nDCG @ 10,
    "mrr@10": RR @ 10,
    "mrr@100": RR @ 100,
    "map": AP,
    "recall@100": R @ 100,
    "recall@1000": R @ 1000,
    "judged@10": Judged @ 10,
}
_GRADED = ("ndcg@10", "judged@10")
METRICS = ("ndcg@10", "mrr@10", "recall@100")
"""What is reported by default: NDCG@10 with the grades as gains; MRR@10 and R@100 of the relevant passages."""
ALL_METRICS = tuple(_MEASURES)
"""All that can be asked for: besides, MRR@100, MAP (over the whole ranking), R@1000, and judged@10, the share of the
first ten that somebody has judged (hole@10 is 1 minus that)."""

HEADINGS = {
    "ndcg@10": "NDCG@10",
    "mrr@10": "MRR@10",
    "mrr@100": "MRR@100",
    "map": "MAP",
    "recall@100": "R@100",
    "recall@1000": "R@1000",
    "judged@10": "judged",
}
"""Their names in tables."""


def depth(metric: str) -> int:
    """Tell how many passages of a ranking a metric looks at; 0 for MAP, which takes the whole ranking, however long."""
    return int(metric.partition("@")[2] or 0)


def evaluate_run(
    run: Run, qrels: Qrels, metrics: Sequence[str] = METRICS, *, relevant_from: int = 1, ties: Ties = "id"
) -> dict[str, float]:
    """Average metrics over the queries of the judgements.

    The average goes over every query with judgements: `trec_eval -c`, and what MS MARCO's script does. A query that
    the run lacks counts 0, also for judged@10; one without judgements does not count. A grade below 0 counts as 0.

    Args:
        run: Query id -> passage id -> score.
        qrels: Query id -> passage id -> grade.
        metrics: Names out of :data:`ALL_METRICS`.
        relevant_from: Grades from which a passage is relevant, where a metric knows but two kinds (all except NDCG@10,
            whose gains are the grades); TREC's Deep Learning passages ask for 2.
        ties: How equal scores are ordered.

    Raises:
        DupmaeError: An unknown metric, no judgements, a grade beyond :data:`dupmae.corpus.trec.MOST_GRADE`, or a score
            that is not finite.

    Examples:
        >>> from dupmae import evaluate_run
        >>> run = {"q1": {"a": 2.0, "b": 1.0}, "q2": {"a": 1.0}}
        >>> qrels = {"q1": {"b": 1}, "q2": {"c": 1}}
        >>> evaluate_run(run, qrels, ["mrr@10", "recall@100"])
        {'mrr@10': 0.25, 'recall@100': 0.5}
    """
    values = values_per_query(run, qrels, metrics, relevant_from=relevant_from, ties=ties)
    return {metric: sum(by_query.values()) / len(by_query) for metric, by_query in values.items()}


def per_query(run: Run, qrels: Qrels, metric: str, *, relevant_from: int = 1, ties: Ties = "id") -> dict[str, float]:
    """Compute one metric for every query of the judgements, in their order; see :func:`evaluate_run`.

    Raises:
        DupmaeError: An unknown metric, no judgements, a grade beyond :data:`dupmae.corpus.trec.MOST_GRADE`, or a score
            that is not finite.
    """
    return values_per_query(run, qrels, [metric], relevant_from=relevant_from, ties=ties)[metric]


def values_per_query(
    run: Run, qrels: Qrels, metrics: Sequence[str], *, relevant_from: int = 1, ties: Ties = "id"
) -> dict[str, dict[str, float]]:
    """Compute several metrics for every query of the judgements; see :func:`evaluate_run`.

    The rankings are put in order once.

    Returns:
        Metric -> query id -> value.

    Raises:
        DupmaeError: An unknown metric, no judgements, a grade beyond :data:`dupmae.corpus.trec.MOST_GRADE`, or a score
            that is not finite.
    """
    if unknown := [metric for metric in metrics if metric not in _MEASURES]:
        raise DupmaeError(f"There is no metric {unknown[0]!r}: take one of {', '.join(ALL_METRICS)}.")
    if not qrels:
        raise DupmaeError("There are no judgements to evaluate against: the qrels are empty.")
    _refuse_unmeasurable(run, qrels)
    values = {metric: dict.fromkeys(qrels, 0.0) for metric in metrics}
    ranked = {query: _by_rank(run[query], ties) for query in qrels if run.get(query)}
    if not ranked:
        return values
    graded = {query: {name: max(grade, 0) for name, grade in grades.items()} for query, grades in qrels.items()}
    binary = {
        query: {name: int(grade >= relevant_from) for name, grade in grades.items()} for query, grades in qrels.items()
    }
    for judged, kind in ((graded, True), (binary, False)):
        names = {_MEASURES[metric]: metric for metric in metrics if (metric in _GRADED) is kind}
        for result in ir_measures.iter_calc(list(names), judged, ranked) if names else ():
            values[names[result.measure]][result.query_id] = result.value
    return values


def _refuse_unmeasurable(run: Run, qrels: Qrels) -> None:
    """Refuse what trec_eval's program would count wrongly, or end at."""
    for query, grades in qrels.items():
        for passage, grade in grades.items():
            if not abs(grade) <= MOST_GRADE or grade != int(grade):
                raise DupmaeError(
                    f"The judgement of {passage!r} for query {query!r} is {str(grade)[:40]}, not a whole number of at "
                    f"most {MOST_GRADE}."
                )
        scores = run.get(query, {})
        for passage, score in scores.items():
            if not math.isfinite(score):
                raise DupmaeError(f"The score of {passage!r} for query {query!r} is {score}, not a finite number.")
        ids = "".join((query, *grades, *scores))
        if "\0" in ids or not is_unicode(ids):
            raise DupmaeError(f"Query {query!r}: its id or a passage's holds a NUL character or half a surrogate pair.")


def _by_rank(scores: Mapping[str, float], ties: Ties) -> dict[str, float]:
    """Replace scores by falling whole numbers in the order of the ranking, so that no tie is left."""
    ranking = sorted(scores, reverse=ties == "trec_eval")
    rounded = scores if ties == "id" else {name: float(np.float32(score)) for name, score in scores.items()}
    ranking.sort(key=lambda passage: -rounded[passage])
    return {passage: float(-place) for place, passage in enumerate(ranking)}
