"""A query as the compiled loops take it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.errors import DupmaeError
from dupmae.index.storage.manifest import Manifest
from dupmae.index.storage.quantise import LARGEST_INPUT

Part = Literal["both", "dense", "lexical"]
"""Which halves of a query count."""
_FORMER_PARTS = {"cls": "dense", "ot": "lexical"}  # of version 0.1; taken until 0.3


@dataclass(frozen=True, slots=True)
class Query:
    """One query in the layout that the loops read."""

    dense: NDArray[np.float32]
    """Dense half (d',)."""
    length: float
    """Euclidean length of `dense`; 0 leaves the first term of Eq. 12 out."""
    ids: NDArray[np.int64]
    """Terms, heaviest first (m,)."""
    weights: NDArray[np.float32]
    """Their weights (m,)."""

    @property
    def terms(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The lexical half as the compiled loops take it."""
        return self.ids, self.weights

    def heaviest(self, terms: int) -> Query:
        """Cut the lexical half to its heaviest terms."""
        return replace(self, ids=self.ids[:terms], weights=self.weights[:terms])

    def lexical(self) -> Query:
        """Leave the dense half out."""
        return replace(self, length=0.0)


def prepare_queries(embeddings: DuplexEmbeddings, manifest: Manifest, part: Part) -> list[Query]:
    """Check query embeddings against the index and lay them out for the loops.

    Args:
        embeddings: Q queries.
        manifest: Of the index.
        part: Which terms of Eq. 12 count; the other half is left empty.

    Raises:
        DupmaeError: An unknown part, numbers that are not finite, or embeddings of another width or vocabulary.
    """
    chosen = _FORMER_PARTS.get(part, part)
    if chosen != part:
        warnings.warn(f"the part {part!r} is called {chosen!r} now", DeprecationWarning, stacklevel=3)
    if chosen not in ("both", "dense", "lexical"):
        raise DupmaeError(f"There is no part {part!r} of a duplex score: take 'both', 'dense' or 'lexical'.")
    dense = np.ascontiguousarray(embeddings.cls, dtype=np.float32)
    weights = np.asarray(embeddings.weights, dtype=np.float32)
    ids = np.asarray(embeddings.ids).astype(np.int64)
    if dense.shape[1] != manifest.cls_dimension:
        raise DupmaeError(
            f"The queries' dense half has {dense.shape[1]} dimensions and the index's {manifest.cls_dimension}:"
            " embed them with the model that built the index."
        )
    used = weights != 0
    if np.any(ids[used] >= manifest.vocabulary_size):
        raise DupmaeError(
            f"The queries name term {ids[used].max()} and the index's vocabulary has {manifest.vocabulary_size}: embed"
            " them with the model that built the index."
        )
    if not ((np.abs(dense) <= LARGEST_INPUT).all() and (np.abs(weights) <= LARGEST_INPUT).all()):
        raise DupmaeError("The queries' embeddings hold numbers that are not finite or too large: check the model.")
    if chosen == "dense":
        used = np.zeros_like(used)
    queries = []
    for row in range(len(dense)):
        length = 0.0 if chosen == "lexical" else float(np.linalg.norm(dense[row].astype(np.float64)))
        kept = np.flatnonzero(used[row])
        kept = kept[np.argsort(-np.abs(weights[row, kept]), kind="stable")]
        queries.append(Query(dense[row], length, ids[row, kept], weights[row, kept]))
    return queries
