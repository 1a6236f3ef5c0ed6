"""Read pairs of queries and passages, with hard negatives and scores if they have some, from tables and records."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dupmae.corpus.benchmark import Benchmark
from dupmae.corpus.formats import DATASET, TABLES
from dupmae.corpus.formats.records import listing, string_field
from dupmae.corpus.lines import columns_in, file_type
from dupmae.corpus.passage import Passage
from dupmae.corpus.trec import Qrels
from dupmae.errors import DupmaeError
from dupmae.runtime.bars import bar
from dupmae.runtime.once import warn_once

logger = logging.getLogger(__name__)

QUERIES = ("query", "question", "anchor")
"""What the field of the query may be called where no name is asked for, whatever its case; the first counts."""
POSITIVES = ("positive", "pos", "positives", "passage", "document", "answer")
"""The same of the passages that answer it."""
NEGATIVE = -1
"""The grade of a negative that was given with its query: 0 is that of any passage that somebody judged."""
_NEGATIVES = re.compile(r"negatives?|neg|negative_\d+")
_LABELS, _SCORES = ("label", "labels"), ("score", "scores")


@dataclass(frozen=True, slots=True)
class _Roles:
    """Which fields of a record hold what."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    label: str | None
    scores: str | None


@dataclass(frozen=True, slots=True)
class _PairColumns:
    """Knows what the columns of pairs mean: those that were asked for, else by their usual names."""

    query: str | None
    positive: str | None
    negative: str | None

    def roles(self, columns: Sequence[str], source: str) -> _Roles:
        """Find the columns of each part."""
        query = self._find(columns, self.query, QUERIES, "the query", source)
        positive = self._find(columns, self.positive, POSITIVES, "the positive", source)
        negatives = [name for name in columns if _NEGATIVES.fullmatch(name.casefold())]
        if self.negative is not None:
            negatives = [self._find(columns, self.negative, (), "the negative", source)]
        label = next((name for name in columns if name.casefold() in _LABELS), None)
        scores = next((name for name in columns if name.casefold() in _SCORES), None)
        if scores is not None and label is None and not negatives and self.positive is None:
            raise DupmaeError(
                f"{source}: has scores, but neither labels nor negatives, so that no one can tell which passages "
                'answer: mine with output_format="n-tuple", or say with --positive_field that all do.'
            )
        return _Roles(query, positive, tuple(negatives), label, scores)

    def chosen(self, columns: Sequence[str], source: str) -> list[str]:
        """List the columns that hold a part, or refuse columns without a query or a positive."""
        roles = self.roles(columns, source)
        named = (roles.query, roles.positive, roles.label, roles.scores, *roles.negatives)
        return [name for name in columns if name in named]

    def heading(self, cells: Sequence[str], place: str) -> bool:
        """Take a line that names the query for a heading."""
        known = QUERIES if self.query is None else (self.query,)
        return any(cell in known or cell.casefold() in known for cell in cells)

    def without_heading(self, cells: Sequence[str], place: str) -> list[str]:
        """Name two columns query and positive, three query, positive and negative."""
        if len(cells) not in (2, 3):
            raise DupmaeError(
                f"{place}: {columns_in(cells)}; without a header that names the query there must be two (query, "
                "positive) or three (query, positive, negative)."
            )
        return [self.query or "query", self.positive or "positive", self.negative or "negative"][: len(cells)]

    def _find(self, columns: Sequence[str], asked: str | None, usual: Sequence[str], what: str, source: str) -> str:
        """Find the one column of a part."""
        if asked is not None and asked in columns:
            return asked
        by_case = {name.casefold(): name for name in reversed(columns)}
        found = next((by_case[name] for name in usual if name in by_case), None)
        if asked is not None or found is None:
            raise DupmaeError(
                f"{source}: no field {asked or usual[0]!r} ({what}); its fields are {listing(columns)}: name it with "
                f"--{what.split()[1]}_field."
            )
        return found


Scores = dict[str, dict[str, float]]
"""Query id -> passage id -> what a teacher thinks of the passage."""


