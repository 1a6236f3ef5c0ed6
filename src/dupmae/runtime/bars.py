"""Progress bars of what may take longer than two seconds: the commands show them, Python only when asked to."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from dupmae.runtime.terminal import unguarded

DELAY = 2.0
"""Seconds that something takes before a bar is shown of it."""
_asked = False


def show_bars(shown: bool = True) -> None:
    """Show progress bars of all that takes long from now on, as the commands do, or show none any more.

    Examples:
        >>> from dupmae import show_bars
        >>> show_bars()
    """
    global _asked
    _asked = shown


@contextmanager
def bars_shown() -> Iterator[None]:
    """Show progress bars within the context."""
    before = _asked
    show_bars()
    try:
        yield
    finally:
        show_bars(before)


def bar(
    items: Iterable[Any] | None,
    what: str,
    unit: str,
    total: int | None = None,
    *,
    done: int = 0,
    show: bool | None = None,
    delay: float = DELAY,
) -> tqdm[Any]:
    """Show how far an iteration is; the bar is gone at its end.

    Args:
        items: What is iterated over; None leaves it to the caller to `update` the bar.
        what: What is done.
        unit: What is counted, in the plural.
        total: How many there are, where `items` do not tell.
        done: How many of them were done before.
        show: Whether there is a bar; None: if they were asked for (:func:`show_bars`).
        delay: Seconds before it is shown.
    """
    # Nothing is said where it is to be seen: tqdm then keeps to its own environment.
    visible = shown() if show is None else show and not _hidden()
    hidden: dict[str, Any] = {} if visible else {"disable": True}
    return tqdm(
        items,
        desc=what,
        unit=f" {unit}",
        total=total,
        initial=done,
        dynamic_ncols=True,
        delay=delay,
        leave=False,
        **hidden,
    )


@contextmanager
def heartbeat() -> Iterator[None]:
    """Show on a terminal for how long something goes on within the context, while no bar shows more.

    So loading a model, or any other step whose parts nobody counts, is not silent for longer than two seconds. The time
    stands where the next line will be printed, which is longer.
    """
    if not shown() or not sys.stderr.isatty():
        yield
        return
    over, terminal = threading.Event(), unguarded(sys.stderr)

    def beat() -> None:
        began = seen = time.monotonic()
        while not over.wait(0.5):
            if any(map(_is_visible, list(tqdm._instances))):  # type: ignore[attr-defined]
                seen = time.monotonic()
            elif time.monotonic() - seen > DELAY:
                terminal.write(f"... {tqdm.format_interval(time.monotonic() - began)}\r")
                terminal.flush()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_visible(one: tqdm[Any]) -> bool:
    """Tell whether a bar is shown by now."""
    return not one.disable and (not one.delay or one.last_print_t > one.start_t)


def shown() -> bool:
    """Tell whether progress is to be shown: for bars of other libraries, which do not know what was asked for."""
    return _asked and not _hidden()


def _hidden() -> bool:
    """Tell whether `--quiet`, or tqdm's environment, hides all bars."""
    return os.environ.get("TQDM_DISABLE") == "1"
