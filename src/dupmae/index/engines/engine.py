"""Engines for those who outgrow one machine: they hold the duplex vector as ONE sparse vector over V + d' dimensions.

Dimensions 0 .. V-1 are the vocabulary, V .. V+d'-1 the dense half, so the plain inner product an engine computes over
all its shards is Eq. 12. (Asking for two result lists, dense and sparse, and fusing them is not: a passage that is
missing from one list would count 0 there.) What is pushed are the numbers the index stores, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError

NAMES = {"qdrant": ("http", "https"), "pgvector": ("postgresql", "postgres")}
"""Engines and the URLs that name them."""


@dataclass(frozen=True, slots=True)
class SparseVector:
    """A duplex vector over V + d' dimensions."""

    ids: NDArray[np.int64]
    """Dimensions that are not 0, rising (m,)."""
    values: NDArray[np.float32]
    """What stands there (m,)."""

    def dot(self, other: SparseVector) -> float:
        """The inner product, in double precision."""
        _, mine, theirs = np.intersect1d(self.ids, other.ids, assume_unique=True, return_indices=True)
        return float(self.values[mine].astype(np.float64) @ other.values[theirs])


@dataclass(frozen=True, slots=True)
class Document:
    """A passage as an engine holds it."""

    passage: Passage
    vector: SparseVector
    model: str
    """Fingerprint of the model that made the vector."""


class Engine(Protocol):
    """What is asked of an engine."""

    def push(self, documents: Iterator[Document], dimensions: int) -> int:
        """Make a collection hold these documents and no others; returns how many."""

    def search(self, query: SparseVector, k: int, where: Mapping[str, Sequence[str]]) -> list[tuple[Document, float]]:
        """The k documents with the largest inner product, best first, and their scores."""


def open_engine(url: str) -> Engine:
    """The engine that a URL names.

    Args:
        url: `http(s)://HOST:PORT/COLLECTION` for Qdrant; `postgresql://USER@HOST/DATABASE#TABLE` for PostgreSQL with
            pgvector.

    Raises:
        DupmaeError: Any other URL, or the engine's client is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme in NAMES["qdrant"] and (collection := parts.path.strip("/")):
        from dupmae.index.engines.qdrant import Qdrant

        return Qdrant.connect(f"{parts.scheme}://{parts.netloc}", collection)
    if parts.scheme in NAMES["pgvector"] and parts.fragment:
        from dupmae.index.engines.pgvector import PgVector

        return PgVector.connect(url.removesuffix(f"#{parts.fragment}"), parts.fragment)
    raise DupmaeError(
        f"{url} names no engine: give http://HOST:PORT/COLLECTION for Qdrant or"
        " postgresql://USER@HOST/DATABASE#TABLE for PostgreSQL with pgvector."
    )


def translated(work: Callable[[], Any], engine: str, errors: type[Exception] | tuple[type[Exception], ...]) -> Any:
    """Do something with an engine; what its client raises becomes one sentence.

    Raises:
        DupmaeError: The client raised one of `errors`.
    """
    try:
        return work()
    except errors as error:
        raise DupmaeError(f"{engine} does not do what was asked: {' '.join(str(error).split())}") from error
