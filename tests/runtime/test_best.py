"""Measuring on held-out data, and keeping the best state."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dupmae.errors import DupmaeError
from dupmae.runtime.best import BestCheckpoint, Measurement


class Model:
    """Its state is a number, and its figure a function of it."""

    state = 0

    def best(self, output: Path, values: dict[int, float]) -> BestCheckpoint:
        def better(found: Measurement, best: Measurement | None) -> bool:
            return best is None or found["mrr"] > best["mrr"]

        def save(folder: Path | None) -> None:
            assert folder is not None
            folder.mkdir()
            (folder / "state").write_text(str(self.state), encoding="utf-8")

        return BestCheckpoint(output, lambda: {"mrr": values[self.state]}, better, save)

    def train(self, best: BestCheckpoint, steps: range) -> None:
        for self.state in steps:
            best.measure(self.state)


VALUES = {0: 0.2, 1: 0.1, 2: 0.7, 3: 0.7, 4: 0.3}


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "held_out.jsonl").read_text(encoding="utf-8").splitlines()]


def state_of(best: BestCheckpoint) -> int:
    return int((best.model / "state").read_text(encoding="utf-8"))


def test_every_measurement_is_written_down_and_the_first_of_the_best_states_is_kept(tmp_path: Path) -> None:
    model = Model()
    best = model.best(tmp_path, VALUES)
    best.begin(0)
    model.train(best, range(5))
    assert lines(tmp_path) == best.measurements() == [{"step": step, "mrr": mrr} for step, mrr in VALUES.items()]
    assert best.kept == {"step": 2, "mrr": 0.7}
    assert state_of(best) == 2


@pytest.mark.parametrize(("killed", "done"), [(2, 0), (3, 2), (4, 2), (4, 0)])
def test_a_run_that_goes_on_measures_again_what_came_after_its_checkpoint(
    tmp_path: Path, killed: int, done: int
) -> None:
    model = Model()
    first = model.best(tmp_path, VALUES)
    first.begin(0)
    model.train(first, range(killed + 1))
    again = model.best(tmp_path, VALUES)
    assert again.kept == first.kept
    again.begin(done)
    model.train(again, range(done + 1 if done else 0, 5))
    assert [line["step"] for line in lines(tmp_path)] == list(range(5))
    assert (again.kept, state_of(again)) == ({"step": 2, "mrr": 0.7}, 2)


def test_a_phase_leaves_the_lines_of_the_one_before(tmp_path: Path) -> None:
    model = Model()
    best = model.best(tmp_path, VALUES)
    for phase in ("first", "second"):
        best.begin(0, phase)
        model.train(best, range(2))
    model.best(tmp_path, VALUES).begin(0, "second")
    assert [(line["phase"], line["step"]) for line in lines(tmp_path)] == [("first", 0), ("first", 1)]


def test_a_state_may_be_kept_whatever_it_measured(tmp_path: Path) -> None:
    model = Model()
    best = model.best(tmp_path, VALUES)
    model.state = 9
    best.keep({"step": 9})
    assert (model.best(tmp_path, VALUES).kept, state_of(best)) == ({"step": 9}, 9)


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    saved: list[Path | None] = []
    best = BestCheckpoint(tmp_path, lambda: {"mrr": 1.0}, lambda *_: True, saved.append)
    best.begin(0)
    assert best.measure(3) == {"mrr": 1.0}
    assert saved == [None]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["kept.json", "model/state", "SHA256SUMS"])
def test_a_best_state_that_is_damaged_or_gone_is_never_left_out_untold(tmp_path: Path, name: str) -> None:
    model = Model()
    best = model.best(tmp_path / "run", VALUES)
    best.begin(0)
    model.train(best, range(3))
    (tmp_path / "run" / "kept" / name).write_bytes(b"x")
    with pytest.raises(DupmaeError, match=f"kept, the best state so far, is damaged .*: delete the folder {tmp_path}"):
        model.best(tmp_path / "run", VALUES)
    shutil.rmtree(tmp_path / "run" / "kept")
    with pytest.raises(DupmaeError, match="kept, the best state so far, is missing: delete the folder"):
        model.best(tmp_path / "run", VALUES).begin(2)
    model.best(tmp_path / "run", VALUES).begin(0)  # from the beginning nothing is missed
