"""Fine-tuning of any stage on sentence-transformers' trainer."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.sparse_encoder import (
    SparseEncoderDataCollator,
    SparseEncoderTrainer,
    SparseEncoderTrainingArguments,
)
from transformers import set_seed

from dupmae.config import FinetuneConfig, decisive
from dupmae.corpus import Benchmark
from dupmae.corpus.passage import corpus_fingerprint
from dupmae.corpus.unknown_words import FIRST_SAMPLE, warn_of_unknown_words
from dupmae.duplex import DuplexEncoder
from dupmae.duplex.card import Figure
from dupmae.errors import DupmaeError
from dupmae.evaluation import METRICS
from dupmae.files import file_fingerprint, fingerprint
from dupmae.finetuning.candidates import lists_of, read_lists, read_scores
from dupmae.finetuning.examples import Examples, make_examples, refuse_without_negatives
from dupmae.finetuning.interpolation import interpolated, weights_of
from dupmae.finetuning.loss import DuplexLoss
from dupmae.finetuning.trainer_base import PlainTrainer, largest_rows, step_arguments
from dupmae.finetuning.validation import METRIC, Validation, before_and_after, dev_pool, reading
from dupmae.finetuning.weights import tune_weights
from dupmae.runtime.best import Measurement
from dupmae.runtime.checkpoints import last_checkpoint
from dupmae.runtime.curves import CURVES_FILE, draw_curves
from dupmae.runtime.log import METRICS_FILE
from dupmae.runtime.precision import prepare_for_training
from dupmae.runtime.processes import is_first_process, join_processes, on_one_device
from dupmae.runtime.progress import show_progress
from dupmae.runtime.quiet import silenced
from dupmae.runtime.resuming import CHECKPOINTS_FOLDER, recorded_run
from dupmae.runtime.step_log import StepLog

logger = logging.getLogger(__name__)

RUN_FILE = "finetune.json"
"""Record of the run in its output folder."""


def finetune(
    encoder: DuplexEncoder,
    train: Benchmark,
    output: Path,
    config: FinetuneConfig,
    *,
    dev: Benchmark | None = None,
    lists: Path | None = None,
    scores: Path | Mapping[str, Mapping[str, float]] | None = None,
) -> DuplexEncoder:
    """Fine-tune a duplex encoder on query-passage pairs.

    | stage | `lists` | `scores` | what it minimises |
    |---|---|---|---|
    | 1 | | | contrastive, in-batch and BM25's negatives (Eq. 13) |
    | 2 | yes | | contrastive, in-batch and mined negatives (Eq. 14) |
    | 3 | yes | yes | distance to a teacher's scores of the mined lists (Eq. 15) |
    | 3 | | of `train` | distance to scores that came with the pairs |

    A run that was interrupted goes on from its last checkpoint and ends as if it had not been; one that is finished
    returns its model at once. Under `torchrun` every process calls this function with the same arguments, and the first
    one writes.

    Args:
        encoder: The model to train; it is changed in place and not to be used afterwards.
        train: Queries, passages and judgements; every judgement above 0 is a training pair.
        output: Folder of the run: `model/`, `metrics.jsonl`, `held_out.jsonl`, `curves.png`, `finetune.json`, and
            `checkpoints/` and `kept/` while it lasts.
        config: The settings.
        dev: Held-out queries of the same corpus, to measure on while training and to choose the best state by.
        lists: File of candidate lists (:mod:`dupmae.finetuning.candidates`); its positives are the training pairs then.
        scores: File of a teacher's scores of these lists; or scores of judged passages of `train`, query id -> passage
            id -> score (:func:`dupmae.corpus.pairs.read_scored_pairs`), which are lists of their own.

    Returns:
        The trained model, as it stands in `output / "model"`.

    Raises:
        DupmaeError: Too few pairs, a bad file of lists or scores, `output` holds another run,
            or one that is at work, or the loss is not a number.

    Examples:
        >>> from pathlib import Path
        >>> from dupmae import DuplexConfig, DuplexEncoder, FinetuneConfig, finetune
        >>> from dupmae.backbones.from_scratch import new_encoder
        >>> from dupmae.config import ScratchConfig
        >>> from dupmae.corpus import Benchmark, Passage
        >>> texts = {"lamp": "a lamp burns in the tower", "fish": "fish swim in the sea", "hill": "a hill of sand"}
        >>> train = Benchmark(
        ...     "toy", "train", {name: Passage(name, "", text) for name, text in texts.items()},
        ...     queries={"q1": "what burns", "q2": "what swims"}, qrels={"q1": {"lamp": 1}, "q2": {"fish": 1}},
        ... )
        >>> size = ScratchConfig(layers=1, width=16, heads=2, vocabulary_size=60)  # a real one is larger
        >>> new_encoder(texts.values, Path("encoder"), size, seed=1).as_posix()
        'encoder'
        >>> encoder = DuplexEncoder.from_encoder("encoder", DuplexConfig(top_k=8))
        >>> encoder = finetune(encoder, train, Path("run"), FinetuneConfig(epochs=2, batch_size=2))
        >>> sorted(path.name for path in Path("run").iterdir())
        ['curves.png', 'finetune.json', 'metrics.jsonl', 'model']
    """
    if scores is not None and isinstance(scores, Path) == (lists is None):
        raise DupmaeError("A file of a teacher's scores belongs to candidate lists: give the lists, too.")
    held_out = dev if dev is not None and dev.queries else None
    measured = held_out if config.eval_steps else None
    parts = (encoder.pooling.dense_dimension > 0) + (encoder.pooling.top_k > 0) + (encoder.words is not None)
    tuned_on = held_out if config.tune_weights and parts > 1 else None
    if config.tune_weights and held_out is None:
        logger.warning(
            "The weights of the parts stay as training leaves them: there are no held-out queries to choose by."
        )
    processes = join_processes()
    target = output / "model"
    settings = decisive(config)
    own = _fingerprint(encoder, train, measured or tuned_on, [settings, processes.num_processes], [lists, scores])
    details = {"fingerprint": own, "settings": settings}
    with recorded_run(output / RUN_FILE, details, "fine-tuning", result=target) as run:
        if not run.finished:
            examples = _examples(train, dev, config, lists, scores, processes.num_processes)
            refuse_without_negatives(examples, config.batch_size * processes.num_processes)
            spread = islice(train.corpus.values(), 0, None, max(len(train.corpus) // FIRST_SAMPLE, 1))
            warn_of_unknown_words(encoder.tokenizer, [passage.full_text for passage in spread])
            run.record["trained_on"] = {
                "data": train.name,
                "queries": len(train.queries),
                "examples": len(examples),
                "stage": 3 if scores is not None else 1 + (lists is not None),
                "base_model": _name_of(encoder),
            }
            _train(encoder, examples, output, config, run.record, measured, tuned_on)
    with silenced():
        return DuplexEncoder(str(target))


def _train(
    encoder: DuplexEncoder,
    examples: Examples,
    output: Path,
    config: FinetuneConfig,
    record: dict[str, Any],
    measured: Benchmark | None,
    tuned_on: Benchmark | None,
) -> None:
    """Take all steps, from the beginning or from the last checkpoint, and write the result."""
    done, checkpoint = last_checkpoint(output / CHECKPOINTS_FOLDER)
    set_seed(config.seed)
    encoder.float()  # whatever it was saved in: half precision has no room for an optimiser's steps
    prepare_for_training(encoder.transformers_model, config.dropout, config.precision)
    if not config.learning_rate:
        encoder.transformers_model.requires_grad_(False)
    length = encoder[0].document_length
    before = weights_of(encoder) if config.interpolation < 1 else []
    log = StepLog(output / METRICS_FILE)
    validation = None if measured is None else Validation(encoder, before, measured, output, config, length, log)
    trainer = _Trainer(
        log,
        largest_rows(examples.lengths(), config.batch_size),
        model=encoder,
        args=on_one_device(_arguments(output, config)),
        train_dataset=Dataset.from_dict({"label": list(range(len(examples)))}),
        data_collator=row_collator(encoder, examples),
        loss=DuplexLoss(encoder, examples, config),
    )
    show_progress(trainer, "fine-tuning")
    with silenced():
        if validation is not None:
            trainer.add_callback(validation)
            validation.begin(done)
        if validation is None or not validation.over:
            with reading(encoder, min(config.max_length, length)):
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if is_first_process():
            with interpolated(encoder, before, config.interpolation):
                _finish(encoder, output, config, record, validation, tuned_on)


class _Trainer(PlainTrainer, SparseEncoderTrainer):  # type: ignore[misc]
    """The trainer as it is used here."""

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Name all but biases, norms and scales: as logarithms these would decay to a scale of 1, not of 0."""
        return [name for name in super().get_decay_parameter_names(model) if "log_scale" not in name]


