"""The trial of the largest batch before the first step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dupmae.errors import DupmaeError
from dupmae.runtime.trial import TriesLargestBatch


class Log:
    """Counts the losses that it holds."""

    held = 0

    def forget(self) -> None:
        self.held = 0


class Plain:
    """A Trainer's step: the gradient of the mean square of a layer's outputs, some of them dropped."""

    def __init__(self, *, accumulation: int = 1, sharded: bool = False) -> None:
        self.model = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Dropout(0.5))
        self.args = SimpleNamespace(gradient_accumulation_steps=accumulation)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.step_log: Any = Log()
        self.is_fsdp_enabled = sharded
        self.seen: list[int] = []

    def training_step(self, model: Any, inputs: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(inputs))
        self.step_log.held += 1
        loss: torch.Tensor = model(inputs).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


class Trying(TriesLargestBatch, Plain):
    """The same with a trial, of a batch of a hundred."""

    value = 1.0

    def largest_batch(self) -> Any:
        return torch.full((100, 3), self.value)


def gradients(trainer: Plain) -> list[torch.Tensor]:
    torch.manual_seed(0)
    for parameter in trainer.model.parameters():
        torch.nn.init.ones_(parameter)
    for size in (2, 5):
        trainer.training_step(trainer.model, torch.ones(size, 3))
    return [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]


def test_the_largest_batch_is_tried_once_and_changes_nothing() -> None:
    plain, trying = Plain(), Trying()
    assert all(torch.equal(one, other) for one, other in zip(gradients(plain), gradients(trying), strict=True))
    assert (plain.seen, trying.seen) == ([2, 5], [100, 2, 5])
    assert plain.step_log.held == trying.step_log.held == 2


def test_what_is_not_finite_at_that_size_is_refused_before_the_first_step() -> None:
    trying = Trying()
    trying.value = torch.inf
    with pytest.raises(DupmaeError, match="largest batch has no finite loss or gradient: set precision to float32"):
        gradients(trying)
    assert trying.seen == [100]


def test_gradients_that_could_not_be_taken_back_are_not_made() -> None:
    sharded = Trying(accumulation=2, sharded=True)
    gradients(sharded)
    assert sharded.seen == [2, 5]
