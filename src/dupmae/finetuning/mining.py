"""Mining of hard negatives: what a duplex index, or BM25, ranks high for a training query without answering it.

Queries are searched in blocks, so that memory depends neither on their number nor on the product of queries and
passages; see :mod:`dupmae.finetuning.jsonl_blocks` for how a killed run goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.config import MiningConfig
from dupmae.corpus import Benchmark, Run
from dupmae.corpus.duplicates import equal_to_query, with_duplicates
from dupmae.corpus.passage import corpus_fingerprint
from dupmae.errors import DupmaeError
from dupmae.files import fingerprint
from dupmae.finetuning.candidates import CandidateList, write_lists
from dupmae.finetuning.jsonl_blocks import write_resumably

if TYPE_CHECKING:
    from dupmae.index import DuplexIndex

logger = logging.getLogger(__name__)

NEGATIVES_FILE = "negatives.jsonl"
"""The candidate lists, in the output folder."""
RECORD_FILE = "mining.json"
"""What they were made from."""

Search = Callable[[Mapping[str, str], int], Run]
"""From queries (id -> text) and a depth to the ranking of each, best first."""
Judge = Callable[[list[CandidateList]], list[CandidateList]]
"""From lists to what is left of them."""
Answers = Mapping[str, frozenset[str]]
"""Query id -> passages, such as its positives and what reads like one of them."""


def mine(index: DuplexIndex | None, train: Benchmark, output: Path, config: MiningConfig) -> Path:
    """Mine hard negatives of every training query (for Eq. 14 and 15).

    The best passages of each query, its positives and what reads like one of them or like itself left out, ranks
    `first` to `last`, less what the margins and the teacher take for an answer that nobody judged. With both sources
    their rankings are taken in turn, index first, a passage once; a score then is 1 / place, because scores of
    different sources cannot be compared.

    A call that was killed goes on at the block of queries where it was; a finished one is not done again.

    Args:
        index: Of the benchmark's corpus; None if BM25 is the only source.
        train: Queries with their positives, the passages judged above 0; queries without are passed over.
        output: Folder for `negatives.jsonl` (:mod:`dupmae.finetuning.candidates`) and its record `mining.json`.
        config: The settings.

    Returns:
        The file, its queries in the order of their ids.

    Raises:
        DupmaeError: Impossible settings, no index where one is needed, no query with a positive, an index that holds
            other passages, `output` holds negatives mined from something else, or no query has got a negative.
    """
    _check(index, config)
    queries = sorted(query for query in train.queries if _positives(train, query))
    if not queries:
        raise DupmaeError(f"{train.name} ({train.split}) has no query with a positive to mine negatives for.")
    settings = asdict(config)
    own_fingerprint = _fingerprint(index, train, settings)

    @cache
    def sources() -> tuple[list[Search], Answers, Judge]:  # a finished run needs none of them
        answers = with_duplicates(train.corpus, {query: _positives(train, query) for query in queries})
        same = equal_to_query(train.corpus, {query: train.queries[query] for query in queries})
        apart = {query: found - answers[query] for query, found in same.items()}
        searches = [_without(apart, search) for search in _searches(index, train, config)]
        return searches, answers, _judge(train, config)

    def write(block: Sequence[str], path: Path) -> None:
        searches, answers, judge = sources()
        write_lists(path, judge(_lists(searches, answers, train, block, config)))

    path = write_resumably(output / NEGATIVES_FILE, RECORD_FILE, own_fingerprint, settings, queries, write, "mining")
    _check_lists(path, train, config)
    return path


def _check(index: DuplexIndex | None, config: MiningConfig) -> None:
    """Refuse settings that leave nothing to mine."""
    if index is None and config.source != "bm25":
        raise DupmaeError(f"Mining from the source {config.source} needs an index: give one, or take bm25.")
    if config.first > config.last:
        raise DupmaeError(f"Ranks {config.first} to {config.last} hold no passage: last must be at least first.")


def _check_lists(path: Path, train: Benchmark, config: MiningConfig) -> None:
    """Say how many of the lists are without a negative; refuse a file in which all are."""
    with path.open("rb") as file:
        lists = [b'"negatives": {}' in line for line in file]
    if all(lists):
        raise DupmaeError(
            f"No negative was found for any of the {len(lists)} queries of {train.name} ({train.split}) in {path}: "
            "take another source, more ranks (first, last) or wider margins, into another folder."
        )
    if any(lists):
        logger.warning(
            "Mining from %s found no negative for %d of the %d queries of %s (%s).",
            {"duplex": "the index", "bm25": "BM25", "both": "the index and BM25"}[config.source],
            sum(lists),
            len(lists),
            train.name,
            train.split,
        )


def _positives(train: Benchmark, query: str) -> set[str]:
    """Return the passages that answer a query."""
    return {passage for passage, grade in train.qrels.get(query, {}).items() if grade > 0}


def _fingerprint(index: DuplexIndex | None, train: Benchmark, settings: Mapping[str, object]) -> str:
    """Take the fingerprint of all that the lists depend on."""
    from dupmae.models import open_model

    inputs: dict[str, object] = {
        "settings": settings,
        "queries": train.queries,
        "qrels": train.qrels,
        "corpus": corpus_fingerprint(train.corpus.values()),
    }
    if settings["source"] != "bm25" and index is not None:
        manifest = index.manifest
        inputs["index"] = [
            manifest.model_fingerprint,
            [asdict(segment) for segment in manifest.segments],
            manifest.deleted,
        ]
    if settings["teacher"] is not None:
        inputs["teacher"] = open_model(str(settings["teacher"]), option="--teacher").fingerprint
    return fingerprint(inputs)


def _searches(index: DuplexIndex | None, train: Benchmark, config: MiningConfig) -> list[Search]:
    """Open the sources of candidates, in the order in which they take turns."""
    from dupmae.retrievers.bm25 import bm25_searcher
    from dupmae.retrievers.systems import duplex_run

    def duplex(queries: Mapping[str, str], depth: int) -> Run:
        assert index is not None
        run = duplex_run(index, replace(train, queries=dict(queries)), depth)
        strangers = {passage for ranking in run.values() for passage in ranking} - train.corpus.keys()
        if strangers:
            raise DupmaeError(
                f"The index {index.folder} holds the passage {min(strangers)!r}, which {train.name} does not: "
                "mine with an index of the benchmark's own corpus."
            )
        return run

    searches: list[Search] = [] if config.source == "bm25" else [duplex]
    if config.source == "duplex":
        return searches
    bm25 = bm25_searcher(train.corpus)
    if config.source == "bm25" and not bm25.matches(list(train.queries.values())):
        raise DupmaeError(
            f"BM25 finds no negative for any of the {len(train.queries)} queries of {train.name} ({train.split}): no "
            "passage has a word of theirs. Mine with an index."
        )
    return [*searches, bm25]


def _without(apart: Answers, search: Search) -> Search:
    """Leave out of a source the passages equal to the query: their scores say nothing of its answers'."""

    def rank(queries: Mapping[str, str], depth: int) -> Run:
        most = max((len(apart.get(query, ())) for query in queries), default=0)
        return {
            query: {passage: score for passage, score in ranking.items() if passage not in apart.get(query, ())}
            for query, ranking in search(queries, depth + most).items()
        }

    return rank


