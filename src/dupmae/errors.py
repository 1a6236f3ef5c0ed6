"""The exception that is meant for users, and what helps to say what is wrong."""

import difflib
from collections.abc import Iterable, Sequence


class DupmaeError(Exception):
    """Bad input or an impossible request, told in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence and exits with 2; a traceback means a defect of ours.

    Example:
        >>> from dupmae import DupmaeError, read_passages
        >>> try:
        ...     read_passages("nowhere.jsonl")
        ... except DupmaeError as error:
        ...     print(error)
        nowhere.jsonl does not exist.
    """


def refuse_string(values: object, name: str) -> None:
    """Refuse one string where several are asked for: it would be taken for the list of its letters.

    Args:
        values: What was given.
        name: What it is called in the sentence.

    Raises:
        DupmaeError: It is a string.
    """
    if isinstance(values, str):
        raise DupmaeError(f"{name} is the string {values[:40]!r}, not a list of strings: put it in brackets.")


def refuse_surrogates(texts: Iterable[object], name: str) -> None:
    """Refuse texts that are not valid Unicode: half of a surrogate pair stands for a byte that nobody could decode.

    Args:
        texts: The texts; anything else among them is passed over.
        name: What one of them is called in the sentence.

    Raises:
        DupmaeError: One holds such a character.
    """
    for number, text in enumerate(texts, 1):
        if isinstance(text, str) and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise DupmaeError(
                    f"{name} {number} holds half of a surrogate pair at character {error.start + 1}, which is not "
                    "valid Unicode: decode it anew."
                ) from None


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Find what in `known` is most like `word`, or most like it after its last dot; None if nothing is."""
    tails = {name.rpartition(".")[2]: name for name in reversed(known)}
    whole = difflib.get_close_matches(word, known, n=1)
    if whole:
        return whole[0]
    tail = difflib.get_close_matches(word.rpartition(".")[2], list(tails), n=1)
    return tails[tail[0]] if tail else None
