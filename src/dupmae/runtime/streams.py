"""Make the standard streams fit for any text, and open: terminals know few characters, and callers close streams."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import sys

_ESCAPED = "dupmae.escaped"


def settle_streams() -> None:
    """Open streams that are closed on nothing, and let the others write what they cannot encode as JSON does.

    A file opened later would otherwise get the number of a closed stream, and what is printed would end up in it. The
    escapes are JSON's, so that a document that is printed stays one.
    """
    codecs.register_error(_ESCAPED, _escape)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - for as long as the process lives
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPED)


def output_error() -> OSError | None:
    """Find out what keeps the standard output from being written, if anything does."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def give_up_output() -> None:
    """Point the standard output nowhere: its reader has gone or its disk is full, and Python flushes it once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):  # it has no descriptor
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write characters that an encoding lacks as JSON would."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
