"""Cut long texts into sentences and chunks, and tell words apart in scripts without spaces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

SENTENCE_END = re.compile(
    r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s++[^\sa-z])|[。！？｡।॥။។៕።؟۔]+[」』”’）｣]*|(?=\n[^\S\n]*\n)"  # noqa: RUF001
)
"""A full stop and what closes with it, if no lower-case letter follows; its kin in other scripts; a blank line.

Long runs of full stops or line breaks take time in proportion to their length.
"""

Tokens = npt.NDArray[np.int64]
"""Numbers of tokens, or where each token starts in a text."""

WHITE_SPACE = re.compile(r"\s+")

UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""A character of a script without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Japanese, Chinese."""


def sentences_of(text: str) -> list[str]:
    """Cut a text behind each sentence; together the pieces are the text."""
    borders = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(borders) if end > start]


def unspaced_word_starts(text: str, starts: Sequence[int] | Tokens) -> npt.NDArray[np.bool_]:
    """Find the tokens that count as words of their own because their script has no spaces to tell words by.

    A pre-tokenizer that cuts at spaces takes a whole Chinese or Thai sentence for one word.

    Args:
        text: The text.
        starts: Where each token starts in it, in characters (L,).

    Returns:
        True at the tokens that begin with a character of such a script, if it is not the one that the token before
        begins with, (L,).
    """
    unspaced = np.array([UNSPACED.match(character) is not None for character in text])
    places = np.minimum(starts, len(text) - 1)
    result: npt.NDArray[np.bool_] = unspaced[places] & (np.diff(places, prepend=-1) != 0)
    return result


def chunk_lengths(text: str, starts: Sequence[int], word_starts: npt.NDArray[np.bool_], budget: int) -> list[int]:
    """Cut a text's tokens into chunks of at most `budget` tokens.

    Each chunk runs to the last end of a sentence that fits; if that leaves it less than half full, to the last white
    space; if that does, too, to the last word. Only a word of more than `budget` tokens is cut inside.

    Args:
        text: The text.
        starts: Where each token starts in it, in characters (L,).
        word_starts: Whether a word starts with the token (L,).
        budget: Tokens per chunk, at least 1.

    Returns:
        The lengths of the chunks, which add up to L.
    """
    total = len(starts)
    borders = borders_of(text, np.asarray(starts), word_starts)
    lengths: list[int] = []
    begin = 0
    while total - begin > budget:
        cut = best_cut(borders, begin, budget)
        lengths.append(cut - begin)
        begin = cut
    return [*lengths, total - begin]


def borders_of(text: str, starts: Tokens, word_starts: npt.NDArray[np.bool_]) -> list[Tokens]:
    """Find the tokens of a text (L) that a chunk may begin with, the better kinds first.

    A border lies before the first token at or behind its place in the text, and counts only if a word starts there.

    Args:
        text: The text.
        starts: Where each token starts in it, in characters (L,).
        word_starts: Whether a word starts with the token (L,).

    Returns:
        Those behind the end of a sentence, those behind white space, and all that start a word; each rising.
    """
    ends = np.fromiter((match.end() for match in SENTENCE_END.finditer(text)), np.int64)
    spaces = np.fromiter((match.start() for match in WHITE_SPACE.finditer(text)), np.int64)
    found = []
    for places in (ends, spaces):
        behind = np.zeros(len(starts) + 1, bool)  # the last one for places behind all tokens
        behind[np.searchsorted(starts, places)] = True
        found.append(np.flatnonzero(behind[:-1] & word_starts))
    return [*found, np.flatnonzero(word_starts)]


def best_cut(borders: Sequence[Tokens], begin: int, budget: int, done: int = 0) -> int:
    """Choose where a chunk that must end within `budget` tokens ends.

    Args:
        borders: Kinds of borders, the better ones first, as :func:`borders_of` gives them.
        begin: The token that the chunk begins with.
        budget: Its tokens, at most.
        done: The token that it has to reach beyond.

    Returns:
        The token behind it: at the last border of the first kind that leaves it at least half full, of the last kind
        at the last border of all; without any it is full.
    """
    cut, half = begin + budget, begin + (budget + 1) // 2
    for number, places in enumerate(borders):
        least = max(half if number < len(borders) - 1 else begin + 1, done + 1)
        last = int(np.searchsorted(places, cut, side="right")) - 1
        if last >= 0 and places[last] >= least:
            return int(places[last])
    return cut
