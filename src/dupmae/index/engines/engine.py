"""The protocol of engines, which hold each duplex vector as ONE sparse vector over V + d' dimensions, and words.

Dimensions 0 .. V-1 are the vocabulary, V .. V+d'-1 the dense half, and those behind them the words of an index that
has some, so the plain inner product an engine computes over all its shards is the score. (Asking for two result lists,
dense and sparse, and fusing them is not: a passage that is missing from one list would count 0 there.) What is pushed
are the numbers the index stores, to the last bit; but a passage's words are pushed times their rarity in the index,
rounded to single precision, since an engine knows none: it is that of the passages pushed, until the next push.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from dupmae.corpus import Passage
from dupmae.corpus.passage import value_text
from dupmae.errors import DupmaeError, without_passwords
from dupmae.index.where import Filter


@dataclass(frozen=True, slots=True)
class SparseVector:
    """A duplex vector over V + d' dimensions, and those of words."""

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

    def search(self, query: SparseVector, k: int, where: Filter | None) -> list[tuple[Document, float]]:
        """Find the k passages with the largest inner product, best first, and their scores."""


@contextmanager
def translated(engine: str, secrets: Collection[str], *errors: type[Exception]) -> Iterator[None]:
    """Turn what an engine's client raises, one of `errors`, into a `DupmaeError` of one sentence.

    Args:
        engine: What is named in the sentence.
        secrets: Passwords and keys, of which clients and servers may quote some; they are left out.
        errors: The client's exceptions. The sentence does not carry them along: a traceback would print them.
    """
    try:
        yield
    except errors as error:
        reason = without_secrets(" ".join(str(error).split()), secrets)
        raise DupmaeError(f"{engine} does not do what was asked: {reason}") from None


def without_secrets(text: str, secrets: Collection[str]) -> str:
    """Put `***` in the place of each secret in a text, as it is and as URLs have it, and of all passwords in URLs."""
    forms = {form for secret in secrets for form in (secret, quote(secret, safe=""), unquote(secret)) if form}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return without_passwords(text)


def refuse_nul(passage: Passage) -> None:
    """Refuse a passage that an engine cannot hold.

    Raises:
        DupmaeError: A NUL character stands in its id, title, text or metadata.
    """
    parts = {"id": passage.id, "title": passage.title, "text": passage.text}
    parts |= {f"metadata field {name!r}": name + value_text(value) for name, value in passage.metadata.items()}
    parts |= (
        {} if passage.chunk is None else {"document or headings": "".join((passage.document, *passage.chunk.headings))}
    )
    for part, text in parts.items():
        if "\0" in text:
            raise DupmaeError(
                f"the passage {passage.id!r} cannot be pushed: its {part} holds a NUL character, which PostgreSQL does "
                "not take; remove it from the corpus and add the passage to the index again"
            )
