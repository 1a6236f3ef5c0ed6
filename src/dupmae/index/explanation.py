"""Why a duplex index ranks passages as it does: scores and ranks of all parts, words, terms that are there or meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.errors import DupmaeError, refuse_string
from dupmae.index.duplex_index import DuplexIndex, Group, words_by_dimension
from dupmae.index.hits import Hit
from dupmae.index.scoring.query import PARTS, UNCHANGED, Weights, prepare_queries
from dupmae.index.scoring.words import passages_with, with_rarity
from dupmae.index.where import Where

DEPTH = 1000
"""Ranks beyond this are not looked for."""
Ranks = tuple[int | None, int | None, int | None, int | None]


@dataclass(frozen=True, slots=True)
class Term:
    """A term of the vocabulary."""

    token: str
    """Its name."""
    weight: float
    """In the query: its weight there. In a passage: what it adds to the score."""
    in_query: bool
    """Whether it is one of the query's tokens; if not, the model has added it."""
    in_passage: bool
    """Whether it is one of the passage's tokens; always false in the query's own list."""


@dataclass(frozen=True, slots=True)
class Word:
    """A whole word of a query."""

    word: str
    """As the query writes it, in small letters."""
    weight: float
    """Its share of the query times its rarity."""
    passages: int
    """Passages of the index that have it, or another word of its stem."""


@dataclass(frozen=True, slots=True)
class ExplainedHit:
    """A passage, or a document's best one, and the reasons for its score."""

    hit: Hit
    """Its score, what each part contributes, the words that it shares with the query, its text."""
    ranks: Ranks
    """Its rank by the sum, by the dense half alone, by the lexical half alone, by words alone; None beyond `DEPTH`, and
    the last one in an index without words."""
    matched: Sequence[Term]
    """Shared terms that stand in both texts, heaviest first."""
    expanded: Sequence[Term]
    """Shared terms that are missing in one of the texts or in both."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A query, what the model made of it, and what it found."""

    query: str
    """The text."""
    terms: Sequence[Term]
    """The query's learned terms, heaviest first."""
    words: Sequence[Word]
    """Its whole words, heaviest first; those that no passage has weigh nothing."""
    hits: Sequence[ExplainedHit]
    """The best passages by the sum, then those that only one of its parts has among its best, then those asked for."""


def explain(
    index: DuplexIndex,
    query: str,
    k: int = 3,
    ids: Sequence[str] = (),
    weights: Weights = UNCHANGED,
    where: Where | None = None,
    group: Group = "document",
) -> Explanation:
    """Explain what an index finds for a query.

    Args:
        index: The index.
        query: Text.
        k: Documents from the top of each ranking: by the sum, and by each of its parts alone. Each is shown by its
            best chunk by the sum.
        ids: Further passages or documents, whether they are found or not.
        weights: What each part of the sum is multiplied by.
        where: Only passages with these metadata have ranks.
        group: `"none"` ranks passages, so that several may be of one document.

    Raises:
        DupmaeError: k < 1, a string instead of a list, an id that is not in the index, a filter that cannot be read, or
            the model cannot be used.
    """
    if k < 1:
        raise DupmaeError(f"k is {k}: ask for at least one passage.")
    refuse_string(ids, "ids")
    plain = index.queries.embed_queries([query])
    whole, *parts = PARTS if index.manifest.words is not None else PARTS[:-1]
    limits: dict[str, Any] = {"k": max(k, DEPTH), "where": where, "group": group}
    rankings = [index.search_embeddings(plain, part=whole, weights=weights, **limits)[0][0]]
    rankings += [index.search_embeddings(plain, part=part, **limits)[0][0] for part in parts]
    embeddings = weights.apply(plain)
    ranks = [{passage: rank for rank, passage in enumerate(ranking, 1)} for ranking in rankings]
    shown = list(dict.fromkeys([*(passage for ranking in rankings for passage in ranking[:k]), *ids]))
    asked = _tokens(index, query)
    heaviest = np.flatnonzero(embeddings.weights[0])
    names = index.queries.tokenizer.convert_ids_to_tokens(embeddings.ids[0][heaviest].tolist())
    term_weights = embeddings.weights[0][heaviest].tolist()
    return Explanation(
        query,
        [Term(name, weight, name in asked, False) for name, weight in zip(names, term_weights, strict=True)],
        _words(index, query, plain, weights),
        [
            _explained(index, hit, asked, _ranks_of(hit.id if group == "none" else hit.document, ranks))
            for hit in index.explain(query, shown, weights)
        ],
    )


def explanation_as_record(explanation: Explanation) -> dict[str, Any]:
    """Lay an explanation out as JSON: `query`, `terms`, `words`, and `hits` with `rank`, `dense_rank` and so on."""
    hits = []
    for explained in explanation.hits:
        record = asdict(explained)
        hit = record.pop("hit") | {"metadata": dict(explained.hit.metadata)}
        hit.pop("matches")
        hit["words"] = [{"word": word, "contribution": added} for word, added in explained.hit.words]
        names = ("rank", "dense_rank", "lexical_rank", "word_rank")
        hits.append(hit | dict(zip(names, record.pop("ranks"), strict=True)) | record)
    return {
        "query": explanation.query,
        "terms": [asdict(term) for term in explanation.terms],
        "words": [asdict(word) for word in explanation.words],
        "hits": hits,
    }


def _words(index: DuplexIndex, query: str, embeddings: DuplexEmbeddings, weights: Weights) -> list[Word]:
    """Weigh the words of a query as the index does, and count the passages that have them."""
    if index.manifest.words is None or not weights.words:
        return []
    snapshot = index.snapshot
    (prepared,) = with_rarity(snapshot, prepare_queries(embeddings, snapshot.manifest, "words", weights))
    names = words_by_dimension(index.queries, query)
    having = passages_with(snapshot, prepared.word_ids)
    found = zip(prepared.word_ids.tolist(), prepared.word_weights.tolist(), having.tolist(), strict=True)
    words = [Word(names.get(dimension, f"word {dimension}"), weight, count) for dimension, weight, count in found]
    return sorted(words, key=lambda word: -word.weight)


def _ranks_of(identifier: str, ranks: Sequence[Mapping[str, int]]) -> Ranks:
    """Look up a passage's or document's rank in each ranking; by words it has none where the index has none."""
    found = [ranking.get(identifier) for ranking in ranks]
    return found[0], found[1], found[2], found[3] if len(found) > 3 else None


def _explained(index: DuplexIndex, hit: Hit, asked: set[str], ranks: Ranks) -> ExplainedHit:
    """Sort a hit's terms into those that stand in both texts and the others."""
    there = _tokens(index, f"{hit.title} {hit.text}")
    terms = [Term(token, added, token in asked, token in there) for token, added in hit.matches]
    matched = [term for term in terms if term.in_query and term.in_passage]
    return ExplainedHit(hit, ranks, matched, [term for term in terms if term not in matched])


def _tokens(index: DuplexIndex, text: str) -> set[str]:
    """Name all of a text's tokens, however long it is."""
    tokenizer = index.queries.tokenizer
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return set(tokenizer.convert_ids_to_tokens(ids))
