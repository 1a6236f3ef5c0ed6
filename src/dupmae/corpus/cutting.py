"""Cut long texts by characters before they are tokenised to a maximum length: the tokens stay the same.

A tokenizer reads a text of millions of characters to its end, and then keeps the first 64 tokens. What stands far
behind those cannot change them: tokenizers split a text into words at its white space, from left to right, and make
tokens of one word at a time. A beginning of the text is therefore enough if the last token that is kept ends in a word
well before the beginning's own end; if not, a longer beginning is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dupmae.corpus.chunking import UNSPACED

LONG = 32
"""Characters a token of the maximum length from which on a text is cut; ordinary text has 3 to 5 a token."""
FIRST = 8
"""Characters a token of the first beginning that is tried."""
GROWTH = 4
"""How much longer each further one is."""
MARGIN = 200
"""Characters of a beginning's end that decide nothing; no entry of a vocabulary is so long."""


def cut_texts(texts: Sequence[Any], tokenizer: Any, limit: int | None) -> list[Any]:
    """Cut texts to beginnings whose first tokens are theirs.

    Args:
        texts: The texts; what is no string is left as it is.
        tokenizer: A tokenizer of transformers that cuts on the right; with another one nothing is cut.
        limit: Tokens that are read of each, special ones included; None leaves all as they are.

    Returns:
        The texts, each as it was or cut such that its first `limit` tokens are the same.
    """
    able = limit is not None and getattr(tokenizer, "is_fast", False) and tokenizer.truncation_side == "right"
    if limit is None or not able:
        return list(texts)
    return [
        _cut(text, tokenizer, limit) if isinstance(text, str) and len(text) > LONG * limit else text for text in texts
    ]


def _cut(text: str, tokenizer: Any, limit: int) -> str:
    """Cut a long text."""
    size = max(FIRST * limit, 2 * MARGIN)
    while size < len(text):
        end = _border(text, size)
        if end and _is_enough(text[:end], tokenizer, limit):
            return text[:end]
        size *= GROWTH
    return text


def _border(text: str, size: int) -> int:
    """Find a place near the end of a beginning where a word ends before white space, or where characters of a script
    without spaces meet; 0 if there is none.
    """
    start = size // 2
    space = max(text.rfind(" ", start, size), text.rfind("\n", start, size))
    end = start + len(text[start : max(space, start)].rstrip())
    if end > start and text[end] in " \n":
        return end
    near = size - min(MARGIN, start)
    places = (end for end in range(size, near, -1) if UNSPACED.match(text[end]) and UNSPACED.match(text[end - 1]))
    return next(places, 0)


def _is_enough(beginning: str, tokenizer: Any, limit: int) -> bool:
    """Tell whether the first `limit` tokens of a beginning end before its last two words and its margin."""
    encoded = tokenizer(beginning, add_special_tokens=False, truncation=False, padding=False, verbose=False).encodings[
        0
    ]
    if len(encoded) <= limit:
        return False
    words = encoded.word_ids
    word, last = words[limit - 1], words[-1]
    return (
        word is not None
        and last is not None
        and word < last - 1
        and encoded.offsets[limit - 1][1] < len(beginning) - MARGIN
    )
