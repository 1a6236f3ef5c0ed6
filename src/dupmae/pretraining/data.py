"""From the token store to padded batches, in an order that depends on the seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from dupmae.errors import DupmaeError

POOL_BATCHES = 50
"""Batches drawn together and then cut by length: more waste less padding, fewer mix more."""


class Sequences(Protocol):
    """What pre-training needs of a token store; `lengths` counts each sequence's tokens, (N,)."""

    fingerprint: str
    lengths: npt.NDArray[np.int32]

    def __len__(self) -> int:
        """How many sequences there are."""
        ...

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """The sequence's `input_ids` (L,), integers, and `word_starts` (L,), booleans."""
        ...


class LengthBuckets(Sampler[int]):
    """A phase's whole order: shuffled passes over the store, cut into batches of similar length.

    There are no epochs to keep track of: the sampler yields exactly `total` indices, so a run that goes on after
    `n` batches skips `n` batches.

    Args:
        store: The sequences.
        batch_size: Sequences that should be of similar length; `total` must be a multiple of it.
        total: How many indices to yield.
        seed: Numbers that the order depends on.
    """

    def __init__(self, store: Sequences, batch_size: int, total: int, seed: Sequence[int]) -> None:
        self.store = store
        self.batch_size = batch_size
        self.total = total
        self.seed = list(seed)

    def __len__(self) -> int:
        """How many indices it yields."""
        return self.total

    def __iter__(self) -> Iterator[int]:
        """Yield indices, batch after batch."""
        rng = np.random.default_rng(self.seed)
        passes = _shuffled_passes(len(self.store), rng)
        left = self.total
        while left:
            size = min(left, POOL_BATCHES * self.batch_size)
            pool = np.fromiter(passes, dtype=np.int64, count=size)
            batches = pool[self.store.lengths[pool].argsort(kind="stable")].reshape(-1, self.batch_size)
            yield from map(int, rng.permutation(batches).flatten())
            left -= size


def _shuffled_passes(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Endless indices: each pass holds every index once, in a new order."""
    while True:
        yield from rng.permutation(count)


def collator(
    pad_token_id: int, vocab_size: int, max_length: int
) -> Callable[[list[Mapping[str, Any]]], dict[str, torch.Tensor]]:
    """A function that pads sequences to the longest of them.

    Args:
        pad_token_id: What `input_ids` are padded with.
        vocab_size: Ids from this on are refused: the store was built with another tokenizer.
        max_length: Longer sequences are refused: the encoder has no positions for them.

    Returns:
        A function from a list of store items to `input_ids`, `attention_mask` and `word_starts`, each (B, L).
    """

    def collate(items: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        length = max(len(item["input_ids"]) for item in items)
        if length > max_length:
            raise DupmaeError(
                f"The token store holds sequences of {length} tokens, but the encoder has positions for {max_length}: "
                f"build the store with max_length {max_length} or less."
            )
        input_ids = np.full((len(items), length), pad_token_id, dtype=np.int64)
        attention_mask = np.zeros((len(items), length), dtype=bool)
        word_starts = np.zeros((len(items), length), dtype=bool)
        for row, item in enumerate(items):
            size = len(item["input_ids"])
            input_ids[row, :size] = item["input_ids"]
            attention_mask[row, :size] = True
            word_starts[row, :size] = item["word_starts"]
        if input_ids.max() >= vocab_size:
            raise DupmaeError(
                f"The token store holds the token id {input_ids.max()}, but the encoder's vocabulary ends at "
                f"{vocab_size - 1}: build the store with this encoder's tokenizer."
            )
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "word_starts": torch.from_numpy(word_starts),
        }

    return collate
