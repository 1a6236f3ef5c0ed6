"""Experiment trackers (TensorBoard, trackio, Weights & Biases) as callbacks of the transformers Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dupmae.errors import DupmaeError
from dupmae.runtime.processes import is_first_process


def tracker(name: str, output: Path) -> list[Any]:
    """Return the Trainer's callback for a tracker, or none where this process is not the one that reports.

    Args:
        name: `tensorboard` (writes to `output / "tensorboard"`), `trackio`, `wandb`, or `none`.
        output: Folder of the run.

    Raises:
        DupmaeError: The tracker is not installed.
    """
    if name == "none" or not is_first_process():
        return []
    try:
        if name == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter
            from transformers.integrations import TensorBoardCallback

            return [TensorBoardCallback(SummaryWriter(str(output / "tensorboard")))]
        from transformers.integrations import TrackioCallback, WandbCallback

        return [TrackioCallback() if name == "trackio" else WandbCallback()]
    except (ImportError, RuntimeError):
        raise DupmaeError(f"report_to is {name}, which is not installed: pip install 'dupmae[{name}]'") from None
