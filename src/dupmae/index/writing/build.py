"""The build of an index: passages are encoded a window at a time, and every finished window becomes a segment.

What is encoded is spooled to disk at once, a few batches at a time, so that a killed build encodes nothing twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
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
    by_document,
    encode_window,
    fingerprint_of,
    fitted,
    in_precision,
    precision_of,
    refuse_other_arithmetic,
    spool_of,
    windows,
    word_space_of,
)
from dupmae.index.writing.joining import id_twice, ids_in, join, other_passages, part_folder, recognise
from dupmae.index.writing.progress import passages_bar
from dupmae.index.writing.reusing import encode_unknown
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
    chunks: dict[str, int] | None = None,
    count: Callable[[], int | None] | None = None,
) -> None:
    """Encode passages into an index folder, or go on with a build that was killed.

    Memory holds one window of passages. Windows that are already committed are recognised by fingerprint and not
    encoded again, nor are the batches of an unfinished window that were spooled.

    Of several processes each encodes its part into a folder of its own, and the last to finish joins them.

    Args:
        folder: The index; created if need be.
        encoder: Embeds the passages.
        passages: At least one, ids unique, the chunks of a document one after the other; all of them, in the same
            order, for each process.
        model: What the encoder was loaded from; its name is kept in the manifest.
        batch_size: Passages in a forward pass.
        segment_passages: Passages in a window; a build that goes on keeps the size it began with.
        process: Which one of how many.
        chunks: How documents were cut into the passages, `{"tokens", "overlap"}`, to be kept in the manifest.
        count: Tells how many passages there are, or None, for the time left; it is called by the first process, once
            the folder is known to be the right one.

    Raises:
        DupmaeError: No passages, an id twice, embeddings that cannot be stored, or a folder that holds something else:
            other files, another model's index, an index of other passages or of other chunks.
    """
    if not 1 <= segment_passages <= MAX_PASSAGES:
        raise DupmaeError(f"A segment holds 1 to {MAX_PASSAGES} passages, not {segment_passages}.")
    rank, processes = process

    def share() -> int | None:
        total = None if count is None or rank else count()
        return None if total is None else -(-total // processes)

    builder = _Builder(encoder, model, batch_size, segment_passages, chunks, share)
    if processes == 1:
        builder.build(folder, passages)
        return
    documents = enumerate(by_document(passages))
    own = (passage for number, (_, group) in documents if number % processes == rank for passage in group)
    if (finished := _earlier_manifest(folder, encoder, model, chunks)) is not None:
        recognise(folder, finished, own)
        return
    builder.build(part_folder(folder, rank, processes), own)
    join(folder, processes)


def add_passages(
    folder: Path, encoder: Encoder, passages: Iterable[Passage], *, batch_size: int, total: int | None = None
) -> tuple[int, int]:
    """Encode passages into a finished index; a document that is there is replaced with all its passages.

    Every window is committed whole, and no document stands in two; the same call after a kill goes on from there. A
    passage whose title and text the index has, under whatever id, is not encoded.

    Returns:
        How many documents were given, and how many passages were encoded.

    Raises:
        DupmaeError: No index, an unfinished one, another writer, no passages, an id twice, or embeddings that cannot
            be stored.
    """
    added = encoded = 0
    with changing(folder) as snapshot, passages_bar(total) as bar:
        precision = snapshot.manifest.precision
        encoder = fitted(encoder, folder, snapshot.manifest, quiet=True)
        refuse_other_arithmetic(encoder, folder, snapshot.manifest)
        written: set[str] = set()
        for window in windows(passages, snapshot.manifest.segment_passages):
            documents = list(dict.fromkeys(passage.document for passage in window))
            added += len(documents)
            manifest, fingerprint = snapshot.manifest, fingerprint_of(window)
            known = [
                entry.name for entry in manifest.segments if entry.fingerprint == fingerprint and not entry.deleted
            ]
            if not written.isdisjoint(known):
                raise id_twice(window[0].id)
            if known:
                bar.update(len(window))
                written.update(known)
                continue
            _refuse_duplicates(window)
            places = snapshot.find_documents(documents)
            for document, ((number, _), *_) in places.items():
                if snapshot.segments[number].name in written:
                    raise id_twice(document)
            _refuse_others_ids(snapshot, window, documents)
            spool = spool_of(folder, manifest.model_fingerprint, precision)
            rows, count = encode_unknown(snapshot, spool, encoder, window, batch_size, bar)
            encoded += count
            entry = _write(folder, manifest, window, rows, fingerprint)
            written.add(entry.name)
            commit(folder, manifest, without(snapshot, chain.from_iterable(places.values())), [entry])
            shutil.rmtree(folder / SPOOL, ignore_errors=True)
            snapshot = Snapshot.open(folder, snapshot)
        merge_segments(folder, snapshot)
    if not added:
        raise DupmaeError("There are no passages to add: the corpus is empty.")
    return added, encoded


class _Builder:
    """What the steps of one build share."""

    def __init__(
        self,
        encoder: Encoder,
        model: Model,
        batch_size: int,
        segment_passages: int,
        chunks: dict[str, int] | None,
        count: Callable[[], int | None],
    ) -> None:
        self.encoder, self.model, self.count = encoder, model, count
        self.batch_size, self.segment_passages, self.chunks = batch_size, segment_passages, chunks
        self.snapshot: Snapshot | None = None

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        """Fill one index folder."""
        manifest = _earlier_manifest(folder, self.encoder, self.model, self.chunks)
        size = manifest.segment_passages if manifest else self.segment_passages
        iterator = iter(passages)
        first = list(islice(iterator, 1))
        if not first:
            raise DupmaeError("There are no passages to index: the corpus is empty.")
        if manifest is not None and manifest.complete:  # nothing is written, so that several may find it at once
            found = []
            with passages_bar(manifest.passages) as bar:
                for window in windows(chain(first, iterator), size):
                    found.append(fingerprint_of(window))
                    bar.update(len(window))
            if found != [None if entry.deleted else entry.fingerprint for entry in manifest.segments]:
                raise other_passages(folder)
            return
        new = made_folder(folder)
        flush_folder(folder.parent)
        with sole_writer(folder, new=new):
            # another process may just have finished
            manifest = _earlier_manifest(folder, self.encoder, self.model, self.chunks)
            sweep(folder, manifest)
            with passages_bar(self.count()) as bar:
                self._fill(folder, manifest, windows(chain(first, iterator), size), bar)

    def _fill(self, folder: Path, manifest: Manifest | None, parts: Iterable[list[Passage]], bar: tqdm[Any]) -> None:
        """Commit the windows that an index folder lacks, and finish it."""
        number = -1
        for number, window in enumerate(parts):
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
            for identifier in ids_in(self.snapshot, *zip(*((part.id, part.document) for part in window), strict=True)):
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
                chunks=self.chunks,
            )
        manifest.segments.append(_write(folder, manifest, window, rows, fingerprint))
        manifest.write(folder)
        shutil.rmtree(folder / SPOOL, ignore_errors=True)
        return manifest


def _earlier_manifest(folder: Path, encoder: Encoder, model: Model, chunks: dict[str, int] | None) -> Manifest | None:
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
    if manifest.chunks is not None and manifest.chunks != chunks:
        cut = "{tokens} tokens with an overlap of {overlap}".format(**manifest.chunks)
        raise DupmaeError(
            f"{folder} holds an index of chunks of {cut}, not as asked now: ask for the same, delete it or choose"
            " another folder."
        )
    refuse_other_arithmetic(fitted(encoder, folder, manifest, quiet=True), folder, manifest)
    asked = getattr(encoder, "precision", "auto")
    if manifest.precision is not None and asked not in ("auto", manifest.precision):
        raise DupmaeError(
            f"{folder} holds an index that was encoded in {manifest.precision}, not in {asked}: leave precision at"
            " auto, which goes on as it began, or choose another folder."
        )
    return manifest


def _refuse_duplicates(window: Sequence[Passage]) -> None:
    """Refuse an id that two passages, or two documents, of a window have."""
    for ids in ([passage.id for passage in window], [document for document, _ in by_document(window)]):
        seen: set[str] = set()
        for identifier in ids:
            if identifier in seen:
                raise id_twice(identifier)
            seen.add(identifier)


def _refuse_others_ids(snapshot: Snapshot, window: Sequence[Passage], documents: Sequence[str]) -> None:
    """Refuse passages with ids that an index has given to those of other documents."""
    if not snapshot.has_chunks and all(passage.chunk is None for passage in window):
        return
    replaced = set(documents)
    for identifier, place in snapshot.find([passage.id for passage in window]).items():
        if (document := snapshot.document_at(*place)) not in replaced:
            raise DupmaeError(
                f"The id {identifier!r} is taken by a passage of the document {document!r}: delete that one first, or"
                " rename one of them."
            )


def _write(folder: Path, manifest: Manifest, window: list[Passage], rows: Rows, fingerprint: str) -> SegmentEntry:
    """Write a window as a segment that the manifest does not name yet."""
    name = manifest.new_name("segment")
    files = write_segment(folder, name, rows, passage_table(window))
    return SegmentEntry(name=name, passages=len(window), fingerprint=fingerprint, files=files)
