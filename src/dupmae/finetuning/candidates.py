"""Candidate lists of training queries, and a teacher's scores of them, as files that people can read and edit.

Both are JSON Lines, one query a line:

* `negatives.jsonl`: `{"query_id": "q1", "positives": {"p7": 31.2}, "negatives": {"p3": 30.1, "p9": 28.8}}`, the
  passages in falling order of the miner's score; null for a positive that the miner did not find.
* `teacher.jsonl`: `{"query_id": "q1", "scores": {"p7": 4.1, "p3": -0.3, "p9": -2.0}}`, raw logits of all of them.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dupmae.corpus import Benchmark
from dupmae.corpus.formats.records import string_field
from dupmae.corpus.lines import json_kind, json_objects
from dupmae.errors import DupmaeError
from dupmae.files import atomic_write

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CandidateList:
    """What a query is trained on: its positives, and the passages that were mined to set against them."""

    query_id: str
    """The query."""
    positives: dict[str, float | None]
    """Passage id -> the miner's score, highest first; None (last) for a positive that the miner did not find."""
    negatives: dict[str, float]
    """Passage id -> the miner's score, highest first; never one of the positives."""

    @property
    def passages(self) -> list[str]:
        """Ids of the positives, then of the negatives."""
        return [*self.positives, *self.negatives]


def write_lists(path: Path, lists: Iterable[CandidateList]) -> None:
    """Write candidate lists, atomically, in the order given."""
    _write(path, map(asdict, lists))


def read_lists(path: Path, benchmark: Benchmark) -> dict[str, CandidateList]:
    """Read candidate lists, compressed or not.

    Args:
        path: What :func:`write_lists` wrote, or a file of the same kind.
        benchmark: Knows the queries, the passages, and which passages answer a query.

    Returns:
        Query id -> its list, in the order of the file.

    Raises:
        DupmaeError: A line is malformed, names an unknown query or passage, repeats a query, has no positive, or has a
            positive of the query among its negatives; or there is no line at all.
    """
    lists: dict[str, CandidateList] = {}
    for place, record in _records(path, ("positives", "negatives")):
        query = string_field(record["query_id"], "query_id", place)
        if query not in benchmark.queries:
            raise DupmaeError(f"{place}: {benchmark.name} ({benchmark.split}) has no query {query!r} with judgements.")
        if query in lists:
            raise DupmaeError(f"{place}: the query {query!r} has a list already.")
        positives = _scores(record, "positives", place, null=True)
        negatives = _scores(record, "negatives", place)
        if not positives:
            raise DupmaeError(f"{place}: the query {query!r} has no positives.")
        for passage in (*positives, *negatives):
            if passage not in benchmark.corpus:
                raise DupmaeError(f"{place}: {benchmark.name} has no passage {passage!r}.")
        judged = {passage for passage, grade in benchmark.qrels[query].items() if grade > 0}
        for passage in negatives:
            if passage in positives or passage in judged:
                raise DupmaeError(f"{place}: {passage!r} is among the negatives of {query!r}, but it is a positive.")
        lists[query] = CandidateList(query, positives, {name: float(score or 0.0) for name, score in negatives.items()})
    return lists


def lists_of(benchmark: Benchmark, scores: Mapping[str, Mapping[str, float]]) -> dict[str, CandidateList]:
    """Make candidate lists of the judged passages that a teacher has scored, as mined pairs with scores have them.

    Args:
        benchmark: Queries and judgements; a negative grade makes a negative.
        scores: Query id -> passage id -> score.

    Returns:
        Query id -> its list, of the queries that have both a positive and a negative with a score.

    Raises:
        DupmaeError: There is no such query.
    """
    lists: dict[str, CandidateList] = {}
    for query in benchmark.queries:
        scored = sorted(scores.get(query, {}).items(), key=lambda row: (-row[1], row[0]))
        grades = benchmark.qrels[query]
        positives: dict[str, float | None] = {passage: score for passage, score in scored if grades[passage] > 0}
        negatives = {passage: score for passage, score in scored if grades[passage] < 0}
        if positives and negatives:
            lists[query] = CandidateList(query, positives, negatives)
    if not lists:
        raise DupmaeError(f"{benchmark.name} has no query with scores of both an answer and a negative.")
    if left_out := len(benchmark.queries) - len(lists):
        logger.warning(
            "%s: %d of %d queries lack scores of an answer or of a negative and are left out.",
            benchmark.name,
            left_out,
            len(benchmark.queries),
        )
    return lists


def write_scores(path: Path, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Write a teacher's scores, query id -> passage id -> logit, atomically, in the order given."""
    _write(path, ({"query_id": query, "scores": dict(row)} for query, row in scores.items()))


def read_scores(path: Path, lists: Mapping[str, CandidateList]) -> dict[str, dict[str, float]]:
    """Read a teacher's scores of candidate lists, compressed or not.

    Args:
        path: What :func:`write_scores` wrote, or a file of the same kind.
        lists: The lists; scores of queries and passages that they do not name are passed over.

    Returns:
        Query id -> passage id -> score, of every passage of every list, in the order of the lists.

    Raises:
        DupmaeError: A line is malformed, holds a score that is not finite, or repeats a query; or a score is missing.
    """
    found: dict[str, dict[str, float | None]] = {}
    for place, record in _records(path, ("scores",)):
        query = string_field(record["query_id"], "query_id", place)
        if query in found:
            raise DupmaeError(f"{place}: the query {query!r} has scores already.")
        found[query] = _scores(record, "scores", place)
    scores: dict[str, dict[str, float]] = {}
    for query, candidates in lists.items():
        row = found.get(query, {})
        missing = [passage for passage in candidates.passages if passage not in row]
        if missing:
            raise DupmaeError(
                f"{path} lacks {len(missing)} of the {len(candidates.passages)} scores of query {query!r}, among them "
                f"that of {missing[0]!r}: score the lists again."
            )
        scores[query] = {passage: float(row[passage] or 0.0) for passage in candidates.passages}
    return scores


def _write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON Lines, whole or not at all."""
    with atomic_write(path) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _records(path: Path, fields: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the records of a file, each with its place in words; refuse missing fields and an empty file."""
    if not path.is_file():
        raise DupmaeError(f"{path} does not exist or is not a file.")
    empty = True
    for number, record in json_objects(path):
        place, empty = f"{path}, line {number}", False
        for field in ("query_id", *fields):
            if field not in record:
                raise DupmaeError(
                    f"{place}: no field {field!r}; its fields are {', '.join(map(repr, record)) or 'none'}."
                )
        yield place, record
    if empty:
        raise DupmaeError(f"{path} is empty: it holds no query.")


def _scores(record: Mapping[str, Any], field: str, place: str, *, null: bool = False) -> dict[str, float | None]:
    """Check the object in a field: from passage ids to finite numbers, or null where that is allowed."""
    value = record[field]
    if not isinstance(value, dict):
        raise DupmaeError(f"{place}: the field {field!r} is {json_kind(value)}, but must be an object.")
    for passage, score in value.items():
        if score is None and null:
            continue
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise DupmaeError(f"{place}: the score of {passage!r} in {field!r} must be a finite number, not {score!r}.")
    return value
