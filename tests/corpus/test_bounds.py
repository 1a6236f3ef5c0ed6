"""No file takes more memory or time than its size allows, whatever reads it, and what no format means is refused."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dupmae.corpus import read_benchmark, read_pairs, read_passages
from dupmae.corpus.folders import Unread
from dupmae.corpus.formats import plain_text
from dupmae.corpus.lines import FILE_VARIABLE, LINE_VARIABLE, numbered_lines
from dupmae.corpus.trec import MOST_GRADE, read_qrels, read_run
from dupmae.errors import DupmaeError
from dupmae.evaluation import evaluate_run

RECORD = b'{"_id": "a", "text": "b"}\n'
MEGABYTES = 60


def _qrels_of(file: Path) -> Any:
    (file.parent / "qrels").mkdir()
    file.rename(file.parent / "qrels" / "".join(["test", *file.suffixes]))
    for name in ("corpus", "queries"):
        (file.parent / f"{name}.jsonl").write_bytes(RECORD)
    return read_benchmark(file.parent, "test")


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "JSON lines": ("x.jsonl", lambda file: list(read_passages(file))),
    "TSV": ("x.tsv", lambda file: list(read_passages(file))),
    "plain text": ("x.txt", lambda file: list(read_passages(file))),
    "Markdown": ("x.md", lambda file: list(read_passages(file))),
    "reStructuredText": ("x.rst", lambda file: list(read_passages(file))),
    "HTML": ("x.html", lambda file: list(read_passages(file))),
    "CSV": ("x.csv", lambda file: list(read_passages(file))),
    "JSON": ("x.json", lambda file: list(read_passages(file))),
    "a folder": ("x.txt", lambda file: list(read_passages(file.parent, unread=Unread(strict=True)))),
    "pairs": ("x.jsonl", read_pairs),
    "judgements": ("x.tsv", read_qrels),
    "a benchmark's judgements": ("x.tsv", _qrels_of),
    "a run": ("x.trec", read_run),
    "lines": ("x.txt", lambda file: list(numbered_lines(file))),
}
"""Everything that reads text -> a name of its files, and itself."""


def compress(path: Path, unit: bytes) -> None:
    """Write 60 megabytes of one unit, compressed as the name says."""
    block = unit * (1_000_000 // len(unit))
    match path.suffix:
        case ".gz":
            with gzip.open(path, "wb", compresslevel=9) as file:
                file.writelines(block for _ in range(MEGABYTES))
        case ".xz":
            with lzma.open(path, "wb", preset=0) as file:
                file.writelines(block for _ in range(MEGABYTES))
        case _:
            with pa.CompressedOutputStream(str(path), "zstd") as file:
                for _ in range(MEGABYTES):
                    file.write(block)


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    for ending in ("gz", "xz", "zst"):
        compress(folder / f"line.{ending}", b"0")
        compress(folder / f"lines.{ending}", b"\n")
    return folder


@pytest.mark.parametrize("bomb", ["line", "lines"])
@pytest.mark.parametrize("ending", ["gz", "xz", "zst"])
@pytest.mark.parametrize("reader", READERS)
def test_a_small_file_does_not_unpack_without_end(
    reader: str, ending: str, bomb: str, bombs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bomb == "lines" and reader != "lines":
        pytest.skip("every reader takes its lines from the same place")
    name, read = READERS[reader]
    (tmp_path / f"{name}.{ending}").write_bytes((bombs / f"{bomb}.{ending}").read_bytes())
    with pytest.raises(DupmaeError, match=r"unpacks to more than \d+ MB"):
        read(tmp_path / f"{name}.{ending}")


@pytest.mark.parametrize("reader", READERS)
def test_a_line_longer_than_its_bound_is_refused_by_every_reader(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LINE_VARIABLE, "0.001")
    name, read = READERS[reader]
    (tmp_path / name).write_bytes(b"x" * 1001)
    place = "x.html" if reader == "HTML" else "line 1"
    with pytest.raises(DupmaeError, match=rf"{place}: longer than 0.001 MB.*{LINE_VARIABLE}"):
        read(tmp_path / name)


def test_paragraphs_and_whole_files_have_the_bound_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LINE_VARIABLE, "0.001")
    for name, place in (("x.md", "up to line 201"), ("x.txt", "the paragraph up to line 201")):
        monkeypatch.setattr(plain_text, "WHOLE", 100)
        (tmp_path / name).write_text("word\n" * 201)
        with pytest.raises(DupmaeError, match=f"{place}: longer"):
            list(read_passages(tmp_path / name))
        (tmp_path / name).write_text("word\n" * 199)
        assert len(list(read_passages(tmp_path / name))) == 1


def test_a_text_of_any_size_is_read_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_text, "WHOLE", 100_000)
    (tmp_path / "x.txt").write_text(("some words of a paragraph\n" * 400 + "\n") * 200)  # 2 MB
    list(read_passages(tmp_path / "x.txt"))
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_passages(tmp_path / "x.txt"))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 200
    assert most < 1_000_000


@pytest.mark.parametrize("ending", ["docx", "epub", "xlsx"])
def test_a_small_archive_does_not_unpack_without_end(ending: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / f"x.{ending}", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"<a>" + b"0" * 30_000_000)
    with pytest.raises(DupmaeError, match=r"unpacks to more than \d+ MB"):
        list(read_passages(tmp_path / f"x.{ending}"))


def test_a_small_pdf_file_does_not_unpack_without_end(tmp_path: Path) -> None:
    stream = zlib.compress(b" " * 30_000_000, 9)
    head = b"%PDF-1.4\n1 0 obj<</Length 1/Filter/FlateDecode>>stream\n"
    (tmp_path / "x.pdf").write_bytes(head + stream + b"\nendstream endobj")
    with pytest.raises(DupmaeError, match=r"unpacks to more than \d+ MB"):
        list(read_passages(tmp_path / "x.pdf"))
    (tmp_path / "x.pdf").write_bytes(head.replace(b"<<", b"<</Subtype/Image") + stream)  # a blank page, scanned
    with pytest.raises(DupmaeError, match="cannot be read as PDF"):
        list(read_passages(tmp_path / "x.pdf"))


def test_front_matter_cannot_grow_by_its_aliases(tmp_path: Path) -> None:
    lists = "".join(f"a{n + 1}: &a{n + 1} [{','.join([f'*a{n}'] * 10)}]\n" for n in range(11))
    (tmp_path / "x.md").write_text(f"---\na0: &a0 [x]\n{lists}---\ntext")
    (passage,) = read_passages(tmp_path / "x.md", metadata_fields=["a0", "a11"])
    assert passage.metadata == {"a0": "x"}


def test_an_element_of_a_page_has_no_thousands_of_attributes(tmp_path: Path) -> None:
    (tmp_path / "x.html").write_text(f"<a {' '.join(f'name{n}=1' for n in range(20_000))}>x")
    with pytest.raises(DupmaeError, match="an element has more than 2,000 attributes"):
        list(read_passages(tmp_path / "x.html"))
    (tmp_path / "x.html").write_text(f"<svg><path d='{'M 1 2 ' * 20_000}'/></svg>x<img src='data:{'0' * 20_000}'>")
    assert [passage.text for passage in read_passages(tmp_path / "x.html")] == ["x"]


def test_entities_that_are_made_of_entities_are_not_read(tmp_path: Path) -> None:
    laughs = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))
    markup = f'<?xml version="1.0"?><!DOCTYPE html [<!ENTITY a0 "ha">{laughs}]>'
    (tmp_path / "x.xhtml").write_text(f"{markup}<html><body><p>&a9; text</p></body></html>")
    (passage,) = read_passages(tmp_path / "x.xhtml")
    assert len(passage.text) < 2000
    with zipfile.ZipFile(tmp_path / "x.epub", "w") as archive:
        archive.writestr("META-INF/container.xml", f"{markup}<c><rootfile full-path='&a9;'/></c>")
    with pytest.raises(DupmaeError, match="defines entities"):
        list(read_passages(tmp_path / "x.epub"))
    with zipfile.ZipFile(tmp_path / "x.docx", "w") as archive:
        archive.writestr("[Content_Types].xml", f"{markup}<Types>&a9;</Types>")
    with pytest.raises(DupmaeError, match="cannot be read as DOCX"):
        list(read_passages(tmp_path / "x.docx"))


@pytest.mark.parametrize("ending", ["md", "rst", "html"])
def test_no_text_takes_a_time_that_grows_with_its_square(ending: str, tmp_path: Path) -> None:
    for unit in ("`", "` ", ":a", "*", "**a ", "_", "<", "[", "[a](", "<a ", "> ", "- ", "|a", "&", "=\n"):
        times = []
        for size in (1_000, 8_000):
            (tmp_path / f"x.{ending}").write_text("a " + unit * (size // len(unit)))
            begin = time.perf_counter()
            list(read_passages(tmp_path / f"x.{ending}"))
            times.append(time.perf_counter() - begin)
        assert times[1] < 32 * times[0] + 0.5, unit  # 8 times the text; a square would be 64 times


def test_the_bounds_can_be_moved(bombs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.jsonl.gz"
    file.write_bytes(gzip.compress((b" " * 999 + b"\n") * 6000 + RECORD))
    monkeypatch.setenv(FILE_VARIABLE, "0.007")
    assert [passage.id for passage in read_passages(file)] == ["a"]
    monkeypatch.setenv(FILE_VARIABLE, "0.005")
    with pytest.raises(DupmaeError, match="unpacks to more than 5 MB"):
        list(read_passages(file))
    monkeypatch.setenv(FILE_VARIABLE, "much")
    with pytest.raises(DupmaeError, match=f"{FILE_VARIABLE} must be a number above 0, not 'much'"):
        list(read_passages(file))


def test_text_that_compresses_well_is_read(tmp_path: Path) -> None:
    lines = [
        json.dumps({"_id": f"d{n}", "title": "a title", "text": "the same text again and again"}) for n in range(40_000)
    ]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode(), 9))
    assert sum(1 for _ in read_passages(tmp_path / "x.jsonl.gz")) == 40_000


def test_parquet_that_repeats_a_large_text_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    for size in (30_000_000, 3_000_000):  # the first shows in the footer, the second in the rows alone
        repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * size]))
        pq.write_table(pa.table({"text": repeated}), tmp_path / "x.parquet", compression="zstd")
        with pytest.raises(DupmaeError, match="unpacks to more than"):
            list(read_passages(tmp_path / "x.parquet"))


def _saved(folder: Path) -> Path:
    datasets.Dataset.from_dict({"_id": ["a", "b"], "text": ["one", "two"]}).save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", "a/b.arrow"])
def test_a_saved_data_set_cannot_name_files_elsewhere(name: str, tmp_path: Path) -> None:
    folder = _saved(tmp_path / "data")
    next(folder.glob("*.arrow")).rename(tmp_path / "secret.arrow")
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": name}]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(DupmaeError, match="which is not one of that folder"):
        list(read_passages(folder))


def test_a_saved_data_set_of_no_rows_is_called_empty(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"_id": ["a"], "text": ["b"]}).select([]).save_to_disk(str(tmp_path / "data"))
    with pytest.raises(DupmaeError, match="is empty"):
        list(read_passages(tmp_path / "data"))


def test_offsets_of_a_saved_data_set_that_lead_outside_are_refused(tmp_path: Path) -> None:
    folder = _saved(tmp_path / "data")
    file = next(folder.glob("*.arrow"))
    content = file.read_bytes()
    offsets = b"\x00\x00\x00\x00\x03\x00\x00\x00\x06\x00\x00\x00"
    assert offsets in content
    file.write_bytes(content.replace(offsets, b"\x00\x00\x00\x00\x03\x00\x00\x00\xff\xff\xff\x7f"))
    code = (
        f"from dupmae import read_passages\ntry: list(read_passages({str(folder)!r}))\nexcept Exception as e: print(e)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0  # no signal
    assert "cannot be read as a Hugging Face data set" in ended.stdout


@pytest.mark.parametrize(
    "name",
    ["x.jsonl", "x.tsv", "x.txt", "x.jsonl.gz", "x.parquet", "x.html", "x.csv", "x.json", "x.pdf", "x.docx", "x.epub"],
)
def test_a_pipe_without_a_writer_and_a_device_without_end_are_no_corpora(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DupmaeError, match="is no regular file"):
        list(read_passages(tmp_path / name))
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DupmaeError, match="is no regular file"):
        list(read_passages(tmp_path / name))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("NaN", "NaN is no JSON number"),
        ("-Infinity", "-Infinity is no JSON number"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("9" * 5000, "not valid JSON"),
        ('{"k": 1, "k": 2}', "the key 'k' stands in one object twice"),
    ],
)
@pytest.mark.parametrize("pairs", [True, False])
def test_json_is_read_as_its_standard_has_it(pairs: bool, value: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"_id": "a", "text": "b", "query": "q", "positive": "p", "more": ' + value + "}\n")
    with pytest.raises(DupmaeError, match=reason) as caught:
        read_pairs(file) if pairs else list(read_passages(file))
    assert f"{file}, line 1: " in str(caught.value)
    assert len(str(caught.value)) <= 500


GRADES = [
    "1000001",
    "-1000001",
    "2147483648",
    "4294967297",
    "9" * 5000,
    "1_0",
    "1.0",
    "1e0",
    "٣",
    "nan",
    "inf",
    "0x1",
    "",
]


@pytest.mark.parametrize("grade", GRADES)
@pytest.mark.parametrize("line", ["q\td\t{}\n", "q 0 d {}\n"])
def test_a_grade_is_a_whole_number_that_programs_count(line: str, grade: str, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(line.format("1").replace("q", "p") + line.format(grade))
    with pytest.raises(DupmaeError, match="line 2: ") as caught:
        read_qrels(tmp_path / "x.tsv")
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("grade", ["nan", "1_0", "-inf", "1.0", "٣"])
def test_a_grade_gone_wrong_in_the_first_line_is_no_heading(grade: str, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(f"q\td\t{grade}\nq\te\t1\n")
    with pytest.raises(DupmaeError, match="line 1: the score"):
        read_qrels(tmp_path / "x.tsv")


@pytest.mark.parametrize("score", ["nan", "inf", "1e400", "1_0", "٣", "0x10", "1,5", "infinity", "1.", ".5", "-1E-3"])
def test_a_score_is_a_finite_number_as_all_programs_read_it(score: str, tmp_path: Path) -> None:
    (tmp_path / "x.trec").write_text(f"q Q0 d 1 {score} t\n")
    if score in ("1.", ".5", "-1E-3"):
        assert read_run(tmp_path / "x.trec") == {"q": {"d": float(score)}}
        return
    with pytest.raises(DupmaeError, match=r"line 1: the score .* is not a finite number"):
        read_run(tmp_path / "x.trec")


@pytest.mark.parametrize("line", ["q\0 Q0 d 1 1.0 t\n", "q Q0 d\0 1 1.0 t\n"])
def test_ids_with_a_nul_are_refused_where_programs_would_cut_them(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.trec").write_text(line)
    with pytest.raises(DupmaeError, match="line 1: holds a NUL"):
        read_run(tmp_path / "x.trec")
    (tmp_path / "q.tsv").write_text("q\0\td\t1\n")
    with pytest.raises(DupmaeError, match="line 1: holds a NUL"):
        read_qrels(tmp_path / "q.tsv")


@pytest.mark.parametrize(
    ("run", "qrels"),
    [
        ({"q": {"d": 1.0}}, {"q": {"d": MOST_GRADE + 1}}),
        ({"q": {"d": 1.0}}, {"q": {"d": 2**32 + 1}}),
        ({"q": {"d": 1.0}}, {"q": {"d": 0.5}}),
        ({"q": {"d": float("nan")}}, {"q": {"d": 1}}),
        ({"q": {"d": float("inf")}}, {"q": {"d": 1}}),
        ({"q": {"d": 1.0}, "q\0x": {"d": 1.0}}, {"q": {"d": 1}, "q\0x": {"d": 1}}),
        ({"q": {"d\0": 1.0}}, {"q": {"d": 1}}),
        ({"q": {"\ud800": 1.0}}, {"q": {"d": 1}}),
    ],
)
def test_from_python_too_nothing_is_measured_that_programs_count_wrongly(run: Any, qrels: Any) -> None:
    with pytest.raises(DupmaeError):
        evaluate_run(run, qrels)
