"""Search a duplex index from Haystack 2, or encode for its Qdrant store; needs `haystack-ai` (extra `haystack`)."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from haystack import Document, component
from haystack.dataclasses import SparseEmbedding

from dupmae.corpus import Passage
from dupmae.duplex import DuplexEncoder
from dupmae.index import DuplexIndex
from dupmae.integrations.vectors import metadata_of, sparse_vectors


@component
class DuplexRetriever:
    """Finds the documents of an index that fit a query, each by its best chunk.

    Args:
        index: Folder of the index.
        top_k: Documents of a query.
        where: A filter on metadata, as of `dupmae search --where`.
    """

    def __init__(self, index: str | Path, top_k: int = 10, where: str | None = None) -> None:
        self.index, self.top_k, self.where = str(index), top_k, where

    @cached_property
    def opened(self) -> DuplexIndex:
        """The index, opened when the first query comes."""
        return DuplexIndex.open(Path(self.index))

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(self, query: str, top_k: int | None = None) -> dict[str, Any]:
        """Find documents."""
        (hits,) = self.opened.search([query], top_k or self.top_k, where=self.where)
        return {
            "documents": [Document(hit.id, content=hit.text, meta=metadata_of(hit), score=hit.score) for hit in hits]
        }


class _Encoding:
    """What both embedders have in common."""

    def __init__(self, model: str = "dupmae-small") -> None:
        self.model = model

    @cached_property
    def encoder(self) -> DuplexEncoder:
        """The model, loaded when the first text comes."""
        return DuplexEncoder(self.model)


@component
class DuplexTextEmbedder(_Encoding):
    """Encodes a query to a whole duplex vector, for stores that hold sparse vectors."""

    @component.output_types(sparse_embedding=SparseEmbedding)  # type: ignore[untyped-decorator]
    def run(self, text: str) -> dict[str, Any]:
        """Encode a query."""
        return {"sparse_embedding": SparseEmbedding(*sparse_vectors(self.encoder, [text], "query")[0])}


@component
class DuplexDocumentEmbedder(_Encoding):
    """Encodes documents to whole duplex vectors, whose inner products with a query's are the duplex score."""

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Encode documents, title and text of each as an index of `dupmae` does."""
        texts = [Passage("", one.meta.get("title") or "", one.content or "").full_text for one in documents]
        rows = sparse_vectors(self.encoder, texts, "document")
        pairs = zip(documents, rows, strict=True)
        return {"documents": [replace(one, sparse_embedding=SparseEmbedding(*row)) for one, row in pairs]}
