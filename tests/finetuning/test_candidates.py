"""Files of candidate lists and of a teacher's scores: what is written is read back, what is wrong is named."""

from __future__ import annotations

import gzip
import json
import re

import pytest

from dupmae.corpus import Benchmark
from dupmae.errors import DupmaeError
from dupmae.finetuning.candidates import CandidateList, read_lists, read_scores, write_lists, write_scores

LISTS = [
    CandidateList("q0", {"p0a": 31.5}, {"p3a": 30.25, "p0b": -2.0}),
    CandidateList("q1", {"p1b": 4.0, "p1a": None}, {}),
]
SCORES = {"q0": {"p0a": 4.0, "p3a": -0.5, "p0b": -3.0}, "q1": {"p1b": 0.0, "p1a": 1.0}}


def test_lists_come_back_as_they_were_written_compressed_or_not(tmp_path, benchmark):
    path = tmp_path / "new" / "negatives.jsonl"
    write_lists(path, LISTS)
    assert list(read_lists(path, benchmark).values()) == LISTS
    packed = tmp_path / "negatives.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_lists(packed, benchmark) == read_lists(path, benchmark)
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert first == {"query_id": "q0", "positives": {"p0a": 31.5}, "negatives": {"p3a": 30.25, "p0b": -2.0}}
    assert LISTS[0].passages == ["p0a", "p3a", "p0b"]


def test_scores_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "teacher.jsonl"
    write_scores(path, SCORES | {"q9": {"p": 1.0}})
    assert read_scores(path, {one.query_id: one for one in LISTS}) == SCORES
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0]) == {"query_id": "q0", "scores": SCORES["q0"]}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("[1]", "expected a JSON object, found a list"),
        ('{"query_id": "q1", "negatives": {}}', "no field 'positives'; its fields are 'query_id', 'negatives'"),
        ('{"query_id": 1, "positives": {"p1a": 1}, "negatives": {}}', "the field 'query_id' is a number"),
        ('{"query_id": "nobody", "positives": {"p1a": 1}, "negatives": {}}', "toy (train) has no query 'nobody'"),
        ('{"query_id": "q0", "positives": {"p0a": 1}, "negatives": {}}', "the query 'q0' has a list already"),
        ('{"query_id": "q1", "positives": {}, "negatives": {"p0a": 1}}', "the query 'q1' has no positives"),
        ('{"query_id": "q1", "positives": ["p1a"], "negatives": {}}', "'positives' is a list, but must be an object"),
        ('{"query_id": "q1", "positives": {"p1a": 1}, "negatives": {"x": 1}}', "toy has no passage 'x'"),
        ('{"query_id": "q1", "positives": {"p1a": "1"}, "negatives": {}}', "'p1a' in 'positives' must be a finite"),
        ('{"query_id": "q1", "positives": {"p1a": 1}, "negatives": {"p0a": null}}', "'p0a' in 'negatives' must be"),
        ('{"query_id": "q1", "positives": {"p1a": 1}, "negatives": {"p0a": NaN}}', "NaN is no JSON number"),
        ('{"query_id": "q1", "positives": {"p1a": 1}, "negatives": {"p0a": true}}', "must be a finite number, not"),
        ('{"query_id": "q1", "positives": {"p0b": 1}, "negatives": {"p0b": 0}}', "'p0b' is among the negatives of"),
        ('{"query_id": "q1", "positives": {"p1a": 1}, "negatives": {"p1b": 0}}', "'p1b' is among the negatives of"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tmp_path, benchmark: Benchmark, line, sentence):
    path = tmp_path / "negatives.jsonl"
    write_lists(path, LISTS[:1])
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(DupmaeError, match=re.escape(f"{path}, line 3: ") + ".*" + re.escape(sentence)):
        read_lists(path, benchmark)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([{"query_id": "q0", "scores": SCORES["q0"]}], "lacks 2 of the 2 scores of query 'q1'"),
        ([{"query_id": "q0", "scores": {"p0a": 1.0, "p3a": 2.0}}], "lacks 1 of the 3 scores .* that of 'p0b'"),
        ([{"query_id": "q0", "scores": {"p0a": float("nan")}}], "line 1: not valid JSON .NaN is no JSON number"),
        ([{"query_id": "q0", "scores": {}}] * 2, "line 2: the query 'q0' has scores already"),
        ([{"query_id": "q0"}], "line 1: no field 'scores'"),
        ([], "is empty: it holds no query"),
    ],
)
def test_bad_scores_are_refused(tmp_path, lines, sentence):
    path = tmp_path / "teacher.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DupmaeError, match=sentence):
        read_scores(path, {one.query_id: one for one in LISTS})


def test_a_missing_file_is_named(tmp_path, benchmark):
    with pytest.raises(DupmaeError, match=r"negatives\.jsonl does not exist"):
        read_lists(tmp_path / "negatives.jsonl", benchmark)
