"""Cut documents into chunks: passages that an encoder reads to their end, each with its place in its document.

A chunk ends where a section of the same or a higher level begins, else at a heading or the end of a sentence, at white
space where sentences are long, between words where there is no white space (:mod:`dupmae.corpus.chunking`, which the
token store cuts by, too). It repeats the last sentences of the chunk before it, unless it begins with a heading.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from dupmae.config import CHUNK_TOKENS
from dupmae.corpus.chunking import UNSPACED, Tokens, best_cut, borders_of, unspaced_word_starts
from dupmae.corpus.passage import Chunk, Document, Heading, Passage
from dupmae.corpus.tokenising import grouped, whole_backend
from dupmae.errors import DupmaeError, refuse_surrogates
from dupmae.runtime.once import warn_once

logger = logging.getLogger(__name__)

OVERLAP_SHARE = 5
"""A chunk repeats up to one in so many of its tokens, where nothing else is asked for."""
LONGER = 4
"""A chunk may have one in so many tokens more if its section, or its document, ends there."""
TINY = 4
"""A section of less than one in so many of a chunk's tokens does not end at the next heading."""
SURE = 16
"""Tokens that a chunk, whose words are whole, stays below what is read for its own number not to be counted."""
PIECE = 200_000
"""Characters of a long text that are tokenised at a time."""
SEPARATOR = "::"
"""Between a document's id and the number of a chunk in the chunk's id."""


def chunk_document(
    document: Passage,
    tokenizer: Any,
    tokens: int = CHUNK_TOKENS,
    overlap: int | None = None,
    *,
    limit: int | None = None,
    prompt: str = "",
) -> list[Passage]:
    """Cut one document; see :func:`chunk_documents`.

    Examples:
        >>> from dupmae import DuplexEncoder
        >>> from dupmae.corpus import Passage
        >>> from dupmae.corpus.chunks import chunk_document
        >>> tokenizer = DuplexEncoder("dupmae-small").tokenizer
        >>> document = Passage("sea", "Lights", "A lamp stands behind a lens. Ships see it at night. Fog hides it.")
        >>> for chunk in chunk_document(document, tokenizer, tokens=12, overlap=0):
        ...     print(chunk.id, chunk.chunk.start, chunk.chunk.end, chunk.text)
        sea::1 0 28 A lamp stands behind a lens.
        sea::2 29 65 Ships see it at night. Fog hides it.
    """
    return list(chunk_documents([document], tokenizer, tokens, overlap, limit=limit, prompt=prompt))


def chunk_documents(
    documents: Iterable[Passage],
    tokenizer: Any,
    tokens: int = CHUNK_TOKENS,
    overlap: int | None = None,
    *,
    limit: int | None = None,
    prompt: str = "",
) -> Iterator[Passage]:
    """Cut documents into chunks, in order.

    Args:
        documents: As they were read; a :class:`dupmae.corpus.passage.Document` is cut at its headings first.
        tokenizer: Of the encoder that will read the chunks; a fast one of transformers.
        tokens: Tokens of a chunk's text, at most, and a quarter more of the last one of a section.
        overlap: Tokens of whole sentences that a chunk repeats of the one before it, at most half of `tokens`; None
            takes a fifth.
        limit: Tokens that the encoder reads of prompt, title and text together, special ones left out. No chunk has
            more.
        prompt: What the encoder puts before each text.

    Returns:
        A document of no more tokens as it is; of a longer one passages with its title and metadata, the id
        `DOCUMENT::NUMBER` from 1, and their place in `chunk`: the text from `start` to `end` is a chunk's own.
        A title of more than half of `limit` is cut to that, with a warning.

    Raises:
        DupmaeError: Fewer than 1 token, or an overlap of more than half of them (at the call); a slow tokenizer.
    """
    if tokens < 1:
        raise DupmaeError(f"chunk_tokens is {tokens}: a chunk has at least 1 token.")
    overlap = tokens // OVERLAP_SHARE if overlap is None else overlap
    if not 0 <= overlap <= tokens // 2:
        raise DupmaeError(
            f"chunk_overlap is {overlap}: a chunk of {tokens} tokens repeats at most half of them, {tokens // 2}."
        )
    return _chunked(documents, whole_backend(tokenizer), tokens, overlap, limit, prompt)


