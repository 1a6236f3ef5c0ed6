"""Search a duplex index from LangChain; needs `langchain-core` (`pip install 'dupmae[langchain]'`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from dupmae.duplex import DuplexEncoder
from dupmae.index import DuplexIndex
from dupmae.integrations.vectors import metadata_of


class DuplexRetriever(BaseRetriever):  # type: ignore[misc]
    """Finds the documents of an index that fit a query, each by its best chunk.

    Attributes:
        index: The index.
        k: Documents of a query.
        where: A filter on metadata, as of `dupmae search --where`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    index: DuplexIndex
    k: int = 4
    where: str | None = None

    @classmethod
    def open(cls, folder: str | Path, **settings: Any) -> DuplexRetriever:
        """Open the index in a folder."""
        return cls(index=DuplexIndex.open(Path(folder)), **settings)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        (hits,) = self.index.search([query], self.k, where=self.where)
        return [Document(page_content=hit.text, id=hit.id, metadata=metadata_of(hit)) for hit in hits]


class DenseEmbeddings(Embeddings):  # type: ignore[misc]
    """The dense half of a duplex model alone, for stores that hold one vector of a text; they rank by inner product.

    Args:
        encoder: The model.
    """

    def __init__(self, encoder: DuplexEncoder) -> None:
        self.encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents."""
        return [row.tolist() for row in self.encoder.embed_documents(texts).cls]

    def embed_query(self, text: str) -> list[float]:
        """Embed a query."""
        return [float(value) for value in self.encoder.embed_queries([text]).cls[0]]
