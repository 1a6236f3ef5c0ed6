"""The teacher of Eq. 15: training a cross-encoder on mined lists, and scoring them with it or with a ready model."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator
from sentence_transformers.cross_encoder.losses import LambdaLoss
from transformers import set_seed

from dupmae.config import TeacherConfig, decisive
from dupmae.corpus import Benchmark
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, file_fingerprint, fingerprint
from dupmae.finetuning.candidates import CandidateList, read_lists, write_scores
from dupmae.finetuning.jsonl_blocks import write_resumably
from dupmae.finetuning.trainer_base import PlainTrainer, largest_rows, step_arguments
from dupmae.models import Model, open_model, write_checksums
from dupmae.retrievers.scorers import (
    Scorer,
    is_cross_encoder,
    is_embedder,
    open_scorer,
    start_cross_encoder,
)
from dupmae.runtime.checkpoints import last_checkpoint
from dupmae.runtime.log import METRICS_FILE
from dupmae.runtime.precision import prepare_for_training
from dupmae.runtime.processes import on_one_device, refuse_several_processes
from dupmae.runtime.progress import show_progress
from dupmae.runtime.quiet import silenced
from dupmae.runtime.resuming import CHECKPOINTS_FOLDER, recorded_run
from dupmae.runtime.step_log import StepLog

RUN_FILE = "teacher.json"
"""Record of the training in its output folder."""
SCORES_FILE = "teacher.jsonl"
"""The scores, in their output folder."""
SCORES_RECORD = "scores.json"
"""What they were made from."""
VECTORS_FOLDER = "vectors"
"""An embedder's vectors of the passages, while scoring lasts."""

Row = tuple[str, list[str]]
"""Ids of a query and of passages, of which the first is a positive and the others are its negatives."""


def train_teacher(model: str, train: Benchmark, lists: Path, output: Path, config: TeacherConfig) -> str:
    """Train a cross-encoder to rank a query's positive above its mined negatives.

    Each step takes lists of one positive and a few negatives a query. The loss is LambdaLoss, which weighs each pair of
    passages by what exchanging them would change of NDCG, and which sentence-transformers' documentation prefers to the
    other losses for such lists. A run that was interrupted goes on from its last checkpoint and ends as if it had not
    been; one that is finished returns its model at once.

    Args:
        model: The base model: an encoder (a pre-trained checkpoint, a Hugging Face id), which gets a new head, or a
            cross-encoder.
        train: What the lists were mined for.
        lists: `negatives.jsonl` (:mod:`dupmae.finetuning.candidates`).
        output: Folder of the run: `model/`, `metrics.jsonl`, `teacher.json`, and checkpoints while it lasts.
        config: The settings.

    Returns:
        The folder of the model, which `sentence_transformers.CrossEncoder` loads.

    Raises:
        DupmaeError: The lists do not fit the benchmark or are too few, `output` holds another run, another process is
            at work in it, or the loss is not a number.
    """
    refuse_several_processes("A teacher's training")
    target = output / "model"
    candidates = read_lists(lists, train)
    if not config.epochs:
        raise DupmaeError("epochs is 0, so no teacher is trained: raise it, or take a ready one")
    settings = decisive(config)
    base_model = open_model(model)
    texts = _texts_fingerprint(train, {query: one.passages for query, one in candidates.items()})
    own = fingerprint([settings, base_model.fingerprint, file_fingerprint(lists), texts])
    details = {"fingerprint": own, "settings": settings, "start": model}
    with recorded_run(output / RUN_FILE, details, "teacher", result=target) as run:
        if not run.finished:
            _train(base_model, train, draw_rows(train, candidates, config), output, config)
    return str(target)


def _train(base_model: Model, train: Benchmark, rows: Sequence[Row], output: Path, config: TeacherConfig) -> None:
    """Take all steps, from the beginning or from the last checkpoint, and write the model."""
    set_seed(config.seed)  # draws the new head
    model = start_cross_encoder(base_model)
    model.max_seq_length = min(config.max_length, model.max_seq_length or config.max_length)
    prepare_for_training(model.transformers_model, config.dropout, config.precision)
    longest = [
        len(train.queries[query]) + max(len(train.corpus[one].full_text) for one in passages)
        for query, passages in rows
    ]
    trainer = _Trainer(
        StepLog(output / METRICS_FILE),
        largest_rows(np.array(longest)[:, None], config.batch_size),
        model=model,
        args=on_one_device(_arguments(output, config)),
        train_dataset=Dataset.from_dict({"label": list(range(len(rows)))}),
        data_collator=_Collator(preprocess_fn=model.preprocess, train=train, rows=rows),
        loss=LambdaLoss(model, mini_batch_size=0),  # the whole batch in one forward pass
    )
    show_progress(trainer, "teacher")
    _, checkpoint = last_checkpoint(output / CHECKPOINTS_FOLDER)
    with silenced():
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        with atomic_folder(output / "model") as folder:
            model.save_pretrained(str(folder))
            write_checksums(folder)


