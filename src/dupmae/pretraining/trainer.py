"""Pre-training from start to checkpoint: phases, precision, metrics, and going on after an interruption."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from dupmae.config import PretrainConfig
from dupmae.errors import DupmaeError
from dupmae.files import file_fingerprint, fingerprint, write_json
from dupmae.precision import bfloat16_pays
from dupmae.pretraining.checkpoint import load_for_pretraining, save_checkpoint
from dupmae.pretraining.data import LengthBuckets, Sequences, collator
from dupmae.pretraining.masking import step_generator
from dupmae.pretraining.metrics import MetricsLog, PhaseBar, last_losses
from dupmae.pretraining.objective import DupMAE
from dupmae.pretraining.warm_start import warm_start_head
from dupmae.resuming import METRICS_FILE, last_checkpoint, read_record

logger = logging.getLogger(__name__)

RUN_FILE = "pretrain.json"
"""Record of the run in its output folder: fingerprint, settings, whether it is finished."""
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


def phases(config: PretrainConfig) -> list[Phase]:
    """The schedule: first the new layers alone under a frozen encoder, then everything together, gently."""
    new, old = config.new_layers_learning_rate, config.learning_rate
    joint = {"encoder": old, "head": config.head_learning_rate, "decoder": config.head_learning_rate}
    return [
        Phase("new_layers", config.new_layers_steps, {"head": new, "decoder": new}),
        Phase("joint", config.steps, joint),
    ]


def pretrain(store: Sequences, model: str, output: Path, config: PretrainConfig) -> Path:
    """Pre-train an encoder on a token store with the DupMAE objective.

    A run that was interrupted goes on from its last checkpoint and ends as if it had not been; one that is finished
    returns at once.

    Args:
        store: The tokenised text, made with the model's tokenizer.
        model: Encoder to start from: a folder or a Hugging Face id.
        output: Folder of the run: `model/`, `metrics.jsonl`, `pretrain.json`, and checkpoints while it lasts.
        config: The settings.

    Returns:
        The checkpoint folder, `output / "model"`; see :mod:`dupmae.pretraining.checkpoint`.

    Raises:
        DupmaeError: The store is empty or does not fit the model, the model is unsuitable, `output` holds another run,
            all losses are switched off, or the loss stops being a number.
    """
    if len(store) == 0:
        raise DupmaeError("The token store is empty: there is no text to pre-train on.")
    if not (config.mlm_weight or config.cls_weight or config.bow_weight):
        raise DupmaeError("All three loss weights are 0: set at least one of mlm_weight, cls_weight and bow_weight.")
    run = _open_run(output, store, model, config)
    target = output / "model"
    if run["finished"] and target.is_dir():
        return target
    set_seed(config.seed)
    objective, tokenizer = load_for_pretraining(model, config)
    schedule = phases(config)
    begun = any(last_checkpoint(output / "checkpoints" / phase.name)[1] for phase in schedule)
    if objective.backbone.new_head and config.warm_start_sequences and not begun:
        warm_start_head(objective, store, tokenizer.pad_token_id, config.warm_start_sequences, config.seed)
    for number, phase in enumerate(schedule):
        if phase.steps > 0:
            _run_phase(objective, tokenizer, store, output, config, number, phase)
    record = {
        "steps": {phase.name: phase.steps for phase in schedule},
        "losses": last_losses(output / METRICS_FILE),
        "fingerprint": run["fingerprint"],
        "store": store.fingerprint,
    }
    save_checkpoint(target, objective, tokenizer, record)
    write_json(output / RUN_FILE, run | {"finished": True})
    for phase in schedule[:-1]:
        shutil.rmtree(output / "checkpoints" / phase.name, ignore_errors=True)
    return target


class PhaseTrainer(Trainer):  # type: ignore[misc]
    """The Trainer of one phase: our batches, our parameter groups, and masks that depend on the step alone."""

    def __init__(
        self, objective: DupMAE, store: Sequences, collate: Any, phase: Phase, seed: tuple[int, int], **trainer: Any
    ) -> None:
        super().__init__(model=objective, **trainer)
        self.objective, self.store, self.collate, self.phase, self.seed = objective, store, collate, phase, seed
        self.metrics_log: MetricsLog | None = None
        self._batch_of_step = (0, -1)  # (step, number of the last batch in it)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Exactly the phase's batches, in an order that depends on the seed."""
        args = self.args
        size = args.per_device_train_batch_size
        together = size * args.gradient_accumulation_steps * args.world_size
        sampler = LengthBuckets(self.store, together, together * self.phase.steps, self.seed)
        loader: DataLoader[Any] = DataLoader(self.store, size, sampler=sampler, collate_fn=self.collate)  # type: ignore[arg-type]
        return self.accelerator.prepare(loader)  # type: ignore[no-any-return]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW; matrices decay, biases and norms do not."""
        groups = []
        for name, parameters in self.objective.parameter_groups().items():
            rate = self.phase.learning_rates.get(name)
            for decays in (True, False):
                chosen = [parameter for parameter in parameters if (parameter.dim() > 1) == decays]
                if rate is not None and chosen:
                    decay = self.args.weight_decay if decays else 0.0
                    groups.append({"params": chosen, "lr": rate, "weight_decay": decay, "name": name})
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        return self.optimizer

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Eq. 9, with masks drawn for this step, process and micro-batch."""
        step, batch = self.state.global_step, self._batch_of_step
        self._batch_of_step = (step, batch[1] + 1 if batch[0] == step else 0)
        numbers = (*self.seed, step, self.args.process_index, self._batch_of_step[1])
        losses: dict[str, torch.Tensor] = model(**inputs, generator=step_generator(self.args.device, *numbers))
        if self.metrics_log is not None:
            self.metrics_log.add(losses)
        return losses["loss"]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """All weights as one safetensors file; tied ones once."""
        if self.args.should_save and output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            save_model(self.objective, str(Path(output_dir) / WEIGHTS_FILE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Read what :meth:`save_model` wrote."""
        load_model(self.objective, Path(resume_from_checkpoint) / WEIGHTS_FILE)


