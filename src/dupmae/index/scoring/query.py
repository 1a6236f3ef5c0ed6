"""A query as the compiled loops take it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dupmae.config.ranges import CheckedSettings, Factor
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.errors import DupmaeError
from dupmae.index.storage.manifest import Manifest
from dupmae.index.storage.quantise import LARGEST_INPUT

Part = Literal["all", "dense", "lexical", "words"]
"""Which parts of a score count: their sum, or one alone."""
PARTS: tuple[Part, ...] = get_args(Part)
_FORMER_PARTS = {"cls": "dense", "ot": "lexical", "both": "all"}  # of version 0.1; taken until 0.3


@dataclass(frozen=True)
class Weights(CheckedSettings):
    """What each part of a score is multiplied by, in a search alone: nothing is encoded again.

    Raises:
        DupmaeError: One is no number from 0 to 1,000, or all are 0.

    Examples:
        >>> from dupmae.index import Weights
        >>> Weights(words=0)
        Weights(dense=1.0, lexical=1.0, words=0)
        >>> Weights(dense=-1)
        Traceback (most recent call last):
        dupmae.config.ranges.OutOfRangeError: dense must be at least 0 and at most 1000, not -1.
    """

    dense: Factor = 1.0
    """For the dense half."""
    lexical: Factor = 1.0
    """For the learned terms."""
    words: Factor = 1.0
    """For whole words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.dense or self.lexical or self.words):
            raise DupmaeError("The weights of all parts of the score are 0: leave at least one of them above 0.")

    def apply(self, queries: DuplexEmbeddings) -> DuplexEmbeddings:
        """Multiply the parts of queries, all finite and no larger than `LARGEST_INPUT`."""
        words = queries.words
        if words is not None and self.words != 1:
            words = words * np.float32(self.words)
        return DuplexEmbeddings(
            queries.cls if self.dense == 1 else queries.cls * np.float32(self.dense),
            queries.ids,
            queries.weights if self.lexical == 1 else queries.weights * np.float32(self.lexical),
            words,
        )


UNCHANGED = Weights()
"""Every part as the model weighs it."""


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
    word_ids: NDArray[np.int64]
    """Dimensions of words, rising (w,)."""
    word_weights: NDArray[np.float64]
    """Their weights (w,): at first their shares, times their rarity from `with_rarity` on."""

    @property
    def terms(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The lexical half as the compiled loops take it."""
        return self.ids, self.weights

    @property
    def words(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The words as the compiled loops take them."""
        return self.word_ids, self.word_weights

    def heaviest(self, terms: int) -> Query:
        """Cut the lexical half to its heaviest terms; words stay."""
        return replace(self, ids=self.ids[:terms], weights=self.weights[:terms])

    def without_dense(self) -> Query:
        """Leave the dense half out."""
        return replace(self, length=0.0)


def prepare_queries(
    embeddings: DuplexEmbeddings, manifest: Manifest, part: Part, weights: Weights = UNCHANGED
) -> list[Query]:
    """Check query embeddings against the index and lay them out for the loops, words without their rarity.

    Args:
        embeddings: Q queries.
        manifest: Of the index.
        part: Which parts of the score count; the others are left empty.
        weights: What each part is multiplied by.

    Raises:
        DupmaeError: An unknown part, or one that the index does not have, numbers that are not finite, or
            embeddings of another width or vocabulary, or without words.
    """
    chosen = _FORMER_PARTS.get(part, part)
    if chosen != part:
        warnings.warn(f"the part {part!r} is called {chosen!r} now", DeprecationWarning, stacklevel=4)
    if chosen not in PARTS:
        raise DupmaeError(f"There is no part {part!r} of a duplex score: take 'all', 'dense', 'lexical' or 'words'.")
    if chosen == "words" and manifest.words is None:
        raise DupmaeError("This index has no words to rank by: build it with a model that has words.")
    counts = {name: chosen in ("all", name) for name in ("dense", "lexical", "words")}
    needs_words = counts["words"] and weights.words > 0 and manifest.words is not None
    _refuse_unfit(embeddings, manifest, needs_words=needs_words)
    embeddings = weights.apply(embeddings)
    dense = np.ascontiguousarray(embeddings.cls, dtype=np.float32)
    ids, term_weights = np.asarray(embeddings.ids).astype(np.int64), np.asarray(embeddings.weights, np.float32)
    if not counts["lexical"]:
        term_weights = np.zeros_like(term_weights)
    queries = []
    for row in range(len(dense)):
        kept = np.flatnonzero(term_weights[row])
        kept = kept[np.argsort(-np.abs(term_weights[row, kept]), kind="stable")]
        queries.append(
            Query(
                dense[row],
                float(np.linalg.norm(dense[row].astype(np.float64))) if counts["dense"] else 0.0,
                ids[row, kept],
                term_weights[row, kept],
                *_words_of(embeddings.words if needs_words else None, row),
            )
        )
    return queries


def _words_of(words: Any, row: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the words of one query, dimensions rising: their dimensions and shares."""
    if words is None:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    first, last = words.indptr[row], words.indptr[row + 1]
    ids, weights = words.indices[first:last].astype(np.int64), words.data[first:last].astype(np.float64)
    order = np.argsort(ids, kind="stable")
    return ids[order], weights[order]


def _refuse_unfit(embeddings: DuplexEmbeddings, manifest: Manifest, *, needs_words: bool) -> None:
    """Refuse queries that another model embedded than the index's, or that hold what is no number."""
    dense, weights = np.asarray(embeddings.cls), np.asarray(embeddings.weights)
    if dense.shape[1] != manifest.cls_dimension:
        raise DupmaeError(
            f"The queries' dense half has {dense.shape[1]} dimensions and the index's {manifest.cls_dimension}:"
            " embed them with the model that built the index."
        )
    used = np.asarray(embeddings.ids)[weights != 0]
    if np.any(used >= manifest.vocabulary_size):
        raise DupmaeError(
            f"The queries name term {used.max()} and the index's vocabulary has {manifest.vocabulary_size}: embed"
            " them with the model that built the index."
        )
    if embeddings.words is None and needs_words:
        raise DupmaeError(
            "The queries have no words and the index has: embed them with the model that built the index, or set the"
            " weight of words to 0."
        )
    words = np.empty(0) if embeddings.words is None else embeddings.words.data
    if not all((np.abs(part) <= LARGEST_INPUT).all() for part in (dense, weights, words)):
        raise DupmaeError("The queries' embeddings hold numbers that are not finite or too large: check the model.")
