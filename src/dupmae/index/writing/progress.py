"""Progress of encoding: passages and tokens a second, and the time left where it is known how many there are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from dupmae.runtime.bars import bar


def count_passages(passages: Iterable[Any]) -> int:
    """Count passages by reading them, to tell the time left; shows a bar if that takes longer than two seconds."""
    return sum(1 for _ in bar(passages, "Read and cut", "passages"))


def passages_bar(total: int | None) -> tqdm[Any]:
    """Open a progress bar over passages, `total` of them if that is known."""
    return bar(None, "Index", "passages", total, delay=0)


@contextmanager
def reported(encoder: Any, bar: tqdm[Any], passages: int) -> Iterator[None]:
    """Move a bar on after each batch that an encoder embeds within the context, and by `passages` at its end.

    Args:
        encoder: Calls its `on_batch` with the texts and tokens of each batch, if it is such a one.
        bar: The bar.
        passages: How many are embedded.
    """
    began, tokens, end = time.perf_counter(), 0, bar.n + passages

    def on_batch(texts: int, read: int) -> None:
        nonlocal tokens
        tokens += read
        bar.set_postfix_str(f"{tokens / max(time.perf_counter() - began, 1e-9):,.0f} tokens/s", refresh=False)
        bar.update(texts)

    encoder.on_batch = on_batch
    try:
        yield
        bar.update(end - bar.n)
    finally:
        encoder.on_batch = None
