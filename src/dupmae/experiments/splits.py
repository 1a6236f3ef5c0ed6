"""The queries of a recipe: what it trains on, validates on and tests with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dupmae.config import DataConfig
from dupmae.corpus import Benchmark, read_splits, split_queries
from dupmae.errors import DupmaeError
from dupmae.evaluation.benchmarks import definition_of


@dataclass(frozen=True, slots=True)
class Splits:
    """The queries of a run; all have the same corpus."""

    train: Benchmark
    """Trained on."""
    dev: Benchmark
    """Held out of the train queries, or a split of their own; may be empty."""
    test: Benchmark
    """Only reported."""


def read_data(data: DataConfig, seed: int) -> Splits:
    """Read the queries to train on, to validate on (held out of the former or a split of their own), and to test with.

    A benchmark that figures are published for is read without titles if its rules say so
    (:mod:`dupmae.evaluation.benchmarks`).

    Raises:
        DupmaeError: Two of the splits are the same one, or as :func:`dupmae.corpus.read_splits` and
            :func:`dupmae.corpus.split_queries`.
    """
    names = [data.train_split, data.test_split, *([] if data.dev_split is None else [data.dev_split])]
    if len(set(names)) < len(names):
        raise DupmaeError(
            "of data.train_split, data.dev_split and data.test_split two are the same: what is trained on, or chosen "
            "by, says nothing of other queries"
        )
    found = read_splits(Path(data.benchmark), names, allow_unknown=data.allow_unknown)
    if not definition_of(found[0].name, data.test_split).titles:
        corpus = {name: replace(passage, title="") for name, passage in found[0].corpus.items()}
        found = [replace(one, corpus=corpus) for one in found]
    train, test, *given = found
    if given:
        return Splits(train, given[0], test)
    train, held_out = split_queries(train, data.dev_fraction, seed, data.hold_out)
    return Splits(train, held_out, test)
