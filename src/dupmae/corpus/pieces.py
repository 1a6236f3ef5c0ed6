"""Cut documents of the length of books into pieces for pre-training, each a text of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dupmae.corpus.passage import Passage

PIECE = 20_000
"""Characters of a piece at most, some 20 chunks of 256 tokens: of one large file, too, texts can be held out, and it is
not tokenised at one go."""


def in_pieces(passages: Iterable[Passage]) -> Iterator[Passage]:
    """Cut what is longer than :data:`PIECE` at blank lines, else at line breaks, else between words.

    Args:
        passages: Documents; those that are not longer come as they are.

    Returns:
        All of them; the pieces of one have its id with `#` and their number, and the first has its title.
    """
    for passage in passages:
        if len(passage.text) <= PIECE:
            yield passage
            continue
        start = number = 0
        while start < len(passage.text):
            end = _border(passage.text, start)
            if piece := passage.text[start:end].strip():
                number += 1
                yield Passage(f"{passage.id}#{number}", passage.title if number == 1 else "", piece, passage.metadata)
            start = end


def _border(text: str, start: int) -> int:
    """Find where a piece ends that begins at `start`."""
    end = start + PIECE
    if end >= len(text):
        return len(text)
    found = (text.rfind(border, start + PIECE // 2, end) for border in ("\n\n", "\n", " "))
    return next((place for place in found if place > 0), end)
