"""Find the passages that a corpus holds more than once, under several ids, and those that are equal to a query."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from itertools import chain

from dupmae.corpus.passage import Passage


def with_duplicates(
    corpus: Mapping[str, Passage], positives: Mapping[str, Collection[str]]
) -> dict[str, frozenset[str]]:
    """Add to every query's positives their duplicates, none of which may be taken for a wrong answer.

    Judgements name one id of a passage that stands in the corpus twice. Two passages are duplicates if their normalized
    texts are equal, unless they have different titles; a passage without a text has its title in its place.

    Args:
        corpus: Passage id -> passage.
        positives: Query id -> ids of the passages that answer it.

    Returns:
        Query id -> ids of those passages and their duplicates.
    """
    named = {passage for found in positives.values() for passage in found}
    contents = {passage: _normalized_content(corpus[passage]) for passage in named}
    texts = {text for text, _ in contents.values()}
    same: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))  # text -> title -> ids
    for identifier, passage in corpus.items():
        text, title = _normalized_content(passage)
        if text in texts:
            same[text][title].append(identifier)

    def duplicates(passage: str) -> list[str]:
        text, title = contents[passage]
        titles = same[text]
        return [identifier for one in ({title, ""} if title else titles) for identifier in titles.get(one, [])]

    return {query: frozenset(chain.from_iterable(map(duplicates, found))) for query, found in positives.items()}


def equal_to_query(corpus: Mapping[str, Passage], queries: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Find the passages whose normalized text equals a query, whatever their title: no answers, nor wrong ones.

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
        text, _ = _normalized_content(passage)
        if text in wanted:
            same[text].append(identifier)
    return {query: frozenset(same[text]) for query, text in asked.items() if text in same}


def unrepeated(corpus: Mapping[str, Passage]) -> list[str]:
    """List the ids, in order, of the passages whose normalized text no other passage has, whatever its title."""
    texts = {identifier: _normalized_content(passage)[0] for identifier, passage in corpus.items()}
    counts = Counter(texts.values())
    return sorted(identifier for identifier, text in texts.items() if counts[text] == 1)


def _normalized_content(passage: Passage) -> tuple[str, str]:
    """Normalize a passage's text and its title, which takes the place of an empty text."""
    title, text = normalized(passage.title), normalized(passage.text)
    return (text, title) if text else (title, "")


def normalized(text: str) -> str:
    """Normalize a text: small letters, single spaces."""
    return " ".join(text.split()).casefold()
