"""Find where systems differ: query by query, by the length of queries, and by how many of their words answers have."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dupmae.corpus import Benchmark
from dupmae.corpus.words import pieces_of, terms_of
from dupmae.evaluation.comparison import Comparison, Measured

LENGTHS = ((1, 4), (5, 8), (9, 14), (15, None))
"""Words of a query, from and to."""
OVERLAPS = ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, None))
"""Share of the query's words, from and below."""


@dataclass(frozen=True, slots=True)
class Group:
    """Queries that are alike in something."""

    name: str
    """In what."""
    queries: int
    """How many there are."""
    means: Mapping[str, float]
    """System -> mean of the metric over them."""


@dataclass(frozen=True, slots=True)
class Case:
    """A query in which two systems differ, with the texts."""

    query: str
    """Its id; of a benchmark with parts `PART/QUERY`."""
    text: str
    """What was asked."""
    values: tuple[float, float]
    """The metric, of the first and of the second system."""
    relevant: Sequence[tuple[str, str, tuple[int | None, int | None]]]
    """Id, text and both systems' ranks (None: not found) of relevant passages, the best ranked first."""
    wrong: tuple[str, str, str]
    """Id and text of the passage that the worse system put first, and that system's name; empty if it found nothing."""


def by_length(comparison: Comparison, metric: str) -> list[Group]:
    """Group queries by their number of words, pairs of characters without spaces; empty groups are left out."""
    lengths = {query: len(pieces_of(text.strip())) for query, text in _texts(comparison).items()}
    names = {limits: f"{limits[0]} to {limits[1]}" if limits[1] else f"{limits[0]} and more" for limits in LENGTHS}
    return _groups(
        comparison,
        metric,
        {
            f"{name} words": lambda query, limits=limits: (  # type: ignore[misc]
                limits[0] <= max(lengths[query], 1) <= (limits[1] or lengths[query])
            )
            for limits, name in names.items()
        },
    )


def by_overlap(comparison: Comparison, metric: str) -> list[Group]:
    """Group queries by the largest share of their words (as BM25 sees them) that one relevant passage has."""
    overlaps: dict[str, float] = {}
    for part, prefix in _parts(comparison):
        found = _overlaps(part, comparison.definition.relevant_from)
        overlaps |= {prefix + query: overlap for query, overlap in found.items()}
    groups: dict[str, Callable[[str], bool]] = {}
    for begin, end in OVERLAPS:
        name = f"{begin:.0%} to {end:.0%}" if end else f"{begin:.0%} and more"
        groups[f"{name} of the words"] = lambda query, begin=begin, end=end: (  # type: ignore[misc]
            query in overlaps and overlaps[query] >= begin and (end is None or overlaps[query] < end)
        )
    return _groups(comparison, metric, groups)


def largest_differences(
    comparison: Comparison, metric: str, first: Measured, second: Measured, count: int
) -> tuple[list[Case], list[Case]]:
    """Find the queries in which one of two systems is farthest ahead of the other.

    Returns:
        Up to `count` in which the first is ahead, and as many in which the second is; the largest lead first.
    """
    values = {query: (value, second.values[metric][query]) for query, value in first.values[metric].items()}
    ordered = sorted(values, key=lambda query: (values[query][1] - values[query][0], query))
    ahead = [query for query in ordered if values[query][0] > values[query][1]][:count]
    behind = [query for query in reversed(ordered) if values[query][0] < values[query][1]][:count]
    cases = {query: _case(comparison, query, values[query], first, second) for query in [*ahead, *behind]}
    return [cases[query] for query in ahead], [cases[query] for query in behind]


def _case(comparison: Comparison, query: str, values: tuple[float, float], first: Measured, second: Measured) -> Case:
    """Tell what the two systems made of one query."""
    part, name, identifier = next(
        (part, prefix[:-1], query.removeprefix(prefix))
        for part, prefix in _parts(comparison)
        if query.removeprefix(prefix) in part.queries and query.startswith(prefix)
    )
    rankings = [system.runs[name].get(identifier, {}) for system in (first, second)]
    ordered = [sorted(scores, key=lambda passage: (-scores[passage], passage)) for scores in rankings]
    ranks = [{passage: rank for rank, passage in enumerate(ranking, 1)} for ranking in ordered]
    relevant = [
        passage for passage, grade in part.qrels[identifier].items() if grade >= comparison.definition.relevant_from
    ]
    relevant.sort(key=lambda passage: min(found.get(passage, len(found) + 1) for found in ranks))
    worse = 0 if values[0] < values[1] else 1
    wrong = next((passage for passage in ordered[worse] if passage not in relevant), "")
    return Case(
        query,
        part.queries[identifier],
        values,
        [(passage, _text(part, passage), (ranks[0].get(passage), ranks[1].get(passage))) for passage in relevant],
        (wrong, _text(part, wrong), (first, second)[worse].name),
    )


def _text(part: Benchmark, passage: str) -> str:
    """Look up a passage's text; empty where the benchmark does not have it."""
    return part.corpus[passage].full_text if passage in part.corpus else ""


def _overlaps(part: Benchmark, relevant_from: int) -> dict[str, float]:
    """Compute the largest share of each query's words that a relevant passage has, where there are both."""
    relevant = {
        query: [passage for passage, grade in grades.items() if grade >= relevant_from and passage in part.corpus]
        for query, grades in part.qrels.items()
    }
    passages = sorted({passage for found in relevant.values() for passage in found})
    has = dict(zip(passages, map(set, terms_of([part.corpus[name].full_text for name in passages])), strict=True))
    asked = dict(zip(part.queries, map(set, terms_of(list(part.queries.values()))), strict=True))
    return {
        query: max(len(words & has[passage]) / len(words) for passage in relevant[query])
        for query, words in asked.items()
        if words and relevant[query]
    }


def _groups(comparison: Comparison, metric: str, groups: Mapping[str, Callable[[str], bool]]) -> list[Group]:
    """Average a metric over each group of queries; empty groups are left out."""
    queries = list(_texts(comparison))
    found = []
    for name, belongs in groups.items():
        members = [query for query in queries if belongs(query)]
        if members:
            means = {
                system.name: statistics.fmean(system.values[metric][query] for query in members)
                for system in comparison.systems
            }
            found.append(Group(name, len(members), means))
    return found


def _parts(comparison: Comparison) -> list[tuple[Benchmark, str]]:
    """List each part with what stands before its queries' ids."""
    several = len(comparison.parts) > 1
    return [(part, f"{part.name}/" if several else "") for part in comparison.parts]


def _texts(comparison: Comparison) -> dict[str, str]:
    """Look up every query's text."""
    return {prefix + query: text for part, prefix in _parts(comparison) for query, text in part.queries.items()}
