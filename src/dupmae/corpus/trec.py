"""Read and write judgements and runs in the formats of BEIR and TREC."""

from __future__ import annotations

import math
import re
from pathlib import Path

from dupmae.corpus.lines import columns_in, numbered_lines
from dupmae.errors import DupmaeError
from dupmae.files import atomic_write

Qrels = dict[str, dict[str, int]]
"""Query id -> passage id -> grade; grades of 1 and more are relevant."""

Run = dict[str, dict[str, float]]
"""Query id -> passage id -> score; higher is better."""

MOST_GRADE = 1_000_000
"""The largest grade, above and below 0: trec_eval's program keeps a number for each grade up to the largest, and beyond
a C integer it counts wrongly or stops."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""What is a number in a file of TREC's; Python's own reading takes `1_0` and the digits of all scripts, too."""
_BEIR_COLUMNS = "three columns split by tabs (BEIR: query-id, corpus-id, score)"
_TREC_COLUMNS = "four split by white space (TREC: query, iteration, passage, grade)"


def read_qrels(path: str | Path) -> Qrels:
    """Read judgements, compressed or not.

    The first line decides the format: three columns split at tabs are BEIR's query id, passage id and grade (a first
    line that has a word without digits in the place of the grade is the header); four columns split at white space are
    TREC's query id, iteration, passage id and grade. Blank lines are passed over.

    Returns:
        Query id -> passage id -> grade.

    Raises:
        DupmaeError: A line has another number of columns, a grade is not a whole number of at most :data:`MOST_GRADE`,
            a pair is judged twice with different grades, or there is no judgement at all.
    """
    path = Path(path)
    qrels: Qrels = {}
    width = 0
    for number, line in _lines(path):
        tabbed, columns = line.split("\t"), line.split()
        if not width:
            width = _qrels_width(line, f"{path}, line {number}")
            if width == 3 and _is_heading(tabbed[2].strip()):
                continue
        columns = tabbed if width == 3 else columns
        if len(columns) != width:
            expected = _BEIR_COLUMNS if width == 3 else _TREC_COLUMNS
            raise DupmaeError(f"{path}, line {number}: {columns_in(columns)}, expected {expected}.")
        query, passage, grade = columns[0], columns[-2], columns[-1].strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", grade) or abs(int(grade)) > MOST_GRADE:
            raise DupmaeError(
                f"{path}, line {number}: the score {grade!r} is not a whole number from -{MOST_GRADE} to {MOST_GRADE}."
            )
        _refuse_nul(line, f"{path}, line {number}")
        if qrels.setdefault(query, {}).setdefault(passage, int(grade)) != int(grade):
            raise DupmaeError(f"{path}, line {number}: {passage!r} was judged differently for query {query!r} before.")
    if not qrels:
        raise DupmaeError(f"{path} holds no judgements.")
    return qrels


def _qrels_width(line: str, place: str) -> int:
    """Tell how many columns judgements have, by their first line."""
    if len(line.split("\t")) == 3:
        return 3
    if len(line.split()) == 4:
        return 4
    raise DupmaeError(f"{place}: neither {_BEIR_COLUMNS}, nor {_TREC_COLUMNS}: separate the columns like that.")


def read_run(path: str | Path) -> Run:
    """Read a run, compressed or not, split at white space.

    The first line decides the format: six columns are TREC's query id, `Q0`, passage id, rank, score and tag, of which,
    as in trec_eval, the score alone orders the passages; three are MS MARCO's query id, passage id and rank.

    Returns:
        Query id -> passage id -> score (minus the rank where there are no scores), in the order of the file.

    Raises:
        DupmaeError: A line has another number of columns, a score is not a finite number or a rank not a whole one, a
            passage occurs twice for a query or two share a rank, or the file is empty.
    """
    path = Path(path)
    run: Run = {}
    width = 0
    for number, line in _lines(path):
        columns = line.split()
        width = width or (3 if len(columns) == 3 else 6)
        if len(columns) != width:
            expected = "three (query, passage, rank)" if width == 3 else "six (query, Q0, passage, rank, score, tag)"
            raise DupmaeError(f"{path}, line {number}: {columns_in(columns)}, expected {expected}.")
        query, passage = columns[0], columns[1 if width == 3 else 2]
        if passage in run.setdefault(query, {}):
            raise DupmaeError(f"{path}, line {number}: {passage!r} occurs a second time for query {query!r}.")
        _refuse_nul(line, f"{path}, line {number}")
        run[query][passage] = _score_of(columns, f"{path}, line {number}")
    if width == 3:
        _refuse_shared_ranks(path, run)
    if not run:
        raise DupmaeError(f"{path} holds no results.")
    return run


