"""Qdrant: one named sparse vector a point, payload with id, texts and metadata."""

from __future__ import annotations

import base64
import logging
import uuid
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import Any
from urllib.parse import SplitResult, unquote

import numpy as np

from dupmae.corpus import Chunk, Passage
from dupmae.corpus.passage import value_text
from dupmae.errors import DupmaeError
from dupmae.index.engines.engine import Document, SparseVector, translated, without_secrets
from dupmae.index.where import Condition, Every, Filter, Not, as_number, fields_of, is_date, is_year, spellings

logger = logging.getLogger(__name__)

VECTOR = "duplex"
_BATCH = 128
_LOCAL = ("localhost", "127.0.0.1", "::1")
_NAMESPACE = uuid.UUID("6a3b1a3e-3f0f-5d55-9d4e-0d3c9e6f2b11")  # makes points' ids of passages' ids


WAIT_SECONDS = 60
"""How long to wait for an answer."""


class Qdrant:
    """A collection of a Qdrant server, or of the client's local mode.

    Args:
        client: The client.
        collection: The collection's name.
        address: Where the server stands, for messages.
        secrets: What no message may hold.
    """

    def __init__(self, client: Any, collection: str, address: str = "", secrets: Collection[str] = ()) -> None:
        self.client, self.collection, self.address, self._secrets = client, collection, address, secrets

    @classmethod
    def connect(cls, url: SplitResult, collection: str, api_key: str | None) -> Qdrant:
        """Make the client of a server; a name and a password in the URL go to it as basic authorisation."""
        try:
            from qdrant_client import QdrantClient
        except ModuleNotFoundError:
            raise DupmaeError("Qdrant needs its client: pip install 'dupmae[qdrant]'") from None
        host = url.hostname or ""
        port = "" if url.port is None else f":{url.port}"
        address = f"{url.scheme}://{f'[{host}]' if ':' in host else host}{port}"
        name, password = unquote(url.username or ""), unquote(url.password or "")
        basic = base64.b64encode(f"{name}:{password}".encode()).decode() if name or password else ""
        secrets = [text for text in (api_key, password, url.password, basic) if text]
        if secrets and url.scheme == "http" and host not in _LOCAL:
            logger.warning("%s: keys and passwords go through the network unencrypted: use https.", address)
        with warnings.catch_warnings(action="ignore"):  # the client says so, too, also of this very machine
            client = QdrantClient(
                url=address,
                api_key=api_key,
                headers={"Authorization": f"Basic {basic}"} if basic else None,
                timeout=WAIT_SECONDS,
                check_compatibility=False,
            )
        return cls(client, collection, address, secrets)

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

    def search(self, query: SparseVector, k: int, where: Filter | None) -> list[tuple[Document, float]]:
        """Find the k points with the largest inner product; ties by passage id among those found."""
        from qdrant_client import models

        for field in () if where is None else fields_of(where):
            if '"' in field:
                raise DupmaeError(
                    f"Qdrant cannot ask for a metadata field with a quotation mark in its name ({field})."
                )
        with self._translated():
            found = self.client.query_points(
                self.collection,
                query=models.SparseVector(indices=query.ids.tolist(), values=query.values.tolist()),
                using=VECTOR,
                query_filter=None if where is None else models.Filter(must=[_filter(where)]),
                limit=k,
                with_payload=True,
                with_vectors=True,
            ).points
        ranking = [(self._document(point), float(point.score)) for point in found]
        return sorted(ranking, key=lambda place: (-place[1], place[0].passage.id))

    def _document(self, point: Any) -> Document:
        """Read a document from what the server returned."""
        try:
            return _document(point)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise DupmaeError(
                f"The Qdrant collection {self.collection} holds points that `dupmae index push` did not write: push to "
                "a new one."
            ) from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Name the collection in what goes wrong, or the server if it is not there or wants a key."""
        from httpx import HTTPError, InvalidURL, TransportError
        from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

        errors = (ApiException, HTTPError, InvalidURL, ValueError, TypeError, AttributeError)
        with translated(f"The Qdrant collection {self.collection}", self._secrets, *errors):
            try:
                yield
            except UnexpectedResponse as error:
                if error.status_code not in (401, 403):
                    raise
                raise DupmaeError(
                    f"The Qdrant server {self.address} refuses access (status {error.status_code}): give its key in "
                    "the environment variable QDRANT_API_KEY or with --api_key_file."
                ) from None
            except ResponseHandlingException as error:
                if not isinstance(error.source, TransportError):
                    raise
                reason = without_secrets(str(error.source) or type(error.source).__name__, self._secrets)
                raise DupmaeError(
                    f"The Qdrant server {self.address} cannot be reached ({reason}): is it running there?"
                ) from None


def _filter(where: Filter) -> Any:
    """Say a filter in Qdrant's own terms.

    Raises:
        DupmaeError: It asks for what Qdrant cannot compare.
    """
    from qdrant_client import models

    if isinstance(where, Not):
        return models.Filter(must_not=[_filter(where.part)])
    if not isinstance(where, Condition):
        parts = [_filter(part) for part in where.parts]
        return models.Filter(must=parts) if isinstance(where, Every) else models.Filter(should=parts)
    key = f'metadata."{where.field}"'
    numbers = [number for value in where.values if (number := as_number(value)) is not None]
    if where.sign == "=":
        conditions = [models.FieldCondition(key=key, match=models.MatchAny(any=spellings(where.values)))]
        conditions += [models.FieldCondition(key=key, range=models.Range(gte=one, lte=one)) for one in numbers]
        for truth in {value.lower() for value in where.values} & {"true", "false"}:
            conditions.append(models.FieldCondition(key=key, match=models.MatchValue(value=truth == "true")))
        return models.Filter(should=conditions)
    (value,) = where.values
    bound = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}.get(where.sign)
    conditions = []
    if bound is not None and numbers:
        conditions.append(
            models.FieldCondition(key=f'numbers."{where.field}"', range=models.Range(**{bound: float(numbers[0])}))
        )
    if bound is not None and (is_date(value) or is_year(value)):
        try:
            date = datetime.fromisoformat(f"{value}-01-01" if is_year(value) else value)
        except ValueError:
            raise DupmaeError(f"{value!r} is no date that Qdrant could compare: write it as 2020-12-31.") from None
        bound = ("lt" if bound in ("lt", "lte") else "gte") if is_year(value) else bound
        conditions.append(models.FieldCondition(key=key, range=models.DatetimeRange(**{bound: date})))
    if not conditions:
        raise DupmaeError(
            f"Qdrant compares numbers and dates, and cannot tell of other texts how they begin or which comes first"
            f" ({where.field}{where.sign}{value[:100]}): search the index itself, or push it to PostgreSQL."
        )
    return models.Filter(should=conditions)


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
            "numbers": {  # texts that read as one are compared as numbers, too
                field: float(number)
                for field, value in passage.metadata.items()
                if (number := as_number(value_text(value))) is not None
            },
            "document": passage.document,
            "chunk": None if passage.chunk is None else asdict(passage.chunk),
            "model": document.model,
            "push": push_id,
        },
    }


def _document(point: Any) -> Document:
    """Read a document from what the server returned."""
    payload, vector = point.payload, point.vector[VECTOR]
    place = payload.get("chunk")  # missing in what earlier versions pushed
    chunk = None if place is None else Chunk(**place | {"headings": tuple(place["headings"])})
    passage = Passage(payload["id"], payload["title"], payload["text"], payload["metadata"], chunk)
    order = np.argsort(vector.indices)
    ids, values = np.array(vector.indices, np.int64)[order], np.array(vector.values, np.float32)[order]
    return Document(passage, SparseVector(ids, values), payload["model"])
