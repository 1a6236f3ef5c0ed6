"""What fine-tuning and a teacher's training have in common: the order of their rows, their log, their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from dupmae.config import FinetuneConfig, TeacherConfig
from dupmae.runtime.checkpoints import SealCheckpoints
from dupmae.runtime.precision import bfloat16_pays
from dupmae.runtime.resuming import CHECKPOINTS_FOLDER
from dupmae.runtime.step_log import StepLog
from dupmae.runtime.trial import TriesLargestBatch


class PlainTrainer(TriesLargestBatch):
    """What both trainers do otherwise than those of sentence-transformers.

    Args:
        log: Takes each step's losses.
        largest: Numbers of the rows that make the largest batch (:func:`largest_rows`).
        trainer: The trainer's own arguments.
    """

    args: Any
    accelerator: Any

    data_collator: Any

    def __init__(self, log: StepLog, largest: Sequence[int], **trainer: Any) -> None:
        super().__init__(**trainer)
        self.step_log, self.largest = log, largest
        self._parts: dict[str, torch.Tensor] = {}
        self.add_callback(log)  # type: ignore[attr-defined]
        self.add_callback(SealCheckpoints())  # type: ignore[attr-defined]

    def largest_batch(self) -> dict[str, Any]:
        """Collate the rows with the longest texts."""
        batch: dict[str, Any] = self.data_collator([{"label": row} for row in self.largest])
        return batch

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


def largest_rows(lengths: npt.NDArray[np.int64], count: int) -> list[int]:
    """Choose the rows that together make the largest batch: those with a column's longest text, then the longest.

    Args:
        lengths: Of each row's texts, (N, columns).
        count: How many rows, at most N.
    """
    by_column, by_sum = lengths.argmax(axis=0).tolist(), (-lengths.sum(axis=1)).argsort(kind="stable").tolist()
    return list(dict.fromkeys([*by_column, *by_sum]))[:count]


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
        "max_grad_norm": config.max_grad_norm,
        "bf16": bfloat16_pays(config.precision),
        "use_cpu": not torch.cuda.is_available(),
        "batch_sampler": in_order,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "logging_strategy": "no",  # the step log writes what there is to log
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "seed": config.seed,
    }
