"""Pre-training from a base model to a checkpoint: phases, measuring, and going on after an interruption."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed as set_seed_by_process
from safetensors.torch import load_model
from transformers import TrainingArguments, set_seed

from dupmae.backbones.declared import warn_of_pooling
from dupmae.config import PretrainConfig, decisive
from dupmae.errors import DupmaeError
from dupmae.files import fingerprint
from dupmae.models import Model
from dupmae.pretraining.anchor_vectors import WithVectors, encode_store, open_anchor_model, projection_to
from dupmae.pretraining.checkpoint import load_for_pretraining
from dupmae.pretraining.checks import refuse_impossible
from dupmae.pretraining.data import Sequences, collator, refuse_long
from dupmae.pretraining.held_out import HeldOut, split
from dupmae.pretraining.objective import DupMAE
from dupmae.pretraining.phase import WEIGHTS_FILE, Batches, MeasureEvery, Phase, PhaseTrainer, phases
from dupmae.pretraining.result import best_checkpoint, write_result
from dupmae.pretraining.sharding import forget_sharding, shard_arguments
from dupmae.pretraining.tracking import tracker
from dupmae.pretraining.warm_start import warm_start_head
from dupmae.runtime.best import BestCheckpoint
from dupmae.runtime.checkpoints import SealCheckpoints, last_checkpoint
from dupmae.runtime.log import METRICS_FILE
from dupmae.runtime.processes import join_processes, on_one_device
from dupmae.runtime.progress import show_progress
from dupmae.runtime.resuming import CHECKPOINTS_FOLDER, recorded_run
from dupmae.runtime.step_log import StepLog

logger = logging.getLogger(__name__)

RUN_FILE = "pretrain.json"
"""Record of the run in its output folder: fingerprint, settings, whether it is finished."""
VECTORS_FOLDER = "vectors"
"""The anchor model's vectors, in the output folder."""
PROJECTION_FILE = "projection.npy"
"""What takes them to the encoder's width, among the checkpoints, and thrown away with them."""


def pretrain(
    store: Sequences, model: str, output: Path, config: PretrainConfig, *, vectors: Path | None = None
) -> Path:
    """Pre-train an encoder on a token store with the DupMAE objective.

    A run that was interrupted goes on from its last checkpoint and ends as if it had not been; one that is finished
    returns at once. Under `torchrun` every process calls this function with the same arguments, and the first one
    writes.

    Args:
        store: The tokenised text, made with the model's tokenizer.
        model: The base model: a folder or a Hugging Face id. A checkpoint of ours brings its head and its
            decoder along, so that pre-training goes on from it, with a new schedule and a new optimiser; a duplex model
            its head.
        output: Folder of the run: `model/`, `metrics.jsonl`, `held_out.jsonl`, `pretrain.json`, and `checkpoints/` and
            `kept/` while it lasts.
        config: The settings.
        vectors: Folder in which the vectors of `config.anchor_model` are kept and looked for
            (:mod:`dupmae.pretraining.anchor_vectors`); None takes `output / "vectors"`. Several runs may share one.

    Returns:
        The checkpoint folder, `output / "model"`; see :mod:`dupmae.pretraining.checkpoint`.

    Raises:
        DupmaeError: The store is empty or does not fit the model, the model is unsuitable, `output` holds another run,
            or one that is at work, all losses are switched off, `anchor_model` gives no vectors, there is nothing to
            shard over, the tracker is not installed, or the loss is not a number.

    Examples:
        >>> from pathlib import Path
        >>> from transformers import AutoTokenizer
        >>> from dupmae import PretrainConfig, StoreConfig, build_token_store, pretrain
        >>> from dupmae.backbones.from_scratch import new_encoder
        >>> from dupmae.config import ScratchConfig
        >>> from dupmae.corpus import Passage
        >>> texts = [f"lamp {number} burns in the tower by the sea" for number in range(20)]
        >>> size = ScratchConfig(layers=1, width=16, heads=2, vocabulary_size=60)  # a real one is larger
        >>> encoder = new_encoder(lambda: texts, Path("encoder"), size, seed=1)
        >>> passages = [Passage(str(number), "", text) for number, text in enumerate(texts)]
        >>> tokenizer = AutoTokenizer.from_pretrained(encoder)
        >>> store = build_token_store(passages, tokenizer, Path("store"), StoreConfig())
        >>> config = PretrainConfig(new_layers_steps=0, steps=2, batch_size=4)
        >>> pretrain(store, "encoder", Path("run"), config).as_posix()
        'run/model'
        >>> sorted(path.name for path in Path("run").iterdir())
        ['held_out.jsonl', 'metrics.jsonl', 'model', 'pretrain.json']
    """
    if len(store) == 0:
        raise DupmaeError("The token store is empty: there is no text to pre-train on.")
    refuse_impossible(config)
    processes = join_processes()
    settings = decisive(config)
    inputs: dict[str, Any] = {"settings": settings, "start": Model(model).fingerprint, "store": store.fingerprint}
    anchor_model = open_anchor_model(config)
    if anchor_model is not None:
        inputs["anchor_model"] = [anchor_model.fingerprint, store.keeps_texts]
    details = {
        "fingerprint": fingerprint(inputs | {"processes": processes.num_processes}),
        "start": model,
        "processes": processes.num_processes,
        "settings": settings,
    }
    target = output / "model"
    with recorded_run(output / RUN_FILE, details, "pre-training", result=target) as run:
        if not run.finished:
            kept = output / VECTORS_FOLDER if vectors is None else vectors
            _train(store, model, output, config, processes.device, details, (anchor_model, kept))
    return target


