"""Show why a hit was found: the words of its text that matched, and the stretch of it where they stand.

All places are characters of the document's text, of which a chunk's own begins at :attr:`Hit.start`.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dupmae.corpus.chunking import SENTENCE_END
from dupmae.corpus.words import fold, stemmer, word_spans
from dupmae.index.hits import Hit

SNIPPET_LENGTH = 300
"""Characters of a snippet, at most."""
CONTEXT = 60
"""Characters before the first matched word of a snippet, at most, unless its sentence begins further on."""
REPEATED = 0.1
"""What a word weighs that stands in a snippet again."""
READ = 20_000
"""Characters of a text whose word pieces are put together; an encoder reads no more."""


@dataclass(frozen=True, slots=True)
class Highlights:
    """What is to be shown of a hit."""

    words: list[tuple[int, int]]
    """Where the query's words, or others of their stems, stand in its text."""
    snippet: tuple[int, int]
    """The stretch of its text where the words stand that add most to its score; the beginning if there are none."""
    matches: list[tuple[str, float]]
    """The shared learned terms with what they add, heaviest first: word pieces that stand in its text as the word that
    they are a part of there."""


def highlight(hit: Hit, query: str, tokenizer: Any, language: str) -> Highlights:
    """Choose what is shown of a hit.

    Args:
        hit: Found for the query.
        query: Text.
        tokenizer: Of the index's model.
        language: Of the stemmer (:func:`dupmae.corpus.words.terms_of`).
    """
    matches = whole_words(hit, tokenizer)
    stem = stemmer(language)
    asked = {term for _, _, word in word_spans(query) if (term := stem(word))}
    weights: dict[str, float] = {}
    for written, weight in (*matches, *hit.words):
        for _, _, word in word_spans(written):
            weights[stem(word)] = weights.get(stem(word), 0.0) + weight
    marked, weighted = list[tuple[int, int]](), list[tuple[int, int, str, float]]()
    for start, end, word in word_spans(hit.text):
        term = stem(word)
        if term in asked:
            marked.append((start, end))
        if weight := max(weights.get(term, 0.0), 1e-6 if term in asked else 0.0):
            weighted.append((start, end, term, weight))
    first, last = _window(hit.text, sorted(weighted))
    places = [(start + hit.start, end + hit.start) for start, end in _joined(marked)]
    return Highlights(places, (first + hit.start, last + hit.start), matches)


def hit_as_record(query: str, rank: int, hit: Hit, highlights: Highlights) -> dict[str, Any]:
    """Lay a hit out as JSON; docs/file-formats.md has its fields."""
    start, end = highlights.snippet
    record = asdict(hit) | {
        "matches": [{"term": term, "contribution": weight} for term, weight in highlights.matches],
        "words": [{"word": word, "contribution": weight} for word, weight in hit.words],
        "metadata": dict(hit.metadata),
        "snippet": hit.text[start - hit.start : end - hit.start],
        "snippet_start": start,
        "highlights": highlights.words,
    }
    return {"query": query, "rank": rank} | record


def whole_words(hit: Hit, tokenizer: Any) -> list[tuple[str, float]]:
    """Put the word pieces among a hit's learned terms together where they stand in one word of its title or text.

    A piece that stands in several words is counted for the one whose pieces add most. One that stands in none, because
    the model has added it, is shown as it is, with a hyphen where a word goes on.
    """
    added = dict(hit.matches)
    words = _words_with(added, f"{hit.title} {hit.text}"[:READ], tokenizer)
    sums = {name: sum(added[token] for token in tokens) for name, (_, tokens) in words.items()}
    found: dict[str, float] = {}
    for token, weight in hit.matches:
        having = [name for name, (_, tokens) in words.items() if token in tokens]
        shown = words[max(having, key=sums.__getitem__)][0] if having else _readable(token)
        found[shown] = found.get(shown, 0.0) + weight
    return sorted(found.items(), key=lambda item: -item[1])


def _words_with(tokens: Mapping[str, float], text: str, tokenizer: Any) -> dict[str, tuple[str, set[str]]]:
    """Find the words of a text that have some tokens: folded word -> as it is first written, those tokens."""
    if not getattr(tokenizer, "is_fast", False):
        return {}
    read = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).encodings[0]
    words: dict[str, tuple[str, set[str]]] = {}
    for place, piece in enumerate(read.tokens):
        if piece in tokens and (word := read.token_to_word(place)) is not None:
            first, end = read.word_to_tokens(word)
            written = text[read.token_to_chars(first)[0] : read.token_to_chars(end - 1)[1]]
            written = written.strip().strip(string.punctuation) or written.strip()
            if written:
                words.setdefault(fold(written), (written, set()))[1].add(piece)
    return words


def _readable(token: str) -> str:
    """Write an entry of a vocabulary without its marks: `##ing` as `-ing`; those of a space before it are left out."""
    return f"-{token[2:]}" if token.startswith("##") and len(token) > 2 else token.lstrip("Ġ▁") or token


def _window(text: str, words: Sequence[tuple[int, int, str, float]]) -> tuple[int, int]:
    """Choose the stretch of a text, the first of equal ones, whose words (start, end, term, weight) weigh most."""
    if not words:
        return _widened(text, 0, 0)
    best, chosen = -1.0, (0, 0)
    for number, (first, _, _, _) in enumerate(words):
        seen, total, last = set[str](), 0.0, first
        for start, end, term, weight in words[number:]:
            if start > first and end - first > SNIPPET_LENGTH - CONTEXT:
                break
            total += weight * (REPEATED if term in seen else 1)
            seen.add(term)
            last = max(last, end)
        if total > best:
            best, chosen = total, (first, last)
    return _widened(text, *chosen)


def _widened(text: str, first: int, last: int) -> tuple[int, int]:
    """Widen a stretch to a whole snippet: back to where a sentence begins, or some words, and on to a word's end."""
    start = max(0, min(first - CONTEXT, len(text) - SNIPPET_LENGTH))
    if start:
        end = SENTENCE_END.search(text, start, first)
        start = end.end() if end else text.find(" ", start, first) + 1 or start
    while start < len(text) and text[start].isspace():
        start += 1
    stop = min(len(text), max(start + SNIPPET_LENGTH, last))
    if stop < len(text) and not text[stop].isspace():
        space = text.rfind(" ", max(last, start), stop)
        stop = space if space > start else stop
    return start, start + len(text[start:stop].rstrip())


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join stretches that meet or overlap, as pairs of characters do."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
