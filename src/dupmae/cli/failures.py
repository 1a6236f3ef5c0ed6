"""Turn exceptions that are not defects of ours into one sentence and an exit status each."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from dupmae.errors import DupmaeError, one_sentence

BAD_INPUT, FULL_DISK, OUT_OF_MEMORY, INTERRUPTED, BROKEN_PIPE = 2, 1, 1, 130, 141

FULL = ("No space left on device", "inline_container.cc", "iostream error")
"""How libraries say that a disk is full; the last two are PyTorch's words for a file that could not be written."""

MODELS = {
    "model": "model",
    "base_model": "model",
    "teacher": "teacher",
    "teacher_model": "teacher",
    "reranker": "reranker",
}
"""Arguments that name a model -> what it is called in a sentence about it."""
_HUB = ("huggingface.co", "Repo id must")
"""What transformers says when it cannot find a model, or what it is given is no name of one."""


def explain(error: BaseException, arguments: Mapping[str, Any], *, resumable: bool) -> tuple[str, int] | None:
    """Find the sentence and the exit status for an exception that a command raised.

    Args:
        error: The exception.
        arguments: The command's arguments by name; what they name is the user's, anything else is ours.
        resumable: Whether the same command goes on where it stopped.

    Returns:
        None for a defect of ours, which deserves its traceback.
    """
    if isinstance(error, DupmaeError):
        return str(error), BAD_INPUT
    if isinstance(error, KeyboardInterrupt):
        rest = "the same command goes on where it stopped" if resumable else "nothing half-written remains"
        return f"interrupted; {rest}", INTERRUPTED
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            "not enough memory: take smaller batches (in training with gradient_accumulation_steps, mini_batch_size or "
            f"gradient_checkpointing) or shorter texts ({text[:200]})",
            OUT_OF_MEMORY,
        )
    # Libraries written in Rust or C++ report a full disk in words of their own exceptions.
    named = dict(_named(arguments))
    if getattr(error, "errno", None) == errno.ENOSPC or any(words in text for words in FULL):
        place = getattr(error, "filename", None) or named.get("output") or named.get("json") or Path.cwd()
        return f"no space left on the disk of {place}; nothing half-written remains", FULL_DISK
    if not isinstance(error, OSError):
        return None
    names = {value for _, value in _named(arguments)}
    if error.strerror and any(isinstance(path, str | os.PathLike) for path in (error.filename, error.filename2)):
        place = _place(error, sorted(names))
        return None if place is None else (f"{place}: {error.strerror.lower()}", BAD_INPUT)
    # transformers says so, without a number, when it cannot find a model or cannot reach the hub.
    models = [(key, value) for key, value in _named(arguments) if key in MODELS]
    at_fault = [(key, value) for key, value in models if value in text] or models
    if (
        at_fault
        and error.errno is None
        and (any(words in text for words in _HUB) or any(name in text for name in names))
    ):
        key, value = at_fault[0]
        return f"the {MODELS[key]} {value} cannot be loaded: {text}", BAD_INPUT
    return None


def fail(sentence: str, status: int) -> int:
    """Print the sentence where errors go and hand the status on."""
    print(f"dupmae: error: {one_sentence(sentence)}", file=sys.stderr)
    return status


def on_broken_pipe() -> int:
    """Point standard output nowhere, since its reader (a pager, `head`) has gone, and return the status of that."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return BROKEN_PIPE


def _place(error: OSError, names: Sequence[str]) -> str | None:
    """Find where a file's error happened, if that is at, within or on the way to a path that the arguments name.

    An output is written as `.NAME.PROCESS.tmp` beside its place, which such an error stands for, too.
    """
    for touched in (error.filename2, error.filename):
        if not isinstance(touched, str | os.PathLike):
            continue
        path = Path(touched)
        for name in map(Path, names):
            if path.is_relative_to(name):
                return str(path)
            if path.parent == name.parent and path.name.startswith(f".{name.name}."):
                return str(name)
            if name.is_relative_to(path):
                return f"{path} (on the way to {name})"
    return None


def _named(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every text among the arguments, those inside settings and lists included, with its name."""
    for key, value in arguments.items():
        if is_dataclass(value) and not isinstance(value, type):
            yield from _named(asdict(value))
        elif isinstance(value, dict):
            yield from _named(value)
        elif isinstance(value, list):
            yield from ((key, text) for text in value if text)
        elif isinstance(value, str) and value:
            yield key, value
