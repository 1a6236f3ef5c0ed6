"""Whatever operation of a change fails, or wherever the power goes: the old index or the new one is there, sound."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import SPACE, WORDY_QUERIES, FakeEncoder, random_rows, ranking_with_words, twin, wordy
from faults import KINDS, Fault, LostPowerError, every_fault

from dupmae.cli.failures import explain
from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex

ROWS = random_rows(np.random.default_rng(7), 100)
STEP = 4
"""Every fourth operation is tried with each kind of fault, each kind beginning at another; 1 tries all of them."""


def build(folder: Path, rows: range, **options: Any) -> DuplexIndex:
    return DuplexIndex.build(folder, FakeEncoder(*ROWS, space=SPACE), passages(rows), model="m", **options)


def passages(rows: range, shift: int = 0) -> list[Passage]:
    """Passage pn, embedded as row n, or as that many rows after it."""
    return [Passage(f"p{row:02}", "", wordy(row + shift), {"parity": str(row % 2)}) for row in rows]


def opened(folder: Path) -> DuplexIndex:
    index = DuplexIndex.open(folder)
    index.encoder = FakeEncoder(*ROWS, space=SPACE)
    return index


def one_by_one(folder: Path, count: int) -> None:
    for row in range(count):
        build(folder, range(1)) if row == 0 else opened(folder).add(passages(range(row, row + 1)))


@dataclass
class Change:
    prepare: Callable[[Path], object]
    make: Callable[[Path], object]
    before: dict[str, int]
    after: dict[str, int]


def rows(*numbers: int) -> dict[str, int]:
    return {f"p{number:02}": number for number in numbers}


CHANGES = {
    "build": Change(
        lambda folder: None, lambda folder: build(folder, range(9), segment_passages=5), {}, rows(*range(9))
    ),
    "add": Change(
        lambda folder: build(folder, range(6), segment_passages=4),
        lambda folder: opened(folder).add(passages(range(5, 8), shift=10)),
        rows(*range(6)),
        rows(*range(5)) | {"p05": 15, "p06": 16, "p07": 17},
    ),
    "delete": Change(
        lambda folder: build(folder, range(6), segment_passages=4),
        lambda folder: opened(folder).delete(["p01", "p05"]),
        rows(*range(6)),
        rows(0, 2, 3, 4),
    ),
    "compact": Change(
        lambda folder: build(folder, range(9), segment_passages=4).delete(["p00", "p07"]),
        lambda folder: opened(folder).compact(),
        rows(*range(1, 7), 8),
        rows(*range(1, 7), 8),
    ),
    "merge": Change(
        lambda folder: one_by_one(folder, 7),
        lambda folder: opened(folder).add(passages(range(7, 8))),
        rows(*range(7)),
        rows(*range(8)),
    ),
    "cluster": Change(
        lambda folder: build(folder, range(45), segment_passages=30).delete(["p00"]),
        lambda folder: opened(folder).cluster(),
        rows(*range(1, 45)),
        rows(*range(1, 45)),
    ),
}


@functools.cache
def expected(state: tuple[tuple[str, int], ...]) -> Any:
    """What an index of passages, by id, each embedded as a row, finds."""
    return twin(FakeEncoder(*ROWS, space=SPACE), {name: wordy(row) for name, row in state}, WORDY_QUERIES, 100)


def check(change: Change, folder: Path, fault: Fault) -> None:
    if fault.error is not None and not isinstance(fault.error, LostPowerError):
        told = explain(fault.error, {"index": str(folder)}, resumable=True)
        assert told is not None
        assert 10 < len(told[0]) <= 500
    states = [change.after] if fault.error is None else [change.before, change.after]
    try:
        index = opened(folder)
    except DupmaeError:
        assert {} in states  # a build that did not finish goes on
    else:
        index.verify()
        assert ranking_with_words(index) in [expected(tuple(state.items())) for state in states if state]
    change.make(folder)
    index = opened(folder)
    index.verify()
    assert ranking_with_words(index) == expected(tuple(change.after.items()))
    if index.manifest.clusters is not None:
        assert len(index.snapshot.clusters.nearest(np.ones(8, np.float32), np.ones(45, np.uint8), 9, 99)) == 9  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def _unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the changes that are tried nothing waits for a disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_made_or_not_and_told(name: str, kind: str, tmp_path: Path) -> None:
    if name == "cluster":
        pytest.importorskip("faiss", reason="the extra clusters is not installed")
    change, template, folders = CHANGES[name], tmp_path / "template", itertools.count()
    template.mkdir()
    change.prepare(template / "i")

    def prepare() -> Path:
        folder = tmp_path / str(next(folders))
        shutil.copytree(template, folder)
        return folder

    faults = every_fault(
        prepare,
        lambda folder: change.make(folder / "i"),
        lambda folder, fault: check(change, folder / "i", fault),
        [kind],
        range(1 + KINDS.index(kind) % STEP, 10_000, STEP),
    )
    assert faults >= 5 / STEP
