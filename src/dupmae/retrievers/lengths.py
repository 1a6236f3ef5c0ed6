"""The lengths that a benchmark's rules have texts read to; importable without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens that a benchmark's rules have texts read to; None leaves it to the model."""

    query: int | None = None
    """A query is read at least so far, as far as the model's positions reach."""
    document: int | None = None
    """A passage is read so far at most."""


UNCHANGED = Lengths()
"""Each model's own lengths."""
