"""Turn the text of a value into what an option's type asks for, and say in plain words what that is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

NOTHING = "null"
"""How nothing at all is written, for options that may be that."""


class WrongValueError(ValueError):
    """A text is no value of a type; the sentence goes on from the option's name."""


def read_value(text: str | Sequence[str], hint: Any) -> Any:
    """Read a value: text, numbers, `true` and `false`, one of several words, or a list of such.

    Args:
        text: As it was typed or stands in a file; several for a list, which may also be written `[a, b]`.
        hint: `str`, `int`, `float`, `bool`, `Literal`, `list` of one of these, or one of all that or None.

    Raises:
        WrongValueError: It is none.
    """
    kinds = _kinds(hint)
    texts = [text] if isinstance(text, str) else list(text)
    if NoneType in kinds and texts == [NOTHING]:
        return None
    for kind in kinds:
        if get_origin(kind) is list:
            (inner,) = get_args(kind)
            if len(texts) == 1 and (listed := re.fullmatch(r"\s*\[([^\[\]{}]*)\]\s*", texts[0], re.DOTALL)):
                texts = [part.strip().strip("'\"") for part in listed[1].split(",") if part.strip()]
            return [read_value(one, inner) for one in texts]
    if len(texts) == 1:
        for kind in kinds:
            found = _read(texts[0], kind)
            if found is not None:
                return found
    shown = repr(text if isinstance(text, str) else texts)
    raise WrongValueError(f"takes {in_words(hint)}, not {shown if len(shown) < 200 else f'{shown[:200]}...'}")


def in_words(hint: Any) -> str:
    """Say what a type is, such as `a whole number or null`."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
    several = {int: "whole numbers", float: "numbers", str: "texts"}
    parts = []
    for kind in _kinds(hint):
        if get_origin(kind) is Literal:
            parts.append("one of " + ", ".join(map(str, get_args(kind))))
        elif get_origin(kind) is list:
            (inner,) = get_args(kind)
            listed = in_words(inner).removeprefix("one of ")
            parts.append(several.get(inner, f"some of {listed}"))
        else:
            parts.append(names[kind])
    return " or ".join(parts)


def choices_of(hint: Any) -> list[str] | None:
    """List the words that a type allows, if they are few."""
    found = [one for kind in _kinds(hint) for one in (kind, *get_args(kind)) if get_origin(one) is Literal]
    return [str(value) for value in get_args(found[0])] if found else None


def _kinds(hint: Any) -> tuple[Any, ...]:
    """Part a type into those that it may be, None last."""
    if get_origin(hint) in (list, Literal) or not get_args(hint):
        return (hint,)
    return tuple(sorted(get_args(hint), key=lambda kind: kind is NoneType))


def _read(text: str, kind: Any) -> Any:
    """Read a value of one type; None if it is none."""
    if kind is str:
        return text
    text = text.strip()
    if get_origin(kind) is Literal:
        return next((value for value in get_args(kind) if str(value) == text), None)
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    if kind is int:
        return int(text) if re.fullmatch(r"[-+]?[0-9]{1,400}", text) else None
    if kind is float and re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", text[:400]):
        return float(text)
    if kind is float and re.fullmatch(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", text):  # as YAML writes them
        return float(text.replace(".", ""))
    return None
