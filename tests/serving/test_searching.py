from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dupmae import DuplexIndex
from dupmae.errors import DupmaeError
from dupmae.serving.searching import BATCH, Options, Searcher, ServedIndex


def found_by(served: dict[str, ServedIndex], asked: list[tuple[list[str], Options]], sizes: list[int]) -> list[Any]:
    """Answer requests that all wait while the thread is busy, so that it sees them together."""
    free = threading.Event()

    async def ask() -> list[Any]:
        searcher = Searcher(served, lambda index, queries: sizes.append(queries))
        busy = asyncio.create_task(searcher.run("small", lambda index: free.wait(10)))
        await asyncio.sleep(0.01)
        tasks = [asyncio.create_task(searcher.search("small", queries, options)) for queries, options in asked]
        await asyncio.sleep(0.01)
        free.set()
        try:
            await busy
            return await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await asyncio.to_thread(searcher.close)

    return asyncio.run(ask())


def test_requests_that_wait_share_batches_and_get_their_own_answers(built: Path, texts: list[str]) -> None:
    served = {"small": ServedIndex("small", partial(DuplexIndex.open, built))}
    options = [Options(3), Options(5, group="none")]
    asked = [([texts[number % 10], texts[(3 * number) % 10]], options[number % 2]) for number in range(80)]
    sizes: list[int] = []
    answers, index = found_by(served, asked, sizes), DuplexIndex.open(built)
    assert sizes == [64, 64, 16, 16]
    assert BATCH == 64
    for (queries, option), answer in zip(asked, answers, strict=True):
        alone = index.search(queries, option.k, group=option.group)  # type: ignore[arg-type]
        assert [[hit for hit, _ in hits] for hits in answer] == alone


def test_a_fault_meets_those_of_its_batch_alone(built: Path, texts: list[str]) -> None:
    served = {"small": ServedIndex("small", partial(DuplexIndex.open, built))}
    bad, sizes = Options(0), list[int]()
    answers = found_by(served, [([texts[0]], Options(2)), ([texts[0]], bad), ([texts[1]], Options(2))], sizes)
    assert [isinstance(answer, DupmaeError) for answer in answers] == [False, True, False]
    assert sizes == [2]


def test_nobody_searches_for_who_has_gone(built: Path, texts: list[str]) -> None:
    served, sizes = {"small": ServedIndex("small", partial(DuplexIndex.open, built))}, list[int]()
    free = threading.Event()

    async def ask() -> None:
        searcher = Searcher(served, lambda index, queries: sizes.append(queries))
        busy = asyncio.create_task(searcher.run("small", lambda index: free.wait(10)))
        gone = asyncio.create_task(searcher.search("small", [texts[0]], Options(2)))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        free.set()
        await busy
        await searcher.search("small", [texts[1]], Options(2))
        await asyncio.to_thread(searcher.close)

    asyncio.run(ask())
    assert sizes == [1]


def test_an_index_of_another_model_is_opened_anew(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    def open_index() -> DuplexIndex:
        opened.append(1)
        return DuplexIndex.open(built)

    served = ServedIndex("small", open_index)
    monkeypatch.setattr(served, "_stamp", None)
    served.index.manifest.model_fingerprint = "another"
    assert served.newest().manifest.model_fingerprint != "another"
    assert len(opened) == 2
