"""Hits of a search, and the filters that it may be limited by."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dupmae.corpus.passage import value_text

Where = Mapping[str, str | int | float | Sequence[str | int | float]]
"""A filter: metadata field to the value, or the values, that a passage must have one of; all fields must agree."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a query, with the reasons."""

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
    metadata: Mapping[str, str]
    """Its metadata fields."""

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


def wanted_values(values: str | int | float | Sequence[str | int | float]) -> list[str]:
    """Write the values of one field of a filter as they are stored."""
    several = [values] if isinstance(values, str | int | float) else values
    return [value_text(value) for value in several]
