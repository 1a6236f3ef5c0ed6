"""A mark of a whole corpus, to tell whether it is still the one that something was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from dupmae.corpus.readers import Passage
from dupmae.files import fingerprint


def corpus_digest(passages: Iterable[Passage]) -> str:
    """A mark of every passage's id, title and text, and of their order."""
    digest = hashlib.sha256()
    for passage in passages:
        digest.update(fingerprint([passage.id, passage.title, passage.text]).encode())
    return digest.hexdigest()
