"""Several processes that build one index."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import (
    FakeEncoder,
    expected,
    random_rows,
    ranking,
    rows,
)

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex
from dupmae.index.writing import changes
from dupmae.index.writing.build import build_segments
from dupmae.index.writing.joining import process_of
from dupmae.models import Model


def test_each_of_several_processes_encodes_its_share_and_the_last_joins_them(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(7), 100)
    corpus = [Passage(f"p{n:02}", "", f"{n}") for n in range(50)]
    folder, embedded = tmp_path / "i", []

    def run(rank: int, processes: int = 3) -> None:
        encoder = FakeEncoder(cls, sparse)
        options = {"model": Model("m"), "batch_size": 4, "segment_passages": 10, "process": (rank, processes)}
        build_segments(folder, encoder, corpus, **options)
        embedded.append(sorted(int(text) for text in encoder.embedded))

    run(0)
    with pytest.raises(DupmaeError, match="unfinished"):
        DuplexIndex.open(folder)
    run(2)
    run(1)
    assert embedded == [list(range(rank, 50, 3)) for rank in (0, 2, 1)]
    index = DuplexIndex.open(folder)
    index.encoder = FakeEncoder(cls, sparse)
    assert ranking(index) == expected(index, rows(*range(50)))
    index.verify()
    assert not list(folder.glob("process-*"))
    run(1)  # the finished index is recognised, and nothing is encoded
    assert embedded[-1] == []
    index.add([Passage("p70", "", "70")])
    assert ranking(index) == expected(index, rows(*range(50), 70))


def test_processes_that_finish_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(7), 20)
    corpus = [Passage(f"p{n:02}", "", f"{n}") for n in range(20)]
    folder = tmp_path / "i"
    options: Any = {"model": Model("m"), "batch_size": 4, "segment_passages": 10}
    build_segments(folder, FakeEncoder(cls, sparse), corpus, process=(0, 2), **options)
    with ThreadPoolExecutor(1) as threads:
        with changes.sole_writer(folder):
            last = threads.submit(build_segments, folder, FakeEncoder(cls, sparse), corpus, process=(1, 2), **options)
            with pytest.raises(TimeoutError):
                last.result(timeout=0.5)
        last.result(timeout=60)
    index = DuplexIndex.open(folder)
    assert len(index) == 20
    index.verify()
    assert not list(folder.glob("process-*"))


def test_an_id_in_the_shares_of_two_processes_is_refused(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(7), 5)
    corpus = [Passage(name, "", str(row)) for row, name in enumerate("abca")]
    options: Any = {"model": Model("m"), "batch_size": 4, "segment_passages": 10}
    build_segments(tmp_path / "i", FakeEncoder(cls, sparse), corpus, process=(0, 2), **options)
    with pytest.raises(DupmaeError, match="Two passages have the id 'a'"):
        build_segments(tmp_path / "i", FakeEncoder(cls, sparse), corpus, process=(1, 2), **options)


def test_the_environment_of_torchrun_says_which_process_this_is() -> None:
    assert process_of({"RANK": "3", "WORLD_SIZE": "8", "HOME": "/"}) == (3, 8)
    assert process_of({}) == (0, 1)
