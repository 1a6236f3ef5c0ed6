"""Several processes that build one index, as `torchrun` starts them: each its part, and the last one joins them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder
from dupmae.index.scoring.snapshot import Snapshot
from dupmae.index.storage.manifest import Manifest, relative_model
from dupmae.index.writing.changes import is_index, sole_writer, sweep
from dupmae.index.writing.encoding import fingerprint_of, windows


def process_of(environment: Mapping[str, str]) -> tuple[int, int]:
    """Tell which process of how many this is, as `torchrun` says in its environment; (0, 1) without it."""
    return int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))


def part_folder(folder: Path, rank: int, processes: int) -> Path:
    """Name the folder in which a process builds its part."""
    return folder / f"process-{rank}-of-{processes}"


def recognise(folder: Path, manifest: Manifest, passages: Iterable[Passage]) -> None:
    """Refuse a finished index of several processes that does not hold what one of them would have added."""
    known = {entry.fingerprint for entry in manifest.segments if not entry.deleted}
    if not all(fingerprint_of(window) in known for window in windows(passages, manifest.segment_passages)):
        raise other_passages(folder)


def join(folder: Path, processes: int) -> None:
    """Make one index of the processes' own once all are finished; the files are linked, then their old names go."""
    parts = [part_folder(folder, rank, processes) for rank in range(processes)]
    if not all(is_index(part) and Manifest.read(part).complete for part in parts):
        return
    with sole_writer(folder, wait=True):  # several may have finished at the same time
        if is_index(folder):
            return
        sweep(folder, None)
        snapshots = [Snapshot.open(part) for part in parts]
        for place, snapshot in enumerate(snapshots):
            for segment in snapshot.segments:
                for other in snapshots[:place]:
                    for identifier in ids_in(
                        other, segment.passages.ids.to_pylist(), segment.passages.documents.to_pylist()
                    ):
                        raise id_twice(identifier)
        if len({snapshot.manifest.precision for snapshot in snapshots}) > 1:
            raise DupmaeError(
                f"The processes that built {folder} computed in different precisions: delete it and name one"
                " (--precision float32)."
            )
        spaces = [snapshot.manifest.words for snapshot in snapshots]
        if any(space != spaces[0] for space in spaces):
            raise DupmaeError(
                f"The processes that built {folder} read words differently: delete it and build it again."
            )
        manifest = Manifest.read(parts[0])
        manifest.segments, manifest.next_number = [], 1
        manifest.model_relative = relative_model(folder, manifest.model)
        for part, snapshot in zip(parts, snapshots, strict=True):
            for entry in snapshot.manifest.segments:
                name = manifest.new_name("segment")
                with atomic_folder(folder / name) as temporary:
                    for file in entry.files:
                        os.link(part / entry.name / file, temporary / file)
                manifest.segments.append(replace(entry, name=name))
        manifest.write(folder)
        for part in parts:
            shutil.rmtree(part)


def ids_in(snapshot: Snapshot, ids: Iterable[str], documents: Iterable[str]) -> Iterator[str]:
    """Yield those among ids of passages, and of their documents, that an index has."""
    wanted = list(dict.fromkeys([*ids, *documents]))
    yield from snapshot.find(wanted)
    if snapshot.has_chunks:
        yield from snapshot.find_documents(wanted)


def other_passages(folder: Path) -> DupmaeError:
    """Make the error for an index of something else than what was to be built."""
    return DupmaeError(f"{folder} holds an index of other passages: delete it or choose another folder.")


def id_twice(identifier: str) -> DupmaeError:
    """Make the error for an id that two passages have."""
    return DupmaeError(f"Two passages have the id {identifier!r}: make the ids of the corpus unique.")