@dataclass
class _Collator(SparseEncoderDataCollator):  # type: ignore[misc]
    """Looks up the texts of rows and tokenises them."""

    examples: Examples | None = None

    def __call__(self, features: list[dict[str, int]]) -> dict[str, Any]:
        """Make a batch of rows, given by their numbers."""
        assert self.examples is not None
        batch: dict[str, Any] = super().__call__([self.examples.texts(row["label"]) | row for row in features])
        return batch


def row_collator(encoder: DuplexEncoder, examples: Examples) -> _Collator:
    """Make what collates a column of queries and columns of documents, with the encoder's prompts."""
    tasks = {column: "query" if column == "query" else "document" for column in examples.columns}
    prompts = {column: encoder.prompts.get(task) for column, task in tasks.items()}
    return _Collator(
        preprocess_fn=encoder.preprocess,
        router_mapping=tasks,
        prompts={column: prompt for column, prompt in prompts.items() if prompt},
        examples=examples,
    )


def _arguments(output: Path, config: FinetuneConfig) -> SparseEncoderTrainingArguments:
    """Translate the settings into the trainer's own arguments."""
    return SparseEncoderTrainingArguments(
        **step_arguments(output, config),
        learning_rate_mapping={
            r"cls_projection|transform\.|output\.weight": config.head_learning_rate,
            r"log_scale": config.scale_learning_rate,
            r"output\.bias": config.scale_learning_rate
            if config.bias_learning_rate is None
            else config.bias_learning_rate,
        },
        ddp_find_unused_parameters=True,  # such as BERT's pooler
        ddp_broadcast_buffers=False,  # a step has several forward passes, and what they have used must not be rewritten
    )


