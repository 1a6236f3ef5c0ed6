"""Progress of encoding: a step a batch, tokens a second, and as many steps as passages whatever the encoder tells."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dupmae.index.writing.progress import passages_bar, reported
from dupmae.runtime.bars import bars_shown


def encoder(batches: list[tuple[int, int]]) -> Any:
    """One that reports batches of so many texts and tokens when it embeds."""
    made = SimpleNamespace(on_batch=None)

    def embed() -> None:
        report: Callable[[int, int], None] = made.on_batch
        for texts, tokens in batches:
            report(texts, tokens)

    made.embed = embed
    return made


@pytest.mark.parametrize("batches", [[], [(2, 100), (3, 60)], [(2, 100)]])
def test_a_bar_moves_with_the_batches_and_ends_at_all_passages(batches: list[tuple[int, int]]) -> None:
    with bars_shown():
        seen, bar = [], passages_bar(10)
    bar.update(1)
    moved = bar.update
    bar.update = lambda count: (seen.append(count), moved(count))[1]  # type: ignore[method-assign]
    one = encoder(batches)
    with reported(one, bar, 5):
        one.embed()
    assert seen == [*(texts for texts, _ in batches), 5 - sum(texts for texts, _ in batches)]
    assert bar.n == 6
    assert ("tokens/s" in (bar.postfix or "")) == bool(batches)
    assert one.on_batch is None


def test_an_interruption_leaves_no_report_behind() -> None:
    one, bar = encoder([(2, 9), (1, -1)]), passages_bar(None)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    bar.update = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), reported(one, bar, 5):
        one.embed()
    assert one.on_batch is None
