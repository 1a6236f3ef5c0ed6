"""Exact search over open segments: the part between embeddings and ranked passage numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dupmae.errors import DupmaeError
from dupmae.index.kernels import search_segment
from dupmae.index.manifest import Manifest
from dupmae.index.segments import Segment

if TYPE_CHECKING:
    from dupmae.duplex.embeddings import DuplexEmbeddings

Part = Literal["both", "cls", "ot"]

QUERY_BLOCK = 64
"""Queries scored together: a segment's scores take 4 * QUERY_BLOCK bytes a passage and thread."""

_SMALL = 50_000  # queries times passages, a few milliseconds of work: sharing it among threads gains nothing


@dataclass(frozen=True, slots=True)
class Queries:
    """Query embeddings in the layout the kernels read: padding gone, vocabulary entries one query after the other."""

    cls: NDArray[np.float32]
    """(Q, d')"""
    starts: NDArray[np.int64]
    """(Q + 1,)"""
    ids: NDArray[np.int64]
    """(M,)"""
    weights: NDArray[np.float32]
    """(M,)"""

    def __len__(self) -> int:
        return len(self.cls)

    def __getitem__(self, rows: slice) -> Queries:
        """A consecutive part of the queries."""
        first, last, _ = rows.indices(len(self))
        entries = slice(self.starts[first], self.starts[last])
        starts = self.starts[first : last + 1] - self.starts[first]
        return Queries(self.cls[first:last], starts, self.ids[entries], self.weights[entries])


def prepare_queries(embeddings: DuplexEmbeddings, manifest: Manifest, part: Part) -> Queries:
    """Check query embeddings against the index and lay them out for the kernels.

    Args:
        embeddings: Q queries.
        manifest: Of the index.
        part: Which terms of Eq. 12 count; the other half is left empty.

    Raises:
        DupmaeError: An unknown part, numbers that are not finite, or embeddings of another width or vocabulary.
    """
    if part not in ("both", "cls", "ot"):
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
    if not (np.isfinite(cls).all() and np.isfinite(weights).all()):
        raise DupmaeError("The queries' embeddings hold numbers that are not finite: check the model.")
    if part == "cls":
        used = np.zeros_like(used)
    starts = np.concatenate(([0], np.cumsum(used.sum(axis=1)))).astype(np.int64)
    return Queries(cls if part != "ot" else np.zeros_like(cls), starts, ids[used], weights[used])


def top_k(
    segments: Sequence[Segment], ranks: NDArray[np.int64], queries: Queries, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Score every passage by Eq. 12 and keep the best of each query.

    Threads share the segments; what they return does not depend on their number.

    Args:
        segments: The index's, in order.
        ranks: Place of each of the N passages in the order that breaks ties (N,).
        queries: Q queries.
        k: At most N.

    Returns:
        Scores and ranks (Q, k), best first.
    """
    first_rows = np.cumsum([0, *(segment.size for segment in segments)])
    blocks = [queries[start : start + QUERY_BLOCK] for start in range(0, len(queries), QUERY_BLOCK)]
    best_scores = np.full((len(queries), k), -np.inf, np.float32)
    best_ranks = np.full((len(queries), k), -1, np.int64)

    def work(task: tuple[int, int]) -> Any:
        block, segment = blocks[task[0]], segments[task[1]]
        return search_segment(
            block.cls,
            block.starts,
            block.ids,
            block.weights,
            segment.cls_bits,
            segment.starts,
            segment.documents,
            segment.weights,
            segment.scales,
            ranks[first_rows[task[1]] : first_rows[task[1] + 1]],
            min(k, segment.size),
        )

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        apply = map if len(queries) * len(ranks) <= _SMALL else threads.map
        for number, block in enumerate(blocks):
            rows = slice(number * QUERY_BLOCK, number * QUERY_BLOCK + len(block))
            for scores, found in apply(work, [(number, segment) for segment in range(len(segments))]):
                all_scores = np.concatenate((best_scores[rows], scores), axis=1)
                all_ranks = np.concatenate((best_ranks[rows], found), axis=1)
                order = np.lexsort((all_ranks, -all_scores), axis=1)[:, :k]
                best_scores[rows] = np.take_along_axis(all_scores, order, axis=1)
                best_ranks[rows] = np.take_along_axis(all_ranks, order, axis=1)
    return best_scores, best_ranks
