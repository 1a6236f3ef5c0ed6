"""Exact search over the segments of a snapshot: the part between queries and ranked rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dupmae.index.scoring.loops import add_words, dense_scores, lexical_scores, search_block
from dupmae.index.scoring.query import Query
from dupmae.index.scoring.scanning import scan_dense
from dupmae.index.scoring.threads import cores, in_parallel
from dupmae.index.storage.segments import Block, Segment

QUERY_GROUP = 64
"""Queries that share a pass over the index; what they find in each block is held until its end."""
_TASK_QUERIES = 16  # that scan a block together: their dense scores, 4 * 16,384 bytes each, stay in a core's cache


@dataclass(frozen=True, slots=True)
class Found:
    """Passages found for one query, in the order of their scores; which of equal ones comes first is left open."""

    scores: NDArray[np.float64]
    """Eq. 12 and words (m,)."""
    segments: NDArray[np.int64]
    """Number of each one's segment (m,)."""
    rows: NDArray[np.int64]
    """Row of each one within its segment (m,)."""

    def __len__(self) -> int:
        return len(self.scores)


def top_k(
    segments: Sequence[Segment], alive: Sequence[NDArray[np.uint8]], queries: Sequence[Query], k: int
) -> list[Found]:
    """Find the best passages of each query by Eq. 12 and words, proven.

    All cores share the blocks of the segments; what is found does not depend on their number.

    Args:
        segments: The index's, in order.
        alive: For each, 1 for the passages that may be found (n,).
        queries: Q queries, their words with their rarity.
        k: At least 1.

    Returns:
        For each query the k best, and all that score as high as the last of them.

    Raises:
        DupmaeError: A segment is damaged.
    """
    in_parallel(Segment.check, [segment for segment in segments if not segment.checked])
    blocks = [(number, block) for number, segment in enumerate(segments) for block in segment.blocks]
    found: list[Found] = []
    for start in range(0, len(queries), QUERY_GROUP):
        found += _top_k_of_group(blocks, alive, queries[start : start + QUERY_GROUP], k)
    return found


def _top_k_of_group(
    blocks: Sequence[tuple[int, Block]], alive: Sequence[NDArray[np.uint8]], queries: Sequence[Query], k: int
) -> list[Found]:
    """Search for up to `QUERY_GROUP` queries."""
    floors = [np.full(1, -np.inf) for _ in queries]
    pieces: list[list[Found]] = [[] for _ in queries]

    def work(task: tuple[int, Block, range]) -> None:
        number, block, places = task
        if any(queries[place].length for place in places):
            scanned = scan_dense(np.stack([queries[place].dense for place in places]), block.high, block.dense_units)
        else:
            scanned = np.zeros((len(places), len(block)), np.float32)
        living = alive[number][block.first : block.first + len(block)]
        for place, row in zip(places, scanned, strict=True):
            query = queries[place]
            scores, rows = search_block(
                query.dense,
                query.length,
                query.terms,
                query.words,
                row,
                block.dense,
                block.lists,
                block.words,
                living,
                floors[place],
                k,
            )
            pieces[place].append(Found(scores, np.full(len(rows), number), rows + block.first))

    size = min(_TASK_QUERIES, max(1, len(blocks) * len(queries) // (4 * cores())))  # enough tasks for every core
    parts = [range(start, min(start + size, len(queries))) for start in range(0, len(queries), size)]
    in_parallel(work, [(number, block, places) for number, block in blocks for places in parts])
    return [best(found, k) for found in pieces]


def best(parts: Sequence[Found], k: int) -> Found:
    """Pick the k best of what several blocks found, and all that score as high as the last of them."""
    scores = np.concatenate([part.scores for part in parts] or [np.empty(0)])
    segments = np.concatenate([part.segments for part in parts] or [np.empty(0, np.int64)])
    rows = np.concatenate([part.rows for part in parts] or [np.empty(0, np.int64)])
    if len(scores) > k:
        kept = np.flatnonzero(scores >= -np.partition(-scores, k - 1)[k - 1])
        scores, segments, rows = scores[kept], segments[kept], rows[kept]
    order = np.argsort(-scores, kind="stable")
    return Found(scores[order], segments[order], rows[order])


def rescore(segments: Sequence[Segment], query: Query, places: dict[int, NDArray[np.int64]]) -> Found:
    """Score chosen passages exactly: for each segment number, rising rows."""

    def work(task: tuple[int, Block, NDArray[np.int64]]) -> Found:
        number, block, rows = task
        scores = lexical_scores(query.terms, block.lists, rows)
        add_words(query.words, block.words, rows, scores)
        if query.length:
            scores += dense_scores(query.dense, block.dense, rows)
        return Found(scores, np.full(len(rows), number), rows + block.first)

    tasks = []
    for number, rows in places.items():
        for block in segments[number].blocks:
            first, last = np.searchsorted(rows, (block.first, block.first + len(block)))
            if first < last:
                tasks.append((number, block, rows[first:last] - block.first))
    parts = in_parallel(work, tasks)
    return best(parts, max(1, sum(map(len, parts))))
