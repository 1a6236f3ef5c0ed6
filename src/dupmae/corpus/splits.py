"""Hold queries of a benchmark out, so that training and validation share no passage."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace

from dupmae.config import HoldOut
from dupmae.corpus.benchmark import Benchmark
from dupmae.corpus.duplicates import with_duplicates
from dupmae.errors import DupmaeError


def split_queries(
    benchmark: Benchmark, fraction: float, seed: int, hold_out: HoldOut = "passages"
) -> tuple[Benchmark, Benchmark]:
    """Hold some queries out, drawn by a hash of the seed and of ids.

    With `passages` no positive of a held-out query is a positive of another one, nor reads like one: what a model
    remembers of passages that it was trained on does not help it there. Queries that share a positive, directly or
    through other queries, stay together. With `queries` each is drawn for itself, and adding or removing queries moves
    no other one.

    Their number is only about `fraction` of all; with `fraction` above 0 each side gets at least one query.

    Args:
        benchmark: What to split; both parts keep the whole corpus.
        fraction: Expected fraction of the queries held out, at least 0 and below 1.
        seed: Another seed gives another split.
        hold_out: What is kept apart.

    Returns:
        The rest, under the same split name, and the held-out part, under that name with `-held-out` added.

    Raises:
        DupmaeError: The fraction is out of its range, there are fewer than two queries, or the queries share so many
            passages that not half of that number can be held out.
    """
    if not 0 <= fraction < 1:
        raise DupmaeError(f"The fraction of queries to hold out must be at least 0 and below 1, not {fraction}.")
    if fraction and len(benchmark.queries) < 2:
        raise DupmaeError(
            f"{benchmark.name} ({benchmark.split}) has too few queries to hold some out: give two or more."
        )
    held_out: set[str] = set()
    if fraction:
        held_out = (_by_passages if hold_out == "passages" else _by_queries)(benchmark, fraction, seed)
    rest = benchmark.queries.keys() - held_out
    return _part(benchmark, rest, benchmark.split), _part(benchmark, held_out, f"{benchmark.split}-held-out")


def _by_queries(benchmark: Benchmark, fraction: float, seed: int) -> set[str]:
    """Draw the queries whose hash is below the fraction, but neither none nor all of them."""
    places = {query: _hash_fraction(f"{seed}:{query}") for query in benchmark.queries}
    held_out = {query for query, place in places.items() if place < fraction}
    if not held_out:
        held_out = {min(places, key=places.__getitem__)}
    if len(held_out) == len(places):
        held_out.remove(max(places, key=places.__getitem__))
    return held_out


def _by_passages(benchmark: Benchmark, fraction: float, seed: int) -> set[str]:
    """Draw groups of queries that share positives, in the order of the hash of their first id.

    A group is taken if that brings the number of queries nearer to the wanted one.
    """
    count = len(benchmark.queries)
    wanted = min(max(round(fraction * count), 1), count - 1)
    held_out: set[str] = set()
    for group in sorted(_groups(benchmark), key=lambda group: _hash_fraction(f"{seed}:{min(group)}")):
        if len(group) < 2 * (wanted - len(held_out)) and len(held_out) + len(group) < count:
            held_out.update(group)
    if 2 * len(held_out) < wanted:
        raise DupmaeError(
            f"{benchmark.name} ({benchmark.split}): its queries share so many passages that only {len(held_out)} of "
            f"{count} can be held out with passages of their own, not {wanted}: name a split to validate on "
            "(dev_split), or hold out queries regardless of their passages (hold_out queries)."
        )
    return held_out


def _groups(benchmark: Benchmark) -> Collection[list[str]]:
    """Group queries so that no two groups share a positive: connected components of queries and positives."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    queries = list(benchmark.queries)
    positives = {
        query: [passage for passage, grade in benchmark.qrels.get(query, {}).items() if grade > 0] for query in queries
    }
    nodes: dict[str, int] = {}  # passage -> number, after those of the queries
    edges = [
        (number, nodes.setdefault(passage, len(queries) + len(nodes)))
        for number, passages in enumerate(with_duplicates(benchmark.corpus, positives).values())
        for passage in passages
    ]
    rows, columns = np.array(edges, np.int64).reshape(-1, 2).T
    size = len(queries) + len(nodes)
    _, labels = connected_components(coo_matrix((np.ones(len(edges)), (rows, columns)), (size, size)), directed=False)
    groups: dict[int, list[str]] = {}
    for query, label in zip(queries, labels.tolist(), strict=False):  # the passages' labels are not needed
        groups.setdefault(label, []).append(query)
    return groups.values()


def _hash_fraction(key: str) -> float:
    """Hash a key to a number in [0, 1), spread evenly."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48


def _part(benchmark: Benchmark, keep: set[str], split: str) -> Benchmark:
    """Keep some of a benchmark's queries, in their order."""
    return replace(
        benchmark,
        split=split,
        queries={query: text for query, text in benchmark.queries.items() if query in keep},
        qrels={query: grades for query, grades in benchmark.qrels.items() if query in keep},
    )
