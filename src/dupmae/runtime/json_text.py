"""Parse JSON of files that may be damaged: whatever is wrong with it is one kind of error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Parse JSON as Python reads it, NaN and Infinity included, for what was written by this package.

    Raises:
        ValueError: It is no JSON, or lists or objects in it are nested without end.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def parse_strict_json(text: str) -> Any:
    """Parse JSON as its standard has it: no NaN or Infinity, no key twice in one object, not nested without end.

    Raises:
        ValueError: The text is anything else.
    """
    try:
        return _STRICT.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its keys and values, and refuse one that would lose some."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands in one object twice")
    return made


def _refuse_constant(name: str) -> Any:
    """Refuse what Python reads and JSON does not know."""
    raise ValueError(f"{name} is no JSON number")


_STRICT = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)
_TOO_DEEP = "lists or objects are nested too deeply"
