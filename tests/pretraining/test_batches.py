"""Order and padding of batches."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from dupmae.errors import DupmaeError
from dupmae.pretraining.data import LengthBuckets, collator


def test_each_sequence_comes_once_per_pass(store: Any) -> None:
    assert Counter(LengthBuckets(store, 5, 60, [1])) == dict.fromkeys(range(30), 2)


def test_the_order_depends_on_the_seed_alone(store: Any) -> None:
    orders = [list(LengthBuckets(store, 5, 60, seed)) for seed in ([1, 0], [1, 0], [1, 1])]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_batches_hold_sequences_of_similar_length(store: Any) -> None:
    lengths = np.array([len(store[index]["input_ids"]) for index in LengthBuckets(store, 5, 30, [1])]).reshape(-1, 5)
    assert np.ptp(lengths, axis=1).max() <= 6
    assert np.ptp(lengths.mean(axis=1)) > 6


def test_a_store_smaller_than_a_batch_repeats(store: Any) -> None:
    assert len(list(LengthBuckets(store, 64, 128, [1]))) == 128


def test_padding_is_neither_token_nor_word(store: Any) -> None:
    items = [store[0], store[1]]
    batch = collator(0, 40, 32)(items)
    for row, item in enumerate(items):
        size = len(item["input_ids"])
        assert batch["input_ids"][row, :size].tolist() == item["input_ids"].tolist()
        assert batch["attention_mask"][row].sum() == size
        assert not batch["word_starts"][row, size:].any()
        assert (batch["input_ids"][row, size:] == 0).all()


def test_a_store_of_another_tokenizer_or_too_long_is_refused(store: Any) -> None:
    with pytest.raises(DupmaeError, match="vocabulary ends at 9"):
        collator(0, 10, 32)([store[0]])
    with pytest.raises(DupmaeError, match="max_length 3"):
        collator(0, 40, 3)([store[0]])
