"""Draw training pairs from text alone: a title, a sentence or a run of words stands in for a query.

A title or a sentence that becomes a query is taken out of its passage, so that finding the passage again takes more
than matching the same words. A run of words is not (as in contrastive learning from crops): rare words should match.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from dupmae.config import PseudoQueryConfig
from dupmae.corpus.benchmark import Benchmark
from dupmae.corpus.chunking import sentences_of
from dupmae.corpus.duplicates import unrepeated
from dupmae.corpus.passage import Passage
from dupmae.corpus.words import pieces_of, reading_length
from dupmae.errors import DupmaeError

logger = logging.getLogger(__name__)

SPLIT = "pseudo"
"""Name of the judgements."""
LEAST_SENTENCE = 20
"""Characters of a sentence that may become a query."""
LEAST_PASSAGE = 40
"""Characters that a passage keeps at least."""
CROP_WORDS = (4, 16)
"""Words (:func:`pieces_of`) of a crop, at least and at most; a crop is never more than half of its passage."""
LEAST_CROP = 2
"""Words of a crop of a passage that is too short for the least of :data:`CROP_WORDS`."""


def pseudo_queries(passages: Iterable[Passage], name: str, config: PseudoQueryConfig) -> Benchmark:
    """Draw pseudo-queries from passages.

    What is drawn from a passage depends on its id and the seed, and on no other passage. A query that would come from
    several passages ("Introduction") tells none of them from the others and is left out; so is every query of a passage
    that has a duplicate, which would be a wrong answer that holds the query.

    Args:
        passages: At least one; all are kept in memory.
        name: Of the benchmark.
        config: The settings.

    Returns:
        All passages under their own ids, without what became their queries; queries `ID#1`, `ID#2`, ..., each with the
        grade 1 for its passage.

    Raises:
        DupmaeError: No kind of query has a weight, or no passage gives any.
    """
    if max(config.title_weight, config.sentence_weight, config.crop_weight) <= 0:
        raise DupmaeError("Pseudo-queries need a kind: give titles, sentences or crops a weight above 0.")
    corpus = {passage.id: passage for passage in passages}
    chosen = once = unrepeated(corpus)
    if len(chosen) > config.passages:
        chosen = sorted(random.Random(config.seed).sample(chosen, config.passages))
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for identifier in chosen:
        drawn, corpus[identifier] = draw_queries(corpus[identifier], config)
        for number, query in enumerate(drawn, 1):
            queries[f"{identifier}#{number}"] = query
            qrels[f"{identifier}#{number}"] = {identifier: 1}
    times = Counter(queries.values())
    queries = {query: text for query, text in queries.items() if times[text] == 1}
    if not queries:
        raise DupmaeError(f"{name} gives no pseudo-queries: {_reason(corpus, once, config)}.")
    given = {passage for query in queries for passage in qrels[query]}
    if len(given) < len(chosen):
        logger.warning(
            "%d of the %d passages of %s that queries are drawn from give none, such as %r: they are too short, or "
            "others would give the same.",
            len(chosen) - len(given),
            len(chosen),
            name,
            next(identifier for identifier in chosen if identifier not in given),
        )
    return Benchmark(name, SPLIT, corpus, queries, {query: qrels[query] for query in queries})


def known_items(corpus: Mapping[str, Passage], name: str, count: int, pool: int, seed: int) -> Benchmark:
    """Draw queries whose answer is known: do a passage's title and a sentence of it find the rest of it?

    Where most passages are too short to lose either (questions, captions), runs of their words are queries as well,
    which the passages keep.

    Args:
        corpus: Every passage by its id.
        name: Of the benchmark.
        count: Passages that give queries, at most, and at most a tenth of those that stand there once.
        pool: Passages that are searched, at most, these included; the others are drawn at random.
        seed: Seeds all draws.

    Returns:
        The pool and the queries. The passages with judgements are those to train nothing on.

    Raises:
        DupmaeError: The corpus is too small, or its passages are too short.
    """
    draw = random.Random(seed)
    ids, once = draw.sample(sorted(corpus), len(corpus)), set(unrepeated(corpus))
    chosen = [identifier for identifier in ids if identifier in once][: min(count, len(once) // 10)]
    if not chosen:
        raise DupmaeError(
            f"{name} has {len(once)} passages that stand there once, too few to hold some out: known items need 10 at "
            "least."
        )
    config = PseudoQueryConfig(queries_per_passage=2, crop_weight=0, seed=seed)
    whole = sum(not draw_queries(corpus[identifier], config)[0] for identifier in chosen)
    if 2 * whole > len(chosen):
        config = replace(config, crop_weight=1)
    items = pseudo_queries([corpus[identifier] for identifier in chosen], name, config)
    answers = {passage for grades in items.qrels.values() for passage in grades}
    others = [identifier for identifier in ids if identifier not in answers][: max(0, pool - len(answers))]
    searched = {identifier: corpus[identifier] for identifier in sorted(others)}
    searched |= {identifier: items.corpus[identifier] for identifier in sorted(answers)}
    return replace(items, split="known items", corpus=searched)


def draw_queries(passage: Passage, config: PseudoQueryConfig) -> tuple[list[str], Passage]:
    """Draw a passage's queries, fewer where it is too short, and take titles and sentences among them out of it.

    Args:
        passage: Any.
        config: The settings.

    Returns:
        The queries, on one line each, and what is left of the passage.
    """
    draw = random.Random(f"{config.seed} {passage.id}")
    title, sentences, words = passage.title, sentences_of(passage.text), pieces_of(passage.text.strip())
    queries: list[str] = []
    for _ in range(config.queries_per_passage):
        left = sum(map(reading_length, sentences))
        removable = [
            place
            for place, sentence in enumerate(sentences)
            if reading_length(sentence.strip()) >= LEAST_SENTENCE and left - reading_length(sentence) >= LEAST_PASSAGE
        ]
        weights = {
            "title": config.title_weight if title.strip() and left >= LEAST_PASSAGE else 0.0,
            "sentence": config.sentence_weight if removable else 0.0,
            "crop": config.crop_weight if len(words) >= 2 * LEAST_CROP else 0.0,
        }
        if not any(weights.values()):
            break
        match draw.choices(list(weights), list(weights.values()))[0]:
            case "title":
                query, title = title, ""
            case "sentence":
                query = sentences.pop(draw.choice(removable))
            case _:
                longest = min(CROP_WORDS[1], len(words) // 2)
                length = draw.randint(min(CROP_WORDS[0], longest), longest)
                start = draw.randint(0, len(words) - length)
                query = "".join(words[start : start + length])
        query = " ".join(query.split())
        if query not in queries:
            queries.append(query)
    return queries, replace(passage, title=title, text="".join(sentences).strip())


def _reason(corpus: Mapping[str, Passage], once: Collection[str], config: PseudoQueryConfig) -> str:
    """Tell why a corpus gives no pseudo-query, and what would help."""
    if not once:
        return f"each of its {len(corpus)} passages stands there more than once"
    if not config.crop_weight and any(len(pieces_of(corpus[name].text)) >= 2 * LEAST_CROP for name in once):
        return (
            f"its passages have no sentence of {LEAST_SENTENCE} characters, or no title, that leaves them "
            f"{LEAST_PASSAGE}; give runs of words a weight above 0 (crop_weight)"
        )
    return f"its passages are shorter than {2 * LEAST_CROP} words, or give all the same queries"
