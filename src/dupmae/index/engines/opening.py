"""Engines by their URLs, and the keys that they are opened with."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from dupmae.errors import DupmaeError, without_passwords
from dupmae.index.engines.engine import Engine

NAMES = {"qdrant": ("http", "https"), "pgvector": ("postgresql", "postgres")}
"""Engines and the URLs that name them."""
KEY_VARIABLES = ("DUPMAE_API_KEY", "QDRANT_API_KEY")
"""Environment variables that may hold Qdrant's API key; the first that is set counts."""
LONGEST_KEY = 8192


def open_engine(url: str, api_key: str | None = None) -> Engine:
    """Connect to the engine that a URL names.

    A user's name and password in the URL are sent as they are meant: to Qdrant (that is, to the proxy before it) as
    basic authorisation, to PostgreSQL as its own. No error holds them or the key.

    Args:
        url: `http(s)://HOST:PORT/COLLECTION` for Qdrant; `postgresql://USER@HOST/DATABASE#TABLE` for PostgreSQL with
            pgvector. What is no letter, digit or `-._~` in a name or password is written as `%40` for `@`.
        api_key: Qdrant's key, as :func:`read_api_key` finds it.

    Raises:
        DupmaeError: Any other URL, the engine's client is not installed, or it cannot be connected to.
    """
    parts, shown = _split(url), without_passwords(url)
    if parts.scheme in NAMES["qdrant"] and parts.hostname and (collection := parts.path.strip("/")):
        from dupmae.index.engines.qdrant import Qdrant

        if parts.query or parts.fragment:
            raise DupmaeError(f"{shown}: nothing follows the collection in a URL of Qdrant, neither ? nor #.")
        return Qdrant.connect(parts, collection, api_key)
    if parts.scheme in NAMES["pgvector"] and parts.fragment:
        from dupmae.index.engines.pgvector import PgVector

        return PgVector.connect(url.removesuffix(f"#{parts.fragment}"), parts.fragment)
    raise DupmaeError(
        f"{shown} names no engine: give http://HOST:PORT/COLLECTION for Qdrant or"
        " postgresql://USER@HOST/DATABASE#TABLE for PostgreSQL with pgvector."
    )


def _split(url: str) -> SplitResult:
    """Take a URL apart; what Python says of a bad one may quote a password."""
    shown = without_passwords(url)
    if not url.isprintable() or " " in url:
        raise DupmaeError(f"{shown} is no URL: it holds white space or control characters.")
    try:
        parts = urlsplit(url)
        _ = parts.port
        if parts.netloc.count("@") > 1:
            raise ValueError
    except ValueError:
        raise DupmaeError(
            f"{shown} is no URL: its host or port (a number up to 65535) cannot be read; in a password write / ? # @ : "
            "as %2F %3F %23 %40 %3A."
        ) from None
    return parts


def read_api_key(file: Path | None) -> str | None:
    """Find the API key: in a file of one line, else in the environment (:data:`KEY_VARIABLES`); None if there is none.

    Raises:
        DupmaeError: The file cannot be read, or what is found is no key. The sentence quotes neither the key nor the
            file's name, which may be the key, given in the wrong place.
    """
    if file is not None:
        try:
            if not file.is_file() and file.exists():
                raise ValueError
            with file.open("rb") as opened:
                key = opened.read(LONGEST_KEY + 2).decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
        except (OSError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or "it is no file").lower()
            raise DupmaeError(f"the file that --api_key_file names cannot be read: {reason}") from None
        source = "the file that --api_key_file names"
    else:
        source = next((name for name in KEY_VARIABLES if os.environ.get(name)), "")
        if not source:
            return None
        key, source = os.environ[source], f"the environment variable {source}"
    if not key or len(key) > LONGEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise DupmaeError(f"{source} holds no API key: one line of letters, digits and signs, without spaces")
    return key