def chunk_settings(tokens: int, overlap: int | None) -> dict[str, int] | None:
    """Say how documents are cut, as an index keeps it: `tokens` and `overlap`; None of those that are left whole."""
    return {"tokens": tokens, "overlap": tokens // OVERLAP_SHARE if overlap is None else overlap} if tokens else None


def _chunked(
    documents: Iterable[Passage], backend: Any, tokens: int, overlap: int, limit: int | None, prompt: str
) -> Iterator[Passage]:
    """Cut documents, a batch at a time; what is a chunk already stays as it is."""
    cut = 0
    for batch in tokenised(documents, backend, lambda document: document.text):
        titles = backend.encode_batch([prompt + document.title for document, _, _ in batch], add_special_tokens=False)
        pieces, unsure = list[_Cutting](), list[tuple[_Cutting, tuple[int, int]]]()
        for (document, starts, words), title in zip(batch, titles, strict=True):
            room = len(starts) + tokens if limit is None else limit - len(title)
            if len(starts) > room and limit is not None and len(title) > limit // 2:
                shown = document.title[: max(title.offsets[limit // 2][0] - len(prompt), 0)].rstrip()
                document, room, cut = replace(document, title=shown), limit - limit // 2, cut + 1
            pieces.append(_Cutting(document, starts, words, tokens, overlap, max(room, 1)))
            unsure += [(pieces[-1], span) for span in pieces[-1].spans if limit and pieces[-1].is_unsure(span)]
        if limit is not None:
            _shorten(unsure, backend, limit, prompt)
        for piece in pieces:
            yield from piece.passages()
    if cut:
        warn_once(
            logger, f"The titles of {cut:,} documents were cut: each has more tokens than half of what the model reads."
        )


def _shorten(waiting: list[tuple[_Cutting, tuple[int, int]]], backend: Any, limit: int, prompt: str) -> None:
    """Halve the chunks that have more tokens behind their title than they had in their text, until all fit."""
    while waiting:
        long = []
        for group in grouped(waiting, lambda one: len(one[0].text(one[1]))):
            texts = [prompt + replace(piece.document, text=piece.text(span)).full_text for piece, span in group]
            encodings = backend.encode_batch(texts, add_special_tokens=False)
            long += [one for one, encoding in zip(group, encodings, strict=True) if len(encoding) > limit]
        waiting = [(piece, half) for piece, span in long for half in piece.halve(span)]


class _Cutting:
    """A document and where it is cut: pairs of tokens, that which a chunk begins with and that behind it."""

    def __init__(
        self,
        document: Passage,
        starts: Tokens,
        word_starts: npt.NDArray[np.bool_],
        tokens: int,
        overlap: int,
        room: int,
    ) -> None:
        self.document, self.starts, self.word_starts, self.room = document, starts, word_starts, room
        budget = min(tokens, room)
        most = min(budget + budget // LONGER, room)
        self.spans = [(0, len(starts))]
        if len(starts) > most and document.chunk is None:
            self.spans = list(self._cut(budget, most, min(overlap, budget // 2)))

    def _cut(self, budget: int, most: int, overlap: int) -> Iterator[tuple[int, int]]:
        """Cut a document of more than `most` tokens."""
        total, headings = len(self.starts), _headings(self.document)
        sentences, *others = borders_of(self.document.text, self.starts, self.word_starts)
        tops = np.searchsorted(self.starts, [heading.start for heading in headings])
        levels = np.array([heading.level for heading in headings], np.int64)
        begin = done = 0
        while done < total:
            above = int(np.searchsorted(tops, begin, side="right")) - 1
            ends = (levels <= levels[above]) | (above < 0) if len(levels) else levels > 0
            ends &= (tops >= begin + budget // TINY) & (tops > done)
            stop = int(tops[np.argmax(ends)]) if ends.any() else total
            end = stop if stop - begin <= most else best_cut([tops, sentences, *others], begin, budget, done)
            yield begin, end
            earliest = int(np.searchsorted(sentences, max(end - overlap, begin + 1)))
            repeats = end not in tops and earliest < len(sentences) and sentences[earliest] < end
            begin, done = int(sentences[earliest]) if repeats else end, end

    def is_unsure(self, span: tuple[int, int]) -> bool:
        """Tell whether a chunk may have too many tokens by itself: it is nearly full, or cuts a word, whose pieces
        depend on where it begins.
        """
        begin, end = span
        whole = self.word_starts[begin:][:1].all() and self.word_starts[end:][:1].all()
        return self.document.chunk is None and (not whole or end - begin > self.room - SURE)

    def halve(self, span: tuple[int, int]) -> list[tuple[int, int]]:
        """Cut a chunk in two where a word starts, in place, if it has more than one token."""
        begin, end = span
        if end - begin < 2:
            return []
        middle = best_cut([np.flatnonzero(self.word_starts)], begin, (end - begin) // 2)
        place = self.spans.index(span)
        self.spans[place : place + 1] = [(begin, middle), (middle, end)]
        return [(begin, middle), (middle, end)]

    def range(self, span: tuple[int, int]) -> tuple[int, int]:
        """Find the characters of a chunk, without the white space around them."""
        text, (begin, end) = self.document.text, span
        start = int(self.starts[begin]) if begin else 0
        stop = int(self.starts[end]) if end < len(self.starts) else len(text)
        part = text[start:stop]
        return start + len(part) - len(part.lstrip()), start + len(part.rstrip())

    def text(self, span: tuple[int, int]) -> str:
        """Read the text of a chunk; a document that is not cut keeps its own."""
        if len(self.spans) == 1:
            return self.document.text
        start, end = self.range(span)
        return self.document.text[start:end]

    def passages(self) -> Iterator[Passage]:
        """Yield the chunks, or the document that is one."""
        document = self.document
        if len(self.spans) == 1:
            yield document
            return
        ranges = [(start, end) for start, end in map(self.range, self.spans) if start < end]
        above = headings_above(document, [start for start, _ in ranges])
        for number, ((start, end), path) in enumerate(zip(ranges, above, strict=True), 1):
            yield Passage(
                f"{document.id}{SEPARATOR}{number}",
                document.title,
                document.text[start:end],
                document.metadata,
                Chunk(document.id, path, start, end),
            )


def headings_above(document: Passage, starts: Sequence[int]) -> list[tuple[str, ...]]:
    """Find the headings that places of a document's text stand below, for each the outermost first."""
    headings = _headings(document)
    nothing: tuple[Heading, ...] = ()
    paths = list(accumulate(headings, _below, initial=nothing))
    tops = [heading.start for heading in headings]
    return [tuple(heading.text for heading in paths[bisect_right(tops, start)]) for start in starts]


def _headings(document: Passage) -> Sequence[Heading]:
    """Give the headings of a document; a record has none."""
    return document.headings if isinstance(document, Document) else ()


def _below(path: tuple[Heading, ...], heading: Heading) -> tuple[Heading, ...]:
    """Add a heading to those that it stands below."""
    return (*(one for one in path if one.level < heading.level), heading)


def tokenised(
    documents: Iterable[Passage], backend: Any, text_of: Callable[[Passage], str]
) -> Iterator[list[tuple[Passage, Tokens, npt.NDArray[np.bool_]]]]:
    """Tokenise a text of each document, a batch at a time, as :func:`_token_starts` does.

    What stands in the batch before, too, is not tokenised again: a small file can hold one long text a thousand times.
    """
    known: dict[str, tuple[Tokens, npt.NDArray[np.bool_]]] = {}
    for batch in grouped(documents, lambda document: len(document.text)):
        refuse_surrogates((document.full_text for document in batch), "Text")
        texts = [text_of(document) for document in batch]
        known = {text: known[text] for text in texts if text in known}
        new = list(dict.fromkeys(text for text in texts if text not in known))
        known |= zip(new, _token_starts(new, backend), strict=True)
        yield [(document, *known[text]) for document, text in zip(batch, texts, strict=True)]


def _token_starts(texts: Sequence[str], backend: Any) -> Iterator[tuple[Tokens, npt.NDArray[np.bool_]]]:
    """Tokenise texts: for each where its tokens start, in characters (L,), and whether a word starts there (L,).

    Long texts are tokenised a piece at a time, cut at white space, where tokenizers cut words apart themselves.
    """
    pieces = [(number, first, last) for number, text in enumerate(texts) for first, last in _pieces(text)]
    found: list[list[tuple[Tokens, npt.NDArray[np.bool_]]]] = [[] for _ in texts]
    for group in grouped(pieces, lambda piece: piece[2] - piece[1]):
        parts = [texts[number][first:last] for number, first, last in group]
        encodings = backend.encode_batch(parts, add_special_tokens=False)
        for (number, first, _), part, encoding in zip(group, parts, encodings, strict=True):
            starts = np.fromiter((start for start, _ in encoding.offsets), np.int64, len(encoding))
            numbers = (-2 if word is None else word for word in encoding.word_ids)
            words = np.diff(np.fromiter(numbers, np.int64, len(encoding)), prepend=-1) != 0
            if len(starts) and UNSPACED.search(part):
                words |= unspaced_word_starts(part, starts)
            words[:1] = True
            found[number].append((np.maximum.accumulate(starts) + first, words))
    for parts_of_text in found:
        yield tuple(np.concatenate(columns) for columns in zip(*parts_of_text, strict=True))  # type: ignore[misc]


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Cut a text into pieces that end before white space, if there is some."""
    first = 0
    while len(text) - first > PIECE:
        middle, last = first + PIECE // 2, first + PIECE
        space = max(text.rfind(" ", middle, last), text.rfind("\n", middle, last))
        yield first, (last if space < 0 else space)
        first = last if space < 0 else space
    yield first, len(text)
