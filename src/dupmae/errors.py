"""The exception that is meant for users, and what helps to say what is wrong."""

import difflib
import re
from collections.abc import Iterable, Sequence

LONGEST = 500
"""Characters of a sentence for users."""


class DupmaeError(Exception):
    """Bad input or an impossible request, told in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence and exits with 2; a traceback means a defect of ours. The sentence stands on
    one line and has at most :data:`LONGEST` characters, whatever a library, a file or a name put into it.

    Examples:
        >>> from dupmae import DupmaeError, read_passages
        >>> try:
        ...     read_passages("nowhere.jsonl")
        ... except DupmaeError as error:
        ...     print(error)
        nowhere.jsonl does not exist.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(one_sentence(sentence))


def one_sentence(sentence: str) -> str:
    """Turn line breaks into spaces, and leave out the middle of what is longer than :data:`LONGEST`."""
    line = " ".join(sentence.splitlines())
    half = LONGEST // 2 - 3
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


PACKAGES = {
    **dict.fromkeys(("torch", "transformers", "sentence_transformers", "accelerate", "datasets"), "train"),
    **dict.fromkeys(("ir_measures", "bm25s", "matplotlib", "jinja2"), "train"),
    **dict.fromkeys(("fastapi", "uvicorn", "prometheus_client"), "serve"),
    **{"mcp": "mcp", "mteb": "mteb", "onnx": "export", "faiss": "clusters", "qdrant_client": "qdrant"},
    **{"psycopg": "pgvector", "ir_datasets": "benchmarks"},
}
"""Packages that not everybody needs -> the extra of `dupmae` that installs them."""


def missing_package(error: BaseException) -> str | None:
    """Say which extra installs what an import did not find; None if it is no such thing."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name not in PACKAGES:
        return None
    return f"this needs the package {name}, which is not installed: pip install 'dupmae[{PACKAGES[name]}]'"


def without_passwords(text: str) -> str:
    """Put `***` in the place of the passwords in all URLs of a text: behind a user's name, and as parameters.

    A password ends at the last `@` before white space, since people forget to write those within it as `%40`.
    """
    if "://" not in text:
        return text
    text = _IN_URL.sub(r"\1***@", text)
    return _AS_PARAMETER.sub(r"\1***", text)


_IN_URL = re.compile(r"(://[^\s:/?#@]*:)\S*@")
_AS_PARAMETER = re.compile(r"([?&](?:ssl)?(?:password|api[-_]?key|token)=)[^\s&#'\"]+", re.IGNORECASE)


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


def is_unicode(text: str) -> bool:
    """Tell whether a text is valid Unicode: half of a surrogate pair is not, nor is a byte that nobody could decode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Find what in `known` is most like `word`, or most like it after its last dot; None if nothing else is.

    Case and hyphens count for little: `--Model` is nearest to `model`. What was typed itself is never the answer.
    """
    plain = word[:100].replace("-", "_").lower()
    others = {name.replace("-", "_").lower(): name for name in reversed(known) if name != word}
    tails = {name.rpartition(".")[2]: name for name in others}
    whole = difflib.get_close_matches(plain, others, n=1)
    if whole:
        return others[whole[0]]
    tail = difflib.get_close_matches(plain.rpartition(".")[2], tails, n=1)
    return others[tails[tail[0]]] if tail else None
