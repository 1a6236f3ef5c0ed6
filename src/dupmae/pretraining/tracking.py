"""Experiment trackers, which the transformers Trainer knows how to talk to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dupmae.errors import DupmaeError
from dupmae.runtime.processes import is_first_process


def tracker(name: str, output: Path) -> list[Any]:
    """The Trainer's callback for a tracker, if this process is the one that reports.

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

            return [_without_model(TensorBoardCallback)(SummaryWriter(str(output / "tensorboard")))]
        from transformers.integrations import TrackioCallback, WandbCallback

        return [_without_model(TrackioCallback if name == "trackio" else WandbCallback)()]
    except (ImportError, RuntimeError):
        raise DupmaeError(f"report_to is {name}, which is not installed: pip install 'dupmae[{name}]'") from None


def _without_model(callback: Any) -> Any:
    """A tracker's callback that is not shown the model, of which it would expect a Hugging Face configuration."""

    class Tracker(callback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_train_begin(args, state, control, **kwargs | {"model": None})

    return Tracker
