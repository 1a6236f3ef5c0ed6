"""A committed state of an index, opened: later changes to the folder do not reach it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index.scoring.clusters import Clusters
from dupmae.index.scoring.exact import Found
from dupmae.index.storage.arrays import MappedFile, arrow_rows, damaged, refuse_other_arrays
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
    _words: list[float] = field(default_factory=list)

    @property
    def words_per_passage(self) -> float:
        """Different words that the living passages have on average, counted when first asked for.

        Raises:
            DupmaeError: A segment is damaged.
        """
        if not self._words:
            words = sum(segment.words_of(alive) for segment, alive in zip(self.segments, self.alive, strict=True))
            self._words.append(words / max(self.manifest.passages, 1))
        return self._words[0]

    @property
    def has_chunks(self) -> bool:
        """Whether one of the passages is a part of a document."""
        return any(segment.passages.has_chunks for segment in self.segments)

    @property
    def documents(self) -> int:
        """Number of documents that have living passages."""
        if not self.has_chunks:
            return self.manifest.passages
        return len({document for number in range(len(self.segments)) for document in self._documents_of(number)})

    def _documents_of(self, number: int) -> list[str]:
        """List the ids of a segment's documents of which passages live."""
        living = self.segments[number].passages.documents.filter(pa.array(self.alive[number] != 0))
        return living.unique().to_pylist()  # type: ignore[no-any-return]

    @property
    def metadata_fields(self) -> list[str]:
        """Metadata fields that at least one passage has, in the order of the alphabet."""
        return sorted({name for segment in self.segments for name in segment.passages.metadata_fields})

    def metadata_values(self, field: str, most: int) -> list[str | int | float | bool]:
        """List the values of a metadata field that living passages have, in order; none if there are more than `most`.

        Numbers come before texts, where segments have either.
        """
        found: set[str | int | float | bool] = set()
        for segment, alive in zip(self.segments, self.alive, strict=True):
            if field in segment.passages.metadata_fields:
                values = segment.passages.metadata_of(field).filter(pa.array(alive != 0)).unique().drop_null()
                if len(values) > most:
                    return []
                found |= set(values.to_pylist())
        return sorted(found, key=lambda value: (isinstance(value, str), value)) if len(found) <= most else []

    @classmethod
    def open(cls, folder: Path, before: Snapshot | None = None) -> Snapshot:
        """Open the state that the manifest tells of.

        A writer may replace manifest and segments meanwhile; then the newer state is opened.

        Args:
            folder: The index.
            before: An earlier state; what both have in common is not opened, and checked, again.

        Raises:
            DupmaeError: No index, one of another format, or one with missing or damaged files.
        """
        for attempt in range(_ATTEMPTS):
            manifest = Manifest.read(folder)
            try:
                return cls._of(folder, manifest, before)
            except DupmaeError:
                if attempt == _ATTEMPTS - 1 or Manifest.read(folder) == manifest:
                    raise
        raise AssertionError("the loop returns or raises")

    @classmethod
    def _of(cls, folder: Path, manifest: Manifest, before: Snapshot | None) -> Snapshot:
        """Open the files that a manifest names."""
        known = {} if before is None else {segment.name: segment for segment in before.segments}
        segments = [
            found
            if (found := known.get(entry.name)) is not None and found.files == entry.files
            else Segment(folder, manifest, entry)
            for entry in manifest.segments
        ]
        alive = [np.ones(len(segment), np.uint8) for segment in segments]
        if manifest.deleted is not None:
            file = MappedFile(folder, manifest.deleted["name"], manifest.deleted)
            file.check()
            packed = file.arrays()
            marked = {
                entry.name: (np.uint8, (-(-entry.passages // 8),)) for entry in manifest.segments if entry.deleted
            }
            refuse_other_arrays(file.path, packed, marked)
            for place, entry in enumerate(manifest.segments):
                if entry.deleted:
                    alive[place] = 1 - np.unpackbits(packed[entry.name], count=entry.passages)
                    if int((alive[place] == 0).sum()) != entry.deleted:
                        raise damaged(file.path, f"marks other than {entry.deleted} passages of {entry.name}")
        clusters = None
        if manifest.clusters is not None:
            covered = set(manifest.clusters["segments"])
            count = sum(entry.passages for entry in manifest.segments if entry.name in covered)
            clusters = Clusters(folder, manifest.clusters, count, manifest.cls_dimension)
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

    def find_documents(self, ids: Iterable[str]) -> dict[str, list[tuple[int, int]]]:
        """Find the living passages of documents: id to number of the segment and row of each, in their order there."""
        wanted = pa.array(list(ids), pa.large_string())
        places: dict[str, list[tuple[int, int, int]]] = {}
        for number, segment in enumerate(self.segments):
            rows, documents = segment.passages.rows_of_documents(wanted)
            for row, document in zip(rows.tolist(), documents, strict=True):
                if self.alive[number][row]:
                    start = int(segment.passages.starts[row])
                    places.setdefault(document, []).append((start, number, row))
        return {document: [(number, row) for _, number, row in sorted(found)] for document, found in places.items()}

    def document_at(self, number: int, row: int) -> str:
        """Tell the id of the document of a passage."""
        return str(self.segments[number].passages.documents[row])

    def places(self, ids: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
        """Find what ids name, passages or else documents: id to number of the segment and row of each of its passages.

        What is not there is left out.
        """
        places = {identifier: [place] for identifier, place in self.find(list(ids)).items()}
        others = [identifier for identifier in ids if identifier not in places] if self.has_chunks else []
        return places | self.find_documents(others)

    def __iter__(self) -> Iterator[Passage]:
        """Read the living passages in the order of their ids, a few of each segment at a time."""
        parts = (
            compress(segment.passages, alive.tolist()) for segment, alive in zip(self.segments, self.alive, strict=True)
        )
        return heapq.merge(*parts, key=lambda passage: passage.id)

    def ranked(self, found: Found, *, grouped: bool = False) -> list[tuple[str, float, int, int]]:
        """Sort what was found, best first, ties by id: id, score, number of the segment and row.

        Args:
            found: Passages.
            grouped: Whether each stands for its document, whose id is then given instead of its own.
        """
        ids = np.empty(len(found), object)
        for number in np.unique(found.segments):
            chosen, passages = found.segments == number, self.segments[number].passages
            column = passages.documents if grouped else passages.ids
            ids[chosen] = column.take(arrow_rows(found.rows[chosen])).to_pylist()
        ranking = zip(ids.tolist(), found.scores.tolist(), found.segments.tolist(), found.rows.tolist(), strict=True)
        return sorted(ranking, key=lambda place: (-place[1], place[0]))
