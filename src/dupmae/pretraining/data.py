"""Batches from the token store, padded, in an order that depends on the seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from dupmae.errors import DupmaeError
from dupmae.kernels.shapes import padded_length

POOL_BATCHES = 50
"""Batches drawn together and then cut by length: more waste less padding, fewer mix more."""

ROUNDS = 6
"""Rounds of the cipher that shuffles; four are known to be enough for a good one."""
MIXER = np.uint64(0x9E3779B97F4A7C15)
"""An odd number whose multiples spread over all 64 bits."""
NOTHING = np.empty(0, dtype=np.int64)
"""No sequence at all."""
TEXT = ("input_ids", "attention_mask", "word_starts")
"""What a batch has in any case; beside it may stand `anchor` (:mod:`dupmae.pretraining.anchor_vectors`)."""


class Sequences(Protocol):
    """What pre-training needs of a token store: :class:`dupmae.corpus.TokenStore` is one, and explains the arrays."""

    fingerprint: str
    lengths: npt.NDArray[np.int32]
    begins: npt.NDArray[np.bool_]
    title_lengths: npt.NDArray[np.int32]

    @property
    def keeps_texts(self) -> bool:
        """Whether :meth:`texts` can be asked for."""
        ...

    def texts(self, start: int, stop: int) -> list[str]:
        """Read some sequences as they stood in their texts."""
        ...

    def __len__(self) -> int:
        """Count the sequences."""
        ...

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Read a sequence: `input_ids` (L,), integers, `word_starts` (L,), booleans, `anchor` (d,) if it has one."""
        ...


class LengthBuckets(Sampler[int]):
    """A phase's whole order: shuffled passes over the store, cut into batches of similar length.

    There are no epochs to keep track of: the sampler yields exactly `total` indices, so a run that goes on after
    `n` batches skips `n` batches. Memory does not grow with the store, for no order is ever written down.

    Args:
        store: The sequences.
        batch_size: Sequences that should be of similar length; `total` must be a multiple of it.
        total: How many indices to yield.
        seed: Numbers that the order depends on.
        left_out: Sequences that are never yielded, in rising order, (K,).
    """

    def __init__(
        self,
        store: Sequences,
        batch_size: int,
        total: int,
        seed: Sequence[int],
        left_out: npt.NDArray[np.int64] = NOTHING,
    ) -> None:
        self.store = store
        self.batch_size = batch_size
        self.total = total
        self.seed = list(seed)
        self.left_out = left_out

    def __len__(self) -> int:
        """Count the indices that it yields."""
        return self.total

    def __iter__(self) -> Iterator[int]:
        """Yield indices, batch after batch."""
        rng = np.random.default_rng(self.seed)
        for start in range(0, self.total, POOL_BATCHES * self.batch_size):
            pool = self._pool(np.arange(start, min(self.total, start + POOL_BATCHES * self.batch_size)))
            batches = pool[self.store.lengths[pool].argsort(kind="stable")].reshape(-1, self.batch_size)
            yield from map(int, rng.permutation(batches).flatten())

    def _pool(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Look up the sequences at some places of the endless row of passes, each pass in an order of its own."""
        count = len(self.store) - len(self.left_out)
        passes, within = np.divmod(places, count)
        numbers = np.empty_like(places)
        for number in np.unique(passes):
            here = passes == number
            numbers[here] = shuffled(within[here], count, [*self.seed, int(number)])
        return without(numbers, self.left_out)


def shuffled(places: npt.NDArray[np.int64], count: int, seed: Sequence[int]) -> npt.NDArray[np.int64]:
    """Look up some places in a random order of the numbers 0 .. `count` - 1.

    The order is a Feistel cipher over the fewest bits, even in number, that hold `count` values; what leaves the range
    is enciphered again. So a place costs a few operations and no memory, whatever `count` is, and a resumed run looks
    up where it goes on. An order that is written down costs more where it counts: of 100 million chunks
    `torch.randperm` (int32) took 8.9 s before the first batch and 383 MB in every process, NumPy 18.5 s and 382 MB; the
    cipher takes 9 ms to the first batch, no memory, and 2.7 ms for each 50 batches of 32.

    Args:
        places: Places in the order, 0 .. `count` - 1, (P,).
        count: How many numbers are ordered.
        seed: Numbers that the order depends on.
    """
    keys = np.random.SeedSequence(list(seed)).generate_state(ROUNDS, np.uint64)
    half = np.uint64(((count - 1).bit_length() + 1) // 2)
    low = (np.uint64(1) << half) - np.uint64(1)
    numbers = places.astype(np.uint64)
    out = np.ones(len(places), dtype=bool)
    while out.any():
        left, right = numbers[out] >> half, numbers[out] & low
        for key in keys:
            mixed = (right + key) * MIXER
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(29))) * MIXER >> np.uint64(32) & low)
        numbers[out] = left << half | right
        out = numbers >= count
    return numbers.astype(np.int64)


def without(numbers: npt.NDArray[np.int64], left_out: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Turn numbers (P,) that do not count the sequences of `left_out` (K,), in rising order, into those that do."""
    return numbers + np.searchsorted(left_out - np.arange(len(left_out)), numbers, side="right")


def refuse_long(length: int, max_length: int) -> None:
    """Refuse sequences that an encoder has no positions for.

    Raises:
        DupmaeError: There are some.
    """
    if length > max_length:
        raise DupmaeError(
            f"The token store holds sequences of {length} tokens, but the encoder has positions for {max_length}: "
            f"build the store with max_length {max_length} or less."
        )


def collator(
    pad_token_id: int, vocab_size: int, max_length: int
) -> Callable[[list[Mapping[str, Any]]], dict[str, torch.Tensor]]:
    """Make a function that pads sequences to the longest of them, rounded up (:mod:`dupmae.kernels.shapes`).

    Args:
        pad_token_id: What `input_ids` are padded with.
        vocab_size: Ids from this on are refused: the store was built with another tokenizer.
        max_length: Longer sequences are refused: the encoder has no positions for them.

    Returns:
        A function from a list of store items to `input_ids`, `attention_mask` and `word_starts`, each (B, L), and
        `anchor`, (B, d), if the items have one.
    """

    def collate(items: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        length = max(len(item["input_ids"]) for item in items)
        refuse_long(length, max_length)
        length = padded_length(length, max_length)
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
        batch = {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "word_starts": torch.from_numpy(word_starts),
        }
        if "anchor" in items[0]:
            batch["anchor"] = torch.from_numpy(np.stack([item["anchor"] for item in items]))
        return batch

    return collate
