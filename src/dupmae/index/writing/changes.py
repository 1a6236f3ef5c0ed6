"""Changes of an index: one writer at a time, every change committed by replacing the manifest."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dupmae.errors import DupmaeError
from dupmae.files import atomic_path, is_temporary, locked
from dupmae.index.scoring import clusters
from dupmae.index.scoring.snapshot import Snapshot
from dupmae.index.storage.arrays import describe, refuse_links, write_arrays
from dupmae.index.storage.manifest import FILE_NAME, Manifest, SegmentEntry
from dupmae.index.storage.passages import concatenate_passages
from dupmae.index.storage.quantise import Rows, concatenate_rows
from dupmae.index.storage.segments import write_segment
from dupmae.runtime.bars import bar

LOCK_FILE = "lock"
TIER_BITS = 3
"""Eight segments of a similar size, between two powers of eight passages, are joined: the 2 to the power of this."""
SPOOL = "spool"
"""Folder of passages that are encoded but not yet in a segment."""
_OURS = re.compile(
    r"segment-\d{6,}|deleted-\d{6,}\.safetensors|clusters-\d{6,}\.(safetensors|faiss)|process-\d+-of-\d+|\..*\.\d+\.tmp"
)


@contextmanager
def sole_writer(folder: Path, *, wait: bool = False, new: bool = False) -> Iterator[None]:
    """Hold the lock of an index folder, which the system takes back when a process dies; refuse others, or wait.

    Raises:
        DupmaeError: Another process holds it, or the lock or the spool is a link: both are written to.
    """
    for name in (LOCK_FILE, SPOOL):
        refuse_links(folder, name)
    taken = f"Another process is changing the index {folder}: try again when it has finished."
    try:
        with locked(folder / LOCK_FILE, taken, wait=wait, alone=lambda: new):
            yield
    except Exception:
        if new and {path.name for path in folder.iterdir()} <= {LOCK_FILE}:
            shutil.rmtree(folder, ignore_errors=True)  # refused before anything was done
        raise


@contextmanager
def changing(folder: Path) -> Iterator[Snapshot]:
    """Open the present state of a finished index as the one process that may change it; sweep leftovers of a kill."""
    require_finished(folder, Manifest.read(folder))
    with sole_writer(folder):
        snapshot = Snapshot.open(folder)
        sweep(folder, snapshot.manifest)
        yield snapshot


def require_finished(folder: Path, manifest: Manifest) -> None:
    """Refuse an index whose build was interrupted."""
    if not manifest.complete:
        raise DupmaeError(
            f"The index {folder} is unfinished ({manifest.passages} passages so far):"
            " run the command that builds it again, it goes on from there."
        )


def sweep(folder: Path, manifest: Manifest | None) -> None:
    """Delete what is ours and the manifest does not name: half-written files, segments that were replaced."""
    if manifest is None:
        named = {path.name for path in folder.glob("process-*")}  # each builds an index of its own, to be joined
    else:
        named = {entry.name for entry in manifest.segments}
        named |= {file["name"] for file in (manifest.deleted, manifest.clusters) if file is not None}
    for path in list(folder.iterdir()):
        if _OURS.fullmatch(path.name) and path.name not in named:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def commit(
    folder: Path, manifest: Manifest, alive: dict[str, NDArray[np.uint8]], added: Sequence[SegmentEntry] = ()
) -> None:
    """Make a change the state that is opened from now on.

    Args:
        folder: The index.
        manifest: Its manifest, whose segments may already be fewer; updated.
        alive: By segment name, 1 for each passage that is not deleted; a segment without an entry lives whole.
        added: New segments.
    """
    entries = [
        replace(entry, deleted=int((alive[entry.name] == 0).sum()) if entry.name in alive else 0)
        for entry in manifest.segments
    ]
    manifest.segments = [*entries, *added]
    names = {entry.name for entry in manifest.segments}
    if manifest.clusters is not None and not names.issuperset(manifest.clusters["segments"]):
        manifest.clusters = None  # segments they count passages in are gone
    manifest.deleted = None
    deleted = {entry.name: np.packbits(alive[entry.name] == 0) for entry in entries if entry.deleted}
    if deleted:
        name = f"{manifest.new_name('deleted')}.safetensors"
        with atomic_path(folder / name) as temporary:
            write_arrays(temporary, deleted)
            manifest.deleted = {"name": name} | describe(temporary)
    manifest.write(folder)
    sweep(folder, manifest)


def delete_documents(folder: Path, ids: Iterable[str]) -> list[str]:
    """Delete documents with all their passages (:func:`compact_segments` gives the space back).

    Returns:
        The ids that are not in the index.

    Raises:
        DupmaeError: One of them is that of a chunk.
    """
    wanted = list(dict.fromkeys(ids))
    with changing(folder) as snapshot:
        places = snapshot.find_documents(wanted)
        missing = [identifier for identifier in wanted if identifier not in places]
        for identifier, place in snapshot.find(missing).items():
            document = snapshot.document_at(*place)
            raise DupmaeError(
                f"{identifier!r} is a chunk of the document {document!r}, and documents are deleted as a whole: delete"
                f" {document!r}."
            )
        if places:
            commit(folder, snapshot.manifest, without(snapshot, chain.from_iterable(places.values())))
    return missing


def without(snapshot: Snapshot, places: Iterable[tuple[int, int]]) -> dict[str, NDArray[np.uint8]]:
    """Delete passages at (segment number, row) from what :func:`commit` takes as `alive`."""
    alive = {segment.name: rows.copy() for segment, rows in zip(snapshot.segments, snapshot.alive, strict=True)}
    for number, row in places:
        alive[snapshot.segments[number].name][row] = 0
    return alive


def compact_segments(folder: Path) -> None:
    """Rewrite segments that hold deleted passages, or that are less than half full, into full ones.

    The stored numbers are copied as they are, so scores do not change. Memory holds about two full segments.
    """
    with changing(folder) as snapshot:
        shutil.rmtree(folder / SPOOL, ignore_errors=True)
        small = [2 * len(segment) < snapshot.manifest.segment_passages for segment in snapshot.segments]
        _rewrite(
            folder,
            snapshot,
            [
                number
                for number, entry in enumerate(snapshot.manifest.segments)
                if entry.deleted or (small[number] and sum(small) > 1)
            ],
        )


def merge_segments(folder: Path, snapshot: Snapshot) -> Snapshot:
    """Join small segments, so that many small additions leave few of them; each join is a change of its own.

    As in Lucene and Tantivy segments of similar size are joined once there are several: every passage is rewritten
    about as often as its index has orders of magnitude. What clusters were made of stays, and segments half full.

    Returns:
        The state that is left; the caller is the one process that may change the index.
    """
    while chosen := _due(snapshot.manifest):
        _rewrite(folder, snapshot, chosen)
        snapshot = Snapshot.open(folder)
    return snapshot


def _due(manifest: Manifest) -> list[int]:
    """Choose segments that should become one: the smallest of which there are enough, and all without passages."""
    clustered = set() if manifest.clusters is None else set(manifest.clusters["segments"])
    empty, tiers = [], dict[int, list[int]]()
    for number, entry in enumerate(manifest.segments):
        living = entry.passages - entry.deleted
        if entry.name in clustered:
            continue
        if not living:
            empty.append(number)
        elif 2 * living < manifest.segment_passages:
            tiers.setdefault((living.bit_length() - 1) // TIER_BITS, []).append(number)
    enough = [numbers for _, numbers in sorted(tiers.items()) if len(numbers) >= 2**TIER_BITS]
    return sorted(empty + (enough[0] if enough else [])) if enough or len(empty) >= 2**TIER_BITS else []


def _rewrite(folder: Path, snapshot: Snapshot, chosen: Sequence[int]) -> None:
    """Commit the living passages of some segments, by number, in segments as full as may be, in their place."""
    if not chosen:
        return
    manifest, added = snapshot.manifest, []
    alive = {manifest.segments[number].name: rows for number, rows in enumerate(snapshot.alive) if number not in chosen}
    living = (_living(snapshot, number) for number in bar(chosen, "Rewrite", "segments"))
    for rows, passages in _regrouped(living, manifest.segment_passages):
        name = manifest.new_name("segment")
        files = write_segment(folder, name, rows, passages)
        added.append(SegmentEntry(name=name, passages=len(rows), fingerprint="", files=files))
    manifest.segments = [entry for number, entry in enumerate(manifest.segments) if number not in chosen]
    commit(folder, manifest, alive, added)


def build_clusters(folder: Path) -> None:
    """Learn clusters of all present passages and commit them to the index; they replace earlier ones."""
    with changing(folder) as snapshot:
        manifest = snapshot.manifest
        if not manifest.cls_dimension or not snapshot.segments:
            raise DupmaeError(f"The index {folder} has no dense halves to make clusters of.")
        index = clusters.learn(snapshot.segments)
        name = f"{manifest.new_name('clusters')}.safetensors"
        with atomic_path(folder / name) as temporary:
            clusters.write(index, temporary)
            manifest.clusters = {"name": name, "segments": [segment.name for segment in snapshot.segments]}
            manifest.clusters |= describe(temporary)
        manifest.write(folder)
        sweep(folder, manifest)


def _living(snapshot: Snapshot, number: int) -> tuple[Rows, pa.Table]:
    """Read vectors and passages of a segment without the deleted ones."""
    rows = np.flatnonzero(snapshot.alive[number]).astype(np.int64)
    segment = snapshot.segments[number]
    return segment.rows().take(rows), segment.passages.table().take(pa.array(rows))


def _regrouped(parts: Iterable[tuple[Rows, pa.Table]], size: int) -> Iterator[tuple[Rows, pa.Table]]:
    """Regroup passages, `size` at a time; the last group may be smaller."""
    held: list[tuple[Rows, pa.Table]] = []

    def joined() -> tuple[Rows, pa.Table]:
        rows, tables = zip(*held, strict=True)
        return concatenate_rows(rows), concatenate_passages(tables)

    for part in parts:
        held.append(part)
        while sum(len(rows) for rows, _ in held) >= size:
            rows, table = joined()
            yield rows.take(np.arange(size)), table.slice(0, size)
            held = [(rows.take(np.arange(size, len(rows))), table.slice(size))]
    if sum(len(rows) for rows, _ in held):
        yield joined()


def is_index(folder: Path) -> bool:
    """Tell whether a folder holds a manifest."""
    return (folder / FILE_NAME).exists()


def holds_other_files(folder: Path) -> bool:
    """Tell whether something lies in a folder that is no part of an index."""
    known = {FILE_NAME, LOCK_FILE, SPOOL}
    names = (path.name for path in folder.iterdir() if path.name not in known)
    return any(not _OURS.fullmatch(name) and not is_temporary(name) for name in names)
