"""A benchmark of twelve questions over the tiny BERT's words, and encoders to fine-tune on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dupmae.config import DuplexConfig, FinetuneConfig
from dupmae.corpus import Benchmark, Passage, split_queries, write_benchmark
from dupmae.duplex import DuplexEncoder


@pytest.fixture(scope="session")
def benchmark(words: list[str]) -> Benchmark:
    """Each of twelve queries names two words of its subject; two passages answer it, one or none of them judged 0."""
    draw = random.Random(0)
    corpus, queries, qrels = {}, {}, {}
    for number in range(12):
        subject = words[8 * number : 8 * number + 8]
        queries[f"q{number}"] = " ".join(draw.sample(subject, 2))
        for copy in "ab":
            text = " ".join([*subject, *draw.sample(words, 4)])
            corpus[f"p{number}{copy}"] = Passage(f"p{number}{copy}", "", text)
        qrels[f"q{number}"] = {f"p{number}a": 1, f"p{number}b": number % 2}
    return Benchmark("toy", "train", corpus, queries, qrels)


@pytest.fixture
def make_encoder(bert_folder: Path) -> Callable[..., DuplexEncoder]:
    """Builds the same encoder whenever it is called with the same settings."""

    def make(**settings: Any) -> DuplexEncoder:
        torch.manual_seed(5)
        return DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(**{"top_k": 20, "words": "none"} | settings))

    return make


@pytest.fixture
def config() -> FinetuneConfig:
    """Nine steps of six pairs."""
    return FinetuneConfig(
        epochs=3, batch_size=6, save_steps=2, precision="float32", dropout=0.1, max_length=24, negative_depth=4
    )


@pytest.fixture
def halves(benchmark: Benchmark) -> tuple[Benchmark, Benchmark]:
    """To train on and to measure on."""
    return split_queries(benchmark, 0.3, seed=4)


@pytest.fixture
def toy_folder(benchmark: Benchmark, tmp_path: Path) -> Path:
    """The benchmark of twelve questions in BEIR layout."""
    write_benchmark(tmp_path / "toy", benchmark.corpus.values(), benchmark.queries, {"train": benchmark.qrels})
    return tmp_path / "toy"
