"""Building an index: passages are encoded a window at a time, and every finished window is committed as a segment.

What is encoded is spooled to disk at once, a few batches at a time, so that a killed build encodes nothing twice.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index.changes import SPOOL, changing, commit, holds_other_files, is_index, sole_writer, sweep, without
from dupmae.index.manifest import Manifest, SegmentEntry, relative_model
from dupmae.index.passages import passage_table
from dupmae.index.quantise import LARGEST_INPUT, Rows, concatenate_rows, quantise
from dupmae.index.segments import MAX_PASSAGES, write_segment
from dupmae.index.snapshot import Snapshot
from dupmae.models import model_fingerprint

if TYPE_CHECKING:
    from dupmae.duplex.embeddings import DuplexEmbeddings

WORKING_BYTES = 16_000
"""Memory that a passage of a window takes while its segment is written, at 384:384 and some 300 words of text."""
_BATCHES_PER_UNIT = 8  # encoded between two flushes to disk; what a kill loses at most


class Encoder(Protocol):
    """What the index needs of a duplex encoder."""

    @property
    def pooling(self) -> Any:
        """Knows `vocabulary_size`, V."""

    @property
    def tokenizer(self) -> Any:
        """Gives vocabulary entries their names (`convert_ids_to_tokens`)."""

    def embed_documents(
        self, texts: Sequence[str], batch_size: int = ..., show_progress_bar: bool = ...
    ) -> DuplexEmbeddings:
        """Embed passages, cut to the k heaviest vocabulary entries (Eq. 11)."""

    def embed_queries(
        self, texts: Sequence[str], batch_size: int = ..., show_progress_bar: bool = ...
    ) -> DuplexEmbeddings:
        """Embed queries with all their vocabulary entries."""


def passages_within(memory_mb: int) -> int:
    """How many passages a window may hold for building to need about so many megabytes beside the model."""
    return min(max(memory_mb * 1_000_000 // WORKING_BYTES, 1), MAX_PASSAGES)


def process_of(environment: Mapping[str, str]) -> tuple[int, int]:
    """Which process of how many this is, as `torchrun` says in its environment; (0, 1) without it."""
    return int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))


def build_segments(
    folder: Path,
    encoder: Encoder,
    passages: Iterable[Passage],
    *,
    model: str,
    batch_size: int,
    segment_passages: int,
    process: tuple[int, int] = (0, 1),
) -> None:
    """Encode passages into an index folder, or go on with a build that was killed.

    Memory holds one window of passages. Windows that are already committed are recognised by fingerprint and not
    encoded again, nor are the batches of an unfinished window that were spooled.

    Of several processes each encodes its share into a folder of its own, and the last to finish joins them.

    Args:
        folder: The index; created if need be.
        encoder: Embeds the passages.
        passages: At least one, ids unique; all of them, in the same order, for each process.
        model: Path or name the encoder was loaded from, kept in the manifest.
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
    builder = _Builder(encoder, model, batch_size, segment_passages, process)
    if processes == 1:
        builder.build(folder, passages)
        return
    share = (passage for number, passage in enumerate(passages) if number % processes == rank)
    if (finished := _earlier_manifest(folder, model)) is not None:
        _recognise(folder, finished, share)
        return
    builder.build(_part(folder, rank, processes), share)
    _join(folder, processes)


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
        written: set[str] = set()
        for window in _windows(passages, snapshot.manifest.segment_passages):
            added += len(window)
            manifest, mark = snapshot.manifest, _fingerprint(window)
            known = [entry.name for entry in manifest.segments if entry.fingerprint == mark and not entry.deleted]
            if known:
                bar.update(len(window))
                written.update(known)
                continue
            _refuse_duplicates(window)
            places = snapshot.find([passage.id for passage in window])
            for identifier, (number, _) in places.items():
                if snapshot.segments[number].name in written:
                    raise _twice(identifier)
            rows, _ = _encode(folder, encoder, window, batch_size, bar)
            if rows.high.shape[1] != manifest.cls_dimension or rows.ot.shape[1] != manifest.vocabulary_size:
                raise DupmaeError(f"The embeddings do not fit the index {folder}: embed with the model that built it.")
            entry = _write(folder, manifest, window, rows, mark)
            written.add(entry.name)
            commit(folder, manifest, without(snapshot, places.values()), [entry])
            shutil.rmtree(folder / SPOOL, ignore_errors=True)
            snapshot = Snapshot.open(folder)
    if not added:
        raise DupmaeError("There are no passages to add: the corpus is empty.")
    return added


