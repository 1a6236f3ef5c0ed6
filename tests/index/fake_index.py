"""An encoder that looks embeddings up, small corpora, and exhaustive search to compare with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dupmae.corpus import Chunk, Passage
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.words import Words, WordSpace, brevity, rarity
from dupmae.index import DuplexIndex, Weights

V, D, K = 50, 8, 6
QUERIES = [str(number) for number in range(6)]
WORDS = ("lamp", "lighthouse", "keeper", "sea", "rock", "storm", "boat", "harbour", "gull", "night")
SPACE = WordSpace(average_length=5)


def wordy(row: int) -> str:
    """A text that is embedded as a row, with up to nine words: the first are frequent, the last rare, some twice."""
    drawn = np.random.default_rng(row).geometric(0.3, row % 10)
    return " ".join([str(row), *(WORDS[min(number, len(WORDS)) - 1] for number in drawn)])


WORDY_QUERIES = [f"{wordy(number)} unheard" for number in (9, 8, 17, 10, 26, 35)]
"""Queries of 9, 8, 7, no, 6 and 5 of the words, and of one that no passage has."""


def embeddings(cls: np.ndarray, sparse: np.ndarray, words: Any = None) -> DuplexEmbeddings:
    """From dense rows (N, d') and rows over the vocabulary (N, V): every term kept, zero-padded; and words."""
    width = int((sparse != 0).sum(axis=1).max())
    ids = np.argsort(sparse == 0, axis=1, kind="stable")[:, :width]
    weights = np.take_along_axis(sparse, ids, axis=1)
    return DuplexEmbeddings(cls.astype(np.float32), ids.astype(np.uint16), weights.astype(np.float32), words)


class Tokenizer:
    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": []}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"token{number}" for number in ids]


class FakeEncoder:
    """Embeds the text "n ..." as row n of given matrices, its words as a space says; counts what it was to embed."""

    pooling = SimpleNamespace(vocabulary_size=V)
    tokenizer = Tokenizer()
    path: str | None = None

    def __init__(
        self, cls: np.ndarray, sparse: np.ndarray, fail_after: int | None = None, space: WordSpace | None = None
    ) -> None:
        self.cls, self.sparse, self.fail_after = cls, sparse, fail_after
        self.words = None if space is None else Words(space=space)
        self.embedded: list[str] = []

    def chunks(self, documents: Iterable[Passage], tokens: int, overlap: int | None) -> Iterator[Passage]:
        return iter(documents)

    def embed_documents(self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False) -> Any:
        if self.fail_after is not None and len(self.embedded) >= self.fail_after:
            raise KeyboardInterrupt
        self.embedded += texts
        rows = [int(text.split()[0]) for text in texts]
        words = None if self.words is None else self.words.space.passages(texts)
        return embeddings(self.cls[rows], self.sparse[rows], words)

    def embed_queries(self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False) -> Any:
        rows = [int(text.split()[0]) for text in texts]
        words = None if self.words is None else self.words.space.queries(texts)
        return embeddings(self.cls[rows], self.sparse[rows], words)


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


def chunked(documents: Mapping[str, Sequence[int]], **metadata: Mapping[str, Any]) -> list[Passage]:
    """Passages of documents, each with the rows that its chunks are embedded as; of one row it is a passage itself."""
    corpus = []
    for name, rows in documents.items():
        own = {field: values[name] for field, values in metadata.items() if name in values}
        for number, row in enumerate(rows):
            chunk = Chunk(name, ("Part", f"{number}"), 100 * number, 100 * number + len(wordy(row)))
            if len(rows) == 1:
                corpus.append(Passage(name, "", wordy(row), own))
            else:
                corpus.append(Passage(f"{name}::{number + 1}", "", wordy(row), own, chunk))
    return corpus


def best_documents(
    passages: Sequence[Passage], ids: Sequence[Sequence[str]], scores: Sequence[Sequence[float]], k: int
) -> list[list[tuple[str, float, str]]]:
    """Of whole rankings of passages the k best documents: id, score, and its best passage, of equal ones the first."""
    known = {passage.id: (passage.document, passage.chunk.start if passage.chunk else 0) for passage in passages}
    found = []
    for names, values in zip(ids, scores, strict=True):
        best: dict[str, tuple[float, int, str]] = {}
        for name, value in zip(names, values, strict=True):
            document, start = known[name]
            best[document] = min(best.get(document, (np.inf, 0, "")), (-value, start, name))
        ranking = sorted((score, document, name) for document, (score, _, name) in best.items())
        found.append([(document, -score, name) for score, document, name in ranking[:k]])
    return found


def twin(
    encoder: FakeEncoder, texts: dict[str, str], queries: Sequence[str], k: int, weights: Weights | None = None
) -> tuple[list[list[str]], list[list[float]]]:
    """Rank passages (id -> text) by all three parts, each added up by itself, in Python; scores are right to the bit.

    What the halves add is exact in any order; words are added in the order of their dimensions, then the dense half.
    """
    weights = Weights() if weights is None else weights
    names = list(texts)
    stored, asked = encoder.embed_documents(list(texts.values())), encoder.embed_queries(queries)
    having = np.zeros(stored.words.shape[1], np.int64)
    np.add.at(having, stored.words.indices, 1)
    documents, rows = stored.words.tolil().rows, [int(text.split()[0]) for text in texts.values()]
    frequencies = [dict(zip(found, stored.words[[n]].data, strict=True)) for n, found in enumerate(documents)]
    ids, scores = [], []
    for number, query in enumerate(queries):
        own = int(query.split()[0])
        words = asked.words[[number]]
        rare = rarity(len(texts), having[words.indices]) * brevity(stored.words.nnz / len(texts))
        weighed = np.float64(words.data * np.float32(weights.words)) * rare
        found = []
        for name, row, frequency in zip(names, rows, frequencies, strict=True):
            score = weights.lexical * float(encoder.sparse[own] @ encoder.sparse[row])
            for dimension, weight in zip(words.indices, weighed, strict=True):
                score += float(weight) * float(frequency.get(dimension, 0.0))
            found.append((-(score + weights.dense * float(encoder.cls[own] @ encoder.cls[row])), name))
        ids.append([name for _, name in sorted(found)[:k]])
        scores.append([-score for score, _ in sorted(found)[:k]])
    return ids, scores


def ranking_with_words(index: DuplexIndex) -> tuple[list[list[str]], list[list[float]]]:
    """What an index finds for all of `WORDY_QUERIES`."""
    return index.search_embeddings(index.encoder.embed_queries(WORDY_QUERIES), 100, group="none")


def expected_with_words(index: DuplexIndex, texts: dict[str, int]) -> tuple[list[list[str]], list[list[float]]]:
    """The twin's ranking of passages by id, each the wordy text that is embedded as a row."""
    if not texts:
        return [[] for _ in WORDY_QUERIES], [[] for _ in WORDY_QUERIES]
    encoder: Any = index.encoder
    return twin(encoder, {name: wordy(row) for name, row in texts.items()}, WORDY_QUERIES, 100)