def read_pairs(
    path: str | Path,
    *,
    query_field: str | None = None,
    positive_field: str | None = None,
    negative_field: str | None = None,
) -> Benchmark:
    r"""Read query-passage pairs from JSON Lines, JSON, CSV, TSV, Parquet, XLSX or a saved data set as a benchmark.

    A record has a query (`query`, `question` or `anchor`), a passage that answers it or a list of them (`positive`,
    `pos`, `passage`, `document` or `answer`), and, if it likes, hard negatives (`negative`, `negatives`, `neg`,
    `negative_1`, ...), each one passage or a list; other fields are passed over. With `label` or `labels` (1 or 0, a
    list of them beside a list of passages) it says which of its passages answer. So all that `mine_hard_negatives` of
    sentence-transformers returns is read, but what has scores in the place of labels; its other scores are read by
    :func:`read_scored_pairs`. A TSV file without a heading has queries, positives and, in a third column, negatives.

    Equal texts become one passage and equal queries one query. Ids are `q1`, `q2`, ... and `p1`, `p2`, ... in the order
    in which texts are first met. A negative has the grade -1, which measures count as 0, unless it is a positive of the
    same query elsewhere.

    Args:
        path: The file or folder; its name tells the format, and JSON Lines may have any.
        query_field: Field of the query, if it has another name.
        positive_field: Field of the passages that answer it.
        negative_field: Field of its hard negatives.

    Returns:
        A benchmark named after the file, split `train`, every positive's grade 1.

    Raises:
        DupmaeError: A record is malformed, a query or a passage is empty, or there is no pair at all.

    Examples:
        >>> from pathlib import Path
        >>> from dupmae.corpus import read_pairs
        >>> _ = Path("pairs.csv").write_text("Question,Answer\nwhat burns,A lamp.\nwhat swims,A fish.\n")
        >>> pairs = read_pairs("pairs.csv")
        >>> pairs.queries, pairs.qrels
        ({'q1': 'what burns', 'q2': 'what swims'}, {'q1': {'p1': 1}, 'q2': {'p2': 1}})
    """
    return _read(Path(path), _PairColumns(query_field, positive_field, negative_field), None)


def read_scored_pairs(
    path: str | Path,
    *,
    query_field: str | None = None,
    positive_field: str | None = None,
    negative_field: str | None = None,
) -> tuple[Benchmark, Scores]:
    """Read pairs as :func:`read_pairs` does, and the scores of their passages, to be distilled as a teacher's.

    A record's `scores` (or `score`) are numbers: first of its passages that answer, then of its negatives, in their
    order, as `mine_hard_negatives` of sentence-transformers writes them with `output_scores`. Of a passage that has
    several scores of a query the first counts.

    Args:
        path: As for :func:`read_pairs`.
        query_field: The same.
        positive_field: The same.
        negative_field: The same.

    Returns:
        The benchmark, and the scores of its judged passages; a record that has none adds none.

    Raises:
        DupmaeError: As :func:`read_pairs`; or there are no scores, or not one for each passage of a record.

    Examples:
        >>> import json
        >>> from pathlib import Path
        >>> from dupmae.corpus.pairs import read_scored_pairs
        >>> record = {"anchor": "what burns", "positive": "A lamp.", "negative": "A fish.", "scores": [0.8, 0.1]}
        >>> _ = Path("mined.jsonl").write_text(json.dumps(record))
        >>> read_scored_pairs("mined.jsonl")[1]
        {'q1': {'p1': 0.8, 'p2': 0.1}}
    """
    scores: Scores = defaultdict(dict)
    pairs = _read(Path(path), _PairColumns(query_field, positive_field, negative_field), scores)
    if not scores:
        raise DupmaeError(f"{path} has no scores: no record has numbers in a field 'scores' (or 'score').")
    return pairs, {query: found for query, found in scores.items() if query in pairs.queries}


def _read(path: Path, columns: _PairColumns, scores: Scores | None) -> Benchmark:
    """Read the pairs, and put their scores into `scores` where these are asked for."""
    queries: dict[str, str] = {}  # text -> id, as the passages
    passages: dict[str, str] = {}
    qrels: Qrels = {}
    both, rescored = set[tuple[str, str]](), set[tuple[str, str]]()
    for query, graded in bar(_pairs(path, columns, scored=scores is not None), f"Read {path.name}", "records"):
        name = queries.setdefault(query, f"q{len(queries) + 1}")
        grades = qrels.setdefault(name, {})
        for text, grade, score in graded:
            passage = passages.setdefault(text, f"p{len(passages) + 1}")
            if grades.get(passage, grade) != grade:
                both.add((name, passage))
            grades[passage] = max(grade, grades.get(passage, NEGATIVE))
            if score is not None and scores is not None and score != scores[name].setdefault(passage, score):
                rescored.add((name, passage))
    without = [query for query, grades in qrels.items() if max(grades.values()) < 1]
    if len(without) == len(qrels):
        raise DupmaeError(f"{path} holds no pairs.")
    if without:
        logger.warning("%s: %d queries have negatives alone and are left out.", path, len(without))
    if both:
        logger.warning("%s: %d negatives answer the same query elsewhere and count as positives.", path, len(both))
    if rescored:
        logger.warning("%s: %d passages have several scores of a query; the first of them counts.", path, len(rescored))
    left_out = set(without)
    texts = {identifier: text for text, identifier in queries.items() if identifier not in left_out}
    corpus = {identifier: Passage(identifier, "", text) for text, identifier in passages.items()}
    judged = {query: grades for query, grades in qrels.items() if query not in left_out}
    return Benchmark(path.name.split(".")[0], "train", corpus, texts, judged)


