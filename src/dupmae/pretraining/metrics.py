"""What a run reports while it lasts: a line of JSON per step, and a progress bar."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import reduce
from tqdm.auto import tqdm
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback

from dupmae.errors import DupmaeError
from dupmae.files import atomic_write

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


class PhaseBar(ProgressCallback):  # type: ignore[misc]
    """The Trainer's progress bar with a description and without its lines of logs.

    Args:
        description: What stands before the bar.
    """

    def __init__(self, description: str) -> None:
        super().__init__()
        self.description = description

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar; the steps before a resumption are there already and count for no speed."""
        self.current_step = state.global_step
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                total=state.max_steps,
                initial=self.current_step,
                desc=self.description,
                unit=" steps",
                dynamic_ncols=True,
            )

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print nothing: the losses are in the JSONL file."""


def show_progress(trainer: Any, description: str) -> None:
    """Give a Trainer a :class:`PhaseBar` in place of its own bar and its printed lines of logs."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(PhaseBar(description))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line that was cut off by an interruption is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def append_metrics(path: Path, lines: list[dict[str, Any]]) -> None:
    """Add lines to a metrics file, which is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def rewind_metrics(path: Path, phase: str | None, done: int) -> None:
    """Drop a phase's lines beyond step `done` from a metrics file, if there is one: those steps are taken again.

    Args:
        path: The file.
        phase: Name of the phase; None for a run that has none.
        done: The last step whose lines stay.
    """
    if path.exists():
        lines = [line for line in read_metrics(path) if line.get("phase") != phase or line["step"] <= done]
        with atomic_write(path) as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def last_losses(path: Path, steps: int = 20) -> dict[str, float]:
    """Mean losses by term over the last `steps` steps of the last phase; empty if no step was taken."""
    lines = read_metrics(path) if path.exists() else []
    last = [line for line in lines if line["phase"] == lines[-1]["phase"]][-steps:]
    terms = [name for name in ("mlm", "cls", "bow", "anchor", "loss") if last and name in last[0]]
    return {name: sum(line[name] for line in last) / len(last) for name in terms}
