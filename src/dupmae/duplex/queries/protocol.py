"""What a search needs of whatever encodes its queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.words import Words


class QueryEncoder(Protocol):
    """Turns queries into duplex embeddings: :class:`dupmae.DuplexEncoder`, or what is opened without PyTorch."""

    @property
    def pooling(self) -> Any:
        """Knows `vocabulary_size`, V."""

    @property
    def tokenizer(self) -> Any:
        """Gives terms their names (`convert_ids_to_tokens`), and finds those of a text when called."""

    @property
    def words(self) -> Words | None:
        """How it reads whole words."""

    def embed_queries(
        self, texts: Sequence[str], batch_size: int = ..., show_progress_bar: bool = ...
    ) -> DuplexEmbeddings:
        """Embed queries with all their terms."""
