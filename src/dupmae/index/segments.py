"""Immutable parts of an index on disk: how they are written, opened and checked.

A segment is a folder that holds up to 65,536 passages:

==================  =====================  ==================================================================
file                type and shape         meaning
==================  =====================  ==================================================================
`cls.npy`           float16 (n, d')        dense halves
`starts.npy`        uint32 (V + 1,)        where each vocabulary entry's inverted list begins
`documents.npy`     uint16 (entries,)      the lists one after the other: passage numbers, rising
`weights.npy`       int16 (entries,)       the lists' weights, in units of the passage's scale
`scales.npy`        float32 (n,)           units of the weights: powers of two, so that decoding rounds nothing
`passages.arrow`    id, title, text        Arrow IPC file with large strings, read only for hits
==================  =====================  ==================================================================

The vocabulary half is kept in its inverted form alone: search needs nothing else, and each entry of each passage takes
four bytes on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, file_fingerprint
from dupmae.index.manifest import SegmentEntry

MAX_PASSAGES = 65_536
"""Passages in a segment: their numbers are 16-bit."""

_LARGEST = 32_767  # of int16
_SCHEMA = pa.schema([(name, pa.large_string()) for name in ("id", "title", "text")])


@dataclass(frozen=True, slots=True)
class Entries:
    """Vocabulary entries of a block of passages: three arrays of equal length, in any order."""

    documents: NDArray[np.int64]
    """Passage numbers within the block."""
    ids: NDArray[np.int64]
    """Vocabulary entries."""
    weights: NDArray[np.float32]
    """Weights; zeros are dropped when stored."""


def quantise(entries: Entries, passages: int) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Turn weights into 16-bit numbers with one scale per passage.

    The scale is the smallest power of two with which the passage's heaviest weight fits, so the error is at most 2^-15
    of that weight and multiplying back is exact.

    Returns:
        The 16-bit weights (entries,) and the scales (passages,).
    """
    heaviest = np.zeros(passages, np.float64)
    np.maximum.at(heaviest, entries.documents, np.abs(entries.weights.astype(np.float64)))
    with np.errstate(divide="ignore"):
        exponents = np.ceil(np.log2(heaviest / _LARGEST))
    scales = np.exp2(np.maximum(np.where(heaviest > 0, exponents, 0.0), -126.0))  # never below float32's normal range
    return np.rint(entries.weights / scales[entries.documents]).astype(np.int16), scales.astype(np.float32)


def write_segment(
    folder: Path, name: str, passages: Sequence[Passage], cls: NDArray[Any], entries: Entries, vocabulary_size: int
) -> dict[str, dict[str, Any]]:
    """Write a segment, whole or not at all.

    Args:
        folder: The index.
        name: The segment's folder below it.
        passages: The n passages.
        cls: Dense halves (n, d').
        entries: Vocabulary halves.
        vocabulary_size: V.

    Returns:
        Size in bytes and checksum of each file, as the manifest keeps them.
    """
    weights, scales = quantise(entries, len(passages))
    kept = weights != 0
    columns = (entries.documents[kept], entries.ids[kept])
    lists = sp.csr_array((weights[kept], columns), shape=(len(passages), vocabulary_size)).tocsc()
    lists.sort_indices()
    arrays = {
        "cls.npy": cls.astype(np.float16),
        "starts.npy": lists.indptr.astype(np.uint32),
        "documents.npy": lists.indices.astype(np.uint16),
        "weights.npy": lists.data.astype(np.int16),
        "scales.npy": scales,
    }
    with atomic_folder(folder / name) as temporary:
        for file_name, array in arrays.items():
            np.save(temporary / file_name, array)
        texts = {field: [getattr(passage, field) for passage in passages] for field in _SCHEMA.names}
        with pa.OSFile(str(temporary / "passages.arrow"), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            writer.write_batch(pa.record_batch(texts, schema=_SCHEMA))
    files = sorted((folder / name).iterdir())
    return {file.name: {"bytes": file.stat().st_size, "sha256": file_fingerprint(file)} for file in files}


def check_sizes(folder: Path, entry: SegmentEntry) -> None:
    """Refuse a segment with a missing or truncated file; costs a look at the file sizes."""
    for file_name, expected in entry.files.items():
        path = folder / entry.name / file_name
        size = path.stat().st_size if path.is_file() else None
        if size != expected["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes instead of {expected['bytes']}"
            raise DupmaeError(f"{path} {found}: the index is damaged, build it again from its passages.")


def verify_segment(folder: Path, entry: SegmentEntry) -> None:
    """Refuse a segment whose files differ from the manifest's checksums; reads every byte."""
    check_sizes(folder, entry)
    for file_name, expected in entry.files.items():
        path = folder / entry.name / file_name
        if file_fingerprint(path) != expected["sha256"]:
            raise DupmaeError(
                f"{path} does not have the checksum it was written with: the index is damaged, build it again."
            )


class Segment:
    """A segment opened for reading: memory-mapped arrays, nothing of them in memory before it is used."""

    def __init__(self, folder: Path, entry: SegmentEntry) -> None:
        check_sizes(folder, entry)
        self.folder = folder / entry.name
        self.size = entry.passages
        self.cls_bits = self._array("cls").view(np.uint16)  # (n, d')
        self.starts = self._array("starts")  # (V + 1,)
        self.documents = self._array("documents")
        self.weights = self._array("weights")
        self.scales = self._array("scales")  # (n,)

    def _array(self, name: str) -> NDArray[Any]:
        return np.asarray(np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))

    @cached_property
    def passages(self) -> pa.RecordBatch:
        """Ids, titles and texts, memory-mapped."""
        return pa.ipc.open_file(pa.memory_map(str(self.folder / "passages.arrow"))).get_batch(0)

    def passage(self, number: int) -> Passage:
        """The passage with that number in the segment."""
        row = self.passages.slice(number, 1).to_pylist()[0]
        return Passage(row["id"], row["title"], row["text"])
