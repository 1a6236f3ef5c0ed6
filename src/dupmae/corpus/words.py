"""Cut texts of any script into words: the one place that BM25, overlaps of words, crops and windows take them from.

Scripts with spaces are cut at them and at punctuation; the marks that Devanagari, Tamil or Arabic write on their
letters belong to the word. Where a script has no spaces between words, or glues particles to them as Korean does, a run
of characters stands for its words by the overlapping pairs in it. A "character" is what readers take for one: a letter
with its marks (a grapheme cluster). Measured against ICU's dictionaries, pairs find as much or more (docs/scripts.md),
and need no dictionary.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import pairwise

import regex

_CHINESE_JAPANESE = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\u30fc\uff66-\uff9f]"
_WITH_SINGLES = rf"[{_CHINESE_JAPANESE}\p{{Hangul}}]"
"""Scripts in which one character may be a word."""
_WITHOUT_SINGLES = r"\p{LB=SA}"
"""Scripts that Unicode says need a dictionary to be broken: Thai, Lao, Burmese, Khmer, Tai."""
_WORD = regex.compile(
    rf"(?V1)(?P<singles>{_WITH_SINGLES}+)|(?P<pairs>{_WITHOUT_SINGLES}+)"
    rf"|(?P<word>[[\p{{L}}\p{{N}}_]--[{_WITH_SINGLES}{_WITHOUT_SINGLES}]]"
    rf"[[\p{{L}}\p{{N}}\p{{M}}_]--[{_WITH_SINGLES}{_WITHOUT_SINGLES}\ufe0f]]*)"
    r"|(?P<emoji>\p{RI}{2}|[\p{Emoji_Presentation}--\p{Emoji_Modifier}--\p{RI}]|\p{Extended_Pictographic}(?=\ufe0f))"
)
_ASCII_WORD = regex.compile(r"[A-Za-z0-9_]+")
_CHARACTER = regex.compile(r"\X")
_UNSPACED = rf"[{_CHINESE_JAPANESE}{_WITHOUT_SINGLES}]"
_PIECE = regex.compile(rf"(?V1)(?:(?:(?={_UNSPACED})\X){{1,2}}|[^\s{_UNSPACED}]+)\s*|\s+")
_WIDE = regex.compile(_WITH_SINGLES)
_IGNORED = dict.fromkeys(map(ord, "\u00ad\u034f\u200c\u200d\u2060\ufeff")) | dict.fromkeys(
    map(ord, "\u2122\u2120"), " "
)
"""Marks that are not seen (soft hyphens, joiners), and signs that NFKC would glue to the word before them as "tm"."""

_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Lucene's stop words for English, those that `bm25s` leaves out; to import its list would bring numba in with it."""
CACHED_WORDS = 1 << 18
"""Words of a language whose stems are remembered."""


def fold(text: str) -> str:
    """Fold differences of writing that are none of meaning: width, ligatures, case, invisible marks.

    `ＡＢＣ` becomes `abc`, half-width `ｶﾞ` `ガ`, `Straße` `strasse`, `İstanbul` `istanbul`, both Greek sigmas one.
    Accents stay, as they do in Lucene's English analysis, which the published figures were made with.
    """
    if text.isascii():
        return text.lower()
    composed = unicodedata.normalize("NFKC", text.translate(_IGNORED))
    return unicodedata.normalize("NFKC", composed.casefold()).replace("i\u0307", "i")


def words_of(text: str) -> list[str]:
    """Cut a text into folded words, in order; what stands for words in scripts without spaces is told above.

    Examples:
        >>> from dupmae.corpus.words import words_of
        >>> words_of("Two STRASSEN, हिन्दी")
        ['two', 'strassen', 'हिन्दी']
        >>> words_of("灯塔的光"), words_of("ประภาคาร")
        (['灯', '塔', '的', '光', '灯塔', '塔的', '的光'], ['ประ', 'ระภา', 'ภาคา', 'คาร'])
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())  # type: ignore[no-any-return]
    words: list[str] = []
    for match in _WORD.finditer(fold(text)):
        if match.lastgroup in ("word", "emoji"):
            words.append(match.group())
            continue
        characters = _CHARACTER.findall(match.group())
        if match.lastgroup == "singles" or len(characters) == 1:
            words += characters
        words += map("".join, pairwise(characters))
    return words


def word_spans(text: str) -> Iterator[tuple[int, int, str]]:
    """Find the words of :func:`words_of` in a text as it is written: where each begins and ends, and the folded word.

    A word that only folding makes or cuts (a full-width space, a sign such as the Turkish dotted I) may be missed.

    Examples:
        >>> from dupmae.corpus.words import word_spans
        >>> list(word_spans("Two STRASSEN"))
        [(0, 3, 'two'), (4, 12, 'strassen')]
        >>> list(word_spans("灯塔"))
        [(0, 1, '灯'), (1, 2, '塔'), (0, 2, '灯塔')]
    """
    if text.isascii():
        yield from ((*match.span(), match.group()) for match in _ASCII_WORD.finditer(text.lower()))
        return
    for match in _WORD.finditer(text):
        if match.lastgroup in ("word", "emoji"):
            yield match.start(), match.end(), fold(match.group())
            continue
        spans = [(match.start() + one.start(), match.start() + one.end()) for one in _CHARACTER.finditer(match.group())]
        pairs = [(first, last) for (first, _), (_, last) in pairwise(spans)]
        singles = spans if match.lastgroup == "singles" or len(spans) == 1 else []
        yield from ((start, end, fold(text[start:end])) for start, end in (*singles, *pairs))


def terms_of(texts: Iterable[str], language: str = "english") -> list[list[str]]:
    """Cut each text into the terms of BM25: its words, without stop words, stemmed.

    Args:
        texts: Of any script.
        language: Of the stemmer, one of :data:`dupmae.config.WordLanguage`: `english` is Porter's, and leaves Lucene's
            33 stop words out; the others are Snowball's and leave no word out; `unstemmed` keeps every word as it is.
    """
    stem = stemmer(language)
    return [[term for term in map(stem, words_of(text)) if term] for text in texts]


@cache
def stemmer(language: str) -> Callable[[str], str]:
    """Make the function from a word to its term, which is empty for a stop word; see :func:`terms_of`."""
    if language == "unstemmed":
        return str
    import Stemmer

    stem = Stemmer.Stemmer("porter" if language == "english" else language, 0).stemWord
    if language != "english":
        return lru_cache(CACHED_WORDS)(stem)
    return lru_cache(CACHED_WORDS)(lambda word: "" if word in STOP_WORDS else stem(word))


def pieces_of(text: str) -> list[str]:
    """Cut a text into pieces of about a word, each with the white space behind it; together they are the text.

    In scripts without spaces two characters count as a word, which is about the mean of Chinese.
    """
    return _PIECE.findall(text)  # type: ignore[no-any-return]


def join_pieces(pieces: Sequence[str]) -> str:
    """Put pieces on one line, with single spaces where they had white space."""
    return " ".join("".join(pieces).split())


def reading_length(text: str) -> int:
    """Count a text's characters, those of Chinese, Japanese and Korean twice: they say as much as two letters do."""
    return len(text) if text.isascii() else len(text) + len(_WIDE.findall(text))
