"""Make the standard streams fit for any text, and open: terminals know few characters, and callers close streams."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import sys
from typing import Any

OUTPUT = "the standard output"
"""What errors call it, in the place of a file's name."""
_ESCAPED = "dupmae.escaped"


def settle_streams() -> None:
    """Open streams that are closed on nothing, and let the others write what they cannot encode as JSON does.

    A file opened later would otherwise get the number of a closed stream, and what is printed would end up in it. A
    document that is printed stays one with JSON's escapes. Errors of the standard output name it; messages that cannot
    be written are lost, and are no reason to end hours of work.
    """
    codecs.register_error(_ESCAPED, _escape)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = _settled(sys.stdout, sys.__stdout__, _Output, 1)
    sys.stderr = _settled(sys.stderr, sys.__stderr__, _Messages, 2)


def give_up_output() -> None:
    """Point the standard output nowhere: its reader has gone or its disk is full, and Python flushes it once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):  # it has no descriptor
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class _Output(io.FileIO):
    """The standard output as a file that is named in errors."""

    def write(self, content: Any) -> int:
        """Write bytes."""
        try:
            return super().write(content)
        except OSError as error:
            error.filename = OUTPUT
            raise


class _Messages(io.FileIO):
    """The standard error as a file that errors of its own do not end."""

    def write(self, content: Any) -> int:
        """Write bytes, or lose them."""
        with contextlib.suppress(OSError):
            return super().write(content)
        return memoryview(content).nbytes


def _settled(stream: Any, genuine: Any, kind: type[io.FileIO], number: int) -> Any:
    """Put a settled stream in the place of the process's genuine one; let any other one take all characters."""
    if stream is None or (stream is genuine and isinstance(stream, io.TextIOWrapper)):
        if stream is not None:
            stream.flush()
        encoding = "utf-8" if stream is None else stream.encoding
        terminal = number == 2 or (stream is not None and stream.isatty())
        file = io.BufferedWriter(kind(number, "w", closefd=False))
        return io.TextIOWrapper(file, encoding, _ESCAPED, line_buffering=terminal)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=_ESCAPED)
    return stream


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write characters that an encoding lacks as JSON would."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