class _Builder:
    """What the steps of one build share."""

    def __init__(
        self, encoder: Encoder, model: str, batch_size: int, segment_passages: int, process: tuple[int, int]
    ) -> None:
        self.encoder, self.model, self.batch_size = encoder, model, batch_size
        self.segment_passages, self.process = segment_passages, process

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        """Fill one index folder."""
        manifest = _earlier_manifest(folder, self.model)
        size = manifest.segment_passages if manifest else self.segment_passages
        iterator = iter(passages)
        first = list(islice(iterator, 1))
        if not first:
            raise DupmaeError("There are no passages to index: the corpus is empty.")
        folder.mkdir(parents=True, exist_ok=True)
        with sole_writer(folder), _bar(passages) as bar:
            manifest = _earlier_manifest(folder, self.model)  # another process may just have finished
            sweep(folder, manifest)
            number = -1
            for number, window in enumerate(_windows(_chain(first, iterator), size)):
                mark = _fingerprint(window)
                if manifest is not None and number < len(manifest.segments):
                    entry = manifest.segments[number]
                    if entry.fingerprint != mark or entry.deleted:
                        raise _other_passages(folder)
                    bar.update(len(window))
                    continue
                if manifest is not None and manifest.complete:
                    raise _other_passages(folder)
                manifest = self._commit_window(folder, manifest, window, mark, bar)
            assert manifest is not None
            if number + 1 != len(manifest.segments):
                raise _other_passages(folder)
            if not manifest.complete:
                manifest.complete = True
                manifest.write(folder)
                shutil.rmtree(folder / SPOOL, ignore_errors=True)

    def _commit_window(
        self, folder: Path, manifest: Manifest | None, window: list[Passage], mark: str, bar: tqdm[Any]
    ) -> Manifest:
        """Encode a window and commit it; the first one also begins the manifest."""
        _refuse_duplicates(window)
        if manifest is not None:
            for identifier in Snapshot.open(folder).find([passage.id for passage in window]):
                raise _twice(identifier)
        rows, top_k = _encode(folder, self.encoder, window, self.batch_size, bar)
        if manifest is None:
            manifest = Manifest(
                model=self.model,
                model_relative=relative_model(folder, self.model),
                model_fingerprint=model_fingerprint(self.model),
                cls_dimension=rows.high.shape[1],
                vocabulary_size=rows.ot.shape[1],
                top_k=top_k,
                segment_passages=self.segment_passages,
                process=list(self.process),
            )
        manifest.segments.append(_write(folder, manifest, window, rows, mark))
        manifest.write(folder)
        shutil.rmtree(folder / SPOOL, ignore_errors=True)
        return manifest


def _part(folder: Path, rank: int, processes: int) -> Path:
    return folder / f"process-{rank}-of-{processes}"


def _recognise(folder: Path, manifest: Manifest, share: Iterable[Passage]) -> None:
    """Refuse a finished index of several processes that does not hold a process's share."""
    marks = {entry.fingerprint for entry in manifest.segments if not entry.deleted}
    if not all(_fingerprint(window) in marks for window in _windows(share, manifest.segment_passages)):
        raise _other_passages(folder)


def _join(folder: Path, processes: int) -> None:
    """Make one index of the processes' own once all are finished; the files are linked, then their old names go."""
    parts = [_part(folder, rank, processes) for rank in range(processes)]
    if not all(is_index(part) and Manifest.read(part).complete for part in parts):
        return
    with sole_writer(folder):
        if is_index(folder):
            return
        sweep(folder, None)
        snapshots = [Snapshot.open(part) for part in parts]
        for place, snapshot in enumerate(snapshots):
            for segment in snapshot.segments:
                for other in snapshots[:place]:
                    for identifier in other.find(segment.passages.ids.to_pylist()):
                        raise _twice(identifier)
        manifest = Manifest.read(parts[0])
        manifest.segments, manifest.process, manifest.next_number = [], [0, 1], 1
        manifest.model_relative = relative_model(folder, manifest.model)
        for part, snapshot in zip(parts, snapshots, strict=True):
            for entry in snapshot.manifest.segments:
                name = manifest.new_name("segment")
                (folder / name).mkdir()
                for file in entry.files:
                    os.link(part / entry.name / file, folder / name / file)
                manifest.segments.append(replace(entry, name=name))
        manifest.write(folder)
        for part in parts:
            shutil.rmtree(part)


