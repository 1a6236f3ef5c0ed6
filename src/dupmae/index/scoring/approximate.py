"""Faster search that may miss passages: a cheap choice of candidates, exactly rescored with the whole query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dupmae.errors import DupmaeError
from dupmae.index.scoring.clusters import covered
from dupmae.index.scoring.exact import Found, best, best_documents, rescore, top_k
from dupmae.index.scoring.query import Query
from dupmae.index.scoring.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Approximate:
    """How candidates are chosen; `dupmae index tune` proposes numbers. The scores of what is found are exact."""

    terms: int
    """Learned terms of the query, its heaviest, that candidates are chosen with; its words all count."""
    candidates: int
    """Passages, or documents by one each, that are rescored (with clusters: as many from each half)."""
    probes: int = 0
    """Clusters of dense halves that are looked into; 0 takes the dense half of every passage into account."""

    def check(self) -> None:
        """Refuse fewer than one term or candidate, or a negative number of probes."""
        if self.terms < 1 or self.candidates < 1 or self.probes < 0:
            raise DupmaeError(
                f"Approximate search takes at least 1 term and candidate and 0 probes, not {self.terms},"
                f" {self.candidates} and {self.probes}."
            )


def approximate_top_k(
    snapshot: Snapshot,
    alive: Sequence[NDArray[np.uint8]],
    queries: Sequence[Query],
    k: int,
    settings: Approximate,
    *,
    grouped: bool = False,
) -> list[Found]:
    """Find what :func:`dupmae.index.scoring.exact.top_k` finds, faster and not proven.

    Without probes the query cut to its heaviest terms is searched for exactly, which reads every dense half. With
    probes the clusters give candidates by the dense half and the inverted lists of words and the heaviest terms others;
    segments that are newer than the clusters are searched as without. Where documents are wanted, each is a candidate
    by its best passage.

    Raises:
        DupmaeError: The index has no clusters, or a file is damaged.
    """
    settings.check()
    count = max(min(settings.candidates, sum(map(len, alive))), k)
    cut = [query.heaviest(settings.terms) for query in queries]
    if not settings.probes:
        chosen = top_k(snapshot.segments, alive, cut, count, grouped=grouped)
        return [_rescored(snapshot, query, [found], k, grouped) for query, found in zip(queries, chosen, strict=True)]
    if snapshot.clusters is None:
        raise DupmaeError("This index has no clusters: make them with `dupmae index tune --clusters`.")
    places = covered(snapshot.clusters, snapshot.segments)
    old = [rows if number in places else np.zeros_like(rows) for number, rows in enumerate(alive)]
    new = [np.zeros_like(rows) if number in places else rows for number, rows in enumerate(alive)]
    lexical = top_k(snapshot.segments, old, [query.without_dense() for query in cut], count, grouped=grouped)
    unclustered = [best([], k)] * len(cut)
    if len(places) < len(alive):
        unclustered = top_k(snapshot.segments, new, cut, count, grouped=grouped)
    numbers = sorted(places, key=lambda number: places[number])
    living = np.concatenate([alive[number] for number in numbers] or [np.empty(0, np.uint8)])
    firsts = np.array([places[number] for number in numbers], np.int64)
    results = []
    for query, by_lists, by_scan in zip(queries, lexical, unclustered, strict=True):
        parts = [by_lists, by_scan]
        if len(living):
            near = snapshot.clusters.nearest(query.dense, living, count, settings.probes)
            owners = np.searchsorted(firsts, near, side="right") - 1
            segments = np.array(numbers, np.int64)[owners]
            parts.append(Found(np.zeros(len(near)), segments, near - firsts[owners]))
        results.append(_rescored(snapshot, query, parts, k, grouped))
    return results


def _rescored(snapshot: Snapshot, query: Query, parts: Sequence[Found], k: int, grouped: bool) -> Found:
    """Rank the candidates by their exact scores."""
    segments = np.concatenate([part.segments for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    places = {int(number): np.unique(rows[segments == number]) for number in np.unique(segments)}
    scored = [rescore(snapshot.segments, query, places)]
    return best_documents(snapshot.segments, scored, k) if grouped else best(scored, k)
