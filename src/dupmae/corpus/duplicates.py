"""Passages that a corpus holds more than once, under several ids."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from dupmae.corpus.passage import Passage


def with_duplicates(
    corpus: Mapping[str, Passage], positives: Mapping[str, Collection[str]]
) -> dict[str, frozenset[str]]:
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


def equal_to_query(corpus: Mapping[str, Passage], queries: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """The passages whose text reads like a query, whatever their title: they are no answers, nor wrong ones.

    Where questions are searched for by questions, as in Quora, a query stands in the corpus.

    Args:
        corpus: Passage id -> passage.
        queries: Query id -> text.

    Returns:
        Query id -> ids, of the queries that have some.
    """
    asked = {query: normalized(text) for query, text in queries.items()}
    wanted, same = set(asked.values()), defaultdict[str, list[str]](list)
    for identifier, passage in corpus.items():
        text, _ = _words(passage)
        if text in wanted:
            same[text].append(identifier)
    return {query: frozenset(same[text]) for query, text in asked.items() if text in same}


def unrepeated(corpus: Mapping[str, Passage]) -> list[str]:
    """Ids, in order, of the passages whose text no other passage has, whatever its title, case and white space."""
    texts = {identifier: _words(passage)[0] for identifier, passage in corpus.items()}
    times = Counter(texts.values())
    return sorted(identifier for identifier, text in texts.items() if times[text] == 1)


def _words(passage: Passage) -> tuple[str, str]:
    """A passage's text and its title, in small letters with single spaces."""
    title, text = normalized(passage.title), normalized(passage.text)
    return (text, title) if text else (title, "")


def normalized(text: str) -> str:
    """A text in small letters with single spaces."""
    return " ".join(text.split()).casefold()
