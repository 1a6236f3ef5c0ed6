"""An encoder that looks embeddings up, small corpora, and exhaustive search to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dupmae.corpus import Passage
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.index import DuplexIndex

V, D, K = 50, 8, 6
QUERIES = [str(number) for number in range(6)]


def embeddings(cls: np.ndarray, sparse: np.ndarray) -> DuplexEmbeddings:
    """From dense rows (N, d') and rows over the vocabulary (N, V): every term kept, zero-padded."""
    width = int((sparse != 0).sum(axis=1).max())
    ids = np.argsort(sparse == 0, axis=1, kind="stable")[:, :width]
    weights = np.take_along_axis(sparse, ids, axis=1)
    return DuplexEmbeddings(cls.astype(np.float32), ids.astype(np.uint16), weights.astype(np.float32))


class Tokenizer:
    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"token{number}" for number in ids]


class FakeEncoder:
    """Embeds the text "n" as row n of given matrices, and counts what it was asked to embed."""

    pooling = SimpleNamespace(vocabulary_size=V)
    tokenizer = Tokenizer()
    path: str | None = None

    def __init__(self, cls: np.ndarray, sparse: np.ndarray, fail_after: int | None = None) -> None:
        self.cls, self.sparse, self.fail_after = cls, sparse, fail_after
        self.embedded: list[str] = []

    def embed_documents(self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False) -> Any:
        if self.fail_after is not None and len(self.embedded) >= self.fail_after:
            raise KeyboardInterrupt
        self.embedded += texts
        rows = [int(text.split()[0]) for text in texts]
        return embeddings(self.cls[rows], self.sparse[rows])

    def embed_queries(self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False) -> Any:
        rows = [int(text) for text in texts]
        return embeddings(self.cls[rows], self.sparse[rows])


def random_rows(rng: np.random.Generator, count: int, terms: int = K) -> tuple[np.ndarray, np.ndarray]:
    """Dense and lexical rows of small integers: float16, 16-bit weights and float32 sums hold them exactly."""
    cls = rng.integers(-4, 5, (count, D)) / 4
    sparse = np.zeros((count, V))
    for row in sparse:
        row[rng.choice(V, terms, replace=False)] = rng.integers(1, 9, terms)
    return cls, sparse


def passages(count: int) -> list[Passage]:
    """Ids whose order is neither the corpus' nor the numbers'; texts of varying length."""
    return [Passage(f"d{n ^ 5}", "", f"{n} " + "x" * ((n * 13) % 10)) for n in range(count)]


def exhaustive(corpus: Sequence[Passage], documents: np.ndarray, queries: np.ndarray, k: int) -> tuple[list, list]:
    """Dense scores over V + d' dimensions, sorted by score and then by id."""
    ids, scores = [], []
    for row in queries @ documents.T:
        order = sorted(range(len(corpus)), key=lambda n, row=row: (-row[n], corpus[n].id))[:k]
        ids.append([corpus[n].id for n in order])
        scores.append([float(row[n]) for n in order])
    return ids, scores


def build(folder: Path, count: int = 23, segment: int = 10, seed: int = 0, **kwargs: Any) -> tuple[Any, ...]:
    cls, sparse = random_rows(np.random.default_rng(seed), count)
    encoder = FakeEncoder(cls, sparse, **kwargs)
    corpus = passages(count)
    index = DuplexIndex.build(folder, encoder, corpus, model="m", batch_size=2, segment_passages=segment)
    return index, encoder, corpus


def ranking(index: DuplexIndex, k: int = 100, **options: Any) -> tuple[list[list[str]], list[list[float]]]:
    """What an index finds for all of `QUERIES`."""
    return index.search_embeddings(index.encoder.embed_queries(QUERIES), k, **options)


def expected(index: DuplexIndex, texts: dict[str, int], k: int = 100) -> tuple[list[list[str]], list[list[float]]]:
    """The exhaustive ranking of passages by id, each embedded as a row."""
    encoder: Any = index.encoder
    documents = np.hstack([encoder.sparse, encoder.cls])
    corpus = [Passage(name, "", "") for name in texts]
    return exhaustive(corpus, documents[list(texts.values())], documents[: len(QUERIES)], k)


def rows(*numbers: int) -> dict[str, int]:
    """Ids of passages, each with the row that its text is embedded as."""
    return {f"p{number:02}": number for number in numbers}
