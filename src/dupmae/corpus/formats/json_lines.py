"""Read passages from JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dupmae.corpus.formats.records import Fields, Placed, from_records
from dupmae.corpus.lines import json_objects


def read(path: Path, fields: Fields, prefix: str) -> Iterator[Placed]:
    """Read one passage per line; blank lines are passed over."""
    return from_records(str(path), "line", json_objects(path), fields, prefix)
