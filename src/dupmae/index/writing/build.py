"""The build of an index: passages are encoded a window at a time, and every finished window becomes a segment.

What is encoded is spooled to disk at once, a few batches at a time, so that a killed build encodes nothing twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence, Sized
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.files import flush_folder, made_folder
from dupmae.index.scoring.snapshot import Snapshot
from dupmae.index.storage.manifest import MAX_PASSAGES, Manifest, SegmentEntry, relative_model
from dupmae.index.storage.passages import passage_table
from dupmae.index.storage.quantise import Rows
from dupmae.index.storage.segments import write_segment
from dupmae.index.writing.changes import (
    SPOOL,
    changing,
    commit,
    holds_other_files,
    is_index,
    merge_segments,
    sole_writer,
    sweep,
    without,
)
from dupmae.index.writing.encoding import (
    Encoder,
    encode_window,
    fingerprint_of,
    fitted,
    in_precision,
    precision_of,
    spool_of,
    windows,
    word_space_of,
)
from dupmae.index.writing.joining import id_twice, join, other_passages, part_folder, recognise
from dupmae.models import Model


def build_segments(
    folder: Path,
    encoder: Encoder,
    passages: Iterable[Passage],
    *,
    model: Model,
    batch_size: int,
    segment_passages: int,
    process: tuple[int, int] = (0, 1),
) -> None:
    """Encode passages into an index folder, or go on with a build that was killed.

    Memory holds one window of passages. Windows that are already committed are recognised by fingerprint and not
    encoded again, nor are the batches of an unfinished window that were spooled.

    Of several processes each encodes its part into a folder of its own, and the last to finish joins them.

    Args:
        folder: The index; created if need be.
        encoder: Embeds the passages.
        passages: At least one, ids unique; all of them, in the same order, for each process.
        model: What the encoder was loaded from; its name is kept in the manifest.
        batch_size: Passages in a forward pass.
        segment_passages: Passages in a window; a build that goes on keeps the size it began with.
        process: Which one of how many.

    Raises:
        DupmaeError: No passages, an id twice, embeddings that cannot be stored, or a folder that holds something else:
            other files, another model's index, an index of other passages.
    """
    if not 1 <= segment_passages <= MAX_PASSAGES:
        raise DupmaeError(f"A segment holds 1 to {MAX_PASSAGES} passages, not {segment_passages}.")
    rank, processes = process
    builder = _Builder(encoder, model, batch_size, segment_passages)
    if processes == 1:
        builder.build(folder, passages)
        return
    own = (passage for number, passage in enumerate(passages) if number % processes == rank)
    if (finished := _earlier_manifest(folder, encoder, model)) is not None:
        recognise(folder, finished, own)
        return
    builder.build(part_folder(folder, rank, processes), own)
    join(folder, processes)


def add_passages(folder: Path, encoder: Encoder, passages: Iterable[Passage], *, batch_size: int) -> int:
    """Encode passages into a finished index; a passage with an id that is there takes that one's place.

    Every window is committed whole; the same call after a kill goes on from there.

    Returns:
        How many passages were given.

    Raises:
        DupmaeError: No index, an unfinished one, another writer, no passages, an id twice, or embeddings that cannot
            be stored.
    """
    added = 0
    with changing(folder) as snapshot, _bar(passages) as bar:
        precision, words = snapshot.manifest.precision, snapshot.manifest.words is not None
        encoder = fitted(encoder, folder, snapshot.manifest, quiet=True)
        written: set[str] = set()
        for window in windows(passages, snapshot.manifest.segment_passages):
            added += len(window)
            manifest, fingerprint = snapshot.manifest, fingerprint_of(window)
            known = [
                entry.name for entry in manifest.segments if entry.fingerprint == fingerprint and not entry.deleted
            ]
            if known:
                bar.update(len(window))
                written.update(known)
                continue
            _refuse_duplicates(window)
            places = snapshot.find([passage.id for passage in window])
            for identifier, (number, _) in places.items():
                if snapshot.segments[number].name in written:
                    raise id_twice(identifier)
            spool = spool_of(folder, manifest.model_fingerprint, precision)
            rows, _ = encode_window(spool, encoder, window, batch_size, bar, words=words)
            if rows.high.shape[1] != manifest.cls_dimension or rows.lexical.shape[1] != manifest.vocabulary_size:
                raise DupmaeError(f"The embeddings do not fit the index {folder}: embed with the model that built it.")
            entry = _write(folder, manifest, window, rows, fingerprint)
            written.add(entry.name)
            commit(folder, manifest, without(snapshot, places.values()), [entry])
            shutil.rmtree(folder / SPOOL, ignore_errors=True)
            snapshot = Snapshot.open(folder, snapshot)
        merge_segments(folder, snapshot)
    if not added:
        raise DupmaeError("There are no passages to add: the corpus is empty.")
    return added


class _Builder:
    """What the steps of one build share."""

    def __init__(self, encoder: Encoder, model: Model, batch_size: int, segment_passages: int) -> None:
        self.encoder, self.model = encoder, model
        self.batch_size, self.segment_passages = batch_size, segment_passages
        self.snapshot: Snapshot | None = None

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        """Fill one index folder."""
        manifest = _earlier_manifest(folder, self.encoder, self.model)
        size = manifest.segment_passages if manifest else self.segment_passages
        iterator = iter(passages)
        first = list(islice(iterator, 1))
        if not first:
            raise DupmaeError("There are no passages to index: the corpus is empty.")
        if manifest is not None and manifest.complete:  # nothing is written, so that several may find it at once
            found = []
            with _bar(passages) as bar:
                for window in windows(chain(first, iterator), size):
                    found.append(fingerprint_of(window))
                    bar.update(len(window))
            if found != [None if entry.deleted else entry.fingerprint for entry in manifest.segments]:
                raise other_passages(folder)
            return
        new = made_folder(folder)
        flush_folder(folder.parent)
        with sole_writer(folder, new=new), _bar(passages) as bar:
            manifest = _earlier_manifest(folder, self.encoder, self.model)  # another process may just have finished
            sweep(folder, manifest)
            number = -1
            for number, window in enumerate(windows(chain(first, iterator), size)):
                fingerprint = fingerprint_of(window)
                if manifest is not None and number < len(manifest.segments):
                    entry = manifest.segments[number]
                    if entry.fingerprint != fingerprint or entry.deleted:
                        raise other_passages(folder)
                    bar.update(len(window))
                    continue
                if manifest is not None and manifest.complete:
                    raise other_passages(folder)
                manifest = self._commit_window(folder, manifest, window, fingerprint, bar)
            assert manifest is not None
            if number + 1 != len(manifest.segments):
                raise other_passages(folder)
            if not manifest.complete:
                manifest.complete = True
                manifest.write(folder)
                shutil.rmtree(folder / SPOOL, ignore_errors=True)

    def _commit_window(
        self, folder: Path, manifest: Manifest | None, window: list[Passage], fingerprint: str, bar: tqdm[Any]
    ) -> Manifest:
        """Encode a window and commit it; the first one also begins the manifest."""
        _refuse_duplicates(window)
        if manifest is not None:
            self.snapshot = Snapshot.open(folder, self.snapshot)
            for identifier in self.snapshot.find([passage.id for passage in window]):
                raise id_twice(identifier)
        precision = precision_of(self.encoder) if manifest is None else manifest.precision
        encoder = in_precision(self.encoder, precision)
        spool = spool_of(folder, self.model.fingerprint, precision)
        space = word_space_of(encoder) if manifest is None else manifest.word_space
        rows, top_k = encode_window(spool, encoder, window, self.batch_size, bar, words=space is not None)
        if manifest is None:
            manifest = Manifest(
                model=self.model.name,
                model_relative=relative_model(folder, self.model.name),
                model_fingerprint=self.model.fingerprint,
                cls_dimension=rows.high.shape[1],
                vocabulary_size=rows.lexical.shape[1],
                top_k=top_k,
                segment_passages=self.segment_passages,
                precision=precision,
                words=None if space is None else asdict(space),
            )
        manifest.segments.append(_write(folder, manifest, window, rows, fingerprint))
        manifest.write(folder)
        shutil.rmtree(folder / SPOOL, ignore_errors=True)
        return manifest


def _earlier_manifest(folder: Path, encoder: Encoder, model: Model) -> Manifest | None:
    """Read the manifest of a build to go on with; None for a folder to begin in."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise DupmaeError(f"{folder} is a file: give the index a folder of its own.")
    if not is_index(folder):
        if holds_other_files(folder):
            raise DupmaeError(f"{folder} holds files that are no index: give the index a folder of its own.")
        return None
    manifest = Manifest.read(folder)
    if manifest.model_fingerprint != model.fingerprint:
        raise DupmaeError(
            f"{folder} holds the index of another model ({manifest.model}), not of {model.name}:"
            " delete it or choose another folder."
        )
    fitted(encoder, folder, manifest, quiet=True)
    asked = getattr(encoder, "precision", "auto")
    if manifest.precision is not None and asked not in ("auto", manifest.precision):
        raise DupmaeError(
            f"{folder} holds an index that was encoded in {manifest.precision}, not in {asked}: leave precision at"
            " auto, which goes on as it began, or choose another folder."
        )
    return manifest


def _bar(passages: Iterable[Passage]) -> tqdm[Any]:
    """Show a progress bar over passages, with their rate."""
    return tqdm(total=len(passages) if isinstance(passages, Sized) else None, desc="index", unit=" passages")


def _refuse_duplicates(window: Sequence[Passage]) -> None:
    """Refuse an id that two passages of a window have."""
    seen: set[str] = set()
    for passage in window:
        if passage.id in seen:
            raise id_twice(passage.id)
        seen.add(passage.id)


def _write(folder: Path, manifest: Manifest, window: list[Passage], rows: Rows, fingerprint: str) -> SegmentEntry:
    """Write a window as a segment that the manifest does not name yet."""
    name = manifest.new_name("segment")
    files = write_segment(folder, name, rows, passage_table(window))
    return SegmentEntry(name=name, passages=len(window), fingerprint=fingerprint, files=files)
