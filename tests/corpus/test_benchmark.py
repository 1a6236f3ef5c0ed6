import gzip
import json
import logging
import lzma
from pathlib import Path

import pytest

from dupmae.corpus import Benchmark, Passage, read_benchmark, read_pairs, read_passages, write_benchmark
from dupmae.errors import DupmaeError


def jsonl(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    (folder / "qrels").mkdir(parents=True)
    corpus = jsonl({"_id": "d1", "title": "T", "text": "one"}, {"_id": "d2", "title": "", "text": "two"})
    (folder / "corpus.jsonl.xz").write_bytes(lzma.compress(corpus))
    queries = jsonl(*({"_id": f"q{i}", "text": f"query {i}"} for i in (1, 2, 3)))
    (folder / "queries.jsonl.gz").write_bytes(gzip.compress(queries))
    head = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "train.tsv").write_text(f"{head}q1\td1\t1\n", encoding="utf-8")
    (folder / "qrels" / "test.tsv.gz").write_bytes(gzip.compress(f"{head}q3\td1\t0\nq2\td2\t2\nq3\td2\t1\n".encode()))
    return folder


def test_a_beir_folder_gives_corpus_and_the_judged_queries_of_the_split(folder: Path) -> None:
    assert read_benchmark(folder, "test") == Benchmark(
        name="small",
        split="test",
        corpus={"d1": Passage("d1", "T", "one"), "d2": Passage("d2", "", "two")},
        queries={"q3": "query 3", "q2": "query 2"},
        qrels={"q3": {"d1": 0, "d2": 1}, "q2": {"d2": 2}},
    )
    assert read_benchmark(folder, "train").queries == {"q1": "query 1"}


@pytest.mark.parametrize("split", ["dev", "../qrels/train", ""])
def test_an_unknown_split_is_refused_with_those_that_exist(folder: Path, split: str) -> None:
    with pytest.raises(DupmaeError, match="its folder qrels holds test, train"):
        read_benchmark(folder, split)


def test_a_folder_that_lacks_files_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "queries.jsonl.gz").unlink()

    with pytest.raises(DupmaeError, match=r"small is not a benchmark in BEIR layout: it has no queries\.jsonl\."):
        read_benchmark(folder, "test")
    with pytest.raises(DupmaeError, match=r"it has no corpus\.jsonl and no queries\.jsonl"):
        read_benchmark(tmp_path / "nowhere", "test")


def test_judgements_of_unknown_queries_and_passages_are_counted_listed_and_refused(folder: Path) -> None:
    lines = ["q1\td1\t1", "q9\td1\t1", "q1\td7\t1", "q9\td8\t1", "q2\td9\t1", "q1\td10\t1"]
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines), encoding="utf-8")

    expected = r"5 judgements name queries .* \(first: passage 'd7', passage 'd10', query 'q9'\)"
    with pytest.raises(DupmaeError, match=expected):
        read_benchmark(folder, "train")


@pytest.mark.parametrize(("name", "what"), [("corpus.jsonl", "passage"), ("queries.jsonl", "query")])
def test_ids_that_no_run_can_hold_are_refused_when_the_folder_is_read(folder: Path, name: str, what: str) -> None:
    next(folder.glob(f"{name}*")).unlink()
    (folder / name).write_bytes(jsonl({"_id": "fine", "text": "x"}, {"_id": "doc 152245", "text": "x"}))

    with pytest.raises(DupmaeError, match=rf"{name}: the {what} id 'doc 152245' is empty or holds white space"):
        read_benchmark(folder, "test")


def test_unknown_judgements_are_dropped_with_a_warning_when_allowed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\tno\t1\nq2\tno\t1\nno\td1\t1\n", encoding="utf-8"
    )

    with caplog.at_level(logging.WARNING):
        benchmark = read_benchmark(folder, "train", allow_unknown=True)
    assert benchmark.qrels == {"q1": {"d1": 1}}
    assert benchmark.queries == {"q1": "query 1"}
    assert "3 judgements name" in caplog.text


def test_judgements_of_which_none_is_known_are_refused_even_when_allowed(folder: Path) -> None:
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tno\t1\n", encoding="utf-8")

    with pytest.raises(DupmaeError, match="no judgement is left"):
        read_benchmark(folder, "train", allow_unknown=True)


def test_pairs_become_a_benchmark_with_equal_texts_merged(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl.gz"
    records = [
        {"query": "why", "positive": "because", "source": "x"},
        {"query": "how", "positive": ["so", "because"]},
        {"query": "why", "positive": "therefore"},
    ]
    path.write_bytes(gzip.compress(jsonl(*records)))

    assert read_pairs(path) == Benchmark(
        name="pairs",
        split="train",
        corpus={f"p{i}": Passage(f"p{i}", "", text) for i, text in enumerate(("because", "so", "therefore"), 1)},
        queries={"q1": "why", "q2": "how"},
        qrels={"q1": {"p1": 1, "p3": 1}, "q2": {"p2": 1, "p1": 1}},
    )


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"query": "x", "negative": "y"}, "no field 'positive' (the positive); its fields are 'query', 'negative'"),
        ({"positive": "y"}, "no field 'query'"),
        ({"query": 1, "positive": "y"}, "the field 'query' is a number"),
        ({"query": "x", "positive": ["y", None]}, "the field 'positive' is null"),
        ({"query": "x", "positive": []}, "is empty"),
        ({"query": "x", "positive": " "}, "is empty"),
        ({"query": "", "positive": "y"}, "is empty"),
    ],
)
def test_bad_pairs_are_refused_with_the_line(tmp_path: Path, record: object, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(jsonl({"query": "fine", "positive": "fine"}, record))

    with pytest.raises(DupmaeError) as caught:
        read_pairs(path)
    assert f"{path}, line 2: " in str(caught.value)
    assert message in str(caught.value)


def test_no_pairs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("\n", encoding="utf-8")

    with pytest.raises(DupmaeError, match="holds no pairs"):
        read_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(DupmaeError, match="does not exist"):
        read_pairs(tmp_path / "none.jsonl")


def test_a_benchmark_that_is_written_and_read_is_the_same(tmp_path: Path) -> None:
    passages = [Passage("d1", "Größe", 'a "quoted"\tline\nand another', {"year": "1822"}), Passage("d2", "", "two")]
    queries = {"q1": "wie groß?", "q2": "second", "q3": "of no split"}
    qrels = {"train": {"q1": {"d1": 2, "d2": 0}}, "test": {"q2": {"d2": 1}}}
    assert write_benchmark(tmp_path / "new" / "small", iter(passages), queries, qrels) == 2

    for split, judged in qrels.items():
        benchmark = read_benchmark(tmp_path / "new" / "small", split)
        assert list(benchmark.corpus.values()) == [Passage(one.id, one.title, one.text) for one in passages]
        assert benchmark.queries == {query: queries[query] for query in judged}
        assert benchmark.qrels == judged
    assert list(read_passages(tmp_path / "new" / "small", metadata_fields=["year"])) == passages


def test_a_benchmark_is_written_over_an_older_one(tmp_path: Path) -> None:
    for text in ("old", "new"):
        write_benchmark(tmp_path, [Passage("d", "", text)], {"q": text}, {"test": {"q": {"d": 1}}})

    benchmark = read_benchmark(tmp_path, "test")
    assert (benchmark.corpus["d"].text, benchmark.queries["q"]) == ("new", "new")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["corpus.jsonl", "queries.jsonl", "test.tsv"]
