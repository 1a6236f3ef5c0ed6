"""Exact search over the segments of a snapshot: the part between queries and ranked rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dupmae.index.scoring.choice import loops_for
from dupmae.index.scoring.query import Query
from dupmae.index.scoring.threads import cores, in_parallel
from dupmae.index.storage.arrays import arrow_rows
from dupmae.index.storage.segments import NO_GROUPS, Block, Groups, Segment

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
    segments: Sequence[Segment],
    alive: Sequence[NDArray[np.uint8]],
    queries: Sequence[Query],
    k: int,
    *,
    grouped: bool = False,
) -> list[Found]:
    """Find the best passages, or documents, of each query by Eq. 12 and words, proven.

    All cores share the blocks of the segments; what is found does not depend on their number.

    Args:
        segments: The index's, in order.
        alive: For each, 1 for the passages that may be found (n,).
        queries: Q queries, their words with their rarity.
        k: At least 1.
        grouped: Whether documents are wanted, of which each scores what the best of its passages scores.

    Returns:
        For each query the k best, and all that score as high as the last of them. Of documents exactly k, each by its
        best passage: ties between documents by id, between its passages by where they stand in it.

    Raises:
        DupmaeError: A segment is damaged.
    """
    in_parallel(Segment.check, [segment for segment in segments if not segment.checked])
    blocks = [
        (number, block, groups)
        for number, segment in enumerate(segments)
        for block, groups in zip(segment.blocks, segment.groups if grouped else repeat(NO_GROUPS), strict=False)
    ]
    found: list[Found] = []
    for start in range(0, len(queries), QUERY_GROUP):
        parts = _search_blocks(blocks, alive, queries[start : start + QUERY_GROUP], k)
        found += [best_documents(segments, pieces, k) if grouped else best(pieces, k) for pieces in parts]
    return found


def _search_blocks(
    blocks: Sequence[tuple[int, Block, Groups]], alive: Sequence[NDArray[np.uint8]], queries: Sequence[Query], k: int
) -> list[list[Found]]:
    """Search for up to `QUERY_GROUP` queries; return for each what every block has found."""
    loops = loops_for(len(queries) * sum(len(block) for _, block, _ in blocks))
    floors = [np.full(1, -np.inf) for _ in queries]
    pieces: list[list[Found]] = [[] for _ in queries]

    def work(task: tuple[int, Block, Groups, range]) -> None:
        number, block, groups, places = task
        if any(queries[place].length for place in places):
            dense = np.stack([queries[place].dense for place in places])
            scanned = loops.scan_dense(dense, block.high, block.dense_units)
        else:
            scanned = np.zeros((len(places), len(block)), np.float32)
        living = alive[number][block.first : block.first + len(block)]
        for place, row in zip(places, scanned, strict=True):
            query = queries[place]
            scores, rows = loops.search_block(
                query.dense,
                query.length,
                query.terms,
                query.words,
                row,
                block.dense,
                block.lists,
                block.words,
                living,
                groups,
                floors[place],
                k,
            )
            pieces[place].append(Found(scores, np.full(len(rows), number), rows + block.first))

    size = min(_TASK_QUERIES, max(1, len(blocks) * len(queries) // (4 * cores())))  # enough tasks for every core
    parts = [range(start, min(start + size, len(queries))) for start in range(0, len(queries), size)]
    in_parallel(work, [(*block, places) for block in blocks for places in parts])
    return pieces


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


def best_documents(segments: Sequence[Segment], parts: Sequence[Found], k: int) -> Found:
    """Pick the best passage of each of the k best documents among what several blocks found."""
    limit, total = k + len(parts), sum(map(len, parts))  # few documents lie in several blocks
    while len(order := _in_order(segments, found := best(parts, min(limit, max(1, total))))) < k and limit < total:
        limit *= 2
    kept = order[:k]
    return Found(found.scores[kept], found.segments[kept], found.rows[kept])


def _in_order(segments: Sequence[Segment], found: Found) -> NDArray[np.int64]:
    """Order documents by their best passages, ties by id; return the places of these among what was found."""
    places, starts = [np.flatnonzero(found.segments == number) for number in range(len(segments))], []
    names = []
    for segment, chosen in zip(segments, places, strict=True):
        rows = found.rows[chosen]
        names.append(segment.passages.documents.take(arrow_rows(rows)))
        starts.append(segment.passages.starts[rows])
    encoded = pa.concat_arrays(names).dictionary_encode()
    ranks = np.empty(len(encoded.dictionary), np.int64)
    ranks[np.asarray(pc.sort_indices(encoded.dictionary))] = np.arange(len(ranks))
    documents, scores = ranks[np.asarray(encoded.indices)], found.scores[np.concatenate(places)]
    order = np.lexsort((np.concatenate(starts), documents, -scores))
    _, first = np.unique(documents[order], return_index=True)
    return np.concatenate(places)[order[np.sort(first)]]


def rescore(segments: Sequence[Segment], query: Query, places: dict[int, NDArray[np.int64]]) -> Found:
    """Score chosen passages exactly: for each segment number, rising rows."""
    loops = loops_for(sum(map(len, places.values())))

    def work(task: tuple[int, Block, NDArray[np.int64]]) -> Found:
        number, block, rows = task
        scores = loops.lexical_scores(query.terms, block.lists, rows)
        loops.add_words(query.words, block.words, rows, scores)
        if query.length:
            scores += loops.dense_scores(query.dense, block.dense, rows)
        return Found(scores, np.full(len(rows), number), rows + block.first)

    tasks = []
    for number, rows in places.items():
        for block in segments[number].blocks:
            first, last = np.searchsorted(rows, (block.first, block.first + len(block)))
            if first < last:
                tasks.append((number, block, rows[first:last] - block.first))
    parts = in_parallel(work, tasks)
    return best(parts, max(1, sum(map(len, parts))))
