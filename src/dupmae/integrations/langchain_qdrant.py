"""Whole duplex vectors in a Qdrant store of LangChain; needs `langchain-qdrant`."""

from __future__ import annotations

from langchain_qdrant import SparseEmbeddings
from langchain_qdrant.sparse_embeddings import SparseVector

from dupmae.duplex import DuplexEncoder
from dupmae.integrations.vectors import sparse_vectors


class DuplexEmbeddings(SparseEmbeddings):  # type: ignore[misc]
    """Both halves and words of a text in one sparse vector, whose inner product is the duplex score.

    Args:
        encoder: The model.
    """

    def __init__(self, encoder: DuplexEncoder) -> None:
        self.encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Embed documents."""
        rows = sparse_vectors(self.encoder, texts, "document")
        return [SparseVector(indices=indices, values=values) for indices, values in rows]

    def embed_query(self, text: str) -> SparseVector:
        """Embed a query."""
        ((indices, values),) = sparse_vectors(self.encoder, [text], "query")
        return SparseVector(indices=indices, values=values)
