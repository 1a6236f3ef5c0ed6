"""How rare words are in an index: counted in its lists at every search, so that no change of it is ever missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dupmae.duplex.words import brevity, rarity
from dupmae.index.scoring.choice import loops_for
from dupmae.index.scoring.query import Query
from dupmae.index.scoring.snapshot import Snapshot
from dupmae.index.scoring.threads import in_parallel
from dupmae.index.storage.segments import Segment

_ALL_ALIVE = np.empty(0, np.uint8)


def passages_with(snapshot: Snapshot, words: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the living passages of an index, whatever a filter says, that have each of some words.

    Args:
        snapshot: The index.
        words: Dimensions (m,).

    Returns:
        (m,)

    Raises:
        DupmaeError: A segment is damaged.
    """
    counts = np.zeros(len(words), np.int64)
    if not len(words):
        return counts
    in_parallel(Segment.check, [segment for segment in snapshot.segments if not segment.checked])
    loops = loops_for(0)
    for segment, alive in zip(snapshot.segments, snapshot.alive, strict=True):
        whole = alive.all()
        for block in segment.blocks:
            living = _ALL_ALIVE if whole else alive[block.first : block.first + len(block)]
            loops.count_passages(words, block.words, living, counts)
    return counts


def rarity_of(snapshot: Snapshot, words: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute how rare words (m,) are among the passages of an index, times the brevity of these: (m,).

    It is 0 where no passage has a word.
    """
    rare = rarity(snapshot.manifest.passages, passages_with(snapshot, words))
    return rare * brevity(snapshot.words_per_passage) if rare.any() else rare


def with_rarity(snapshot: Snapshot, queries: Sequence[Query]) -> list[Query]:
    """Multiply the words of queries by their rarity in an index."""
    words = np.unique(np.concatenate([query.word_ids for query in queries] or [np.empty(0, np.int64)]))
    rare = rarity_of(snapshot, words)
    return [
        replace(query, word_weights=query.word_weights * rare[np.searchsorted(words, query.word_ids)])
        for query in queries
    ]


def all_rarities(snapshot: Snapshot) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """List the words of an index, by rising dimensions, and how rare each is: two arrays (m,)."""
    known = [block.words[0] for segment in snapshot.segments for block in segment.blocks]
    words = np.unique(np.concatenate(known or [np.empty(0, np.uint32)])).astype(np.int64)
    return words, rarity_of(snapshot, words)
