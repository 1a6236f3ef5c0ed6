"""Know which arguments of commands are paths, expand them, and check outputs before any work.

Of every option that is text the tables here say what it is, for all commands; a test refuses one that stands in none.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dupmae.corpus.lines import find_file
from dupmae.errors import DupmaeError
from dupmae.files import refuse_unwritable, refuse_unwritable_file
from dupmae.runtime.places import expanded, shipped

Role = Literal["read", "name", "folder", "replaced", "file", "text"]
"""What an argument is: a path that is read; a folder or else a model's or a benchmark's name; a folder that is written
to; a folder that is replaced as a whole; a file that is written; or no path."""
ROLES: dict[str, Role] = {
    **dict.fromkeys(
        ("corpus", "input", "pairs", "lists", "scores", "run", "qrels", "queries", "file", "index"), "read"
    ),
    **dict.fromkeys(("model", "base_model", "anchor_model", "teacher", "teacher_model"), "name"),
    **dict.fromkeys(("reranker", "benchmark", "recipe", "recipes", "data"), "name"),
    "api_key_file": "read",
    **dict.fromkeys(("output", "encodings", "mteb"), "folder"),
    "json": "file",
    "indexes": "read",
    **dict.fromkeys(("host", "origins", "hosts"), "text"),
    **dict.fromkeys(("query", "ids", "where", "metadata", "url", "engine", "name", "table"), "text"),
    **dict.fromkeys(("split", "train_split", "dev_split", "test_split"), "text"),
    **dict.fromkeys(("query_prompt", "document_prompt"), "text"),
    **dict.fromkeys(("id_field", "title_field", "text_field"), "text"),
    **dict.fromkeys(("query_field", "positive_field", "negative_field"), "text"),
}
"""Last part of an option's name -> what it is."""
OTHER_ROLES: dict[tuple[str, str], Role] = {
    ("rerank", "output"): "file",
    ("encode", "output"): "replaced",
    ("pack", "file"): "file",
    ("recipes", "output"): "file",
    ("pack", "model"): "read",
    ("unpack", "folder"): "replaced",
}
"""Commands whose option of that name is something else."""

KINDS = ("dense", "sparse", "hybrid", "hybrid-rrf")
"""What may stand before a model's name, and a colon, to say what is made of it."""


def role_of(command: str, key: str) -> Role:
    """Tell what an option of a command is that takes text."""
    name = key.rpartition(".")[2]
    return OTHER_ROLES.get((command, name)) or ROLES.get(name, "text")


def settled(command: str, key: str, value: Any) -> Any:
    """Expand a path, or several, and decode text that is no path.

    Args:
        command: The command as typed.
        key: The option.
        value: What was given; anything but text is returned as it is.

    Raises:
        DupmaeError: What is wrong, to be read after the option's name.
    """
    if isinstance(value, list):
        return [settled(command, key, one) for one in value]
    if not isinstance(value, str):
        return value
    role = role_of(command, key)
    if role == "text":
        return _decoded(value)
    kind, colon, name = value.partition(":")
    if role == "name" and colon and kind in KINDS:
        return f"{kind}:{expanded(name)}"
    if not value:
        raise DupmaeError("is empty: give a path" + (" or a name" if role == "name" else ""))
    place = expanded(value)
    if role in ("read", "name") and not os.path.lexists(place):  # the package's own is found from any folder
        named = f"recipes/{place}.yaml" if key == "recipe" else place
        return str(shipped(named) or place)
    return place


