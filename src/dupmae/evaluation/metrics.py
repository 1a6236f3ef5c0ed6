"""Figures of merit of a run, computed by `ir_measures`.

One ranking serves all measures: by falling score, equal scores by id. (trec_eval breaks ties the other way round and
MS MARCO's script this way; left to themselves, two columns of a table would rank differently.)
"""

from __future__ import annotations

from collections.abc import Mapping

import ir_measures
from ir_measures import RR, R, nDCG

from dupmae.corpus import Qrels, Run
from dupmae.errors import DupmaeError

_MEASURES = {"ndcg@10": nDCG @ 10, "mrr@10": RR @ 10, "recall@100": R @ 100}
METRICS = tuple(_MEASURES)
"""What is reported: NDCG@10 with the grades as gains; MRR@10 and R@100 with grades of at least 1 as relevant."""


def evaluate_run(run: Run, qrels: Qrels) -> dict[str, float]:
    """Average each of :data:`METRICS` over the queries of the judgements.

    Args:
        run: Query id -> passage id -> score; a query that is missing counts 0, one without judgements does not count.
        qrels: Query id -> passage id -> grade.

    Raises:
        DupmaeError: There are no judgements.
    """
    values = _per_query(run, qrels, METRICS)
    return {metric: sum(by_query.values()) / len(by_query) for metric, by_query in values.items()}


def per_query(run: Run, qrels: Qrels, metric: str) -> dict[str, float]:
    """One of :data:`METRICS` for every query of the judgements, in their order.

    Raises:
        DupmaeError: An unknown metric, or no judgements.
    """
    if metric not in _MEASURES:
        raise DupmaeError(f"There is no metric {metric!r}: take one of {', '.join(METRICS)}.")
    return _per_query(run, qrels, [metric])[metric]


def _per_query(run: Run, qrels: Qrels, metrics: tuple[str, ...] | list[str]) -> dict[str, dict[str, float]]:
    """Metric -> query id -> value."""
    if not qrels:
        raise DupmaeError("There are no judgements to evaluate against: the qrels are empty.")
    values = {metric: dict.fromkeys(qrels, 0.0) for metric in metrics}
    names = {_MEASURES[metric]: metric for metric in metrics}
    ranked = {query: _by_rank(run[query]) for query in qrels if run.get(query)}
    if ranked:
        for result in ir_measures.iter_calc(list(names), qrels, ranked):
            values[names[result.measure]][result.query_id] = result.value
    return values


def _by_rank(scores: Mapping[str, float]) -> dict[str, float]:
    """Replace scores by falling whole numbers in the order of the ranking, so that no tie is left."""
    ranking = sorted(scores, key=lambda passage: (-scores[passage], passage))
    return {passage: float(-place) for place, passage in enumerate(ranking)}
