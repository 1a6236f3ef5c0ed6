"""Pre-training from start to checkpoint: phases, measuring, and going on after an interruption."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed as set_seed_by_process
from safetensors.torch import load_model
from transformers import TrainingArguments, set_seed

from dupmae.backbones.declared import trained_prompts, warn_of_pooling
from dupmae.config import PretrainConfig, decisive
from dupmae.errors import DupmaeError
from dupmae.files import fingerprint, write_json
from dupmae.models import model_fingerprint
from dupmae.pretraining.best import BestCheckpoint
from dupmae.pretraining.checkpoint import load_for_pretraining
from dupmae.pretraining.data import Sequences, collator, refuse_long
from dupmae.pretraining.held_out import HeldOut, split
from dupmae.pretraining.objective import DupMAE
from dupmae.pretraining.phase import WEIGHTS_FILE, MeasureEvery, Phase, PhaseTrainer, phases
from dupmae.pretraining.sharding import forget_sharding, refuse_unshardable, shard_arguments
from dupmae.pretraining.step_log import MetricsLog
from dupmae.pretraining.tracking import tracker
from dupmae.pretraining.warm_start import warm_start_head
from dupmae.runtime.log import METRICS_FILE
from dupmae.runtime.processes import is_first_process, join_processes, on_one_device
from dupmae.runtime.progress import show_progress
from dupmae.runtime.resuming import last_checkpoint, read_record, sole_run

logger = logging.getLogger(__name__)

RUN_FILE = "pretrain.json"
"""Record of the run in its output folder: fingerprint, settings, whether it is finished."""


def pretrain(store: Sequences, model: str, output: Path, config: PretrainConfig) -> Path:
    """Pre-train an encoder on a token store with the DupMAE objective.

    A run that was interrupted goes on from its last checkpoint and ends as if it had not been; one that is finished
    returns at once. Under `torchrun` every process calls this function with the same arguments, and the first one
    writes.

    Args:
        store: The tokenised text, made with the model's tokenizer.
        model: Encoder to start from: a folder or a Hugging Face id. A checkpoint of ours brings its head and its
            decoder along, so that pre-training goes on from it, with a new schedule and a new optimiser; a duplex model
            its head.
        output: Folder of the run: `model/`, `metrics.jsonl`, `held_out.jsonl`, `pretrain.json`, and `checkpoints/` and
            `kept/` while it lasts.
        config: The settings.

    Returns:
        The checkpoint folder, `output / "model"`; see :mod:`dupmae.pretraining.checkpoint`.

    Raises:
        DupmaeError: The store is empty or does not fit the model, the model is unsuitable, `output` holds another run,
            or one that is at work, all losses are switched off, there is nothing to shard over, the tracker is not
            installed, or the loss stops being a number.
    """
    if len(store) == 0:
        raise DupmaeError("The token store is empty: there is no text to pre-train on.")
    if not (config.mlm_weight or config.cls_weight or config.bow_weight):
        raise DupmaeError("All three loss weights are 0: set at least one of mlm_weight, cls_weight and bow_weight.")
    processes = join_processes()
    if config.shard:
        refuse_unshardable(processes)
    target = output / "model"
    with sole_run(output):
        with processes.main_process_first():
            run = _open_run(output, store, model, config, processes.num_processes)
            schedule = phases(config)
            begun = {phase.name: last_checkpoint(output / "checkpoints" / phase.name) for phase in schedule}
        if run["finished"] and target.is_dir():
            if is_first_process():
                _clear(output)
            return target
        warn_of_pooling(model, config.dense_pooling)
        set_seed(config.seed)
        objective, tokenizer = load_for_pretraining(model, config)
        refuse_long(int(store.lengths.max()), objective.backbone.max_length)
        objective.to(processes.device)
        held_out = split(store, config.held_out_texts)
        unfit = objective.backbone.new_head or objective.backbone.duplex_head
        if unfit and config.warm_start_sequences and not any(done for done, _ in begun.values()):
            warm_start_head(
                objective, store, tokenizer.pad_token_id, config.warm_start_sequences, config.seed, held_out.left_out
            )
        measured = HeldOut(store, held_out.measured, tokenizer.pad_token_id, objective, config.batch_size)
        if config.keep == "probe" and len(measured.pairs) < 2:
            raise DupmaeError(
                f"keep is probe, but {len(measured.pairs)} held-out texts are long enough to be looked for: "
                "set held_out_texts higher, take more text, or keep by loss."
            )
        keeper = BestCheckpoint(output, objective, tokenizer, measured, is_first_process())
        for number, phase in enumerate(schedule):
            if phase.steps > 0:
                _run_phase(
                    objective, tokenizer, store, output, number, phase, begun[phase.name], held_out.left_out, keeper
                )
                keeper.started = True
        keeper.finish(
            {
                "start": model,
                "prompts": trained_prompts(model),
                "steps": {phase.name: phase.steps for phase in schedule},
                "processes": processes.num_processes,
                "fingerprint": run["fingerprint"],
                "store": store.fingerprint,
            },
            store,
        )
        if is_first_process():
            write_json(output / RUN_FILE, run | {"finished": True})
            _clear(output)
        processes.wait_for_everyone()
        return target


def _run_phase(
    objective: DupMAE,
    tokenizer: Any,
    store: Sequences,
    output: Path,
    number: int,
    phase: Phase,
    begun: tuple[int, Path | None],
    left_out: Any,
    keeper: BestCheckpoint,
) -> None:
    """Train one phase, from the beginning or from its last whole checkpoint."""
    done, checkpoint = begun
    config = objective.settings
    if checkpoint is not None:
        load_model(objective, checkpoint / WEIGHTS_FILE)
    if done == phase.steps:
        keeper.phase = phase.name  # what it would save is the end of this one
        return
    objective.learn(set(phase.learning_rates))
    arguments = TrainingArguments(
        output_dir=str(output / "checkpoints" / phase.name),
        max_steps=phase.steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        warmup_steps=round(config.warmup_ratio * phase.steps),
        lr_scheduler_type="linear",
        weight_decay=config.weight_decay,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=1,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        run_name=output.name,
        seed=config.seed + number,
        **shard_arguments(objective) if config.shard else {},
    )
    backbone = objective.backbone
    keeper.begin(phase.name, done)
    trainer = PhaseTrainer(
        objective,
        store,
        left_out,
        collator(tokenizer.pad_token_id, backbone.vocab_size, backbone.max_length),
        phase,
        (config.seed, number),
        MetricsLog(output / METRICS_FILE, phase.name, done, writes=is_first_process()),
        keeper.measure,
        args=on_one_device(arguments),
        callbacks=tracker(config.report_to, output),
    )
    show_progress(trainer, f"pre-training, {phase.name}")
    if len(keeper.held_out):
        trainer.add_callback(MeasureEvery(config.eval_steps))
        if done == 0 and not keeper.started:
            trainer.evaluate()
    set_seed_by_process(arguments.seed, device_specific=True)  # each process its own dropout
    logger.info("Phase %s: steps %d to %d.", phase.name, done + 1, phase.steps)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    # what accelerate leaves behind would keep the next phase's Trainer from preparing the model for several processes
    vars(objective).pop("_is_accelerate_prepared", None)
    forget_sharding()


def _open_run(output: Path, store: Sequences, model: str, config: PretrainConfig, processes: int) -> dict[str, Any]:
    """The run's record: the one in `output` if it is of the same run, else a new one in a folder without another's."""
    settings = decisive(config)
    inputs = {"settings": settings, "start": model_fingerprint(model), "store": store.fingerprint}
    mark = fingerprint(inputs | {"processes": processes})
    found = read_record(output, RUN_FILE, mark, "pre-training")
    if found is not None:
        return found
    record = {"fingerprint": mark, "finished": False, "start": model, "processes": processes, "settings": settings}
    write_json(output / RUN_FILE, record)
    return record


def _clear(output: Path) -> None:
    """Delete what only an unfinished run needs: optimiser states, and the kept checkpoint that is now the model."""
    for leftover in ("checkpoints", "kept"):
        shutil.rmtree(output / leftover, ignore_errors=True)