def _score_of(columns: list[str], place: str) -> float:
    """Read the score of a run's line, or minus its rank."""
    if len(columns) == 6:
        if not _is_number(columns[4]):
            raise DupmaeError(f"{place}: the score {columns[4]!r} is not a finite number.")
        return float(columns[4])
    if not re.fullmatch(r"[0-9]{1,15}", columns[2]):
        raise DupmaeError(f"{place}: the rank {columns[2]!r} is not a whole number (of 15 digits at most).")
    return -float(columns[2])


def _refuse_shared_ranks(path: Path, run: Run) -> None:
    """Refuse a run without scores in which a query has two passages of the same rank."""
    for query, scores in run.items():
        if len(set(scores.values())) < len(scores):
            raise DupmaeError(f"{path}: two passages of query {query!r} have the same rank.")


def write_run(path: str | Path, run: Run, tag: str) -> None:
    """Write a TREC run, atomically: best score first, equal scores by passage id, ranks from 1.

    Scores are written so that :func:`read_run` gives the same numbers back. A query without results leaves no line.

    Raises:
        DupmaeError: An id or the tag is empty or holds white space, or a score is not finite.
    """
    path = Path(path)
    check_word(tag, "tag", path)
    with atomic_write(path) as file:
        for query, results in run.items():
            check_word(query, "query id", path)
            ranked = sorted(results.items(), key=lambda result: (-result[1], result[0]))
            for rank, (passage, score) in enumerate(ranked, 1):
                check_word(passage, "passage id", path)
                if not math.isfinite(score):
                    raise DupmaeError(f"{path}: the score of {passage!r} for query {query!r} is {score}; not written.")
                file.write(f"{query} Q0 {passage} {rank} {float(score)!r} {tag}\n")


def _lines(path: Path) -> list[tuple[int, str]]:
    """Read the lines that are not blank, with their numbers."""
    if not path.is_file():
        raise DupmaeError(f"{path} does not exist or is not a file.")
    return [(number, line) for number, line in numbered_lines(path) if line and not line.isspace()]


def _is_number(word: str) -> bool:
    """Tell whether `word` is a finite number."""
    return _NUMBER.fullmatch(word) is not None and math.isfinite(float(word))


def _is_heading(word: str) -> bool:
    """Tell whether the third column of BEIR's judgements holds a heading, such as `score`, and no grade gone wrong."""
    return not any(letter.isdigit() for letter in word) and word.lower().lstrip("+-") not in ("nan", "inf", "infinity")


def _refuse_nul(line: str, place: str) -> None:
    """Refuse ids with a NUL, at which the programs that measure end a word."""
    if "\0" in line:
        raise DupmaeError(f"{place}: holds a NUL character, which no id can: remove it.")


def check_word(word: str, what: str, path: Path) -> None:
    """Refuse what would be read back from a run as no column or several.

    Args:
        word: An id or a tag.
        what: What it is, for the error.
        path: The file that holds it or was to hold it.

    Raises:
        DupmaeError: It is empty or holds white space.
    """
    if "\0" in word:
        raise DupmaeError(f"{path}: the {what} {word!r} holds a NUL character, which a run cannot hold: remove it.")
    if word.split() != [word]:
        raise DupmaeError(
            f"{path}: the {what} {word!r} is empty or holds white space, which a run cannot hold: write it without, "
            "for instance with `_` instead."
        )
