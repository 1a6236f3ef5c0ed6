"""A passage, the values of its metadata, and the fingerprint of many passages."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field

from dupmae.files import fingerprint


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a passage stands in the document that it is a part of."""

    document: str
    """Id of the document."""
    headings: tuple[str, ...]
    """The headings that it stands below, the outermost first."""
    start: int
    """Where it begins in the document's text, in characters."""
    end: int
    """Where it ends there."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a document's text."""

    start: int
    """Where its line begins in the text, in characters."""
    level: int
    """1 for the outermost."""
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """One unit of retrieval.

    Examples:
        >>> from dupmae import Passage
        >>> passage = Passage("lens", "Lenses", "Glass bends light.", {"year": 1823})
        >>> passage.full_text, passage.document
        ('Lenses Glass bends light.', 'lens')
    """

    id: str
    """Its name in judgements, runs and results."""
    title: str
    """May be empty."""
    text: str
    """May be empty: some collections hold empty documents."""
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict, hash=False)
    """Further fields that a search can be limited by."""
    chunk: Chunk | None = None
    """Where it stands in its document; None of a passage that is a document by itself."""

    @property
    def document(self) -> str:
        """Id of the document that it is, or is a part of."""
        return self.id if self.chunk is None else self.chunk.document

    @property
    def full_text(self) -> str:
        """Title and text joined by one space, as they are encoded; the text alone without a title."""
        return f"{self.title} {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Document(Passage):
    r"""A text as it was read, whole, before it is cut into chunks.

    Examples:
        >>> from dupmae import Document
        >>> from dupmae.corpus import Heading
        >>> document = Document("a.md", "Lamps", "# Lamps\nThey burn oil.", headings=(Heading(0, 1, "Lamps"),))
        >>> [heading.text for heading in document.headings]
        ['Lamps']
    """

    headings: tuple[Heading, ...] = ()
    """Those in its text, in their order."""


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
    """Fingerprint the id, title and text of every passage, and a chunk's place in its document, in their order."""
    content = hashlib.sha256()
    for passage in passages:
        place = [] if passage.chunk is None else list(astuple(passage.chunk))
        content.update(fingerprint([passage.id, passage.title, passage.text, *place]).encode())
    return content.hexdigest()
