"""Pairs are read as people and sentence-transformers write them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dupmae import FinetuneConfig
from dupmae.corpus import read_pairs
from dupmae.corpus.pairs import read_scored_pairs
from dupmae.errors import DupmaeError
from dupmae.finetuning.examples import candidate_pools

Read = dict[str, tuple[list[str], list[str]]]


def read(path: Path, **fields: str) -> Read:
    """Query -> texts of its positives and of its negatives."""
    pairs = read_pairs(path, **fields)
    assert {passage for grades in pairs.qrels.values() for passage in grades} <= pairs.corpus.keys()
    return {
        pairs.queries[query]: tuple(
            [pairs.corpus[passage].text for passage, grade in grades.items() if grade == wanted] for wanted in (1, -1)
        )
        for query, grades in pairs.qrels.items()
    }


def error(path: Path, reader: Callable[..., Any] = read, **fields: str) -> str:
    with pytest.raises(DupmaeError) as caught:
        reader(path, **fields)
    assert str(path) in str(caught.value)
    return str(caught.value)


def lines(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


EXPECTED: Read = {"q": (["a"], ["n"]), "r": (["b"], [])}
ROWS: list[dict[str, Any]] = [
    {"query": "q", "positive": "a", "negative": "n"},
    {"query": "r", "positive": "b", "negative": None},
]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.tsv", "x.parquet", "x.xlsx", "saved"])
def test_all_kinds_of_tables_hold_pairs(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    match name.rpartition(".")[2]:
        case "jsonl":
            lines(path, *ROWS)
        case "json":
            path.write_text(json.dumps(ROWS))
        case "csv":
            path.write_text("query,positive,negative\nq,a,n\nr,b,\n")
        case "tsv":
            path.write_text("query\tpositive\tnegative\nq\ta\tn\nr\tb\t\n")
        case "parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), path)
        case "xlsx":
            import openpyxl

            book = openpyxl.Workbook()
            for row in (list(ROWS[0]), *(list(row.values()) for row in ROWS)):
                book.active.append(row)
            book.save(path)
        case _:
            datasets.Dataset.from_list(ROWS).save_to_disk(str(path))
    assert read(path) == EXPECTED


def test_tsv_without_a_heading_has_queries_positives_and_negatives(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("q\ta\tn\nr\tb\t\n")
    assert read(tmp_path / "x.tsv") == EXPECTED
    (tmp_path / "x.tsv").write_text("q\n")
    assert "line 1: 1 column; without a header" in error(tmp_path / "x.tsv")


@pytest.mark.parametrize(
    "names",
    [
        ("query", "positive", "negative"),
        ("Question", "Answer", "Negative"),
        ("anchor", "passage", "negative_1"),
        ("query", "pos", "neg"),
        ("question", "document", "negatives"),
    ],
)
def test_columns_are_recognised_by_their_usual_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    (tmp_path / "x.csv").write_text(f"id,{','.join(names)}\n7,q,a,n\n8,r,b,\n")
    assert read(tmp_path / "x.csv") == EXPECTED


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", {"q": "q", "yes": "a", "no": ["n"]}, {"q": "r", "yes": "b", "no": []})
    assert read(path, query_field="q", positive_field="yes", negative_field="no") == EXPECTED
    message = "line 1: no field 'query' (the query); its fields are 'q', 'yes', 'no': name it with --query_field"
    assert message in error(path)
    message = "line 1: no field 'what' (the positive); its fields are 'q', 'yes', 'no': name it with --positive_field"
    assert message in error(path, query_field="q", positive_field="what")


MINED: dict[str, dict[str, list[Any]]] = {
    "triplet": {"anchor": ["q", "q"], "positive": ["a", "a"], "negative": ["n", "m"]},
    "triplet, scores": {
        "anchor": ["q", "q"],
        "positive": ["a", "a"],
        "negative": ["n", "m"],
        "scores": [[0.9, 0.2], [0.9, 0.1]],
    },
    "n-tuple": {"anchor": ["q"], "positive": ["a"], "negative_1": ["n"], "negative_2": ["m"]},
    "n-tuple, scores": {
        "anchor": ["q"],
        "positive": ["a"],
        "negative_1": ["n"],
        "negative_2": ["m"],
        "scores": [[0.9, 0.2, 0.1]],
    },
    "labeled-pair": {"anchor": ["q", "q", "q"], "positive": ["a", "n", "m"], "label": [1, 0, 0]},
    "labeled-list": {"anchor": ["q"], "positive": [["a", "n", "m"]], "labels": [[1, 0, 0]]},
}


@pytest.mark.parametrize("kind", MINED)
def test_what_sentence_transformers_mines_is_read(kind: str, tmp_path: Path, caplog: Any) -> None:
    datasets.Dataset.from_dict(MINED[kind]).save_to_disk(str(tmp_path / "mined"))
    assert read(tmp_path / "mined") == {"q": (["a"], ["n", "m"])}
    assert ("its scores are not used" in caplog.text) == ("scores" in kind)
    if "scores" not in kind:
        assert "mined has no scores" in error(tmp_path / "mined", read_scored_pairs)
        return
    caplog.clear()
    pairs, scores = read_scored_pairs(tmp_path / "mined")
    assert pairs == read_pairs(tmp_path / "mined")
    assert {pairs.corpus[name].text: score for name, score in scores["q1"].items()} == {"a": 0.9, "n": 0.2, "m": 0.1}
    assert not caplog.text


def test_scores_are_read_from_tables_of_text_and_have_to_be_a_number_for_each_passage(
    tmp_path: Path, caplog: Any
) -> None:
    path, rows = tmp_path / "x.csv", "query,positive,negative,scores\nr,b,,\nq,a,m,0.3\n"
    path.write_text(rows.replace("0.3", '"[0.9, 1]"') + 'q,b,,-2\nq,a,n,"[0.5, 0]"\n')
    pairs, scores = read_scored_pairs(path)
    assert {pairs.corpus[name].text: score for name, score in scores["q2"].items()} == {
        "a": 0.9,
        "m": 1,
        "b": -2,
        "n": 0,
    }
    assert scores.keys() == {"q2"}
    assert "1 passages have several scores of a query; the first of them counts" in caplog.text
    path.write_text(rows)
    assert "line 3: the field 'scores' has 1 scores for 2 passages" in error(path, read_scored_pairs)
    for bad in ("[0.9 0.1]", "[0.9, NaN]", "[true, 0.1]", f"[1{'0' * 400}, 0]", "[" * 5000):
        path.write_text(rows.replace("0.3", f'"{bad}"'))
        assert "line 3: the field 'scores' must have a number for each passage" in error(path, read_scored_pairs)


def test_scores_that_do_not_tell_which_passages_answer_are_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", {"anchor": "q", "positive": "a", "score": 0.9})
    assert "has scores, but neither labels nor negatives" in error(path)
    assert read(path, positive_field="positive") == {"q": (["a"], [])}


def test_labels_are_ones_and_noughts_for_each_passage(tmp_path: Path) -> None:
    for label in (2, 0.5, [1, 0], None.__class__.__name__):
        path = lines(tmp_path / "x.jsonl", {"query": "q", "positive": "a", "label": label})
        if label == "NoneType":  # a label of another kind
            assert read(path) == {"q": (["a"], [])}
        else:
            assert "line 1: the field 'label' must have 1 or 0 for each passage" in error(path)


def test_queries_without_a_positive_and_negatives_that_answer_are_said(tmp_path: Path, caplog: Any) -> None:
    path = lines(
        tmp_path / "x.jsonl",
        {"query": "q", "positive": "a", "negative": ["b", "n"]},
        {"query": "q", "positive": "b"},
        {"query": "r", "positive": "a", "label": 0},
    )
    assert read(path) == {"q": (["a", "b"], ["n"])}
    assert "1 queries have negatives alone and are left out" in caplog.text
    assert "1 negatives answer the same query elsewhere and count as positives" in caplog.text
    assert "holds no pairs" in error(lines(path, {"query": "r", "positive": "a", "label": 0}))


def test_given_negatives_are_the_hard_negatives_and_bm25_serves_the_other_queries(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "x.jsonl",
        {"query": "red lamp", "positive": "a red lamp", "negative": ["grass", "A RED  lamp"]},
        {"query": "blue lamp", "positive": "a blue lamp"},
        {"query": "green fish", "positive": "a green fish"},
    )
    pairs = read_pairs(path)
    config = FinetuneConfig(batch_size=2, negatives=1)
    pools = candidate_pools(pairs, config, random.Random(1), None, fill=True, step=2)
    texts = {
        pairs.queries[query]: [pairs.corpus[passage].text for passage in found]
        for query, found in pools.candidates.items()
    }
    assert texts["red lamp"] == ["grass"]  # its other negative reads like its positive
    assert set(texts["blue lamp"]) == {"a red lamp", "A RED  lamp"}
