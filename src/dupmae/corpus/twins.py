"""Passages that a corpus holds more than once, under several ids."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from dupmae.corpus.readers import Passage


def with_twins(corpus: Mapping[str, Passage], positives: Mapping[str, Collection[str]]) -> dict[str, frozenset[str]]:
    """Every query's positives and the passages that read the same: none of them may be taken for a wrong answer.

    Judgements name one id of a passage that stands in the corpus twice. Two read the same if their texts do, whatever
    their case and white space, unless they have different titles; a passage without a text has its title in its place.

    Args:
        corpus: Passage id -> passage.
        positives: Query id -> ids of the passages that answer it.

    Returns:
        Query id -> ids of those passages and their twins.
    """
    said = {passage: _words(corpus[passage]) for passage in {one for found in positives.values() for one in found}}
    texts = {text for text, _ in said.values()}
    same: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))  # text -> title -> ids
    for identifier, passage in corpus.items():
        text, title = _words(passage)
        if text in texts:
            same[text][title].append(identifier)

    def twins(passage: str) -> list[str]:
        text, title = said[passage]
        titles = same[text]
        return [twin for own in ({title, ""} if title else titles) for twin in titles.get(own, [])]

    return {query: frozenset(twin for one in found for twin in twins(one)) for query, found in positives.items()}


def unrepeated(corpus: Mapping[str, Passage]) -> list[str]:
    """Ids, in order, of the passages whose text no other passage has, whatever its title, case and white space."""
    texts = {identifier: _words(passage)[0] for identifier, passage in corpus.items()}
    times = Counter(texts.values())
    return sorted(identifier for identifier, text in texts.items() if times[text] == 1)


def _words(passage: Passage) -> tuple[str, str]:
    """A passage's text and its title, in small letters with single spaces."""
    title, text = (" ".join(part.split()).casefold() for part in (passage.title, passage.text))
    return (text, title) if text else (title, "")
