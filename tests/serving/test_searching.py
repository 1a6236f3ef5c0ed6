from __future__ import annotations

import asyncio
import os
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dupmae import DuplexEncoder, DuplexIndex, Passage
from dupmae.errors import DupmaeError
from dupmae.index.storage.manifest import Manifest
from dupmae.serving.searching import BATCH, BATCH_HITS, Options, Searcher, ServedIndex


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
        alone = index.search(queries, option.k, group=option.group)
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


def test_large_answers_share_no_batch(built: Path, texts: list[str]) -> None:
    served, sizes = {"small": ServedIndex("small", partial(DuplexIndex.open, built))}, list[int]()
    found_by(served, [([texts[0]], Options(BATCH_HITS // 2))] * 5, sizes)
    assert sizes == [2, 2, 1]


@pytest.fixture
def other_model(duplex_folder: Path, tmp_path: Path) -> Path:
    """A model of other weights."""
    from safetensors.numpy import load_file, save_file

    place = Path(shutil.copytree(duplex_folder, tmp_path / "other"))
    file = next(place.rglob("model.safetensors"))
    weights = load_file(file)
    name = next(name for name in weights if "word_embeddings" in name)
    weights[name] = np.ascontiguousarray(weights[name][::-1])
    save_file(weights, file, {"format": "pt"})
    (place / "SHA256SUMS").unlink()
    return place


def test_an_index_that_is_built_anew_is_searched_once_it_is_whole(
    folder: Path, other_model: Path, tmp_path: Path, texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    served = ServedIndex("small", partial(DuplexIndex.open, folder))
    before = served.newest().search(texts[:2])
    passages = [Passage(f"other{number}", "", text) for number, text in enumerate(texts)]
    DuplexIndex.build(tmp_path / "anew", DuplexEncoder(str(other_model)), passages, chunk_tokens=0)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "anew", folder)
    manifest = folder / "manifest.json"
    hidden = other_model.rename(tmp_path / "hidden")
    assert served.newest().search(texts[:2]) == before  # the other model is not there
    assert "stays as it was" in caplog.text
    hidden.rename(other_model)
    os.utime(manifest)
    found = served.newest().search(texts[:2])
    assert found == DuplexIndex.open(folder).search(texts[:2])
    assert {hit.document[:5] for hits in found for hit in hits} == {"other"}


def test_an_index_that_is_being_built_is_not_searched(folder: Path, texts: list[str]) -> None:
    served = ServedIndex("small", partial(DuplexIndex.open, folder))
    before = served.newest().search(texts[:2])
    manifest = Manifest.read(folder)
    Manifest(**vars(manifest) | {"complete": False, "segments": manifest.segments[:0]}).write(folder)
    assert served.newest().search(texts[:2]) == before
