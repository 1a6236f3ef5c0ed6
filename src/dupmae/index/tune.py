"""Measurements of what approximate search gains and loses on a user's own queries."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.errors import DupmaeError
from dupmae.index.duplex_index import DuplexIndex
from dupmae.index.scoring.approximate import Approximate
from dupmae.runtime.bars import bar

TERMS = (8, 16, 32, 64, 128)
DEPTHS = (1, 4, 16)  # candidates, in multiples of k
PROBES = (8, 32, 128)


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting and what came of it."""

    settings: Approximate | None
    """None is exact search."""
    recall: float
    """Share of the exact top k that was found, averaged over the queries."""
    p50_ms: float
    """Median latency of one query."""
    p95_ms: float
    """Latency that 95 % of the queries stay within."""


def measure(index: DuplexIndex, queries: DuplexEmbeddings, k: int) -> list[Trial]:
    """Search with every setting of a grid, one query at a time, beside exact search.

    Args:
        index: With clusters, they are tried too.
        queries: Like those that will come.
        k: Passages wanted.

    Returns:
        Exact search first.

    Raises:
        DupmaeError: No queries, or no passages.
    """
    if not len(queries):
        raise DupmaeError("There are no queries to tune with.")
    if not len(index):
        raise DupmaeError(f"There are no passages to tune with: all of {index.folder} are deleted.")
    probes = (0, *PROBES) if index.manifest.clusters is not None else (0,)
    grid = [Approximate(terms, depth * k, probe) for probe in probes for terms in TERMS for depth in DEPTHS]
    exact, first = _trial(index, queries, k, None, None)
    return [first, *(_trial(index, queries, k, settings, exact)[1] for settings in bar(grid, "Tune", "settings"))]


def propose(trials: list[Trial], recall: float) -> Trial:
    """Pick the fastest setting that finds enough; exact search if none does or none is faster."""
    return min((trial for trial in trials if trial.recall >= recall), key=lambda trial: trial.p50_ms)


def _trial(
    index: DuplexIndex, queries: DuplexEmbeddings, k: int, settings: Approximate | None, exact: list[set[str]] | None
) -> tuple[list[set[str]], Trial]:
    """Search with one setting: ids found for each query, and how fast."""
    index.search_embeddings(queries[:1], k, approximate=settings)  # what the first search loads is not its cost
    seconds, found = [], []
    for row in range(len(queries)):
        start = time.perf_counter()
        ids, _ = index.search_embeddings(queries[row : row + 1], k, approximate=settings)
        seconds.append(time.perf_counter() - start)
        found.append(set(ids[0]))
    hits = [len(one & wanted) / max(1, len(wanted)) for one, wanted in zip(found, exact or found, strict=True)]
    p50, p95 = 1000 * np.percentile(seconds, (50, 95))
    return found, Trial(settings, float(np.mean(hits)), float(p50), float(p95))