def score_lists(teacher: str, train: Benchmark, lists: Path, output: Path, batch_size: int = 32) -> Path:
    """Score every positive and negative of mined lists, once.

    A call that was killed goes on at the block of queries where it was; a finished one is not done again.

    Args:
        teacher: What :func:`train_teacher` returns, any cross-encoder that gives one number, or an embedder
            (:func:`open_scorer`): a folder, an id.
        train: What the lists were mined for.
        lists: `negatives.jsonl` (:mod:`dupmae.finetuning.candidates`).
        output: Folder for `teacher.jsonl` and its record `scores.json`.
        batch_size: A cross-encoder's pairs in a forward pass.

    Returns:
        The file, its queries in the order of the lists.

    Raises:
        DupmaeError: The lists do not fit the benchmark, the teacher gives several numbers, or `output` holds scores of
            another teacher or of other lists.
    """
    candidates = {query: one.passages for query, one in read_lists(lists, train).items()}
    scoring = open_model(teacher)
    settings = {"teacher": teacher, "lists": str(lists)}
    texts = _texts_fingerprint(train, candidates)
    own = fingerprint([scoring.fingerprint, file_fingerprint(lists), texts])

    @cache
    def scorer() -> Scorer:  # a finished run needs none
        named = {passage for some in candidates.values() for passage in some}
        return open_scorer(scoring, train, named, output / VECTORS_FOLDER, batch_size)

    def write(block: Sequence[str], path: Path) -> None:
        write_scores(path, scorer()({query: candidates[query] for query in block}))

    target = write_resumably(output / SCORES_FILE, SCORES_RECORD, own, settings, list(candidates), write, "scoring")
    shutil.rmtree(output / VECTORS_FOLDER, ignore_errors=True)
    return target


def refuse_no_teacher(model: Model) -> None:
    """Refuse a model that has no scores as it is.

    Raises:
        DupmaeError: It is neither a cross-encoder nor an embedder.
    """
    if not is_embedder(model) and not is_cross_encoder(model):
        raise DupmaeError(
            f"{model.label} is neither an embedder nor a cross-encoder, so it has no scores to distil: name another "
            "teacher, or take 2 stages"
        )


def _texts_fingerprint(train: Benchmark, candidates: Mapping[str, Sequence[str]]) -> str:
    """Take the fingerprint of the texts of queries and of their passages."""
    named = sorted({passage for some in candidates.values() for passage in some})
    texts = {passage: train.corpus[passage].full_text for passage in named}
    return fingerprint([{query: train.queries[query] for query in candidates}, texts])


def draw_rows(train: Benchmark, lists: Mapping[str, CandidateList], config: TeacherConfig) -> list[Row]:
    """Lay out all epochs' rows in an order drawn anew for each: a query, a positive, some of its negatives.

    Raises:
        DupmaeError: Fewer lists have negatives than a step takes.
    """
    usable = [one for _, one in sorted(lists.items()) if one.negatives]
    if int(len(usable) * min(config.epochs, 1)) < config.batch_size:
        raise DupmaeError(
            f"{len(usable)} lists have negatives, too few for a step of {config.batch_size}: lower batch_size, or mine "
            "with wider margins."
        )
    draw = random.Random(config.seed)
    wanted = int(len(usable) * config.epochs) // config.batch_size * config.batch_size
    rows: list[Row] = []
    while len(rows) < wanted:
        draw.shuffle(usable)
        for one in usable:
            count = min(config.negatives, len(one.negatives))
            drawn = [draw.choice(list(one.positives)), *draw.sample(list(one.negatives), count)]
            rows.append((one.query_id, drawn))
    del rows[wanted:]
    return rows


@dataclass
class _Collator(CrossEncoderDataCollator):  # type: ignore[misc]
    """Looks up the texts of rows, given by their numbers: all epochs' texts would not fit into memory."""

    train: Benchmark | None = None
    rows: Sequence[Row] = ()

    def __call__(self, features: list[dict[str, int]]) -> dict[str, Any]:
        """Make a batch of queries and lists of passages; the label of a positive is 1, of the others 0."""
        assert self.train is not None
        found = []
        for feature in features:
            query, passages = self.rows[feature["label"]]
            texts = [self.train.corpus[name].full_text for name in passages]
            label = [1.0, *[0.0] * (len(passages) - 1)]
            found.append({"query": self.train.queries[query], "passages": texts, "label": label})
        batch: dict[str, Any] = super().__call__(found)
        return batch


def _arguments(output: Path, config: TeacherConfig) -> CrossEncoderTrainingArguments:
    """Translate the settings into the trainer's own arguments."""
    return CrossEncoderTrainingArguments(
        **step_arguments(output, config),
        learning_rate_mapping={r"classifier|pooler|\.head\.": config.head_learning_rate},
    )


class _Trainer(PlainTrainer, CrossEncoderTrainer):  # type: ignore[misc]
    """The trainer as it is used here."""
