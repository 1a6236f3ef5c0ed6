"""A token store in memory."""

from __future__ import annotations

import numpy as np
import pytest


class MemoryStore:
    """A token store of sequences between 5 and 20 tokens long, each about one of five subjects of seven tokens."""

    def __init__(self, count: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.fingerprint = f"{count}-{seed}"
        self.sequences = []
        for _ in range(count):
            size = int(rng.integers(3, 19))
            ids = np.concatenate([[2], 5 + 7 * rng.integers(5) + rng.integers(0, 7, size), [3]])
            starts = np.concatenate([[False], rng.random(size) < 0.7, [False]])
            starts[1] = True
            self.sequences.append({"input_ids": ids, "word_starts": starts})
        self.lengths = np.array([len(sequence["input_ids"]) for sequence in self.sequences], np.int32)
        self.begins = np.arange(count) % 3 != 2  # texts of two chunks and of one
        self.keeps_texts = False
        self.title_lengths = np.where(np.arange(count) % 3 == 0, 2, 0).astype(np.int32)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.sequences[index]

    def texts(self, start: int, stop: int) -> list[str]:
        """A letter a token, which is nothing that decoding gives."""
        return [
            " ".join(chr(97 + number % 26) for number in self[row]["input_ids"][1:-1]) for row in range(start, stop)
        ]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(30)


@pytest.fixture
def large_store() -> MemoryStore:
    """Enough texts for a probe of some."""
    return MemoryStore(90)
