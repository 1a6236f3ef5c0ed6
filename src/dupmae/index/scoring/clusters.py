"""Clusters of the dense halves, for approximate search: faiss IVF with 8-bit numbers, in one file of the index.

The file holds the arrays that a faiss index is made of, since reading faiss' own format from a damaged file may take
all memory or never end:

===========  ==============  =================================================
array        type and shape  meaning
===========  ==============  =================================================
`centroids`  float32 (L, d')  centres of the L clusters
`ranges`     float32 (2 d')   lowest numbers of the residuals, then their widths
`starts`     uint32 (L+1,)    where each cluster begins
`passages`   uint32 (N,)      numbers of passages, cluster by cluster
`codes`      uint8 (N, d')    their residuals
===========  ==============  =================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.errors import DupmaeError
from dupmae.index.storage.arrays import MappedFile, damaged, refuse_other_arrays, write_arrays
from dupmae.index.storage.quantise import restore_dense
from dupmae.index.storage.segments import Block, Segment

FORMER_ENDING = ".faiss"
"""How files of clusters end that versions before 0.3 wrote."""
_SAMPLE = 64  # vectors a cluster that the clusters are learned from


class Clusters:
    """Opened clusters. They know the segments they were made of; passages added later are searched without them."""

    def __init__(self, folder: Path, entry: Mapping[str, Any], passages: int, dimension: int) -> None:
        """Map the file, unless it is missing, or its size, header or arrays' shapes are not as they should be.

        Args:
            folder: The index.
            entry: What the manifest says of the file.
            passages: How many the segments that it names hold.
            dimension: d'.
        """
        self.segments: list[str] = entry["segments"]
        self._file = MappedFile(folder, entry["name"], entry)
        self._arrays: dict[str, NDArray[Any]] = {}
        self._index: Any = None
        if entry["name"].endswith(FORMER_ENDING):
            return
        self._arrays = self._file.arrays()
        count = len(self._arrays.get("centroids", ()))
        refuse_other_arrays(
            self._file.path,
            self._arrays,
            {
                "centroids": (np.float32, (count, dimension)),
                "ranges": (np.float32, (2 * dimension,)),
                "starts": (np.uint32, (count + 1,)),
                "passages": (np.uint32, (passages,)),
                "codes": (np.uint8, (passages, dimension)),
            },
        )

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
            self._index = self._as_faiss()
        selector = None if alive.all() else faiss.IDSelectorBitmap(np.packbits(alive, bitorder="little"))
        settings = faiss.SearchParametersIVF(nprobe=min(probes, self._index.nlist), sel=selector)
        numbers = self._index.search(query[None], min(count, len(alive)), params=settings)[1][0]
        return np.asarray(numbers[numbers >= 0], np.int64)

    def _as_faiss(self) -> Any:
        """Make the faiss index, unless the arrays are damaged or inconsistent."""
        faiss = _faiss()
        if not self._arrays:
            raise DupmaeError(
                f"{self._file.path} holds clusters as version 0.2 wrote them: make them again"
                " (`dupmae index tune --clusters`), or search without --probes."
            )
        self._file.check()
        arrays, (lists, dimension) = self._arrays, self._arrays["centroids"].shape
        starts, passages = arrays["starts"].astype(np.int64), arrays["passages"].astype(np.int64)
        if not lists or starts[0] != 0 or starts[-1] != len(passages) or (np.diff(starts) < 0).any():
            raise damaged(self._file.path, "has clusters that do not begin where others end")
        if passages.max(initial=-1) >= len(passages) or (np.bincount(passages) > 1).any():
            raise damaged(self._file.path, "has passages that are not there, or twice")
        if not all(np.isfinite(arrays[name]).all() for name in ("centroids", "ranges")):
            raise damaged(self._file.path, "has numbers that are not finite")
        quantizer = faiss.IndexFlatIP(dimension)
        quantizer.add(np.ascontiguousarray(arrays["centroids"]))
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, dimension, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        faiss.copy_array_to_vector(np.array(arrays["ranges"]), index.sq.trained)
        index.is_trained = True
        codes = np.ascontiguousarray(arrays["codes"])
        for number in range(lists):
            first, last = starts[number], starts[number + 1]
            if first < last:
                ids = passages[first:last]
                index.invlists.add_entries(
                    number, int(last - first), faiss.swig_ptr(ids), faiss.swig_ptr(codes[first:last])
                )
        index.ntotal = len(passages)
        return index


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
    """Write the arrays of the faiss index that :func:`learn` made."""
    faiss, inverted = _faiss(), index.invlists
    sizes = [inverted.list_size(number) for number in range(index.nlist)]
    parts, codes = [], []
    for number, size in enumerate(sizes):
        if size:
            parts.append(faiss.rev_swig_ptr(inverted.get_ids(number), size).astype(np.uint32))
            codes.append(faiss.rev_swig_ptr(inverted.get_codes(number), size * index.d).reshape(size, index.d).copy())
    write_arrays(
        path,
        {
            "centroids": index.quantizer.reconstruct_n(0, index.nlist),
            "ranges": faiss.vector_to_array(index.sq.trained),
            "starts": np.concatenate(([0], np.cumsum(sizes))).astype(np.uint32),
            "passages": np.concatenate(parts),
            "codes": np.concatenate(codes),
        },
    )


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
