"""Progress bars of training, one for each phase."""

from __future__ import annotations

from typing import Any

from transformers.trainer_callback import PrinterCallback, ProgressCallback

from dupmae.runtime.bars import bar


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
            steps, done = state.max_steps, self.current_step
            self.training_bar = bar(None, self.description, "steps", steps, done=done, delay=0)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print nothing: the losses are in the JSONL file."""


def show_progress(trainer: Any, description: str) -> None:
    """Give a Trainer a :class:`PhaseBar` in place of its own bar and its printed lines of logs."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(PhaseBar(description))
