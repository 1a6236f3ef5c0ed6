"""Validation on held-out queries: where they look, which state was best, when to stop."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from transformers import TrainerCallback

from dupmae.config import FinetuneConfig
from dupmae.corpus import Benchmark, Run
from dupmae.duplex import DuplexEmbeddings, DuplexEncoder
from dupmae.duplex.words import inner_products
from dupmae.evaluation import evaluate_run
from dupmae.finetuning.interpolation import interpolated
from dupmae.index.scoring.query import UNCHANGED, Weights
from dupmae.retrievers import bm25_run
from dupmae.retrievers.brute_force import QUERY_BLOCK, as_run, best_rows
from dupmae.runtime.best import BestCheckpoint, Measurement
from dupmae.runtime.log import HELD_OUT_FILE, read_metrics
from dupmae.runtime.processes import is_first_process
from dupmae.runtime.step_log import StepLog

METRIC = "ndcg@10"
"""What decides which state is best."""
BM25_DEPTH = 100
"""How many of BM25's best passages of a query may come into the pool."""


class Validation(TrainerCallback):  # type: ignore[misc]
    """Measures the dev queries while a model is trained, keeps the best state, and stops where nothing is gained.

    The first process measures. A state is what would be the result if training ended there
    (:func:`dupmae.finetuning.interpolation.interpolated`). The state before the first step competes, too: pairs that
    are too few, or a teacher that knows less than its student, must not leave a model worse than they found it.

    Args:
        encoder: The model that is trained.
        before: Its weights before.
        dev: The held-out queries; they look among the passages of :func:`dev_pool`.
        output: Folder of the run: `held_out.jsonl`, and `kept/` while it lasts.
        config: The settings.
        length: Tokens of a passage, when it is measured and saved.
        log: The losses of the steps.

    Attributes:
        best: The best state so far (:class:`dupmae.runtime.best.BestCheckpoint`).
        pool: The queries, and the passages among which they look.
    """

    def __init__(
        self,
        encoder: DuplexEncoder,
        before: list[torch.Tensor],
        dev: Benchmark,
        output: Path,
        config: FinetuneConfig,
        length: int,
        log: StepLog,
    ) -> None:
        self.encoder, self.before, self.config, self.length, self.log = encoder, before, config, length, log
        self.pool = dev_pool(dev, config.dev_pool_size, config.seed)
        self.best = BestCheckpoint(output, self._measure, _better, self._save)
        self._values: list[float] = []

    @property
    def over(self) -> bool:
        """Whether the last `patience` measurements were no better than the best before them."""
        patience, values = self.config.patience, self._values
        return 0 < patience < len(values) and max(values[-patience:]) <= max(values[:-patience])

    def begin(self, done: int) -> None:
        """Go on after a number of steps: what was measured later will be measured again."""
        self.best.begin(done)
        self._values = [line[METRIC] for line in self.best.measurements() if line["step"]]
        if not done:
            self.best.measure(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure where it is due, and tell the trainer to stop where nothing is gained any more."""
        if state.global_step % self.config.eval_steps == 0 or state.global_step == state.max_steps:
            self.log.flush()  # stops at a loss that is not a number before its state is measured
            self._values.append(self.best.measure(state.global_step)[METRIC])
            control.should_training_stop |= self.over

    def _measure(self) -> dict[str, float]:
        """Rank the pool with the present state; other processes than the first have nothing to say."""
        if not is_first_process():
            return {}
        with self._as_result():
            return evaluate_run(rank(self.encoder, self.pool), self.pool.qrels)

    def _save(self, folder: Path | None) -> None:
        """Write the present state."""
        if folder is not None:
            with self._as_result():
                self.encoder.save_pretrained(str(folder))

    @contextmanager
    def _as_result(self) -> Iterator[None]:
        """Make the encoder, within the context, what it would be if training ended now."""
        with reading(self.encoder, self.length), interpolated(self.encoder, self.before, self.config.interpolation):
            yield


def compared(output: Path, dev: Benchmark, config: FinetuneConfig) -> dict[str, dict[str, float]]:
    """Compare what a finished run measured before its first step and of the state that it kept, with BM25.

    Args:
        output: Folder of the run, which measured the held-out queries.
        dev: These queries; all look among the same passages (:func:`dev_pool`).
        config: The run's settings.

    Returns:
        `before`, `after` and `bm25` -> metric -> value; nothing where the log is gone.
    """
    if not (found := before_and_after(output / HELD_OUT_FILE)):
        return {}
    pool = dev_pool(dev, config.dev_pool_size, config.seed)
    figures = evaluate_run(bm25_run(pool), pool.qrels)
    return {
        **{name: {metric: float(line[metric]) for metric in figures} for name, line in found.items()},
        "bm25": figures,
    }


def before_and_after(log: Path) -> dict[str, Measurement]:
    """Read what a run measured of its held-out queries `before` its first step and, of the state that it kept, `after`.

    Of equal states the first was kept; nothing is found where the log is gone.
    """
    measured = read_metrics(log)
    return {"before": measured[0], "after": max(measured, key=lambda line: float(line[METRIC]))} if measured else {}


def _better(found: Measurement, best: Measurement | None) -> bool:
    """Tell whether a measurement beats the best so far; of equal ones the first stays."""
    return best is None or bool(found[METRIC] > best[METRIC])


def dev_pool(dev: Benchmark, size: int, seed: int) -> Benchmark:
    """Take a part of the corpus, in which the same queries can be looked for often.

    Args:
        dev: Queries, their judgements and the whole corpus.
        size: How many passages: all judged ones, however many; of what is left of the number half the best passages of
            BM25, taken from all queries in turn, and half any others. A smaller corpus is taken whole.
        seed: Draws these others.
    """
    if len(dev.corpus) <= size:
        return dev
    chosen = dict.fromkeys(sorted({passage for grades in dev.qrels.values() for passage in grades}))
    hard = (size + len(chosen)) // 2
    if len(chosen) < hard:
        for turn in itertools.zip_longest(*bm25_run(dev, BM25_DEPTH).values()):
            for passage in turn:
                if passage is not None and len(chosen) < hard:
                    chosen[passage] = None
    others = sorted(dev.corpus.keys() - chosen.keys())
    chosen |= dict.fromkeys(random.Random(seed).sample(others, max(size - len(chosen), 0)))
    return replace(dev, corpus={name: passage for name, passage in dev.corpus.items() if name in chosen})


def rank(encoder: DuplexEncoder, benchmark: Benchmark, k: int = 100) -> Run:
    """Rank a corpus by Eq. 12 without an index: for corpora that are ranked once and fit into memory.

    Args:
        encoder: The model.
        benchmark: Corpus and queries.
        k: Passages kept of each query, equal scores ordered by id.
    """
    (run,) = rank_weighted(encoder, benchmark, [UNCHANGED], k, show_progress_bar=True)
    return run


def rank_weighted(
    encoder: DuplexEncoder,
    benchmark: Benchmark,
    weights: Sequence[Weights],
    k: int = 100,
    show_progress_bar: bool = False,
) -> list[Run]:
    """Rank as :func:`rank` does, once for each choice of what the lexical half and words are multiplied by."""
    ids = sorted(benchmark.corpus)
    texts = [benchmark.corpus[name].full_text for name in ids]
    documents = encoder.embed_documents(texts, show_progress_bar=show_progress_bar)
    queries = encoder.embed_queries(list(benchmark.queries.values()))
    terms = encoder.pooling.vocabulary_size
    lists = _sparse(documents, terms).T.tocsr()  # (V, N)
    runs: list[Run] = [{} for _ in weights]
    names = list(benchmark.queries)
    for start in range(0, len(names), QUERY_BLOCK):
        block, some = names[start : start + QUERY_BLOCK], queries[start : start + QUERY_BLOCK]
        dense = some.cls @ documents.cls.T  # (q, N)
        lexical = (_sparse(some, terms) @ lists).toarray()
        words = np.zeros_like(dense)
        if encoder.words is not None and some.words is not None and documents.words is not None:
            words = inner_products(encoder.words.rare(some.words), documents.words)
        for run, weight in zip(runs, weights, strict=True):
            scores = dense + np.float32(weight.lexical) * lexical + np.float32(weight.words) * words
            found = [best_rows(row, k) for row in scores]
            run |= as_run(block, ids, [(rows, row[rows]) for rows, row in zip(found, scores, strict=True)])
    return runs


@contextmanager
def reading(encoder: DuplexEncoder, length: int) -> Iterator[None]:
    """Let the encoder, within the context, read passages up to a number of tokens."""
    transformer = encoder[0]
    before = transformer.document_length, transformer.max_seq_length
    transformer.document_length = transformer.max_seq_length = length
    try:
        yield
    finally:
        transformer.document_length, transformer.max_seq_length = before


def _sparse(embeddings: DuplexEmbeddings, terms: int) -> sparse.csr_matrix:
    """Make a matrix (N, V) of lexical halves."""
    count, width = embeddings.ids.shape
    ends = np.arange(0, (count + 1) * width, width) if width else np.zeros(count + 1, np.int64)
    return sparse.csr_matrix(
        (embeddings.weights.ravel(), embeddings.ids.ravel().astype(np.int32), ends), shape=(count, terms)
    )