def _lists(
    searches: Sequence[Search], answers: Answers, train: Benchmark, queries: Sequence[str], config: MiningConfig
) -> list[CandidateList]:
    """Make the lists of a block of queries, before a teacher has looked at them."""
    texts = {query: train.queries[query] for query in queries}
    depth = config.last + max(len(answers[query]) for query in queries)
    runs = [search(texts, depth) for search in searches]
    return [
        _list(query, _positives(train, query), answers[query], [run[query] for run in runs], config)
        for query in queries
    ]


def _list(
    query: str,
    positives: Set[str],
    answers: Set[str],
    rankings: Sequence[Mapping[str, float]],
    config: MiningConfig,
) -> CandidateList:
    """Make one query's list from each source's ranking of it (passage id -> score, best first)."""
    kept = [_within(ranking, answers, config) for ranking in rankings]
    scores = dict(kept[0])
    if len(kept) > 1:
        turns = dict.fromkeys(passage for turn in zip_longest(*kept) for passage in turn if passage is not None)
        scores = {passage: 1 / place for place, passage in enumerate(turns, 1)}
    found: dict[str, float | None] = {passage: score for passage, score in scores.items() if passage in positives}
    return CandidateList(
        query,
        positives=found | dict.fromkeys(sorted(positives - found.keys())),
        negatives={passage: score for passage, score in scores.items() if passage not in answers},
    )


def _within(ranking: Mapping[str, float], answers: Set[str], config: MiningConfig) -> dict[str, float]:
    """Keep a ranking's answers, and the negatives in the window of ranks that keep their distance from the best."""
    best = max((score for passage, score in ranking.items() if passage in answers), default=-math.inf)
    limit = math.inf if config.margin is None else best - config.margin
    if config.relative_margin is not None:
        limit = min(limit, best - config.relative_margin * abs(best) if math.isfinite(best) else best)
    others = [passage for passage in ranking if passage not in answers][config.first - 1 : config.last]
    negatives = {passage for passage in others if ranking[passage] <= limit}
    return {passage: score for passage, score in ranking.items() if passage in answers or passage in negatives}


def _judge(train: Benchmark, config: MiningConfig) -> Judge:
    """Make what leaves out of lists the negatives that the teacher, if there is one, takes for answers."""
    if config.teacher is None:
        return lambda lists: lists
    from dupmae.models import open_model
    from dupmae.retrievers.scorers import load_cross_encoder, score_pairs

    teacher = load_cross_encoder(open_model(config.teacher, option="--teacher"))

    def judge(lists: list[CandidateList]) -> list[CandidateList]:
        scores = score_pairs(teacher, train, {one.query_id: one.passages for one in lists})
        return [_without_answers(one, scores[one.query_id], config.teacher_margin) for one in lists]

    return judge


def _without_answers(candidates: CandidateList, scores: Mapping[str, float], margin: float) -> CandidateList:
    """Leave out of a list the negatives that score less than `margin` below its best positive."""
    limit = max(scores[passage] for passage in candidates.positives) - margin
    kept = {passage: score for passage, score in candidates.negatives.items() if scores[passage] <= limit}
    return replace(candidates, negatives=kept)
