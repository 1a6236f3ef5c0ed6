"""Turn exceptions that are not defects of ours into one sentence and an exit status each."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from dupmae.errors import DupmaeError, is_unicode, missing_package, one_sentence
from dupmae.files import is_full_disk
from dupmae.runtime.places import VARIABLE
from dupmae.runtime.streams import OUTPUT, give_up_output

BAD_INPUT, FULL_DISK, OUT_OF_MEMORY, INTERRUPTED, BROKEN_PIPE = 2, 1, 1, 130, 141

_OUT_OF_MEMORY = (
    *("std::bad_alloc", "can't allocate memory", "annot allocate memory", "not enough memory", "nable to allocate"),
    "failed to map segment from shared object",
    *("CUDA error: out of memory", "can't start new thread"),
)
"""How libraries say that there is no memory left: C++'s, PyTorch's and the system's words."""

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
    if (missing := missing_package(error)) is not None:
        return missing, BAD_INPUT
    rest = "the same command goes on where it stopped" if resumable else "nothing half-written remains"
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted; {rest}", INTERRUPTED
    text = " ".join(str(error).split())
    code = getattr(error, "errno", None)
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if out_of_memory or code == errno.ENOMEM or any(words in text for words in _OUT_OF_MEMORY):
        return (
            "not enough memory: take smaller batches (in training with gradient_accumulation_steps, mini_batch_size or "
            f"gradient_checkpointing) or shorter texts ({text[:200]})",
            OUT_OF_MEMORY,
        )
    if code in (errno.EMFILE, errno.ENFILE) or "oo many open files" in text:
        return f"too many open files: allow more with `ulimit -n`, and give the command again ({text[:200]})", BAD_INPUT
    if "cannot cache function" in text:
        return f"no folder can be written to in which to keep compiled code: let {VARIABLE} name one", BAD_INPUT
    if isinstance(error, OSError) and error.filename == OUTPUT:
        give_up_output()
        return f"{OUTPUT} cannot be written to: {(error.strerror or str(error)).lower()}", FULL_DISK
    # What is written through dupmae.files has its place; libraries that write by themselves do not say which.
    named = dict(_named(arguments))
    if is_full_disk(error):
        place = getattr(error, "filename", None) or named.get("output") or named.get("json") or Path.cwd()
        return f"no space left on the disk of {place}; {rest}", FULL_DISK
    if isinstance(error, RuntimeError) and text.startswith("Symlink loop from "):  # Path.resolve's words
        return f"{text.removeprefix('Symlink loop from ')} is a link that leads back to itself: delete it", BAD_INPUT
    odd = [(key, value) for key, value in named.items() if not is_unicode(str(value))]
    if isinstance(error, UnicodeError) and odd:
        key, value = odd[0]
        return (
            f"{key} is {value}, whose name is not UTF-8, and libraries open no such files: rename it, or, if it is "
            "UTF-8 and this locale is not, set PYTHONUTF8=1",
            BAD_INPUT,
        )
    if not isinstance(error, OSError):
        return None
    if "No usable temporary directory" in text:
        return "no folder for temporary files can be written to: let TMPDIR name one", BAD_INPUT
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        _, target, reason = error.args[0][0]
        return f"{target} cannot be written: {str(reason)[:200]}", BAD_INPUT
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
    from tqdm import tqdm

    for bar in list(tqdm._instances):  # type: ignore[attr-defined]
        bar.close()  # which would be drawn once more behind the sentence
    with contextlib.suppress(OSError):  # nothing can be said where that cannot be written to
        print(f"dupmae: error: {one_sentence(sentence)}", file=sys.stderr)
    return status


def on_broken_pipe() -> int:
    """Point standard output nowhere, since its reader (a pager, `head`) has gone, and return the status of that."""
    give_up_output()
    return BROKEN_PIPE


def _place(error: OSError, names: Sequence[str]) -> str | None:
    """Find where a file's error happened, if that is at, within or on the way to a path that the arguments name.

    Paths are compared with their links followed, as they may be relative in one place and not in the other. Locks stand
    beside what they are of, as `.NAME.lock`, and earlier versions wrote outputs as `.NAME.PROCESS.tmp`.
    """
    for touched in (error.filename2, error.filename):
        if not isinstance(touched, str | os.PathLike):
            continue
        path = Path(os.path.realpath(touched))
        for given in names:
            name = Path(os.path.realpath(given))
            if path.is_relative_to(name):
                return str(Path(given) / path.relative_to(name))
            if path.parent == name.parent and path.name.startswith(f".{name.name}."):
                return given
            if name.is_relative_to(path):
                return f"{path} (on the way to {given})"
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
