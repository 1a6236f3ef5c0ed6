"""Bring an index in step with a corpus: what is new, what changed, what is gone, found by comparing the texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from dupmae.corpus import Passage
from dupmae.corpus.chunks import headings_above
from dupmae.corpus.passage import value_text
from dupmae.errors import DupmaeError
from dupmae.index.scoring.snapshot import Snapshot
from dupmae.runtime.bars import bar

TOGETHER = 256
"""Documents that are looked up at a time."""


@dataclass(kw_only=True)
class Difference:
    """How a corpus differs from what an index holds, in ids of documents."""

    new: list[str] = field(default_factory=list)
    """In the corpus alone."""
    changed: list[str] = field(default_factory=list)
    """In both, with another title, text, heading or metadata."""
    gone: list[str] = field(default_factory=list)
    """In the index alone."""
    same: int = 0
    """How many are in both, as they are."""

    def __str__(self) -> str:
        """Count each kind."""
        counts = f"{len(self.new):,} new, {len(self.changed):,} changed, {len(self.gone):,} gone"
        return f"{counts}, {self.same:,} as they are"


@dataclass(frozen=True)
class Synced:
    """What was done to bring an index in step."""

    difference: Difference
    """How the corpus differed."""
    encoded: int
    """Passages that had to be encoded for it; of the others the vectors were there."""


def compare(snapshot: Snapshot, documents: Iterable[Passage], kept: Callable[[Passage], bool]) -> Difference:
    """Compare a corpus with an index, text by text.

    Args:
        snapshot: The index.
        documents: The corpus, whole; a stream.
        kept: Tells of a passage of a document that the corpus lacks whether to leave it alone all the same.

    Raises:
        DupmaeError: The corpus has none of the index's documents: it is another one.
    """
    found, seen, stream = Difference(), set[str](), iter(bar(documents, "Compare", "documents"))
    while block := list(islice(stream, TOGETHER)):
        places = snapshot.find_documents([document.id for document in block])
        for document in block:
            seen.add(document.id)
            stored = [snapshot.segments[number].passages.passage(row) for number, row in places.get(document.id, ())]
            if not stored:
                found.new.append(document.id)
            elif is_as_stored(document, stored):
                found.same += 1
            else:
                found.changed.append(document.id)
    for number, segment in enumerate(snapshot.segments):
        for row, document_id in enumerate(segment.passages.documents.to_pylist()):
            is_lost = snapshot.alive[number][row] and document_id not in seen
            if is_lost and not kept(segment.passages.passage(row)):
                seen.add(document_id)
                found.gone.append(document_id)
    if found.gone and not found.same and not found.changed:
        raise DupmaeError(
            f"None of the {len(found.gone):,} documents of the index is in the corpus: that is another one, or its ids"
            " are others. Give the folder that the index was built of, or build an index of this one."
        )
    return found


def is_as_stored(document: Passage, stored: Sequence[Passage]) -> bool:
    """Tell whether an index holds a document as it is now.

    Args:
        document: Whole.
        stored: Its passages in the index, in their order.
    """
    if any(_texts_of(one) != _texts_of(document) for one in stored):
        return False
    if not all(document.title.startswith(one.title) for one in stored):  # a long one is cut before chunks
        return False
    chunks = [one.chunk for one in stored if one.chunk is not None]
    if not chunks:
        return (document.title, document.text) == (stored[0].title, stored[0].text)
    covered = 0
    for one, chunk in zip(stored, chunks, strict=True):
        if document.text[chunk.start : chunk.end] != one.text or document.text[covered : chunk.start].strip():
            return False
        covered = max(covered, chunk.end)
    above = headings_above(document, [chunk.start for chunk in chunks])
    return not document.text[covered:].strip() and above == [chunk.headings for chunk in chunks]


def _texts_of(passage: Passage) -> dict[str, str]:
    """Write metadata as texts: a column may hold a number of another kind than was given."""
    return {name: value_text(value) for name, value in passage.metadata.items()}
