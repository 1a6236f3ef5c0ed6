"""Cut documents into chunks that an encoder reads to their end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

from dupmae.config import CHUNK_TOKENS
from dupmae.corpus import Passage
from dupmae.corpus.chunks import chunk_documents
from dupmae.corpus.unread import whole_documents
from dupmae.duplex.words import Words

logger = logging.getLogger(__name__)


class Reading(Protocol):
    """What cutting needs of an encoder."""

    prompts: dict[str, str]

    @property
    def tokenizer(self) -> Any:
        """A fast one."""

    @property
    def words(self) -> Words | None:
        """How it reads whole words."""

    def reads(self, task: Literal["query", "document"]) -> int:
        """Tell how many tokens of a text it reads, special ones left out."""


def cut_documents(
    encoder: Reading, documents: Iterable[Passage], tokens: int, overlap: int | None
) -> Iterator[Passage]:
    """Cut documents as :meth:`dupmae.DuplexEncoder.chunks` says."""
    limit, prompt = encoder.reads("document"), encoder.prompts.get("document") or ""
    if not tokens:
        words = encoder.words is not None
        return whole_documents(documents, encoder.tokenizer, limit=limit, prompt=prompt, words=words)
    if tokens > max(limit, CHUNK_TOKENS):
        logger.warning("chunk_tokens is %d, and the model reads %d of a document: chunks are that long.", tokens, limit)
    return chunk_documents(documents, encoder.tokenizer, tokens, overlap, limit=limit, prompt=prompt)
