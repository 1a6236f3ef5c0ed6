"""What a search asks for and what it gives: filters and hits."""

from __future__ import annotations

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
    """Eq. 12."""
    dense_score: float
    """Its first term: what the dense halves contribute."""
    lexical_score: float
    """Its second term: what shared vocabulary entries contribute."""
    matches: list[tuple[str, float]]
    """The shared vocabulary entries with their contributions to `lexical_score`, heaviest first."""
    title: str
    """The passage's title; may be empty."""
    text: str
    """The passage's text."""
    metadata: Mapping[str, str]
    """Its metadata fields."""


def wanted_values(values: str | int | float | Sequence[str | int | float]) -> list[str]:
    """The values of one field of a filter as they are stored."""
    several = [values] if isinstance(values, str | int | float) else values
    return [value_text(value) for value in several]
