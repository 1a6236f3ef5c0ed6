"""A committed state of an index, opened: later changes to the folder do not reach it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dupmae.errors import DupmaeError
from dupmae.index.scoring.clusters import Clusters
from dupmae.index.scoring.exact import Found
from dupmae.index.storage.arrays import MappedFile
from dupmae.index.storage.manifest import Manifest
from dupmae.index.storage.segments import Segment

_ATTEMPTS = 20  # a writer would have to commit that often while one reader opens


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The segments of one manifest and which of their passages are alive."""

    manifest: Manifest
    segments: list[Segment]
    alive: list[NDArray[np.uint8]]
    """For each segment, 1 for each passage that is not deleted (n,)."""
    clusters: Clusters | None
    """For approximate search, if they were made."""

    @property
    def metadata_fields(self) -> list[str]:
        """Metadata fields that at least one passage has, in the order of the alphabet."""
        return sorted({name for segment in self.segments for name in segment.passages.metadata_fields})

    @classmethod
    def open(cls, folder: Path) -> Snapshot:
        """Open the state that the manifest tells of.

        A writer may replace manifest and segments meanwhile; then the newer state is opened.

        Raises:
            DupmaeError: No index, one of another format, or one with missing or damaged files.
        """
        for attempt in range(_ATTEMPTS):
            manifest = Manifest.read(folder)
            try:
                return cls._of(folder, manifest)
            except DupmaeError:
                if attempt == _ATTEMPTS - 1 or Manifest.read(folder) == manifest:
                    raise
        raise AssertionError("the loop returns or raises")

    @classmethod
    def _of(cls, folder: Path, manifest: Manifest) -> Snapshot:
        """Open the files that a manifest names."""
        segments = [Segment(folder, entry) for entry in manifest.segments]
        alive = [np.ones(len(segment), np.uint8) for segment in segments]
        if manifest.deleted is not None:
            file = MappedFile(folder / manifest.deleted["name"], manifest.deleted)
            file.check()
            packed = file.arrays()
            for place, segment in enumerate(segments):
                if segment.name in packed:
                    alive[place] = 1 - np.unpackbits(packed[segment.name], count=len(segment))
        clusters = None if manifest.clusters is None else Clusters(folder, manifest.clusters)
        return cls(manifest, segments, alive, clusters)

    def find(self, ids: list[str]) -> dict[str, tuple[int, int]]:
        """Find passages that are here and alive: id to number of the segment and row."""
        wanted, places = pa.array(ids, pa.large_string()), {}
        for number, segment in enumerate(self.segments):
            found, rows = segment.passages.rows_of(wanted)
            for place, row in zip(found.tolist(), rows.tolist(), strict=True):
                if self.alive[number][row]:
                    places[ids[place]] = (number, row)
        return places

    def by_id(self, found: Found) -> list[tuple[str, float, int, int]]:
        """Sort what was found, best first, ties by id: id, score, number of the segment and row."""
        ids = np.empty(len(found), object)
        for number in np.unique(found.segments):
            chosen = found.segments == number
            column = self.segments[number].passages.ids
            ids[chosen] = column.take(pa.array(found.rows[chosen])).to_pylist()
        ranking = zip(ids.tolist(), found.scores.tolist(), found.segments.tolist(), found.rows.tolist(), strict=True)
        return sorted(ranking, key=lambda place: (-place[1], place[0]))
