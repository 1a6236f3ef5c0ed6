"""Encoding of passages into stored numbers: a window at a time, spooled to disk a few batches at a time."""

from __future__ import annotations

import copy
import hashlib
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dupmae.corpus import Passage
from dupmae.corpus.passage import value_text
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.queries import QueryEncoder
from dupmae.duplex.words import WordSpace
from dupmae.errors import DupmaeError
from dupmae.index.storage.manifest import MAX_PASSAGES, Manifest
from dupmae.index.storage.quantise import LARGEST_INPUT, Rows, are_words, concatenate_rows, quantise
from dupmae.index.writing.changes import SPOOL
from dupmae.index.writing.progress import reported

logger = logging.getLogger(__name__)

WORKING_BYTES = 18_000
"""Memory that a passage of a window takes while its segment is written, at 384:384 and some 300 words of text."""
_BATCHES_PER_UNIT = 8  # encoded between two flushes to disk; what a kill loses at most


class Encoder(QueryEncoder, Protocol):
    """What changing an index needs of a duplex encoder, beside what a search does."""

    path: str | None
    """What its model is found by, if it was loaded or saved."""

    def chunks(self, documents: Iterable[Passage], tokens: int, overlap: int | None) -> Iterator[Passage]:
        """Cut documents into chunks, or with 0 tokens leave them whole."""

    def embed_documents(
        self, texts: Sequence[str], batch_size: int = ..., show_progress_bar: bool = ...
    ) -> DuplexEmbeddings:
        """Embed passages, cut to the k heaviest terms (Eq. 11)."""


Fitted = TypeVar("Fitted", bound=QueryEncoder)


def precision_of(encoder: QueryEncoder) -> str | None:
    """Tell the arithmetic that an encoder computes passages in on this machine; None of one that does not say."""
    if (fixed := getattr(encoder, "arithmetic", None)) is not None:  # of an exported graph
        return str(fixed)
    chosen = getattr(encoder, "precision", None)
    if chosen is None:
        return None
    from dupmae.runtime.precision import bfloat16_pays  # and with it torch, which such an encoder has loaded

    return "bfloat16" if bfloat16_pays(chosen) else "float32"


def in_precision(encoder: Fitted, precision: str | None) -> Fitted:
    """Take an encoder that computes in the arithmetic that an index was encoded in, if that is known and it can.

    Where it is another one than the encoder's, a copy is returned that shares its parameters.
    """
    able = precision != "int8" and getattr(encoder, "precision", None) is not None
    if precision is None or not able or precision_of(encoder) == precision:
        return encoder
    other: Any = copy.copy(encoder)
    other.precision = precision
    return other  # type: ignore[no-any-return]


def refuse_other_arithmetic(encoder: QueryEncoder, folder: Path, manifest: Manifest) -> None:
    """Refuse to add to an index what an encoder computes otherwise than its passages.

    Raises:
        DupmaeError: It computes in another arithmetic.
    """
    own, stored = precision_of(encoder), manifest.precision
    if None not in (own, stored) and own != stored:
        backend = "onnx-int8" if stored == "int8" else "torch"
        raise DupmaeError(
            f"The index {folder} was encoded in {stored}, not in {own}: take --backend {backend}, or build it again."
        )


def word_space_of(encoder: QueryEncoder) -> WordSpace | None:
    """Tell how an encoder reads whole words; None of one that has none."""
    words = getattr(encoder, "words", None)
    return None if words is None else words.space


def word_language_of(encoder: QueryEncoder) -> str:
    """Tell the language that words are stemmed in, to find those of a query in a text."""
    space = word_space_of(encoder)
    return "english" if space is None else space.language


def fitted(encoder: Fitted, folder: Path, manifest: Manifest, *, quiet: bool = False) -> Fitted:
    """Take an encoder that computes as an index does, and reads words as it does.

    Args:
        encoder: The index's model.
        folder: The index.
        manifest: What it says of itself.
        quiet: Whether nothing is said of an index that goes without the model's words.

    Raises:
        DupmaeError: It reads words otherwise.
    """
    own, stored = word_space_of(encoder), manifest.word_space
    if stored is None and own is not None and not quiet:
        logger.warning(
            "The index %s is without words, though its model has them: it is searched by the other two parts of the"
            " score. Build it again to have all three.",
            folder,
        )
    elif stored != own and stored is not None:
        raise DupmaeError(
            f"The index {folder} holds words as {_described(stored)}, and the model reads {_described(own)}: use the "
            "model that built the index, or build it again."
        )
    return in_precision(encoder, manifest.precision)


def _described(space: WordSpace | None) -> str:
    """Write how words are read, for a sentence."""
    if space is None:
        return "none"
    return f"{space.language} (k1 {space.k1:g}, b {space.b:g}, average length {space.average_length:g})"


