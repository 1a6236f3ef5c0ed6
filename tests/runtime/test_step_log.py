"""The log of a training run's steps."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dupmae.errors import DupmaeError
from dupmae.runtime.step_log import FLUSH_STEPS, StepLog

MODEL = torch.nn.Linear(2, 2)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def take(log: StepLog, steps: range, *, done: int = 0, save: bool = False, groups: Any = None) -> None:
    """Take steps of two micro-batches, whose losses add up to the step's number."""
    args = SimpleNamespace(save_steps=7)
    log.on_train_begin(args, SimpleNamespace(global_step=done), None, model=MODEL)
    optimizer = SimpleNamespace(param_groups=groups or [{"lr": 0.5}, {"lr": 0.1}])
    for step in steps:
        for share in (0.25, 0.75):
            log.add({"loss": torch.tensor(share * step), "part": torch.tensor(1.0)})
        log.on_optimizer_step(args, None, None, optimizer=optimizer)
        log.on_step_end(args, SimpleNamespace(global_step=step), SimpleNamespace(should_save=save))


def test_a_line_has_the_sums_of_a_steps_micro_batches_and_its_learning_rate(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "log.jsonl")
    take(log, range(1, 4))
    log.on_train_end(None, None, None)
    expected = [{"step": step, "loss": float(step), "part": 2.0, "learning_rate": 0.5} for step in (1, 2, 3)]
    assert lines(tmp_path / "log.jsonl") == expected


def test_named_groups_have_a_learning_rate_each_and_phases_a_name(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "log.jsonl", "joint")
    take(log, range(1, 2), groups=[{"name": "head", "lr": 0.2}, {"name": "encoder", "lr": 0.1}], save=True)
    (line,) = lines(tmp_path / "log.jsonl")
    rates = {"learning_rate_head": 0.2, "learning_rate_encoder": 0.1}
    assert line == {"phase": "joint", "step": 1, "loss": 1.0, "part": 2.0} | rates


def test_lines_are_written_in_groups_and_before_every_checkpoint(tmp_path: Path) -> None:
    log, told = StepLog(tmp_path / "log.jsonl"), []
    log.report = told.append
    take(log, range(1, FLUSH_STEPS))
    assert not lines(tmp_path / "log.jsonl")
    take(log, range(FLUSH_STEPS, FLUSH_STEPS + 1), done=FLUSH_STEPS)
    assert len(lines(tmp_path / "log.jsonl")) == FLUSH_STEPS
    take(log, range(11, 12), done=FLUSH_STEPS, save=True)
    assert len(lines(tmp_path / "log.jsonl")) == 11
    assert told == [{"loss": step, "part": 2.0, "learning_rate": 0.5} for step in (10.0, 11.0)]


def test_a_run_that_goes_on_drops_what_it_does_again_and_no_other_phase(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for phase, steps in (("first", range(1, 4)), ("second", range(1, 6))):
        take(StepLog(path, phase), steps, save=True)
    state = SimpleNamespace(global_step=2)
    StepLog(path, "second").on_train_begin(SimpleNamespace(save_steps=7), state, None, model=MODEL)
    assert state.save_steps == 7
    assert [(line["phase"], line["step"]) for line in lines(path)] == [
        *(("first", step) for step in (1, 2, 3)),
        *(("second", step) for step in (1, 2)),
    ]


@pytest.mark.parametrize(("phase", "where"), [(None, "The loss"), ("joint", "The loss of phase joint")])
def test_a_loss_that_is_not_a_number_is_told_with_its_step(tmp_path: Path, phase: str | None, where: str) -> None:
    log = StepLog(tmp_path / "log.jsonl", phase)
    take(log, range(1, 3))
    log.add({"loss": torch.tensor(torch.nan), "part": torch.tensor(1.0)})
    log.on_step_end(None, SimpleNamespace(global_step=3), SimpleNamespace(should_save=False))
    with pytest.raises(DupmaeError, match=f"{where} is not a number at step 3: lower the learning rates"):
        log.flush()


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused_before_a_checkpoint_and_before_the_first_step(
    tmp_path: Path, number: float
) -> None:
    ruined = torch.nn.Linear(2, 2)
    log = StepLog(tmp_path / "log.jsonl")
    log.on_train_begin(SimpleNamespace(save_steps=7), SimpleNamespace(global_step=4), None, model=ruined)
    ruined.weight.data[1, 0] = number
    log.add({"loss": torch.tensor(1.0)})  # of the state before the step
    with pytest.raises(DupmaeError, match="A weight is not a finite number after step 5: lower the learning rates"):
        log.on_step_end(None, SimpleNamespace(global_step=5), SimpleNamespace(should_save=True))
    with pytest.raises(DupmaeError, match="A weight is not a finite number before the first step: take another"):
        log.on_train_begin(SimpleNamespace(save_steps=7), SimpleNamespace(global_step=0), None, model=ruined)


@pytest.mark.parametrize(("losses", "refused"), [((0.0, 0.0), True), ((0.0, 0.5), False)])
def test_a_run_whose_every_loss_was_0_is_refused(tmp_path: Path, losses: tuple[float, ...], refused: bool) -> None:
    log = StepLog(tmp_path / "log.jsonl", "joint")
    take(log, range(0))
    for step, loss in enumerate(losses, 1):
        log.add({"loss": torch.tensor(loss)})
        log.on_step_end(None, SimpleNamespace(global_step=step), SimpleNamespace(should_save=True))
    if refused:
        with pytest.raises(DupmaeError, match="The loss of phase joint was 0 in every step"):
            log.on_train_end(None, None, None)
    else:
        log.on_train_end(None, None, None)
