"""Search a duplex index from LlamaIndex; needs `llama-index-core` (`pip install 'dupmae[llama-index]'`)."""

from __future__ import annotations

from pathlib import Path

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from dupmae.index import DuplexIndex
from dupmae.integrations.vectors import metadata_of

UNREAD = ["document", "start", "end", "score"]
"""Metadata that stay out of what a language model or an embedding model reads of a node."""


class DuplexRetriever(BaseRetriever):  # type: ignore[misc]
    """Finds the documents of an index that fit a query, each by its best chunk.

    Args:
        index: An index, or its folder.
        similarity_top_k: Documents of a query.
        where: A filter on metadata, as of `dupmae search --where`.
    """

    def __init__(self, index: DuplexIndex | str | Path, *, similarity_top_k: int = 4, where: str | None = None) -> None:
        super().__init__()
        self.index = index if isinstance(index, DuplexIndex) else DuplexIndex.open(Path(index))
        self.similarity_top_k, self.where = similarity_top_k, where

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        (hits,) = self.index.search([query_bundle.query_str], self.similarity_top_k, where=self.where)
        unread = {"excluded_llm_metadata_keys": UNREAD, "excluded_embed_metadata_keys": UNREAD}
        nodes = [TextNode(id_=hit.id, text=hit.text, metadata=metadata_of(hit), **unread) for hit in hits]
        return [NodeWithScore(node=node, score=hit.score) for node, hit in zip(nodes, hits, strict=True)]
