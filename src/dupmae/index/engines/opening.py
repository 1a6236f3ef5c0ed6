"""Engines by their URLs."""

from __future__ import annotations

from urllib.parse import urlsplit

from dupmae.errors import DupmaeError
from dupmae.index.engines.engine import Engine

NAMES = {"qdrant": ("http", "https"), "pgvector": ("postgresql", "postgres")}
"""Engines and the URLs that name them."""


def open_engine(url: str) -> Engine:
    """Connect to the engine that a URL names.

    Args:
        url: `http(s)://HOST:PORT/COLLECTION` for Qdrant; `postgresql://USER@HOST/DATABASE#TABLE` for PostgreSQL with
            pgvector.

    Raises:
        DupmaeError: Any other URL, or the engine's client is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme in NAMES["qdrant"] and (collection := parts.path.strip("/")):
        from dupmae.index.engines.qdrant import Qdrant

        return Qdrant.connect(f"{parts.scheme}://{parts.netloc}", collection)
    if parts.scheme in NAMES["pgvector"] and parts.fragment:
        from dupmae.index.engines.pgvector import PgVector

        return PgVector.connect(url.removesuffix(f"#{parts.fragment}"), parts.fragment)
    raise DupmaeError(
        f"{url} names no engine: give http://HOST:PORT/COLLECTION for Qdrant or"
        " postgresql://USER@HOST/DATABASE#TABLE for PostgreSQL with pgvector."
    )
