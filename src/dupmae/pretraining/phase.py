"""One phase of pre-training on the transformers Trainer: its batches, masks, learning rates and checkpoints.

A step's whole batch is cut into parts, one for each process and micro-batch. Part `j * processes + rank` is micro-batch
`j` of process `rank`; its masks depend on seed, phase, step and this number, and its losses are its shares of the whole
batch's means (:meth:`DupMAE.counts`). So two processes take the step that one takes in two micro-batches, and its
gradient is that of the whole batch, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import reduce
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_callback import TrainerCallback

from dupmae.config import PretrainConfig
from dupmae.pretraining.data import TEXT, LengthBuckets, Sequences
from dupmae.pretraining.masking import step_generator
from dupmae.pretraining.objective import DupMAE
from dupmae.pretraining.sharding import whole_weights
from dupmae.runtime.precision import autocast
from dupmae.runtime.step_log import StepLog
from dupmae.runtime.trial import TriesLargestBatch

WEIGHTS_FILE = "model.safetensors"
"""All weights, in the folder of an interrupted phase's checkpoint."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training with its own learning rates, each with a linear warm-up and a linear decay to zero."""

    name: str
    """Name in the metrics and of its checkpoints' folder."""
    steps: int
    """Optimiser steps."""
    learning_rates: dict[str, float]
    """Peak learning rate of each group of :meth:`DupMAE.parameter_groups`; a group that is not named is frozen."""


@dataclass(frozen=True, slots=True)
class Batches:
    """What the batches of a phase are made from."""

    store: Sequences
    """The token store."""
    left_out: npt.NDArray[np.int64]
    """Chunks of it that are never trained on."""
    collate: Callable[[list[Mapping[str, Any]]], dict[str, torch.Tensor]]
    """Makes a batch of chunks."""
    seed: tuple[int, int]
    """The run's seed and the phase's number, which order and masks depend on."""


def phases(config: PretrainConfig) -> list[Phase]:
    """Lay out the schedule: first the new layers alone under a frozen encoder, then everything together, gently.

    Without any of the three losses the new layers have nothing to learn from, and there is no first phase.
    """
    new, old = config.new_layers_learning_rate, config.learning_rate
    joint = {"encoder": old, "head": config.head_learning_rate, "decoder": config.head_learning_rate}
    return [
        Phase("new_layers", config.all_steps - config.steps, {"head": new, "decoder": new}),
        Phase("joint", config.steps, joint),
    ]


class PhaseTrainer(TriesLargestBatch, Trainer):  # type: ignore[misc]
    """The Trainer of one phase.

    Args:
        objective: What is trained.
        batches: What its batches are made from.
        phase: Steps and learning rates.
        log: Takes the losses.
        measure: Called with the step where `control.should_evaluate` says so; returns what it measured.
        trainer: The Trainer's own arguments.
    """

    def __init__(
        self,
        objective: DupMAE,
        batches: Batches,
        phase: Phase,
        log: StepLog,
        measure: Callable[[int], dict[str, float]],
        **trainer: Any,
    ) -> None:
        super().__init__(model=objective, **trainer)
        self.objective, self.batches, self.phase = objective, batches, phase
        self.step_log, self.measure = log, measure
        self.add_callback(log)
        log.report = lambda losses: self.log({f"{phase.name}/{name}": loss for name, loss in losses.items()})

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Load exactly the phase's batches, in an order that depends on the seed; of several processes each its own."""
        args = self.args
        size = args.per_device_train_batch_size
        together = size * args.gradient_accumulation_steps * args.world_size
        batches = self.batches
        total = together * self.phase.steps
        sampler = LengthBuckets(batches.store, together, total, batches.seed, batches.left_out)
        loader: DataLoader[Any] = DataLoader(batches.store, size, sampler=sampler, collate_fn=batches.collate)  # type: ignore[arg-type]
        return self.accelerator.prepare(loader)  # type: ignore[no-any-return]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make AdamW; matrices decay, biases and norms do not."""
        groups = []
        for name, parameters in self.objective.parameter_groups().items():
            rate = self.phase.learning_rates.get(name)
            for decays in (True, False):
                chosen = [parameter for parameter in parameters if (parameter.dim() > 1) == decays]
                if rate is not None and chosen:
                    decay = self.args.weight_decay if decays else 0.0
                    groups.append({"params": chosen, "lr": rate, "weight_decay": decay, "name": name})
        optimizer = torch.optim.AdamW(groups, fused=True)
        self.optimizer = optimizer
        return optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """Give each of a step's micro-batches its mask seed and, if it is not the whole batch, the batch's counts."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        seeds = [
            (*self.batches.seed, self.state.global_step, number * self.args.world_size + self.args.process_index)
            for number in range(len(batches))
        ]
        if self.args.world_size * len(batches) > 1:
            counts = [
                self.objective.counts(**{name: batch[name] for name in TEXT}, generator=step_generator(device, *seed))
                for batch, seed in zip(batches, seeds, strict=True)
            ]
            totals = reduce(torch.stack(counts).sum(dim=0), "sum")  # (3,)
            batches = [batch | {"totals": totals} for batch in batches]
        return [batch | {"mask_seed": seed} for batch, seed in zip(batches, seeds, strict=True)], None

    def largest_batch(self) -> dict[str, Any]:
        """Collate the longest sequences."""
        store, size = self.batches.store, self.args.per_device_train_batch_size
        rows = store.lengths.argsort()[-size:]
        longest = [store[int(row)] for row in rows] * size  # a store may hold fewer
        return self.batches.collate(longest[:size]) | {"mask_seed": self.batches.seed}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute this part's share of Eq. 9, times the number of parts, because gradients are averaged over them."""
        generator = step_generator(self.args.device, *inputs.pop("mask_seed"))
        with autocast(self.args.device.type, self.objective.settings.precision):
            losses: dict[str, torch.Tensor] = model(**inputs, generator=generator)
        self.step_log.add(losses)
        parts: int = self.args.world_size * self.current_gradient_accumulation_steps
        return losses["loss"] * parts

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure on held-out text, and tell the trackers."""
        self.control.should_evaluate = False  # the Trainer would measure once more where the phase ends
        self.step_log.flush()  # stops at a loss that is not a number before its state is measured
        figures = self.measure(self.state.global_step)
        self.log({f"eval_{self.phase.name}/{name}": figure for name, figure in figures.items()})
        return figures

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write all weights as one safetensors file; tied ones once."""
        weights = whole_weights(self.objective)
        if self.args.should_save and output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            once = {name: weights[name] for name, _ in self.objective.named_parameters()}
            save_file(once, Path(output_dir) / WEIGHTS_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load nothing: the weights are read before the Trainer gets them, while they are whole in every process."""


class MeasureEvery(TrainerCallback):  # type: ignore[misc]
    """Asks for a measurement every so many steps, and after the last one.

    Args:
        steps: How many.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Decide whether the Trainer measures after this step."""
        control.should_evaluate = state.global_step % self.steps == 0 or state.global_step == state.max_steps
