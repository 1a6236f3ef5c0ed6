"""What a request may ask for, and what it gets otherwise: a status and one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server takes at most.

    Examples:
        >>> from dupmae.serving.limits import Limits
        >>> Limits(k=50).body_bytes
        2000000
    """

    body_bytes: int = 2_000_000
    """Bytes of a request's body; 413 beyond."""
    queries: int = 32
    """Queries in a request; 422 beyond."""
    texts: int = 128
    """Texts in a request that are to be embedded or reranked; 422 beyond."""
    characters: int = 10_000
    """Characters of a query; 422 beyond."""
    k: int = 1000
    """Hits of a query, and passages of a document; 422 beyond."""
    hits: int = 1000
    """Hits of all queries of a request together: to show one takes a millisecond, in which nobody else is answered."""
    explained: int = 50
    """Hits of a request that are explained, which takes longer; 422 beyond."""
    requests: int = 256
    """Requests that are worked on or wait, of a worker; 429 beyond."""
    incoming_bytes: int = 128_000_000
    """Bytes of all bodies that are being sent, of a worker; 503 beyond."""
    seconds: float = 30.0
    """Time for an answer, 504 after it; a request whose body has not come by then gets 408."""


def refuse_more(name: str, count: int, most: int) -> None:
    """Refuse more of something than the server takes.

    Raises:
        HTTPException: 422.
    """
    if count > most:
        raise HTTPException(422, f"{name}: {count:,} are more than the {most:,} that this server takes at once.")


def refuse_long(name: str, texts: list[str], most: int) -> None:
    """Refuse empty texts, those that are longer than the server takes, and what is no Unicode.

    Raises:
        HTTPException: 422.
    """
    for text in texts:
        if not text.strip():
            raise HTTPException(422, f"{name}: one of them is empty.")
        if len(text) > most:
            raise HTTPException(422, f"{name}: one has {len(text):,} characters, and this server takes {most:,}.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise HTTPException(422, f"{name}: one holds half of a surrogate pair, which is no Unicode.") from None
