"""Hits of a search."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dupmae.corpus import Passage


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a query, with the reasons; of a document that was cut into chunks the best one.

    Examples:
        >>> from dupmae import Hit, Passage
        >>> passage = Passage("lens", "", "Glass bends light.")
        >>> hit = Hit.of(passage, 2.5, dense_score=1.0, lexical_score=1.5, word_score=0.0, matches=[], words=[])
        >>> hit.document, hit.text[hit.start : hit.end]
        ('lens', 'Glass bends light.')
    """

    id: str
    """The passage's id."""
    score: float
    """The sum of the three that follow."""
    dense_score: float
    """The first term of Eq. 12: what the dense halves contribute."""
    lexical_score: float
    """Its second term: what shared learned terms contribute."""
    word_score: float
    """What shared words contribute; 0 in an index without words."""
    matches: list[tuple[str, float]]
    """The shared terms with their contributions to `lexical_score`, heaviest first."""
    words: list[tuple[str, float]]
    """The shared words, as the query writes them, with their contributions to `word_score`, heaviest first."""
    title: str
    """The passage's title; may be empty."""
    text: str
    """The passage's text."""
    metadata: Mapping[str, str | int | float | bool]
    """Its metadata fields."""
    document: str
    """Id of the document that the passage is, or is a part of."""
    headings: tuple[str, ...]
    """The headings that it stands below in its document, the outermost first."""
    start: int
    """Where it begins in the document's text, in characters."""
    end: int
    """Where it ends there."""

    @classmethod
    def of(cls, passage: Passage, score: float, **reasons: Any) -> Hit:
        """Make the hit of a passage from its score and the parts and terms of that."""
        chunk = passage.chunk
        return cls(
            id=passage.id,
            score=score,
            **reasons,
            title=passage.title,
            text=passage.text,
            metadata=passage.metadata,
            document=passage.document,
            headings=() if chunk is None else chunk.headings,
            start=0 if chunk is None else chunk.start,
            end=len(passage.text) if chunk is None else chunk.end,
        )

    @property
    def cls_score(self) -> float:
        """Former name of `dense_score`, until version 0.3."""
        return self._renamed("cls_score", "dense_score")

    @property
    def ot_score(self) -> float:
        """Former name of `lexical_score`, until version 0.3."""
        return self._renamed("ot_score", "lexical_score")

    def _renamed(self, former: str, name: str) -> float:
        """Read an attribute by its former name."""
        warnings.warn(f"Hit.{former} is called Hit.{name} now", DeprecationWarning, stacklevel=3)
        return float(getattr(self, name))
