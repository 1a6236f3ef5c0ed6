"""Duplex vectors as frameworks pass them on: dimensions that are not 0 and what stands there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dupmae.duplex import DuplexEncoder
from dupmae.index import Hit


def sparse_vectors(
    encoder: DuplexEncoder, texts: Sequence[str], task: Literal["query", "document"]
) -> list[tuple[list[int], list[float]]]:
    """Encode texts to whole duplex vectors, whose inner products are the score: terms, dense half and words in one.

    The words of queries have the rarity that the model knows; an index of `dupmae` knows that of its own passages.
    """
    encode = encoder.encode_query if task == "query" else encoder.encode_document
    rows = encode(list(texts), convert_to_tensor=True).coalesce() if texts else None
    found: list[tuple[list[int], list[float]]] = [([], []) for _ in texts]
    if rows is not None:
        for row, dimension, value in zip(*rows.indices().tolist(), rows.values().tolist(), strict=True):
            found[row][0].append(dimension)
            found[row][1].append(value)
    return found


def metadata_of(hit: Hit) -> dict[str, str | int | float | bool]:
    """Say of a hit what frameworks keep beside its text: its own metadata, title, document, place and score."""
    found: dict[str, str | int | float | bool] = dict(hit.metadata)
    found |= {"document": hit.document, "title": hit.title, "headings": " > ".join(hit.headings)}
    return found | {"start": hit.start, "end": hit.end, "score": hit.score}
