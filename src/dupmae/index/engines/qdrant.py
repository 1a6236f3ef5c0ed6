"""Qdrant: one named sparse vector a point, payload with id, texts and metadata."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index.engines.engine import Document, SparseVector, translated

VECTOR = "duplex"
_BATCH = 128
_NAMESPACE = uuid.UUID("6a3b1a3e-3f0f-5d55-9d4e-0d3c9e6f2b11")  # makes points' ids of passages' ids


class Qdrant:
    """A collection of a Qdrant server, which stands at `address` (or of the client's local mode)."""

    def __init__(self, client: Any, collection: str, address: str = "") -> None:
        self.client, self.collection, self.address = client, collection, address

    @classmethod
    def connect(cls, url: str, collection: str) -> Qdrant:
        """Make the client of a server."""
        try:
            from qdrant_client import QdrantClient
        except ModuleNotFoundError:
            raise DupmaeError("Qdrant needs its client: pip install 'dupmae[qdrant]'") from None
        return cls(QdrantClient(url=url, timeout=60, check_compatibility=False), collection, url)

    def push(self, documents: Iterator[Document], dimensions: int) -> int:
        """Write all documents under ids made of the passages' ids, then delete the points of earlier pushes."""
        from qdrant_client import models

        push_id, count = uuid.uuid4().hex, 0
        this_push = models.FieldCondition(key="push", match=models.MatchValue(value=push_id))
        with self._translated():
            if not self.client.collection_exists(self.collection):
                self.client.create_collection(
                    self.collection, vectors_config={}, sparse_vectors_config={VECTOR: models.SparseVectorParams()}
                )
            while points := [models.PointStruct(**_point(document, push_id)) for document in islice(documents, _BATCH)]:
                self.client.upsert(self.collection, points=points, wait=True)
                count += len(points)
            self.client.delete(self.collection, models.FilterSelector(filter=models.Filter(must_not=[this_push])))
        return count

    def search(self, query: SparseVector, k: int, where: Mapping[str, Sequence[str]]) -> list[tuple[Document, float]]:
        """Find the k points with the largest inner product; ties by passage id among those found."""
        from qdrant_client import models

        conditions = [
            models.FieldCondition(key=f'metadata."{field}"', match=models.MatchAny(any=list(values)))
            for field, values in where.items()
        ]
        with self._translated():
            found = self.client.query_points(
                self.collection,
                query=models.SparseVector(indices=query.ids.tolist(), values=query.values.tolist()),
                using=VECTOR,
                query_filter=models.Filter(must=conditions) if conditions else None,
                limit=k,
                with_payload=True,
                with_vectors=True,
            ).points
        ranking = [(_document(point), float(point.score)) for point in found]
        return sorted(ranking, key=lambda place: (-place[1], place[0].passage.id))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Name the collection in what goes wrong, or the server if it is not there."""
        from httpx import TransportError
        from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

        with translated(f"The Qdrant collection {self.collection}", ApiException, ValueError):
            try:
                yield
            except ResponseHandlingException as error:
                if not isinstance(error.source, TransportError):
                    raise
                raise DupmaeError(
                    f"The Qdrant server {self.address} cannot be reached ({error.source}): is it running there?"
                ) from error


def _point(document: Document, push_id: str) -> dict[str, Any]:
    """Lay a document out as the client takes it."""
    passage, vector = document.passage, document.vector
    return {
        "id": str(uuid.uuid5(_NAMESPACE, passage.id)),
        "vector": {VECTOR: {"indices": vector.ids.tolist(), "values": vector.values.tolist()}},
        "payload": {
            "id": passage.id,
            "title": passage.title,
            "text": passage.text,
            "metadata": dict(passage.metadata),
            "model": document.model,
            "push": push_id,
        },
    }


def _document(point: Any) -> Document:
    """Read a document from what the server returned."""
    payload, vector = point.payload, point.vector[VECTOR]
    passage = Passage(payload["id"], payload["title"], payload["text"], payload["metadata"])
    order = np.argsort(vector.indices)
    ids, values = np.array(vector.indices, np.int64)[order], np.array(vector.values, np.float32)[order]
    return Document(passage, SparseVector(ids, values), payload["model"])
