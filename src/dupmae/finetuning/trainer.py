"""Stage 1 of fine-tuning, on sentence-transformers' trainer."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.sparse_encoder import SparseEncoderTrainer, SparseEncoderTrainingArguments
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from dupmae.config import FinetuneConfig
from dupmae.corpus import Benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.errors import DupmaeError
from dupmae.files import atomic_write, fingerprint, write_json
from dupmae.finetuning.examples import make_examples
from dupmae.finetuning.loss import DuplexContrastiveLoss
from dupmae.precision import bfloat16_pays, prepare_for_training
from dupmae.pretraining.metrics import PhaseBar, read_metrics
from dupmae.quiet import hushed
from dupmae.resuming import METRICS_FILE, last_checkpoint, read_record

RUN_FILE = "finetune.json"
"""Record of the run in its output folder."""


def finetune(encoder: DuplexEncoder, train: Benchmark, output: Path, config: FinetuneConfig) -> DuplexEncoder:
    """Fine-tune a duplex encoder on query-passage pairs with in-batch (and BM25) negatives (Eq. 13).

    A run that was interrupted goes on from its last checkpoint and ends as if it had not been; one that is finished
    returns its model at once.

    Args:
        encoder: The model to train; it is changed in place and not to be used afterwards.
        train: Queries, passages and judgements; every judgement above 0 is a training pair.
        output: Folder of the run: `model/`, `metrics.jsonl`, `finetune.json`, and checkpoints while it lasts.
        config: The settings.

    Returns:
        The trained model, as it stands in `output / "model"`.

    Raises:
        DupmaeError: Too few pairs, `output` holds another run, or the loss stops being a number.
    """
    target = output / "model"
    settings = asdict(config)
    del settings["save_steps"]  # how often to save does not change the result
    mark = _fingerprint(encoder, train, settings)
    record = read_record(output, RUN_FILE, mark, "fine-tuning")
    if record and record["finished"] and target.is_dir():
        return DuplexEncoder(str(target))
    examples = make_examples(train, config)
    write_json(output / RUN_FILE, {"fingerprint": mark, "settings": settings, "finished": False})
    set_seed(config.seed)
    prepare_for_training(encoder.transformers_model, config.dropout)
    lengths = encoder[0].document_length, encoder[0].max_seq_length
    encoder[0].document_length = encoder[0].max_seq_length = min(config.max_length, lengths[0])
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(output / "checkpoints"),
        num_train_epochs=1,  # the rows of all epochs are laid out by `make_examples`
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        learning_rate_mapping={
            r"cls_projection|transform\.|output\.weight": config.head_learning_rate,
            r"output\.bias|log_scale": config.scale_learning_rate,
        },
        warmup_steps=config.warmup_ratio,
        lr_scheduler_type="linear",
        weight_decay=config.weight_decay,
        bf16=bfloat16_pays(config.precision),
        use_cpu=not torch.cuda.is_available(),
        batch_sampler=_in_order,
        router_mapping={name: "query" if name == "query" else "document" for name in examples.columns},
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        seed=config.seed,
    )
    trainer = _Trainer(
        model=encoder,
        args=arguments,
        train_dataset=Dataset.from_dict(examples.columns),
        loss=DuplexContrastiveLoss(encoder, examples.positives, config.cls_weight, config.ot_weight),
        callbacks=[_Log(output / METRICS_FILE)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(PhaseBar("fine-tuning"))
    _, checkpoint = last_checkpoint(output / "checkpoints")
    with hushed():
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        encoder[0].document_length, encoder[0].max_seq_length = lengths
        encoder.save_pretrained(str(target))
        write_json(output / RUN_FILE, {"fingerprint": mark, "settings": settings, "finished": True})
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
        return DuplexEncoder(str(target))


class _Trainer(SparseEncoderTrainer):  # type: ignore[misc]
    """The trainer without the bookkeeping for a model card, which embeds examples of the training data."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add none."""


class _Log(TrainerCallback):  # type: ignore[misc]
    """Write every step's losses as JSON lines; a resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the lines up to the step that training goes on from."""
        lines = read_metrics(self.path) if self.path.is_file() else []
        with atomic_write(self.path) as file:
            file.writelines(json.dumps(line) + "\n" for line in lines if line["step"] <= state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Append a line, and stop at a loss that is not a number."""
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise DupmaeError(f"The loss is not a number at step {state.global_step}: lower the learning rates.")
        line = {"step": state.global_step} | {
            key: value
            for key, value in logs.items()
            if key in ("loss", "learning_rate") or key.startswith("contrastive")
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _in_order(dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> BatchSampler:
    """Batches of rows as they come: `make_examples` has drawn the order."""
    return BatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)


def _fingerprint(encoder: DuplexEncoder, train: Benchmark, settings: dict[str, Any]) -> str:
    """A mark of all that the result depends on: settings, data, representation, and every weight of the start."""
    weights = hashlib.sha256()
    for parameter in encoder.parameters():
        weights.update(parameter.detach().cpu().reshape(-1).numpy())
    judged = {passage for grades in train.qrels.values() for passage in grades}
    return fingerprint(
        {
            "settings": settings,
            "queries": train.queries,
            "qrels": train.qrels,
            "passages": [len(train.corpus), {name: train.corpus[name].full_text for name in judged}],
            "representation": encoder.pooling.get_config_dict(),
            "lengths": [encoder[0].query_length, encoder[0].document_length],
            "start": weights.hexdigest(),
        }
    )
