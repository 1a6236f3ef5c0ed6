"""Exact search over the segments of a snapshot: the part between embeddings and ranked rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.errors import DupmaeError
from dupmae.index.scoring.loops import exact_dense_of, lexical_scores, search_block
from dupmae.index.scoring.scanning import scan_dense
from dupmae.index.storage.manifest import Manifest
from dupmae.index.storage.quantise import LARGEST_INPUT
from dupmae.index.storage.segments import Block, Segment

Part = Literal["both", "dense", "lexical"]
Task = TypeVar("Task")

QUERY_GROUP = 64
"""Queries that share a pass over the index; what they find in each block is held until its end."""
_TASK_QUERIES = 16  # that scan a block together: their dense scores, 4 * 16,384 bytes each, stay in a core's cache


@dataclass(frozen=True, slots=True)
class Query:
    """One query in the layout the kernels read."""

    cls: NDArray[np.float32]
    """(d',)"""
    length: float
    """Euclidean length of `cls`; 0 leaves the first term of Eq. 12 out."""
    ids: NDArray[np.int64]
    """Vocabulary entries, heaviest first (m,)."""
    weights: NDArray[np.float32]
    """Their weights (m,)."""

    def heaviest(self, terms: int) -> Query:
        """The same query with its heaviest vocabulary entries alone."""
        return Query(self.cls, self.length, self.ids[:terms], self.weights[:terms])

    def lexical(self) -> Query:
        """The same query without its dense half."""
        return Query(self.cls, 0.0, self.ids, self.weights)


@dataclass(frozen=True, slots=True)
class Found:
    """Passages found for one query, in the order of their scores; which of equal ones comes first is left open."""

    scores: NDArray[np.float64]
    """Eq. 12 (m,)."""
    segments: NDArray[np.int64]
    """Number of each one's segment (m,)."""
    rows: NDArray[np.int64]
    """Row of each one within its segment (m,)."""

    def __len__(self) -> int:
        return len(self.scores)


def prepare_queries(embeddings: DuplexEmbeddings, manifest: Manifest, part: Part) -> list[Query]:
    """Check query embeddings against the index and lay them out for the kernels.

    Args:
        embeddings: Q queries.
        manifest: Of the index.
        part: Which terms of Eq. 12 count; the other half is left empty.

    Raises:
        DupmaeError: An unknown part, numbers that are not finite, or embeddings of another width or vocabulary.
    """
    if part not in ("both", "dense", "lexical"):
        raise DupmaeError(f"There is no part {part!r} of a duplex score: take 'both', 'cls' or 'ot'.")
    cls = np.ascontiguousarray(embeddings.cls, dtype=np.float32)
    weights = np.asarray(embeddings.weights, dtype=np.float32)
    ids = np.asarray(embeddings.ids).astype(np.int64)
    if cls.shape[1] != manifest.cls_dimension:
        raise DupmaeError(
            f"The queries' dense half has {cls.shape[1]} dimensions and the index's {manifest.cls_dimension}:"
            " embed them with the model that built the index."
        )
    used = weights != 0
    if np.any(ids[used] >= manifest.vocabulary_size):
        raise DupmaeError(
            f"The queries name vocabulary entry {ids[used].max()} and the index knows {manifest.vocabulary_size}:"
            " embed them with the model that built the index."
        )
    if not ((np.abs(cls) <= LARGEST_INPUT).all() and (np.abs(weights) <= LARGEST_INPUT).all()):
        raise DupmaeError("The queries' embeddings hold numbers that are not finite or too large: check the model.")
    if part == "dense":
        used = np.zeros_like(used)
    queries = []
    for row in range(len(cls)):
        length = 0.0 if part == "lexical" else float(np.linalg.norm(cls[row].astype(np.float64)))
        kept = np.flatnonzero(used[row])
        kept = kept[np.argsort(-np.abs(weights[row, kept]), kind="stable")]
        queries.append(Query(cls[row], length, ids[row, kept], weights[row, kept]))
    return queries


def top_k(
    segments: Sequence[Segment], alive: Sequence[NDArray[np.uint8]], queries: Sequence[Query], k: int
) -> list[Found]:
    """The best passages of each query by Eq. 12, proven.

    All cores share the blocks of the segments; what is found does not depend on their number.

    Args:
        segments: The index's, in order.
        alive: For each, 1 for the passages that may be found (n,).
        queries: Q queries.
        k: At least 1.

    Returns:
        For each query the k best, and all that score as high as the last of them.

    Raises:
        DupmaeError: A segment is damaged.
    """
    share(Segment.check, [segment for segment in segments if not segment.checked])
    blocks = [(number, block) for number, segment in enumerate(segments) for block in segment.blocks]
    found: list[Found] = []
    for start in range(0, len(queries), QUERY_GROUP):
        found += _group(blocks, alive, queries[start : start + QUERY_GROUP], k)
    return found


def _group(
    blocks: Sequence[tuple[int, Block]], alive: Sequence[NDArray[np.uint8]], queries: Sequence[Query], k: int
) -> list[Found]:
    """:func:`top_k` of up to `QUERY_GROUP` queries."""
    floors = [np.full(1, -np.inf) for _ in queries]
    pieces: list[list[Found]] = [[] for _ in queries]

    def work(task: tuple[int, Block, range]) -> None:
        number, block, places = task
        if any(queries[place].length for place in places):
            dense = scan_dense(np.stack([queries[place].cls for place in places]), block.high, block.cls_units)
        else:
            dense = np.zeros((len(places), len(block)), np.float32)
        for place, scanned in zip(places, dense, strict=True):
            query = queries[place]
            scores, rows = search_block(
                query.cls,
                query.length,
                query.ids,
                query.weights,
                scanned,
                *block.dense,
                *block.lists,
                alive[number][block.first : block.first + len(block)],
                floors[place],
                k,
            )
            pieces[place].append(Found(scores, np.full(len(rows), number), rows + block.first))

    size = min(_TASK_QUERIES, max(1, len(blocks) * len(queries) // (4 * cores())))  # enough tasks for every core
    parts = [range(start, min(start + size, len(queries))) for start in range(0, len(queries), size)]
    share(work, [(number, block, places) for number, block in blocks for places in parts])
    return [best(found, k) for found in pieces]


def best(parts: Sequence[Found], k: int) -> Found:
    """The k best of what several blocks found, and all that score as high as the last of them."""
    scores = np.concatenate([part.scores for part in parts] or [np.empty(0)])
    segments = np.concatenate([part.segments for part in parts] or [np.empty(0, np.int64)])
    rows = np.concatenate([part.rows for part in parts] or [np.empty(0, np.int64)])
    if len(scores) > k:
        kept = np.flatnonzero(scores >= -np.partition(-scores, k - 1)[k - 1])
        scores, segments, rows = scores[kept], segments[kept], rows[kept]
    order = np.argsort(-scores, kind="stable")
    return Found(scores[order], segments[order], rows[order])


def rescore(segments: Sequence[Segment], query: Query, places: dict[int, NDArray[np.int64]]) -> Found:
    """Exact scores (Eq. 12) of chosen passages.

    Args:
        segments: The index's.
        query: With all its entries.
        places: For each segment number, rising rows.
    """

    def work(task: tuple[int, Block, NDArray[np.int64]]) -> Found:
        number, block, rows = task
        scores = lexical_scores(rows, query.ids, query.weights, *block.lists)
        if query.length:
            scores += exact_dense_of(query.cls, rows, block.high, block.low, block.cls_units)
        return Found(scores, np.full(len(rows), number), rows + block.first)

    tasks = []
    for number, rows in places.items():
        for block in segments[number].blocks:
            first, last = np.searchsorted(rows, (block.first, block.first + len(block)))
            if first < last:
                tasks.append((number, block, rows[first:last] - block.first))
    parts = share(work, tasks)
    return best(parts, max(1, sum(map(len, parts))))


def share(work: Callable[[Task], Any], tasks: Iterable[Task]) -> list[Any]:
    """Apply `work` to every task on all cores and return the results, in no order."""
    tasks = list(tasks)
    queue = iter(tasks)

    def drain() -> list[Any]:
        return [work(task) for task in queue]  # taking the next one of a list's iterator is atomic

    helpers = min(cores(), len(tasks)) - 1
    waiting = [_threads().submit(drain) for _ in range(helpers)]
    results = drain()
    for helper in waiting:
        results += helper.result()
    return results


@cache
def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads that live as long as the process: starting them costs more than a small search."""
    return ThreadPoolExecutor(max_workers=cores(), thread_name_prefix="dupmae-index")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of its parent's threads
