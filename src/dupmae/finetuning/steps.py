"""What every trainer here has in common: steps in the order in which the rows lie, and a line of JSON for each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch.utils.data import BatchSampler, SequentialSampler
from transformers import TrainerCallback

from dupmae.errors import DupmaeError
from dupmae.pretraining.metrics import append_metrics, rewind_metrics
from dupmae.processes import is_first_process

PARTS = ("contrastive", "distil")
"""How the names of a loss's parts begin."""


class StepLog(TrainerCallback):  # type: ignore[misc]
    """Write every step's losses as JSON lines; a resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the lines up to the step that training goes on from."""
        if is_first_process():
            rewind_metrics(self.path, None, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Append a line, and stop at a loss that is not a number."""
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise DupmaeError(f"The loss is not a number at step {state.global_step}: lower the learning rates.")
        shown = {key: value for key, value in logs.items() if key in ("loss", "learning_rate") or key.startswith(PARTS)}
        if is_first_process():
            append_metrics(self.path, [{"step": state.global_step} | shown])


def in_order(dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> BatchSampler:
    """Batches of rows as they come: whoever laid them out has drawn the order."""
    return BatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)
