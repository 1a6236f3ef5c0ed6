"""Tokenise texts in batches: ids, borders of words, and chunks between special tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, chain, pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dupmae.corpus.chunking import UNSPACED, chunk_lengths, unspaced_word_starts
from dupmae.corpus.passage import Passage
from dupmae.errors import DupmaeError

T = TypeVar("T")
BATCH_TEXTS = 1000
"""Texts that are in memory at the same time, at most."""
BATCH_CHARACTERS = 2_000_000
"""Characters after which a batch of texts is complete."""


def prepare(tokenizer: Any) -> tuple[Any, int, int]:
    """Copy the Rust tokenizer without truncation and padding; find the special tokens of both ends."""
    backend, name = whole_backend(tokenizer), _name_of(tokenizer)
    ends = [
        next((token for token in pair if token is not None), None)
        for pair in (
            (tokenizer.cls_token_id, tokenizer.bos_token_id),
            (tokenizer.sep_token_id, tokenizer.eos_token_id),
        )
    ]
    if ends[0] is None or ends[1] is None:
        raise DupmaeError(f"The tokenizer {name} lacks a special token for the start (cls, bos) or the end (sep, eos).")
    if len(set(backend.encode("a b", add_special_tokens=False).word_ids)) < 2:
        raise DupmaeError(f"The tokenizer {name} does not split a text into words, which whole-word masking needs.")
    return backend, ends[0], ends[1]


def whole_backend(tokenizer: Any) -> Any:
    """Copy the Rust tokenizer without truncation and padding; names of special tokens are text like any other.

    Raises:
        DupmaeError: It has none.
    """
    from tokenizers import Tokenizer

    if not getattr(tokenizer, "is_fast", False):
        raise DupmaeError(
            f"The tokenizer {_name_of(tokenizer)} is a slow one, which does not tell words apart: use a fast tokenizer."
        )
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def _name_of(tokenizer: Any) -> str:
    """Name a tokenizer for a sentence."""
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def batches(texts: Iterable[str | Passage]) -> Iterator[list[tuple[int, str]]]:
    """Group texts, bounded in number and in characters, each with the number of characters of its title."""
    titled = ((0, item) if isinstance(item, str) else (len(item.title), item.full_text) for item in texts)
    return grouped(titled, lambda item: len(item[1]))


def grouped(items: Iterable[T], characters: Callable[[T], int]) -> Iterator[list[T]]:
    """Group what has texts, in order, bounded in number and in characters."""
    group, held = list[T](), 0
    for item in items:
        group.append(item)
        held += characters(item)
        if len(group) == BATCH_TEXTS or held >= BATCH_CHARACTERS:
            yield group
            group, held = [], 0
    if group:
        yield group


def text_bytes(text: str, title: int, number: int) -> bytes:
    """Encode a text as bytes that no other sequence of texts and titles yields."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise DupmaeError(f"Text {number} holds half of a surrogate pair, not valid Unicode.") from None
    return len(encoded).to_bytes(8, "big") + title.to_bytes(8, "big") + encoded


def tokenise(
    texts: list[tuple[int, str]], backend: Any, budget: int, counts: dict[str, int]
) -> tuple[
    npt.NDArray[np.uint32],
    npt.NDArray[np.bool_],
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int32],
    list[str],
]:
    """Tokenise and cut a batch of texts, and count what happened.

    Returns:
        All texts' token ids in a row (T,), whether each starts a word (T,); the lengths of the chunks, which cover the
        row without gaps, the number of each chunk's text in the batch, how many of its tokens are a title, (N,); and
        the chunks as they stand in their texts, N.
    """
    encodings = backend.encode_batch([text for _, text in texts], add_special_tokens=False)
    ends = np.cumsum([len(encoding) for encoding in encodings])
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.uint32, ends[-1])
    words = np.fromiter(chain.from_iterable(encoding.word_ids for encoding in encodings), np.int64, ends[-1])
    word_starts = np.diff(words, prepend=-1) != 0  # (T,), the first tokens of texts are set below
    lengths: list[int] = []
    numbers: list[int] = []
    titles: list[int] = []
    written: list[str] = []
    for number, ((title, text), encoding, end) in enumerate(zip(texts, encodings, ends.tolist(), strict=True)):
        length = len(encoding)
        if length and UNSPACED.search(text):
            word_starts[end - length : end] |= unspaced_word_starts(text, [start for start, _ in encoding.offsets])
        if length > budget:
            starts = [start for start, _ in encoding.offsets]
            pieces = chunk_lengths(text, starts, word_starts[end - length : end], budget)
        else:
            pieces = [length] if length else []
        lengths += pieces
        numbers += [number] * len(pieces)
        titles += [0] * len(pieces)
        if title and pieces:
            titles[-len(pieces)] = min(bisect_left(encoding.offsets, (title, 0)), pieces[0])
        if pieces:
            borders = [0, *(encoding.offsets[cut][0] for cut in accumulate(pieces[:-1])), len(text)]
            written += [text[start:stop].strip() for start, stop in pairwise(borders)]
        counts["texts_cut"] += length > budget
        counts["texts_empty"] += not length
    counts["texts"] += len(texts)
    chunks = np.array(lengths, np.int64)
    word_starts[np.cumsum(chunks) - chunks] = True
    return ids, word_starts, chunks, np.array(numbers, np.int64), np.array(titles, np.int32), written


def with_ends(
    ids: npt.NDArray[Any], word_starts: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int64], first: int, last: int
) -> list[Any]:
    """Put the special tokens around each chunk: the columns `input_ids` and `word_starts`."""
    offsets = np.concatenate([[0], np.cumsum(lengths + 2)]).astype(np.int32)
    ordinary = np.ones(offsets[-1], bool)
    ordinary[offsets[:-1]] = ordinary[offsets[1:] - 1] = False
    all_ids = np.empty(offsets[-1], ids.dtype)
    all_ids[offsets[:-1]], all_ids[offsets[1:] - 1], all_ids[ordinary] = first, last, ids
    all_starts = np.zeros(offsets[-1], bool)
    all_starts[ordinary] = word_starts
    return [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (all_ids, all_starts)]
