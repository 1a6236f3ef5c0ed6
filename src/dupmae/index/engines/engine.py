"""The protocol of engines, which hold each duplex vector as ONE sparse vector over V + d' dimensions.

Dimensions 0 .. V-1 are the vocabulary, V .. V+d'-1 the dense half, so the plain inner product an engine computes over
all its shards is Eq. 12. (Asking for two result lists, dense and sparse, and fusing them is not: a passage that is
missing from one list would count 0 there.) What is pushed are the numbers the index stores, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError


@dataclass(frozen=True, slots=True)
class SparseVector:
    """A duplex vector over V + d' dimensions."""

    ids: NDArray[np.int64]
    """Dimensions that are not 0, rising (m,)."""
    values: NDArray[np.float32]
    """What stands there (m,)."""


@dataclass(frozen=True, slots=True)
class Document:
    """A passage as an engine holds it."""

    passage: Passage
    vector: SparseVector
    model: str
    """Fingerprint of the model that made the vector."""


class Engine(Protocol):
    """What is asked of an engine; what it refuses becomes a `DupmaeError`."""

    def push(self, documents: Iterator[Document], dimensions: int) -> int:
        """Make a collection hold these documents and no others; return how many."""

    def search(self, query: SparseVector, k: int, where: Mapping[str, Sequence[str]]) -> list[tuple[Document, float]]:
        """Find the k documents with the largest inner product, best first, and their scores."""


@contextmanager
def translated(engine: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn what an engine's client raises, one of `errors`, into a `DupmaeError` of one sentence."""
    try:
        yield
    except errors as error:
        raise DupmaeError(f"{engine} does not do what was asked: {' '.join(str(error).split())}") from error