def settled_fields(command: str, settings: Any, given: Any, prefix: str = "") -> Any:
    """Do the same for the text among a settings dataclass's fields that differ from their defaults.

    Args:
        command: The command as typed.
        settings: The dataclass.
        given: Called with the dotted name of a field and what is wrong with it; returns what is raised.
        prefix: Of the names.
    """
    changed: dict[str, Any] = {}
    for field in fields(settings):
        value, key = getattr(settings, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            changed[field.name] = settled_fields(command, value, given, f"{key}.")
        elif isinstance(value, str) and value:
            try:
                changed[field.name] = settled(command, key, value)
            except DupmaeError as error:
                raise given(key, str(error)) from None
    return replace(settings, **changed) if changed else settings


def refuse_outputs(command: str, values: Mapping[str, Any]) -> None:
    """Refuse outputs that could not be written, or that would be read as input, before a command does anything.

    Of inputs it refuses devices alone; whether they are what they should be is found out where they are read.

    Args:
        command: The command as typed.
        values: Its arguments by name.

    Raises:
        DupmaeError: There is one, and why.
    """
    places = [(key, role, Path(value)) for key, role, value in _places(command, values)]
    for key, role, place in places:
        if role == "file":
            refuse_unwritable_file(place)
        elif role in ("folder", "replaced"):
            refuse_unwritable(place)
        else:
            _refuse_endless(key, place)
            continue
        for other, read, source in places:
            if read in ("read", "name") and source.exists():
                _refuse_overlap((key, role, place.resolve()), (other, read, source.resolve()))


def _refuse_endless(key: str, place: Path) -> None:
    """Refuse to read a device: it may have no end. Pipes have one, and are what `<(...)` of a shell gives."""
    with contextlib.suppress(OSError):
        mode = place.stat().st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
            raise DupmaeError(f"{key} {place} is a device, and a file or a folder is to be read: name one.")


@contextmanager
def tidied(command: str, values: Mapping[str, Any]) -> Iterator[None]:
    """Delete, if a command is refused or fails, the empty folders that it has made on the way to its outputs."""
    made = [
        place
        for _, role, value in _places(command, values)
        if role in ("folder", "replaced", "file")
        for place in (Path(value), *Path(value).parents)
        if not os.path.lexists(place)
    ]
    try:
        yield
    except Exception:
        for place in sorted(set(made), key=lambda place: -len(place.parts)):
            with contextlib.suppress(OSError):
                place.rmdir()  # if it is empty
        raise


def _refuse_overlap(output: tuple[str, Role, Path], source: tuple[str, Role, Path]) -> None:
    """Refuse an output that is an input, or one within it that would be read as a part of it the next time."""
    (key, role, place), (other, read, origin) = output, source
    if place == origin and role != "folder":
        raise DupmaeError(f"{place} is both {key} and {other}, and would be overwritten: name another output.")
    if role == "replaced" and origin.is_relative_to(place):
        raise DupmaeError(f"{other} {origin} lies in the output {place}, which is replaced: name another output.")
    if read == "read" and origin.is_dir() and place.is_relative_to(origin):
        hidden = any(part.startswith(".") for part in place.relative_to(origin).parts)
        if hidden or find_file(origin, "corpus.jsonl") is not None:
            return  # passed over, as all is in a benchmark's folder but its own files
        raise DupmaeError(f"the output {place} lies in {other} {origin}, which is read: name a place outside of it.")


def _places(command: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Role, str]]:
    """Yield the paths among a command's arguments, those in settings included, with their names and roles."""
    for key, value in values.items():
        if is_dataclass(value):
            yield from _places(command, {field.name: getattr(value, field.name) for field in fields(value)})
        role = role_of(command, key)
        if role != "text":
            yield from ((key, role, one) for one in (value if isinstance(value, list) else [value]) if _is_path(one))


def _is_path(value: Any) -> bool:
    """Tell whether something was given, and as text: several commands have a flag --json."""
    return isinstance(value, str) and bool(value)


def _decoded(text: str) -> str:
    """Decode an argument that the locale's encoding could not, such as UTF-8 where the locale is that of C.

    Raises:
        DupmaeError: It is not UTF-8.
    """
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        raise DupmaeError(f"is not UTF-8 ({ascii(text)[:80]}): give it in UTF-8") from None