def passages_within(memory_mb: int) -> int:
    """Choose how many passages a window may hold for building to need about so many megabytes beside the model.

    Raises:
        DupmaeError: Less than one megabyte.
    """
    if memory_mb < 1:
        raise DupmaeError(f"memory_mb is {memory_mb}: building an index takes at least 1 megabyte beside the model.")
    return min(max(memory_mb * 1_000_000 // WORKING_BYTES, 1), MAX_PASSAGES)


def windows(passages: Iterable[Passage], size: int) -> Iterator[list[Passage]]:
    """Cut passages into windows of `size`, in order; one is smaller, or larger, rather than that it cuts a document.

    Raises:
        DupmaeError: A document of more passages than a segment holds.
    """
    window: list[Passage] = []
    for document, group in by_document(passages):
        chunks = list(islice(group, MAX_PASSAGES + 1))
        if len(chunks) > MAX_PASSAGES:
            raise DupmaeError(
                f"The document {document!r} has more than {MAX_PASSAGES:,} chunks, the most that a segment holds: make"
                " several documents of it."
            )
        if window and len(window) + len(chunks) > size:
            yield window
            window = []
        window += chunks
        if len(window) >= size:
            yield window
            window = []
    if window:
        yield window


def by_document(passages: Iterable[Passage]) -> Iterator[tuple[str, Iterator[Passage]]]:
    """Group passages that follow each other by the id of their document."""
    return groupby(passages, key=lambda passage: passage.document)


def fingerprint_of(window: Sequence[Passage]) -> str:
    """Compute sixteen hexadecimal digits of ids, titles, texts, metadata and chunks' places in order."""
    hasher = hashlib.sha256()
    for passage in window:
        metadata = [word for field, value in sorted(passage.metadata.items()) for word in (field, value_text(value))]
        chunk = passage.chunk
        place = () if chunk is None else ("\0", chunk.document, str(chunk.start), str(chunk.end), *chunk.headings)
        for value in (passage.id, passage.title, passage.text, *metadata, *place):
            encoded = value.encode("utf-8", "surrogatepass")
            hasher.update(len(encoded).to_bytes(8, "little"))
            hasher.update(encoded)
    return hasher.hexdigest()[:16]


def spool_of(folder: Path, model_fingerprint: str, precision: str | None) -> Path:
    """Name the folder in which an index keeps what a model has embedded until it is committed."""
    return folder / SPOOL / f"{model_fingerprint}-{precision}"


def encode_window(
    spool: Path, encoder: Encoder, window: Sequence[Passage], batch_size: int, bar: tqdm[Any], *, words: bool
) -> tuple[Rows, int]:
    """Embed a window in batches of similar length, longest first, and spool them; what is spooled is read back.

    The spool is a folder for batches by this model alone (:func:`spool_of`): they are found again by their texts. Words
    are kept if the index has some, and left out otherwise.

    Returns:
        The stored numbers in the window's own order, and the most terms a passage may have.
    """
    if batch_size < 1:
        raise DupmaeError(f"A batch holds at least one passage, not {batch_size}.")
    order = np.array(sorted(range(len(window)), key=lambda number: -len(window[number].full_text)), dtype=np.int64)
    vocabulary_size, parts, top_k = encoder.pooling.vocabulary_size, [], 0
    step = batch_size * _BATCHES_PER_UNIT
    for start in range(0, len(order), step):
        unit = [window[number] for number in order[start : start + step]]
        place = spool / fingerprint_of(unit)
        embeddings = _spooled(place, len(unit), vocabulary_size, words)
        if embeddings is None:
            texts = [passage.full_text for passage in unit]
            with reported(encoder, bar, len(unit)):
                embeddings = encoder.embed_documents(texts, batch_size=batch_size, show_progress_bar=False)
            embeddings = embeddings if words else replace(embeddings, words=None)
            _refuse_unstorable(embeddings, unit, words)
            if len(unit) < len(window):  # else the window is committed right away
                embeddings.save(place)
        else:
            bar.update(len(unit))
        parts.append(quantise(embeddings, vocabulary_size))
        top_k = max(top_k, embeddings.ids.shape[1])
    return concatenate_rows(parts).take(np.argsort(order)), top_k


def _spooled(place: Path, count: int, vocabulary_size: int, words: bool) -> DuplexEmbeddings | None:
    """Read what was embedded before a kill; what is damaged is deleted, to be embedded again."""
    if not place.exists():
        return None
    try:
        found = DuplexEmbeddings.load(place)
        fits = len(found) == count and found.ids.max(initial=0) < vocabulary_size
        if fits and (found.words is not None) == words and _storable(found).all():
            return found
    except DupmaeError:
        pass
    shutil.rmtree(place)
    return None


def _storable(embeddings: DuplexEmbeddings) -> NDArray[np.bool_]:
    """Mark the rows (N,) whose numbers are all finite and not too large."""
    good = (np.abs(embeddings.weights) <= LARGEST_INPUT).all(axis=1)
    good &= (np.abs(embeddings.cls) <= LARGEST_INPUT).all(axis=1)
    if embeddings.words is not None and not are_words(embeddings.words):
        good &= np.array([are_words(embeddings.words[[row]]) for row in range(len(embeddings))])
    return np.asarray(good)


def _refuse_unstorable(embeddings: DuplexEmbeddings, passages: Sequence[Passage], words: bool) -> None:
    """Refuse embeddings whose numbers are not finite or too large, and those that should have words and have none."""
    if words and embeddings.words is None:
        raise DupmaeError(f"The embedding of passage {passages[0].id!r} has no words, but the model has: check it.")
    good = _storable(embeddings)
    if not good.all():
        raise DupmaeError(
            f"The embedding of passage {passages[int(np.argmin(good))].id!r} holds numbers that are not finite or too"
            " large to be stored: check the model."
        )
