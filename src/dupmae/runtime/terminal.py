r"""Keep what texts, names and messages hold from acting on a terminal: all that is printed goes through here.

A title may hold an escape sequence that renames the window, hides what follows or writes over what stood there. Such
characters are printed as JSON would write them, `\u001b`, so that they are seen and a document that is printed stays
one. Passwords in URLs are left out of messages.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

from dupmae.errors import without_passwords

_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tabs and line feeds, DEL, C1
    "\u2028\u2029\u202a-\u202e\u2066-\u2069"  # other ends of a line; what turns the direction of writing
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"  # annotations, halves of pairs, invisible tags
)
_BAR = re.compile(r"(\x1b\[A)+|\r?")
"""What tqdm begins a bar with, or moves to another one with."""


def printable(text: str) -> str:
    """Write the characters of a text that a terminal would act on, but for tabs and line feeds, as JSON escapes."""
    return _ACTING.sub(lambda match: json.dumps(match[0])[1:-1], text)


class Guarded:
    """A stream that prints nothing but text.

    Args:
        stream: Where to.
        messages: Whether it is for messages: without passwords, and with progress bars.
    """

    def __init__(self, stream: TextIO, *, messages: bool) -> None:
        self.stream, self._messages = stream, messages

    def write(self, text: str) -> int:
        """Write text, its acting characters as escapes."""
        bar = ""
        if self._messages:
            match = _BAR.match(text)
            bar = match[0] if match else ""
            text = without_passwords(text)
        self.stream.write(bar + printable(text[len(bar) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Let everything that is printed within the context, and the traceback of what ends it, go through the guard."""
    before = sys.stdout, sys.stderr
    sys.excepthook = _show_defect
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Guarded):
            setattr(sys, name, Guarded(stream, messages=name == "stderr"))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unguarded(stream: TextIO) -> TextIO:
    """Return what stands behind the guard of a stream, for what guards its own text, such as :mod:`rich`."""
    return stream.stream if isinstance(stream, Guarded) else stream


def _show_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback, which quotes messages and arguments."""
    with guarded_streams():
        traceback.print_exception(kind, error, trace)