def _earlier_manifest(folder: Path, model: str) -> Manifest | None:
    """The manifest of a build to go on with, or None for a folder to begin in."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise DupmaeError(f"{folder} is a file: give the index a folder of its own.")
    if not is_index(folder):
        if holds_other_files(folder):
            raise DupmaeError(f"{folder} holds files that are no index: give the index a folder of its own.")
        return None
    manifest = Manifest.read(folder)
    if manifest.model_fingerprint != model_fingerprint(model):
        raise DupmaeError(
            f"{folder} holds the index of another model ({manifest.model}), not of {model}:"
            " delete it or choose another folder."
        )
    return manifest


def _other_passages(folder: Path) -> DupmaeError:
    return DupmaeError(f"{folder} holds an index of other passages: delete it or choose another folder.")


def _twice(identifier: str) -> DupmaeError:
    return DupmaeError(f"Two passages have the id {identifier!r}: make the ids of the corpus unique.")


def _bar(passages: Iterable[Passage]) -> tqdm[Any]:
    """A progress bar over passages, with their rate."""
    return tqdm(total=len(passages) if isinstance(passages, Sized) else None, desc="index", unit=" passages")


def _chain(first: list[Passage], rest: Iterator[Passage]) -> Iterator[Passage]:
    yield from first
    yield from rest


def _windows(passages: Iterable[Passage], size: int) -> Iterator[list[Passage]]:
    """Consecutive passages, `size` at a time."""
    iterator = iter(passages)
    while window := list(islice(iterator, size)):
        yield window


def _refuse_duplicates(window: Sequence[Passage]) -> None:
    seen: set[str] = set()
    for passage in window:
        if passage.id in seen:
            raise _twice(passage.id)
        seen.add(passage.id)


def _fingerprint(window: Sequence[Passage]) -> str:
    """Sixteen hexadecimal digits of ids, titles, texts and metadata in order."""
    digest = hashlib.sha256()
    for passage in window:
        metadata = [word for pair in sorted(passage.metadata.items()) for word in pair]
        for value in (passage.id, passage.title, passage.text, *metadata):
            encoded = value.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
    return digest.hexdigest()[:16]


def _write(folder: Path, manifest: Manifest, window: list[Passage], rows: Rows, mark: str) -> SegmentEntry:
    """Write a window as a segment that the manifest does not name yet."""
    name = manifest.new_name("segment")
    files = write_segment(folder, name, rows, passage_table(window))
    return SegmentEntry(name=name, passages=len(window), fingerprint=mark, files=files)


def _encode(
    folder: Path, encoder: Encoder, window: Sequence[Passage], batch_size: int, bar: tqdm[Any]
) -> tuple[Rows, int]:
    """Embed a window in batches of similar length, longest first, and spool them; what is spooled is read back.

    Returns:
        The stored numbers in the window's own order, and the most entries a passage may have.
    """
    from dupmae.duplex.embeddings import DuplexEmbeddings

    order = np.array(sorted(range(len(window)), key=lambda number: -len(window[number].full_text)), dtype=np.int64)
    vocabulary_size, parts, top_k = encoder.pooling.vocabulary_size, [], 0
    step = batch_size * _BATCHES_PER_UNIT
    for start in range(0, len(order), step):
        unit = [window[number] for number in order[start : start + step]]
        place = folder / SPOOL / _fingerprint(unit)
        if place.exists():
            embeddings = DuplexEmbeddings.load(place)
        else:
            texts = [passage.full_text for passage in unit]
            embeddings = encoder.embed_documents(texts, batch_size=batch_size, show_progress_bar=False)
            _refuse_unstorable(embeddings, unit)
            if len(unit) < len(window):  # else the window is committed right away
                embeddings.save(place)
        parts.append(quantise(embeddings, vocabulary_size))
        top_k = max(top_k, embeddings.ids.shape[1])
        bar.update(len(unit))
    return concatenate_rows(parts).take(np.argsort(order)), top_k


def _refuse_unstorable(embeddings: DuplexEmbeddings, passages: Sequence[Passage]) -> None:
    """Refuse numbers that are not finite, or too large."""
    good = (np.abs(embeddings.weights) <= LARGEST_INPUT).all(axis=1)
    good &= (np.abs(embeddings.cls) <= LARGEST_INPUT).all(axis=1)
    if not good.all():
        raise DupmaeError(
            f"The embedding of passage {passages[int(np.argmin(good))].id!r} holds numbers that are not finite or too"
            " large to be stored: check the model."
        )