def _examples(
    train: Benchmark,
    dev: Benchmark | None,
    config: FinetuneConfig,
    lists: Path | None,
    scores: Path | Mapping[str, Mapping[str, float]] | None,
    processes: int,
) -> Examples:
    """Read what is to be read and lay the rows out; the lists may know the held-out queries, too."""
    if isinstance(scores, Mapping):
        return make_examples(train, config, lists_of(train, scores), scores, processes)
    if lists is None:
        return make_examples(train, config, processes=processes)
    known = train
    if dev is not None:
        known = replace(train, queries=dev.queries | train.queries, qrels=dev.qrels | train.qrels)
    candidates = read_lists(lists, known)
    logits = None if scores is None else read_scores(scores, candidates)
    return make_examples(train, config, candidates, logits, processes)


def _finish(
    encoder: DuplexEncoder,
    output: Path,
    config: FinetuneConfig,
    record: dict[str, Any],
    validation: Validation | None,
    tuned_on: Benchmark | None,
) -> None:
    """Write the result, the best state or else the last, and the curves; add what was found to the record."""
    held_out = None
    if validation is not None:
        held_out, kept = validation.best.file, validation.best.kept
        record["kept"] = kept
        if kept is not None:
            encoder = DuplexEncoder(str(validation.best.model))
            if not kept["step"]:
                logger.warning(
                    "Fine-tuning gained nothing on the held-out queries (%s): the result is the model that it began "
                    "with.",
                    held_out,
                )
    if tuned_on is not None:
        pool = validation.pool if validation else dev_pool(tuned_on, config.dev_pool_size, config.seed)
        record["weights"] = tune_weights(encoder, pool)
    measured = {} if held_out is None else before_and_after(held_out)
    encoder.history = _history(record["trained_on"], config, measured)
    after = measured.get("after", {})
    data, split = str(record["trained_on"]["data"]), "held-out queries"
    encoder.figures = [Figure(data, split, name, float(after[name])) for name in METRICS if name in after]
    encoder.save_pretrained(str(output / "model"))
    draw_curves(output / CURVES_FILE, "Fine-tuning", output / METRICS_FILE, held_out)


def _name_of(encoder: DuplexEncoder) -> str:
    """Name the model that is trained as others know it, without the folders of this machine."""
    return Path(encoder.path or str(encoder[0].model.config._name_or_path)).name


def _history(data: Mapping[str, Any], config: FinetuneConfig, measured: Mapping[str, Measurement]) -> str:
    """Tell for the model's card how it was trained and, if that was measured, what came of it."""
    kinds = {1: "BM25's and in-batch negatives", 2: "mined hard negatives", 3: "a teacher's scores"}
    lines = [
        f"Fine-tuned from `{data['base_model']}` on {data['examples']:,} examples of {data['queries']:,} queries of "
        f"`{data['data']}`, with {kinds[data['stage']]}: {config.epochs:g} epochs of batches of {config.batch_size}, "
        f"learning rates {config.learning_rate:g} and {config.head_learning_rate:g} (heads), seed {config.seed}. "
        "All settings and figures are in `finetune.json` beside the model's folder. Data and licence of the base model "
        "are in its own card."
    ]
    if measured:
        before, after = (float(measured[state][METRIC]) for state in ("before", "after"))
        lines.append(
            f"NDCG@10 of held-out queries, among a part of the passages: {before:.3f} before, {after:.3f} after."
        )
    return "\n\n".join(lines)


def _fingerprint(
    encoder: DuplexEncoder, train: Benchmark, dev: Benchmark | None, settings: Any, given: Sequence[object]
) -> str:
    """Take the fingerprint of all that the result depends on: settings, data, representation, every weight before."""
    weights = hashlib.sha256()
    for parameter in encoder.parameters():
        weights.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    tokenizer = json.loads(encoder.tokenizer.backend_tokenizer.to_str())
    for changing in ("padding", "truncation"):  # as the last texts were read
        del tokenizer[changing]
    data = [train] if dev is None else [train, dev]
    corpora = [train.corpus] if dev is None or dev.corpus is train.corpus else [train.corpus, dev.corpus]
    return fingerprint(
        {
            "settings": settings,
            "data": [[part.queries, part.qrels] for part in data],
            "files": [file_fingerprint(one) if isinstance(one, Path) and one.is_file() else one for one in given],
            "passages": [corpus_fingerprint(corpus.values()) for corpus in corpora],  # any may become a negative
            "representation": encoder.pooling.get_config_dict(),
            "words": None if encoder.words is None else asdict(encoder.words),
            "lengths": [encoder[0].query_length, encoder[0].document_length],
            "prompts": encoder.prompts,
            "tokenizer": tokenizer,
            "start": weights.hexdigest(),
        }
    )