def _train(
    store: Sequences,
    model: str,
    output: Path,
    config: PretrainConfig,
    device: torch.device,
    details: dict[str, Any],
    anchor: tuple[Model | None, Path],
) -> None:
    """Go through all phases, from the beginning or from the last checkpoint, and write the result.

    The anchor is its model, if it has one of its own, and the folder of its vectors.
    """
    schedule = phases(config)
    first, done, checkpoint = _begun(output / CHECKPOINTS_FOLDER, schedule)
    warn_of_pooling(Model(model), config.dense_pooling)
    set_seed(config.seed)
    objective, tokenizer = load_for_pretraining(model, config)
    refuse_long(int(store.lengths.max()), objective.backbone.max_length)
    objective.to(device)
    held_out = split(store, config.held_out_texts)
    unfit = objective.backbone.new_head or objective.backbone.duplex_head
    if unfit and config.warm_start_sequences and checkpoint is None:
        warm_start_head(
            objective, store, tokenizer.pad_token_id, config.warm_start_sequences, config.seed, held_out.left_out
        )
    anchor_model, kept = anchor
    if anchor_model is not None and config.steps:
        vectors = encode_store(store, tokenizer, anchor_model, kept, config)
        file = output / CHECKPOINTS_FOLDER / PROJECTION_FILE
        store = WithVectors(store, vectors, projection_to(objective, store, vectors, tokenizer.pad_token_id, file))
    measured = HeldOut(store, held_out.measured, tokenizer.pad_token_id, objective, config.batch_size)
    if config.keep == "probe" and len(measured.pairs) < 2:
        raise DupmaeError(
            f"keep is probe, but {len(measured.pairs)} held-out texts are long enough to be looked for: "
            "set held_out_texts higher, take more text, or keep by loss."
        )
    best = best_checkpoint(output, objective, tokenizer, measured)
    collate = collator(tokenizer.pad_token_id, objective.backbone.vocab_size, objective.backbone.max_length)
    for number, phase in enumerate(schedule):
        if phase.steps > 0 and number >= first:
            data = Batches(store, held_out.left_out, collate, (config.seed, number))
            begun = (done, checkpoint) if number == first else (0, None)
            opens = not any(earlier.steps for earlier in schedule[:number])
            _run_phase(objective, data, output, phase, begun, best, measures=len(measured) > 0, opens=opens)
    write_result(
        output,
        best,
        next((phase.name for phase in reversed(schedule) if phase.steps), ""),
        {
            "start": model,
            "prompts": Model(model).prompts,
            "steps": {phase.name: phase.steps for phase in schedule},
            "processes": details["processes"],
            "fingerprint": details["fingerprint"],
            "store": store.fingerprint,
        },
        store,
        len(measured),
    )


def _begun(folder: Path, schedule: list[Phase]) -> tuple[int, int, Path | None]:
    """Find the phase that the run is in, by its number, the steps done of it, and the checkpoint to go on from."""
    for number in reversed(range(len(schedule))):
        done, checkpoint = last_checkpoint(folder / schedule[number].name)
        if checkpoint is not None:
            return number, done, checkpoint
    return 0, 0, None


def _run_phase(
    objective: DupMAE,
    batches: Batches,
    output: Path,
    phase: Phase,
    begun: tuple[int, Path | None],
    best: BestCheckpoint,
    *,
    measures: bool,
    opens: bool,
) -> None:
    """Train one phase, from the beginning or from its last checkpoint; the run's first one measures its start."""
    done, checkpoint = begun
    settings = objective.settings
    if checkpoint is not None:
        load_model(objective, checkpoint / WEIGHTS_FILE)
    if done == phase.steps:
        return
    objective.learn(set(phase.learning_rates))
    arguments = TrainingArguments(
        output_dir=str(output / CHECKPOINTS_FOLDER / phase.name),
        max_steps=phase.steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        warmup_steps=round(settings.warmup_ratio * phase.steps),
        lr_scheduler_type="linear",
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=settings.save_steps,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        run_name=output.name,
        seed=sum(batches.seed),
        **shard_arguments(objective) if settings.shard else {},
    )
    best.begin(done, phase.name)
    log = StepLog(output / METRICS_FILE, phase.name, across="sum")
    trainer = PhaseTrainer(
        objective,
        batches,
        phase,
        log,
        best.measure,
        args=on_one_device(arguments),
        callbacks=[SealCheckpoints(), *tracker(settings.report_to, output)],
    )
    show_progress(trainer, f"pre-training, {phase.name}")
    if measures:
        trainer.add_callback(MeasureEvery(settings.eval_steps))
        if opens and not done:
            trainer.evaluate()
    set_seed_by_process(arguments.seed, device_specific=True)  # each process its own dropout
    logger.info("Phase %s: steps %d to %d.", phase.name, done + 1, phase.steps)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    # what accelerate leaves behind would keep the next phase's Trainer from preparing the model for several processes
    vars(objective).pop("_is_accelerate_prepared", None)
    forget_sharding()