def _run_phase(
    objective: DupMAE,
    tokenizer: Any,
    store: Sequences,
    output: Path,
    config: PretrainConfig,
    number: int,
    phase: Phase,
) -> None:
    """Train one phase, from the beginning or from its last whole checkpoint."""
    folder = output / "checkpoints" / phase.name
    done, checkpoint = last_checkpoint(folder)
    if checkpoint is not None and done == phase.steps:
        load_model(objective, checkpoint / WEIGHTS_FILE)
        return
    objective.learn(set(phase.learning_rates))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=phase.steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        warmup_steps=round(config.warmup_ratio * phase.steps),
        lr_scheduler_type="linear",
        weight_decay=config.weight_decay,
        bf16=bfloat16_pays(config.precision),
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=1,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        seed=config.seed + number,
    )
    backbone = objective.backbone
    collate = collator(tokenizer.pad_token_id, backbone.vocab_size, backbone.max_length)
    trainer = PhaseTrainer(objective, store, collate, phase, (config.seed, number), args=arguments)
    trainer.metrics_log = MetricsLog(output / METRICS_FILE, phase.name, done)
    trainer.add_callback(trainer.metrics_log)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(PhaseBar(f"pre-training, {phase.name}"))
    logger.info("Phase %s: steps %d to %d.", phase.name, done + 1, phase.steps)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    # what accelerate leaves on the model would keep the next phase's Trainer from wrapping it in autocast again
    for leftover in ("_is_accelerate_prepared", "forward"):
        vars(objective).pop(leftover, None)


def _open_run(output: Path, store: Sequences, model: str, config: PretrainConfig) -> dict[str, Any]:
    """The run's record: the one in `output` if it is of the same run, else a new one in a folder without another's."""
    settings = asdict(config)
    del settings["save_steps"]  # how often to save does not change the result
    weights = Path(model) / "model.safetensors"
    start = file_fingerprint(weights) if weights.is_file() else model
    mark = fingerprint({"settings": settings, "start": start, "store": store.fingerprint})
    found = read_record(output, RUN_FILE, mark, "pre-training")
    if found is not None:
        return found
    record = {"fingerprint": mark, "finished": False, "start": model, "settings": settings}
    write_json(output / RUN_FILE, record)
    return record
