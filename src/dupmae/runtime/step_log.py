"""The log of a training run's steps: a line of losses and learning rates for each, in the Trainer's hands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import reduce
from torch.nn.utils import get_total_norm
from transformers.trainer_callback import TrainerCallback

from dupmae.errors import DupmaeError
from dupmae.runtime.log import append_metrics, read_metrics, rewind_metrics
from dupmae.runtime.processes import is_first_process

FLUSH_STEPS = 10
"""Steps whose losses wait on the device before they are written, so that a step need not wait for them."""


class StepLog(TrainerCallback):  # type: ignore[misc]
    """Writes `step`, the losses by name and the learning rates to a JSONL file, a line per step.

    A run that goes on drops the lines after the step that it goes on from.

    Args:
        path: The file; lines are added to it.
        phase: Name of the phase, where a run has several: it stands in every line.
        across: What a loss of the whole batch is of the processes' losses: their sum, where each has its share of the
            batch's mean, or their mean.

    Attributes:
        report: Called with the losses and rates of the last step in each group of lines; for trackers.
    """

    def __init__(self, path: Path, phase: str | None = None, across: Literal["sum", "mean"] = "mean") -> None:
        self.path, self.phase, self.across = path, phase, across
        self.report: Callable[[dict[str, float]], None] = lambda losses: None
        self._parts: list[dict[str, torch.Tensor]] = []
        self._rates: dict[str, float] = {}
        self._waiting: list[tuple[int, dict[str, float], dict[str, torch.Tensor]]] = []
        self._where = "" if phase is None else f" of phase {phase}"

    def add(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Take the losses of one micro-batch; those of a step are added up."""
        self._parts.append({name: loss.detach() for name, loss in losses.items()})

    def forget(self) -> None:
        """Drop what :meth:`add` has taken since the last step."""
        self._parts = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the lines up to the step that training goes on from, and save as often as is asked for now.

        Raises:
            DupmaeError: A weight is not a finite number.
        """
        state.save_steps = args.save_steps  # a checkpoint brings its own
        self._model = kwargs["model"]
        self._refuse_weights(state.global_step)
        if is_first_process():
            rewind_metrics(self.path, self.phase, state.global_step)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the learning rates of the step, before the schedule moves on."""
        groups = kwargs["optimizer"].param_groups
        named = {f"learning_rate_{group['name']}": group["lr"] for group in groups if "name" in group}
        self._rates = named or {"learning_rate": groups[0]["lr"]}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add up the step's micro-batches; write now and then, and always before a checkpoint."""
        losses = {name: torch.stack([part[name] for part in self._parts]).sum() for name in self._parts[0]}
        self._waiting.append((state.global_step, self._rates, losses))
        self._parts = []
        if control.should_save or len(self._waiting) >= FLUSH_STEPS:
            self.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what waits, and refuse a training that could not teach anything.

        Raises:
            DupmaeError: The loss was exactly 0 in every step.
        """
        self.flush()
        if is_first_process():
            lines = [line for line in read_metrics(self.path) if line.get("phase") == self.phase]
            losses = [line["loss"] for line in lines if "loss" in line]
            if losses and not any(losses):
                raise DupmaeError(
                    f"The loss{self._where} was 0 in every step, so nothing was learned: the data has nothing to tell "
                    "apart (no negatives, or texts without a known token)."
                )

    def flush(self) -> None:
        """Write the waiting lines; call it before measuring, so that no state without a loss is ever kept.

        It comes before every checkpoint, so that no ruined state takes the place of a good one.

        Raises:
            DupmaeError: A loss or a weight is not a finite number.
        """
        if not self._waiting:
            return
        names = list(self._waiting[0][2])
        values = torch.stack([torch.stack(list(losses.values())) for _, _, losses in self._waiting])  # (steps, losses)
        prefix = {} if self.phase is None else {"phase": self.phase}
        lines = []
        for (step, rates, _), row in zip(self._waiting, reduce(values, self.across).tolist(), strict=True):
            if not all(map(math.isfinite, row)):
                raise DupmaeError(
                    f"The loss{self._where} is not a number at step {step}: lower the learning rates or set precision "
                    "to float32."
                )
            lines.append({**prefix, "step": step, **dict(zip(names, row, strict=True)), **rates})
        if is_first_process():
            append_metrics(self.path, lines)
        self._refuse_weights(lines[-1]["step"])
        self._waiting = []
        self.report({name: lines[-1][name] for name in (*names, *rates)})

    def _refuse_weights(self, step: int) -> None:
        """Refuse a model with a weight that is not a finite number."""
        norm: Any = get_total_norm(self._model.parameters())
        if not torch.isfinite(norm.full_tensor() if hasattr(norm, "full_tensor") else norm):
            when = f"after step {step}" if step else "before the first step"
            raise DupmaeError(
                f"A weight{self._where} is not a finite number {when}: "
                + ("lower the learning rates or set precision to float32." if step else "take another base model.")
            )
