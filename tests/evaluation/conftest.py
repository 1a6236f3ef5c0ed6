"""A small benchmark in words that the tiny models know, as a folder, and a duplex model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def write_benchmark(words: list[str]) -> Callable[..., Path]:
    """Writes passages of 3 to 12 words, and queries of three words of the passage that answers them."""

    def write(folder: Path, seed: int = 3, passages: int = 30, queries: int = 8) -> Path:
        draw = random.Random(seed)
        texts = {f"p{number:02d}": draw.sample(words, draw.randint(3, 12)) for number in range(passages)}
        answers = draw.sample(sorted(texts), queries)
        (folder / "qrels").mkdir(parents=True)
        records = [{"_id": name, "title": text[0], "text": " ".join(text[1:])} for name, text in texts.items()]
        (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        asked = [{"_id": f"q{n}", "text": " ".join(texts[name][:3])} for n, name in enumerate(answers)]
        (folder / "queries.jsonl").write_text("".join(json.dumps(record) + "\n" for record in asked))
        lines = [f"q{number}\t{name}\t1\n" for number, name in enumerate(answers)]
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
        return folder

    return write


@pytest.fixture(scope="session")
def benchmark_folder(tmp_path_factory: pytest.TempPathFactory, write_benchmark: Callable[..., Path]) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="session")
def duplex_folder(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    """A tiny duplex model."""
    import torch

    from dupmae import DuplexConfig, DuplexEncoder

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny-duplex"
    encoder = DuplexEncoder.from_encoder(
        str(bert_folder), DuplexConfig(top_k=16, document_max_length=48, query_entries="logits")
    )
    encoder.save_pretrained(str(folder))
    return folder
