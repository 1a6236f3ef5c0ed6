"""Text of made-up words, one token each, frequent and rare as words are: the same for every system that is measured."""

from __future__ import annotations

import random

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SHORTEST = 20
"""Tokens of the shortest text where lengths vary."""


def vocabulary(size: int) -> list[str]:
    """The special tokens and enough words for `size` entries."""
    return SPECIAL + [f"word{number:05d}" for number in range(size - len(SPECIAL))]


def draw_texts(count: int, words: list[str], length: int, natural: bool) -> list[str]:
    """Texts of `length` tokens, [CLS] and [SEP] included, or with `natural` of 20 to `length`; always the same ones."""
    draw = random.Random(0)
    texts = []
    for _ in range(count):
        size = (draw.randint(min(SHORTEST, length), length) if natural else length) - 2
        ranks = (int(len(words) ** draw.random()) - 1 for _ in range(size))  # the n-th word in proportion to 1 / n
        texts.append(" ".join(words[rank] for rank in ranks))
    return texts
