"""Progress bars of what may take longer than two seconds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(
    items: Iterable[Any] | None, what: str, unit: str, total: int | None = None, *, done: int = 0, show: bool = True
) -> tqdm[Any]:
    """Show how far an iteration is, once it has taken two seconds; the bar is gone at its end.

    Args:
        items: What is iterated over; None leaves it to the caller to `update` the bar.
        what: What is done.
        unit: What is counted, in the plural.
        total: How many there are, where `items` do not tell.
        done: How many of them were done before.
        show: Whether there is a bar; false also where one was not asked for, or another process has it.
    """
    # Nothing is said where it is to be seen: tqdm then keeps to its own environment.
    hidden: dict[str, Any] = {} if show and shown() else {"disable": True}
    return tqdm(
        items,
        desc=what,
        unit=f" {unit}",
        total=total,
        initial=done,
        dynamic_ncols=True,
        delay=2,
        leave=False,
        **hidden,
    )


def shown() -> bool:
    """Tell whether progress is to be shown: for bars of other libraries, which pass over what `--quiet` asks for."""
    return os.environ.get("TQDM_DISABLE") != "1"
