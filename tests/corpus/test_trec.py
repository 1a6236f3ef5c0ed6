import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dupmae.corpus import read_qrels, read_run, write_run
from dupmae.errors import DupmaeError

WORDS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)
SCORES = st.floats(allow_nan=False, allow_infinity=False)


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_beir_judgements_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "q.tsv", "query-id\tcorpus-id\tscore\r\nq 1\td1\t1\r\nq 1\td2\t0\r\nq2\td1\t-1\r\n")

    assert read_qrels(path) == {"q 1": {"d1": 1, "d2": 0}, "q2": {"d1": -1}}


def test_beir_judgements_without_a_header_are_read(tmp_path: Path) -> None:
    assert read_qrels(write(tmp_path / "q.tsv", "1\t2\t3\n")) == {"1": {"2": 3}}


@pytest.mark.parametrize("separator", [" ", "\t", "   "])
def test_trec_judgements_are_read(tmp_path: Path, separator: str) -> None:
    lines = [("q1", "0", "d1", "1"), ("q1", "0", "d2", "3"), ("q2", "Q0", "d1", "0")]
    content = "".join(separator.join(line) + "\n" for line in lines)
    (tmp_path / "q.txt.gz").write_bytes(gzip.compress(content.encode()))

    assert read_qrels(tmp_path / "q.txt.gz") == {"q1": {"d1": 1, "d2": 3}, "q2": {"d1": 0}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("query-id\tcorpus-id\tscore\nq\td\t0.5\n", "line 2: the score '0.5' is not a whole number"),
        ("query-id\tcorpus-id\tscore\nq\td\n", "line 2: 2 columns, expected three columns split by tabs (BEIR"),
        ("q 0 d 1\nq 0 d 2 x\n", "line 2: 5 columns, expected four split by white space (TREC"),
        (
            "q d 1\n",
            "line 1: neither three columns split by tabs (BEIR: query-id, corpus-id, score), nor four split by",
        ),
        ("query-id,corpus-id,score\nq,d,1\n", "line 1: neither three columns split by tabs"),
        ("q 0 d high\n", "line 1: the score 'high' is not a whole number"),
        ("q d\n", "line 1: neither three columns"),
        ("q 0 d 1\nq 0 d 2\n", "line 2: 'd' was judged differently for query 'q' before"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgements"),
        ("", "holds no judgements"),
    ],
)
def test_bad_judgements_are_refused_with_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path / "q.tsv", content)

    with pytest.raises(DupmaeError) as caught:
        read_qrels(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_run_is_read_by_its_scores(tmp_path: Path) -> None:
    path = write(tmp_path / "r.txt", "q Q0 d1 2 1e-1 tag\nq Q0 d2 1\t-3 tag\n\n")

    assert read_run(path) == {"q": {"d1": 0.1, "d2": -3.0}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q Q0 d 1 0.5 t\nq Q0 d2 2 0.4\n", "line 2: 5 columns, expected six"),
        ("q Q0 d 1 best t\n", "line 1: the score 'best' is not a finite number"),
        ("q Q0 d 1 nan t\n", "line 1: the score 'nan' is not a finite number"),
        ("q Q0 d 1 0.5 t\nq Q0 d 2 0.4 t\n", "line 2: 'd' occurs a second time for query 'q'"),
        ("\n", "holds no results"),
    ],
)
def test_a_bad_run_is_refused_with_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path / "r.txt", content)

    with pytest.raises(DupmaeError) as caught:
        read_run(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    for read in (read_qrels, read_run):
        with pytest.raises(DupmaeError, match="does not exist"):
            read(tmp_path / "none")


def test_a_run_is_written_best_first_with_ties_by_passage_id(tmp_path: Path) -> None:
    write_run(
        tmp_path / "new" / "r.txt", {"q2": {"b": 1.0, "c": 2.5, "a": 1.0}, "q1": {"d": float(np.float32(0.1))}}, "me"
    )

    assert (tmp_path / "new" / "r.txt").read_text(encoding="utf-8") == (
        "q2 Q0 c 1 2.5 me\nq2 Q0 a 2 1.0 me\nq2 Q0 b 3 1.0 me\nq1 Q0 d 1 0.10000000149011612 me\n"
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(run=st.dictionaries(WORDS, st.dictionaries(WORDS, SCORES, min_size=1, max_size=5), min_size=1, max_size=5))
def test_a_run_that_is_written_and_read_is_the_same(tmp_path: Path, run: dict[str, dict[str, float]]) -> None:
    write_run(tmp_path / "r.txt", run, "tag")

    assert read_run(tmp_path / "r.txt") == run


def test_ms_marcos_runs_of_three_columns_are_read_by_their_ranks(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("q1\td2\t1\nq1\td1\t2\nq2\td1\t1\n", encoding="utf-8")
    assert read_run(path) == {"q1": {"d2": -1.0, "d1": -2.0}, "q2": {"d1": -1.0}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q d 1\nq Q0 d 1 2.0 t\n", r"line 2: 6 columns, expected three \(query, passage, rank\)"),
        ("q d one\n", "line 1: the rank 'one' is not a whole number"),
        ("q d 1\nq d 2\n", "line 2: 'd' occurs a second time for query 'q'"),
        ("q d 1\nq e 1\n", "two passages of query 'q' have the same rank"),
    ],
)
def test_a_bad_run_of_three_columns_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "r.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DupmaeError, match=message):
        read_run(path)


@pytest.mark.parametrize(
    ("run", "tag", "message"),
    [
        ({"q": {"d": 1.0}}, "two words", "the tag 'two words' is empty or holds white space"),
        ({"q": {"d": 1.0}}, "", "the tag '' is empty"),
        ({"q\t1": {"d": 1.0}}, "t", "the query id"),
        ({"q": {"d 1": 1.0}}, "t", "the passage id 'd 1'"),
        ({"q": {"d": math.nan}}, "t", "the score of 'd' for query 'q' is nan"),
    ],
)
def test_a_run_that_could_not_be_read_back_is_not_written(
    tmp_path: Path, run: dict[str, dict[str, float]], tag: str, message: str
) -> None:
    with pytest.raises(DupmaeError) as caught:
        write_run(tmp_path / "r.txt", {"fine": {"d": 1.0}, **run}, tag)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []
