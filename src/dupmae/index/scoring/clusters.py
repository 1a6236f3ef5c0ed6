"""Clusters of the dense halves, for approximate search: faiss IVF with 8-bit numbers, in one file of the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.errors import DupmaeError
from dupmae.index.storage.arrays import MappedFile
from dupmae.index.storage.quantise import restore_dense
from dupmae.index.storage.segments import Block, Segment

_SAMPLE = 64  # vectors a cluster that the clusters are learned from


class Clusters:
    """Opened clusters. They know the segments they were made of; passages added later are searched without them."""

    def __init__(self, folder: Path, entry: Mapping[str, Any]) -> None:
        """Map the file, unless it is missing or has another size than the manifest says in `entry`."""
        self.segments: list[str] = entry["segments"]
        self._file = MappedFile(folder / entry["name"], entry)
        self._index: Any = None

    def verify(self) -> None:
        """Refuse the file if it differs from its checksum."""
        self._file.verify()

    def nearest(
        self, query: NDArray[np.float32], alive: NDArray[np.uint8], count: int, probes: int
    ) -> NDArray[np.int64]:
        """Find the passages whose dense halves score highest, as far as the nearest clusters hold them.

        Args:
            query: (d',)
            alive: 1 for each passage that may be found, over the covered segments one after the other (N,).
            count: Passages wanted.
            probes: Clusters looked into.

        Returns:
            Their numbers over the covered segments, at most `count`.

        Raises:
            DupmaeError: faiss is not installed, or the file is damaged.
        """
        faiss = _faiss()
        if self._index is None:
            self._file.check()
            self._index = faiss.deserialize_index(np.frombuffer(self._file.data, np.uint8))
        selector = None if alive.all() else faiss.IDSelectorBitmap(np.packbits(alive, bitorder="little"))
        settings = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        numbers = self._index.search(query[None], count, params=settings)[1][0]
        return np.asarray(numbers[numbers >= 0], np.int64)


def learn(segments: Sequence[Segment]) -> Any:
    """Cluster the dense halves of all passages of the segments in a faiss index."""
    faiss = _faiss()
    for segment in segments:
        segment.check()
    blocks = [block for segment in segments for block in segment.blocks]
    passages, dimension = sum(map(len, blocks)), blocks[0].high.shape[1]
    lists = max(1, min(4 * int(np.sqrt(passages)), passages // 40))
    index = faiss.index_factory(dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    step = max(1, passages // (_SAMPLE * lists))
    index.train(np.concatenate([_dense(block)[::step] for block in blocks]))
    for block in blocks:
        index.add(_dense(block))
    return index


def write(index: Any, path: Path) -> None:
    """Write the faiss index that :func:`learn` made."""
    _faiss().write_index(index, str(path))


def covered(clusters: Clusters, segments: Sequence[Segment]) -> dict[int, int]:
    """Map the number of each segment that the clusters know to the number of its first passage there."""
    names = {segment.name: number for number, segment in enumerate(segments)}
    first, places = 0, {}
    for name in clusters.segments:
        places[names[name]] = first
        first += len(segments[names[name]])
    return places


def _dense(block: Block) -> NDArray[np.float32]:
    """Restore the dense halves of a block (n, d')."""
    return restore_dense(block.high, block.low, block.dense_units)


def _faiss() -> ModuleType:
    """Import faiss, or say what installs it."""
    try:
        import faiss
    except ModuleNotFoundError:
        raise DupmaeError("clusters need faiss: pip install 'dupmae[clusters]'") from None
    module: ModuleType = faiss
    return module
