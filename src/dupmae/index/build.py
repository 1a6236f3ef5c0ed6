"""Building an index: passages are encoded a window at a time, and every finished window is committed as a segment."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index.manifest import FILE_NAME, Manifest, SegmentEntry, relative_model
from dupmae.index.segments import MAX_PASSAGES, Entries, write_segment
from dupmae.models import model_fingerprint

if TYPE_CHECKING:
    from dupmae.duplex.embeddings import DuplexEmbeddings

SEGMENT_PASSAGES = 4096
"""Passages encoded between two commits, and what a killed build loses at most."""

_BATCHES_PER_CALL = 16  # of the encoder: large enough to keep it busy, small enough to move the progress bar
_FLOAT16_LIMIT = 65_504.0


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


def build_segments(
    folder: Path, encoder: Encoder, passages: Iterable[Passage], *, model: str, batch_size: int, segment_passages: int
) -> None:
    """Encode passages into an index folder, or go on with a build that was killed.

    Memory holds one window of passages and their embeddings, and all ids. Segments that are already committed are
    compared with the passages by fingerprint and not encoded again.

    Args:
        folder: The index; created if need be.
        encoder: Embeds the passages.
        passages: At least one, ids unique.
        model: Path or name the encoder was loaded from, kept in the manifest.
        batch_size: Passages in a forward pass.
        segment_passages: Passages in a window; a build that goes on keeps the size it began with.

    Raises:
        DupmaeError: No passages, an id twice, embeddings that cannot be stored, or a folder that holds something else:
            other files, another model's index, an index of other passages.
    """
    if not 1 <= segment_passages <= MAX_PASSAGES:
        raise DupmaeError(f"A segment holds 1 to {MAX_PASSAGES} passages, not {segment_passages}.")
    manifest = _earlier_manifest(folder, model)
    seen: set[str] = set()
    total = len(passages) if isinstance(passages, Sized) else None
    window_size = manifest.segment_passages if manifest else segment_passages
    with tqdm(total=total, desc="index", unit=" passages") as bar:
        for number, window in enumerate(_windows(passages, window_size)):
            _refuse_duplicates(window, seen)
            fingerprint = _fingerprint(window)
            if manifest is not None and number < len(manifest.segments):
                if manifest.segments[number].fingerprint != fingerprint:
                    raise _other_passages(folder)
                bar.update(len(window))
                continue
            if manifest is not None and manifest.complete:
                raise _other_passages(folder)
            cls, entries, top_k = _encode(encoder, window, batch_size, bar)
            if manifest is None:
                manifest = Manifest(
                    model=model,
                    model_relative=relative_model(folder, model),
                    model_fingerprint=model_fingerprint(model),
                    cls_dimension=cls.shape[1],
                    vocabulary_size=encoder.pooling.vocabulary_size,
                    top_k=top_k,
                    segment_passages=window_size,
                )
                manifest.write(folder)
            name = f"segment-{number + 1:06d}"
            files = write_segment(folder, name, window, cls, entries, manifest.vocabulary_size)
            manifest.segments.append(
                SegmentEntry(name=name, passages=len(window), fingerprint=fingerprint, files=files)
            )
            manifest.write(folder)
    if not seen:
        raise DupmaeError("There are no passages to index: the corpus is empty.")
    if manifest is None or len(seen) != manifest.passages:
        raise _other_passages(folder)
    if not manifest.complete:
        manifest.complete = True
        manifest.write(folder)


def _earlier_manifest(folder: Path, model: str) -> Manifest | None:
    """The manifest of a build to go on with, or None for a folder to begin in; leftovers of a kill are swept away."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise DupmaeError(f"{folder} is a file: give the index a folder of its own.")
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    if not (folder / FILE_NAME).exists():
        if any(folder.iterdir()):
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


def _windows(passages: Iterable[Passage], size: int) -> Iterator[list[Passage]]:
    """Consecutive passages, `size` at a time."""
    iterator = iter(passages)
    while window := list(islice(iterator, size)):
        yield window


def _refuse_duplicates(window: Sequence[Passage], seen: set[str]) -> None:
    """Add the window's ids to `seen`."""
    for passage in window:
        if passage.id in seen:
            raise DupmaeError(f"Two passages have the id {passage.id!r}: make the ids of the corpus unique.")
        seen.add(passage.id)


def _fingerprint(window: Sequence[Passage]) -> str:
    """Sixteen hexadecimal digits of ids, titles and texts in order."""
    digest = hashlib.sha256()
    for passage in window:
        for value in (passage.id, passage.title, passage.text):
            encoded = value.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
    return digest.hexdigest()[:16]


def _encode(
    encoder: Encoder, window: Sequence[Passage], batch_size: int, bar: tqdm[Any]
) -> tuple[NDArray[np.float32], Entries, int]:
    """Embed a window in batches of similar length, longest first.

    Returns:
        Dense halves (n, d') and vocabulary entries in the window's own order, and the most entries a passage may have.
    """
    order = sorted(range(len(window)), key=lambda number: -len(window[number].full_text))
    dense, rows, ids, weights, top_k = [], [], [], [], 0
    step = batch_size * _BATCHES_PER_CALL
    for start in range(0, len(order), step):
        numbers = np.array(order[start : start + step], dtype=np.int64)
        texts = [window[number].full_text for number in numbers]
        embeddings = encoder.embed_documents(texts, batch_size=batch_size, show_progress_bar=False)
        _refuse_unstorable(embeddings, [window[number].id for number in numbers])
        used = embeddings.weights != 0
        dense.append(embeddings.cls)
        rows.append(np.broadcast_to(numbers[:, None], used.shape)[used])
        ids.append(embeddings.ids[used].astype(np.int64))
        weights.append(embeddings.weights[used].astype(np.float32))
        top_k = max(top_k, used.shape[1])
        bar.update(len(numbers))
    cls = np.empty((len(window), dense[0].shape[1]), np.float32)
    cls[order] = np.concatenate(dense)
    return cls, Entries(np.concatenate(rows), np.concatenate(ids), np.concatenate(weights)), top_k


def _refuse_unstorable(embeddings: DuplexEmbeddings, ids: Sequence[str]) -> None:
    """Refuse numbers that are not finite, and dense ones that float16 cannot hold."""
    good = np.isfinite(embeddings.weights).all(axis=1) & (np.abs(embeddings.cls) <= _FLOAT16_LIMIT).all(axis=1)
    if not good.all():
        raise DupmaeError(
            f"The embedding of passage {ids[int(np.argmin(good))]!r} holds numbers that are not finite or too large"
            " to be stored: check the model."
        )
