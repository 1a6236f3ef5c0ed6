"""What a run reports while it lasts: a line of JSON per step, and a progress bar."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import reduce
from transformers.trainer_callback import TrainerCallback

from dupmae.errors import DupmaeError
from dupmae.runtime.log import append_metrics, rewind_metrics

FLUSH_STEPS = 10
"""Steps whose losses wait on the device before they are written, so that a step need not wait for them."""


class MetricsLog(TrainerCallback):  # type: ignore[misc]
    """Writes `phase`, `step`, the losses by term and the learning rates by group to a JSONL file, a line per step.

    The losses are the whole batch's, whatever parts it came in.

    Args:
        path: The file; lines are added to it.
        phase: Name of the phase.
        done: Steps of the phase that are done already: what an interrupted run wrote beyond them is dropped, because
            those steps are taken again.
        writes: Whether this is the process that writes.

    Attributes:
        report: Called with the losses of the last step in each group of lines; for trackers.
    """

    def __init__(self, path: Path, phase: str, done: int, *, writes: bool) -> None:
        self.path = path
        self.phase = phase
        self.writes = writes
        self.report: Callable[[dict[str, float]], None] = lambda losses: None
        self._batches: list[dict[str, torch.Tensor]] = []
        self._rates: dict[str, float] = {}
        self._waiting: list[tuple[int, dict[str, float], dict[str, torch.Tensor]]] = []
        if writes:
            rewind_metrics(path, phase, done)

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """Take the losses of one micro-batch, its shares of the whole batch's."""
        self._batches.append({name: loss.detach() for name, loss in losses.items()})

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let checkpoints be saved as often as is asked for now: the one that is gone on from brings its own number."""
        state.save_steps = args.save_steps

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the learning rates of the step, before the schedule moves on."""
        groups = kwargs["optimizer"].param_groups
        self._rates = {f"learning_rate_{group['name']}": group["lr"] for group in groups}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add up the step's micro-batches; write now and then, and always before a checkpoint."""
        losses = {name: torch.stack([batch[name] for batch in self._batches]).sum() for name in self._batches[0]}
        self._waiting.append((state.global_step, self._rates, losses))
        self._batches = []
        if control.should_save or len(self._waiting) >= FLUSH_STEPS:
            self.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what waits."""
        self.flush()

    def flush(self) -> None:
        """Write the waiting lines.

        Raises:
            DupmaeError: A loss is not a finite number.
        """
        if not self._waiting:
            return
        names = list(self._waiting[0][2])
        values = torch.stack([torch.stack(list(losses.values())) for _, _, losses in self._waiting])  # (steps, terms)
        lines = []
        for (step, rates, _), row in zip(self._waiting, reduce(values, "sum").tolist(), strict=True):
            if not all(map(math.isfinite, row)):
                raise DupmaeError(
                    f"The loss of phase {self.phase} stopped being a number at step {step}: "
                    "lower the learning rates or set precision to float32."
                )
            lines.append({"phase": self.phase, "step": step, **dict(zip(names, row, strict=True)), **rates})
        if self.writes:
            append_metrics(self.path, lines)
        self._waiting = []
        self.report({name: lines[-1][name] for name in (*names, *rates)})