Graded = list[tuple[str, int, float | None]]
"""A record's passages, each with its grade and, where it has one and that is asked for, its score."""


def _pairs(path: Path, columns: _PairColumns, *, scored: bool) -> Iterator[tuple[str, Graded]]:
    """Yield the query and the passages of each record."""
    is_dataset = (path / "dataset_info.json").is_file() and (path / "state.json").is_file()
    if not path.is_file() and not is_dataset:
        raise DupmaeError(f"{path} does not exist or is neither a file nor a saved data set.")
    table = DATASET if is_dataset else TABLES.get(file_type(path), TABLES[".jsonl"])
    known: dict[tuple[str, ...], _Roles] = {}
    for row in table.rows(path, columns):
        if isinstance(row, DupmaeError):
            raise row
        number, record = row
        place = f"{path}, {table.unit} {number}"
        names = tuple(record)
        if names not in known:
            known[names] = columns.roles(names, place)
            if not scored and known[names].scores is not None:
                _warn_of_scores(str(path))
        yield _parts(record, known[names], place, scored=scored)


def _parts(record: Mapping[str, Any], roles: _Roles, place: str, *, scored: bool) -> tuple[str, Graded]:
    """Take the query and the passages of a record: those of the positive's field, then its negatives."""
    query = string_field(record[roles.query], roles.query, place)
    positives = _texts(record[roles.positive], roles.positive, place)
    negatives = [text for name in roles.negatives for text in _texts(record[name], name, place, optional=True)]
    if not query.strip() or not positives or not all(text.strip() for text in positives):
        raise DupmaeError(f"{place}: the query or a positive passage is empty.")
    grades = [*_grades(record, roles, len(positives), place), *[NEGATIVE] * len(negatives)]
    scores: list[float | None] = [None] * len(grades)
    if scored and roles.scores is not None and record[roles.scores] not in (None, ""):
        scores = [*_numbers(record[roles.scores], roles.scores, place)]
        if len(scores) != len(grades):
            raise DupmaeError(
                f"{place}: the field {roles.scores!r} has {len(scores)} scores for {len(grades)} passages."
            )
    return query, list(zip([*positives, *negatives], grades, scores, strict=True))


def _grades(record: Mapping[str, Any], roles: _Roles, count: int, place: str) -> list[int]:
    """Read which of the passages of the positive's field answer; all do where no label says otherwise."""
    value = None if roles.label is None else record[roles.label]
    if value is None or (isinstance(value, str) and value not in ("0", "1")):  # a label of another kind
        return [1] * count
    labels = value if isinstance(value, list) else [value]
    if len(labels) != count or any(label not in (0, 1, "0", "1") for label in labels):
        raise DupmaeError(f"{place}: the field {roles.label!r} must have 1 or 0 for each passage (1: it answers).")
    return [1 if int(label) else NEGATIVE for label in labels]


def _numbers(value: object, field: str, place: str) -> list[float]:
    """Read a number or a list of them, which a table may have as text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = [value]
    numbers: list[Any] = value if isinstance(value, list) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= sys.float_info.max:
            raise DupmaeError(f"{place}: the field {field!r} must have a number for each passage, not {number!r:.60}.")
    return [float(number) for number in numbers]


def _texts(value: object, field: str, place: str, *, optional: bool = False) -> list[str]:
    """Read a passage or a list of them; of what is `optional` nothing, or blank text, is none."""
    if optional and value is None:
        return []
    texts = [string_field(text, field, place) for text in (value if isinstance(value, list) else [value])]
    return [text for text in texts if text.strip()] if optional else texts


def _warn_of_scores(source: str) -> None:
    """Say that scores are not used, once a file."""
    warn_once(logger, f"{source}: its scores are not used; dupmae finetune --pairs FILE --scores FILE distils them.")
