"""Say what an encoder does not read of texts that are longer than it reads, in one warning."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from dupmae.corpus.chunks import tokenised
from dupmae.corpus.passage import Passage
from dupmae.corpus.tokenising import whole_backend
from dupmae.runtime.once import warn_once

logger = logging.getLogger(__name__)


def whole_documents(
    documents: Iterable[Passage], tokenizer: Any, *, limit: int, prompt: str = "", words: bool = False
) -> Iterator[Passage]:
    """Yield documents as they are, and warn at the end, once, of what an encoder does not read of them.

    Args:
        documents: As they were read.
        tokenizer: Of the encoder.
        limit: Tokens that it reads of prompt, title and text together, special ones left out.
        prompt: What it puts before each text.
        words: Whether all of a text's whole words count nevertheless.
    """
    backend, unread = whole_backend(tokenizer), Unread(limit)
    for batch in tokenised(documents, backend, lambda document: prompt + document.full_text):
        unread.count(len(starts) for _, starts, _ in batch)
        yield from (document for document, _, _ in batch)
    unread.warn("passages", words, ": cut them into chunks (chunk_tokens)")


class Unread:
    """Counts what is not read of texts that have more tokens than an encoder reads.

    Args:
        limit: Tokens that it reads of one.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.texts, self.long, self.tokens, self.unread = limit, 0, 0, 0, 0

    def count(self, lengths: Iterable[int]) -> None:
        """Count texts of so many tokens."""
        for length in lengths:
            self.texts += 1
            self.tokens += length
            self.long += length > self.limit
            self.unread += max(0, length - self.limit)

    def warn(self, kind: str, words: bool, advice: str = "") -> None:
        """Say of texts of a kind, such as `passages`, how much is not read, if it is anything; the same but once."""
        if self.unread:
            rest = "counts by its whole words alone" if words else "does not count"
            warn_once(
                logger,
                f"{self.long:,} of {self.texts:,} {kind} have more than the {self.limit:,} tokens that the model reads "
                f"of one: the rest of them, {self.unread / self.tokens:.1%} of all tokens, {rest}{advice}.",
            )
