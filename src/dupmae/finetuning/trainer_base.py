"""What fine-tuning and a teacher's training have in common: the order of their rows, their log, their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import BatchSampler, SequentialSampler

from dupmae.config import FinetuneConfig, TeacherConfig
from dupmae.runtime.precision import bfloat16_pays
from dupmae.runtime.resuming import CHECKPOINTS_FOLDER
from dupmae.runtime.step_log import StepLog


class PlainTrainer:
    """What both trainers do otherwise than those of sentence-transformers.

    Args:
        log: Takes each step's losses.
        trainer: The trainer's own arguments.
    """

    args: Any
    accelerator: Any

    def __init__(self, log: StepLog, **trainer: Any) -> None:
        super().__init__(**trainer)
        self.step_log = log
        self._parts: dict[str, torch.Tensor] = {}
        self.add_callback(log)  # type: ignore[attr-defined]

    def compute_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the loss, and log it with its parts."""
        self._parts = {}
        loss: torch.Tensor = super().compute_loss(*args, **kwargs)  # type: ignore[misc]
        self.step_log.add({"loss": loss, **self._parts})
        return loss

    def track_loss_components(self, loss: dict[str, torch.Tensor]) -> None:
        """Take the parts of a loss for the log, where sentence-transformers would average them."""
        self._parts = loss

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add none: its bookkeeping embeds training data."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save in the first process alone, before the others add to the checkpoint what is theirs.

        (transformers leaves it to a method that sentence-transformers overrides to look which process it is.)
        """
        if self.args.should_save:
            super().save_model(output_dir, _internal_call=_internal_call)  # type: ignore[misc]
        self.accelerator.wait_for_everyone()


def in_order(dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> BatchSampler:
    """Make batches of rows as they come: whoever laid them out has drawn the order."""
    return BatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)


def step_arguments(output: Path, config: FinetuneConfig | TeacherConfig) -> dict[str, Any]:
    """Translate the settings that both have into the trainers' own arguments."""
    return {
        "output_dir": str(output / CHECKPOINTS_FOLDER),
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
        "logging_strategy": "no",  # the step log writes what there is to log
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "seed": config.seed,
    }
