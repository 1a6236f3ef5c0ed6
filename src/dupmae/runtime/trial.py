"""A trial of a training's largest batch before its first step.

Batches are of many shapes, and the largest may come after hours. So it goes forwards and backwards first, beside room
for what the optimiser is going to hold: where memory does not suffice, or a kernel of reduced precision fails at that
size, it shows at the start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import get_total_norm

from dupmae.errors import DupmaeError
from dupmae.runtime.step_log import StepLog


class TriesLargestBatch:
    """What a Trainer does before its first step, of a new run or of one that goes on; no weight and no draw changes.

    (Where weights are spread over processes and gradients are added up over several batches, nothing is tried: the
    gradients of a trial could not be taken back.)
    """

    args: Any
    optimizer: Any
    step_log: StepLog
    is_fsdp_enabled: bool
    _tried = False

    def largest_batch(self) -> dict[str, Any]:
        """Make the largest batch that training will meet."""
        raise NotImplementedError

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take a batch forwards and backwards, before the first one the largest."""
        if not self._tried:
            self._tried = True
            if not (self.is_fsdp_enabled and self.args.gradient_accumulation_steps > 1):
                self._try(model)
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        return loss

    def _try(self, model: Any) -> None:
        """Take the largest batch forwards and backwards, and forget what came of it.

        Raises:
            DupmaeError: Its loss or its gradient is not finite.
        """
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        moments = 0 if self.optimizer.state else 2  # AdamW's, which it makes at the first step
        room = [torch.empty_like(parameter) for parameter in learning for _ in range(moments)]
        with torch.random.fork_rng():
            loss = super().training_step(model, self.largest_batch())  # type: ignore[misc]
        norm: Any = get_total_norm(parameter.grad for parameter in learning if parameter.grad is not None)
        finite = torch.isfinite(norm.full_tensor() if hasattr(norm, "full_tensor") else norm) & torch.isfinite(loss)
        model.zero_grad()
        self.step_log.forget()
        del room
        if not finite:
            raise DupmaeError(
                "A step with the largest batch has no finite loss or gradient: set precision to float32, or take "
                "another base model."
            )
