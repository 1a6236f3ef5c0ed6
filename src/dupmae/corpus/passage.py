"""A passage, the values of its metadata, and the fingerprint of many passages."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dupmae.files import fingerprint


@dataclass(frozen=True, slots=True)
class Passage:
    """One unit of retrieval."""

    id: str
    """Its name in judgements, runs and results."""
    title: str
    """May be empty."""
    text: str
    """May be empty: some collections hold empty documents."""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Further fields that a search can be limited by."""

    @property
    def full_text(self) -> str:
        """Title and text joined by one space, as they are encoded; the text alone without a title."""
        return f"{self.title} {self.text}" if self.title else self.text


def value_text(value: str | float | datetime.date | datetime.time) -> str:
    """Write a metadata value as it is stored: true and false as in JSON, a whole number without a fraction, times as in
    ISO 8601.
    """
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def corpus_fingerprint(passages: Iterable[Passage]) -> str:
    """Fingerprint the id, title and text of every passage, in their order."""
    content = hashlib.sha256()
    for passage in passages:
        content.update(fingerprint([passage.id, passage.title, passage.text]).encode())
    return content.hexdigest()
