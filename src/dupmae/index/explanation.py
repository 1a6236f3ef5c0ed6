"""Why a duplex index ranks passages as it does: both halves' scores and ranks, terms that are there or only meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dupmae.errors import DupmaeError, refuse_string
from dupmae.index.duplex_index import DuplexIndex
from dupmae.index.hits import Hit
from dupmae.index.scoring.query import Part

DEPTH = 1000
"""Ranks beyond this are not looked for."""
_PARTS: tuple[Part, ...] = ("both", "dense", "lexical")


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
class ExplainedHit:
    """A passage and the reasons for its score."""

    hit: Hit
    """Its score, what each half contributes, its text."""
    ranks: tuple[int | None, int | None, int | None]
    """Its rank by the sum, by the dense half alone, by the lexical half alone; None beyond `DEPTH`."""
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
    """The query's terms, heaviest first."""
    hits: Sequence[ExplainedHit]
    """The best passages by the sum, then those that only one of the halves has among its best, then those asked for."""


def explain(index: DuplexIndex, query: str, k: int = 3, ids: Sequence[str] = ()) -> Explanation:
    """Explain what an index finds for a query.

    Args:
        index: The index.
        query: Text.
        k: Passages from the top of each of three rankings: by the sum (Eq. 12), by the dense half alone, by the lexical
            half alone.
        ids: Further passages, whether they are found or not.

    Raises:
        DupmaeError: k < 1, a string instead of a list, an id that is not in the index, or the model cannot be used.
    """
    if k < 1:
        raise DupmaeError(f"k is {k}: ask for at least one passage.")
    refuse_string(ids, "ids")
    embeddings = index.encoder.embed_queries([query])
    rankings = [index.search_embeddings(embeddings, max(k, DEPTH), part)[0][0] for part in _PARTS]
    ranks = [{passage: rank for rank, passage in enumerate(ranking, 1)} for ranking in rankings]
    shown = list(dict.fromkeys([*(passage for ranking in rankings for passage in ranking[:k]), *ids]))
    asked = _tokens(index, query)
    heaviest = np.flatnonzero(embeddings.weights[0])
    names = index.encoder.tokenizer.convert_ids_to_tokens(embeddings.ids[0][heaviest].tolist())
    weights = embeddings.weights[0][heaviest].tolist()
    return Explanation(
        query,
        [Term(name, weight, name in asked, False) for name, weight in zip(names, weights, strict=True)],
        [
            _explained(index, hit, asked, (ranks[0].get(hit.id), ranks[1].get(hit.id), ranks[2].get(hit.id)))
            for hit in index.explain(query, shown)
        ],
    )


def explanation_as_record(explanation: Explanation) -> dict[str, Any]:
    """Lay an explanation out as JSON: `query`, `terms`, and `hits` with `rank`, `dense_rank` and `lexical_rank`."""
    hits = []
    for explained in explanation.hits:
        record = asdict(explained)
        hit = record.pop("hit") | {"metadata": dict(explained.hit.metadata)}
        hit.pop("matches")
        hits.append(hit | dict(zip(("rank", "dense_rank", "lexical_rank"), record.pop("ranks"), strict=True)) | record)
    return {"query": explanation.query, "terms": [asdict(term) for term in explanation.terms], "hits": hits}


def _explained(
    index: DuplexIndex, hit: Hit, asked: set[str], ranks: tuple[int | None, int | None, int | None]
) -> ExplainedHit:
    """Sort a hit's terms into those that stand in both texts and the others."""
    there = _tokens(index, f"{hit.title} {hit.text}")
    terms = [Term(token, added, token in asked, token in there) for token, added in hit.matches]
    matched = [term for term in terms if term.in_query and term.in_passage]
    return ExplainedHit(hit, ranks, matched, [term for term in terms if term not in matched])


def _tokens(index: DuplexIndex, text: str) -> set[str]:
    """Name all of a text's tokens, however long it is."""
    tokenizer = index.encoder.tokenizer
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return set(tokenizer.convert_ids_to_tokens(ids))
