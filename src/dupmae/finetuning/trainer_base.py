"""What both trainers here have in common: steps in the order in which the rows lie, and a line of JSON for each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import TrainerCallback

from dupmae.config import FinetuneConfig, TeacherConfig
from dupmae.errors import DupmaeError
from dupmae.runtime.log import append_metrics, rewind_metrics
from dupmae.runtime.precision import bfloat16_pays
from dupmae.runtime.processes import is_first_process

PARTS = ("contrastive", "distil")
"""How the names of a loss's parts begin."""


class PlainTrainer:
    """What both trainers do otherwise than those of sentence-transformers."""

    args: Any
    accelerator: Any

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add none: its bookkeeping embeds training data."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save in the first process alone, before the others add to the checkpoint what is theirs.

        (transformers leaves it to a method that sentence-transformers overrides to look which process it is.)
        """
        if self.args.should_save:
            super().save_model(output_dir, _internal_call=_internal_call)  # type: ignore[misc]
        self.accelerator.wait_for_everyone()


class StepLog(TrainerCallback):  # type: ignore[misc]
    """Write every step's losses as JSON lines; a resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the lines up to the step that training goes on from, and save as often as is asked for now."""
        state.save_steps = args.save_steps  # a checkpoint brings its own
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


def step_arguments(output: Path, config: FinetuneConfig | TeacherConfig) -> dict[str, Any]:
    """The settings that both have, in the trainers' own terms."""
    return {
        "output_dir": str(output / "checkpoints"),
        "num_train_epochs": 1,  # the rows of all epochs are laid out beforehand
        "per_device_train_batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "warmup_steps": min(config.warmup_ratio, 0.9999),  # from 1 on it would be a count
        "lr_scheduler_type": "linear",
        "weight_decay": config.weight_decay,
        "bf16": bfloat16_pays(config.precision),
        "use_cpu": not torch.cuda.is_available(),
        "batch_sampler": in_order,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "save_total_limit": 1,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "seed": config.seed,
    }
