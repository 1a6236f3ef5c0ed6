import gzip
import json
import lzma
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dupmae.corpus import Passage, read_passages
from dupmae.corpus.folders import Unread
from dupmae.corpus.formats import plain_text
from dupmae.corpus.passage import Document, Heading
from dupmae.errors import DupmaeError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}
TWO = [Passage("a", "Bees", "They dance."), Passage("b", "", "Größe 大きさ")]


def jsonl(*records: object) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **fields: str) -> list[Passage]:
    return list(read_passages(path, **fields))


def error(path: Path, **fields: str) -> str:
    with pytest.raises(DupmaeError) as caught:
        read(path, **fields)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_full_text_joins_title_and_text_by_one_space() -> None:
    assert [passage.full_text for passage in TWO] == ["Bees They dance.", "Größe 大きさ"]


@pytest.mark.parametrize("ending", COMPRESS)
def test_jsonl_is_read_whatever_its_compression(tmp_path: Path, ending: str) -> None:
    data = jsonl({"_id": "a", "title": "Bees", "text": "They dance."}, {"_id": "b", "title": None, "text": TWO[1].text})

    assert read(write(tmp_path / f"x.jsonl{ending}", COMPRESS[ending](data))) == TWO


def test_jsonl_field_names_can_be_chosen_and_ids_may_be_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "x.ndjson", jsonl({"n": 7, "head": "H", "body": "B", "more": [1]}))

    assert read(path, id_field="n", title_field="head", text_field="body") == [Passage("7", "H", "B")]


def test_jsonl_without_ids_is_numbered_by_lines_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"text": "one"}\r\n\n{"text": "three"}')

    assert read(path) == [Passage("x.jsonl#1", "", "one"), Passage("x.jsonl#3", "", "three")]


@pytest.mark.parametrize("name", ["_id", "id", "docid", "doc_id", "pid", "passage_id"])
def test_ids_are_found_under_their_usual_names(tmp_path: Path, name: str) -> None:
    expected = [Passage("a", "", "one"), Passage("b", "", "two")]
    rows = [{name: passage.id, "text": passage.text, "url": "u"} for passage in expected]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")

    assert read(tmp_path / "x.parquet") == expected
    assert read(write(tmp_path / "x.jsonl", jsonl(*rows))) == expected
    assert read(write(tmp_path / "x.tsv", f"{name}\ttext\na\tone\nb\ttwo\n")) == expected


def test_the_first_record_decides_which_field_holds_the_ids(tmp_path: Path) -> None:
    both = {"id": "x", "_id": "a", "text": "one"}

    assert read(write(tmp_path / "x.jsonl", jsonl(both, {"_id": "b", "text": "two"})))[1].id == "b"
    assert "line 2: no field '_id' (the id)" in error(write(tmp_path / "y.jsonl", jsonl(both, {"id": "y", "text": ""})))


def test_a_field_that_was_asked_for_and_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", jsonl({"_id": "a", "text": "one"}, {"_id": "b", "text": "two", "head": None}))

    assert "line 1: no field 'number' (the id), and each passage must have one" in error(path, id_field="number")
    assert "no line has a field 'headline' (the title)" in error(path, title_field="headline")
    assert len(read(path, title_field="head")) == 2


def test_passages_without_ids_are_refused_where_ids_are_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", jsonl({"text": "one"}))

    with pytest.raises(DupmaeError, match=r"line 1: no field '_id' \(the id\), and each passage must have one"):
        list(read_passages(path, need_ids=True))


def test_a_byte_order_mark_and_unicode_line_separators_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", b"\xef\xbb\xbf" + jsonl({"_id": "a", "text": "one\u2028two\x85"}))

    assert read(path) == [Passage("a", "", "one\u2028two\x85")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"_id": "a", "text": "x"}\n{"_id": "b", "text": \n', "line 2: not valid JSON"),
        ("[1]\n", "line 1: expected a JSON object, found a list"),
        ('{"_id": "a", "body": "x"}\n', "line 1: no field 'text' (the text); its fields are '_id', 'body'"),
        ('{"_id": "a", "text": "x"}\n\n{"text": "x"}\n', "line 3: no field '_id' (the id); its fields are 'text'"),
        ('{"text": "x"}\n{"_id": "a", "text": "x"}\n', "line 2: has the field '_id', but the first line has none"),
        ('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n', "line 2: the id 'a' was used before"),
        ('{"_id": "1", "text": "x"}\n{"_id": 1, "text": "y"}\n', "line 2: the id '1' was used before"),
        ('{"_id": "", "text": "x"}\n', "line 1: the field '_id' (the id) is empty"),
        ('{"_id": true, "text": "x"}\n', "line 1: the field '_id' is a boolean, but must be a string"),
        ('{"_id": "a", "text": null}\n', "line 1: the field 'text' is null, but must be a string"),
        ('{"_id": "a", "title": 3, "text": "x"}\n', "line 1: the field 'title' is a number, but must be a string"),
        ('{"_id": "a", "text": "\\ud800"}\n', "line 1: the field 'text' holds half of a surrogate pair"),
        ("[" * 100_000, "line 1: not valid JSON"),
        (b'{"_id": "a", "text": "x"}\n{"_id": "b", "text": "\xff"}\n', "line 2: byte 23 is not UTF-8"),
        ("\n", "is empty: no text was found in it"),
    ],
)
def test_bad_jsonl_is_refused_with_file_and_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert message in error(write(tmp_path / "x.jsonl", content))


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_a_compressed_file_that_was_cut_short_is_refused(tmp_path: Path, ending: str) -> None:
    data = COMPRESS[ending](jsonl(*({"_id": f"id{i}", "text": str(hash(i * 1.1))} for i in range(2_000))))

    assert "cannot be read" in error(write(tmp_path / f"x.jsonl{ending}", data[: len(data) // 2]))


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_a_file_that_is_not_compressed_as_its_name_says_is_refused(tmp_path: Path, ending: str) -> None:
    assert "cannot be read" in error(write(tmp_path / f"x.jsonl{ending}", jsonl({"_id": "a", "text": "plain"})))


@pytest.mark.parametrize("ending", COMPRESS)
def test_tsv_without_header_has_id_title_and_text(tmp_path: Path, ending: str) -> None:
    data = 'a\tBees\tThey dance.\nb\t\tGröße "大きさ\n'.encode()

    assert read(write(tmp_path / f"x.tsv{ending}", COMPRESS[ending](data))) == [
        TWO[0],
        Passage("b", "", 'Größe "大きさ'),
    ]


def test_tsv_with_two_columns_has_id_and_text(tmp_path: Path) -> None:
    assert read(write(tmp_path / "x.tsv", "7\tone\n8\ttwo\n")) == [Passage("7", "", "one"), Passage("8", "", "two")]


def test_tsv_header_names_the_columns_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", "body\turl\tkey\none\tu\ta\n")

    assert read(path, id_field="key", text_field="body") == [Passage("a", "", "one")]


def test_tsv_whose_header_has_no_id_is_numbered_by_lines(tmp_path: Path) -> None:
    expected = [Passage("x.tsv#2", "", "one"), Passage("x.tsv#3", "", "two")]
    assert read(write(tmp_path / "x.tsv", "text\none\ntwo\n")) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\tc\td\n", "line 1: 4 columns; without a header that names 'text' there must be two (id, text) or three"),
        ("lonely\n", "line 1: 1 column;"),
        ("1\tone\n2\ttwo\tmore\n", "line 2: 3 columns where the first line has 2"),
        (
            "doc_id\tcontents\n1\tone\n",
            "line 1: a heading ('doc_id') without a column 'text'; its columns are 'doc_id', 'contents'",
        ),
        ("url\tID\tbody\nu\t1\tone\n", "line 1: a heading ('ID') without a column 'text'"),
        ("_id\ttext\n1\n", "line 2: 1 column where the first line has 2"),
        ("_id\ttext\n", "is empty"),
        (b"1\tone\n2\t\xe4\n", "line 2: byte 3 is not UTF-8"),
        ("1\tone\n1\ttwo\n", "line 2: the id '1' was used before"),
    ],
)
def test_bad_tsv_is_refused_with_file_and_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert message in error(write(tmp_path / "x.tsv", content))


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_text_file_is_one_document_by_itself_as_in_a_folder(tmp_path: Path, ending: str) -> None:
    data = COMPRESS[ending](b"\n\nfirst line\nsecond line\n \n\nlast\n")
    name = f"my notes.txt{ending}"
    expected = Passage(f"my_notes.txt{ending}", "", "first line\nsecond line\n \n\nlast")

    assert read(write(tmp_path / name, data)) == [expected]
    assert read(tmp_path) == [replace(expected, metadata={"path": name})]


def test_a_text_file_of_the_size_of_a_library_is_read_by_paragraphs(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(plain_text, "WHOLE", 20)
    path = write(tmp_path / "big.txt", "\n\nfirst line\nsecond\n \n\nlast")

    expected = [Passage("big.txt#1", "", "first line\nsecond"), Passage("big.txt#2", "", "last")]
    assert read(path) == expected
    assert read(tmp_path) == [replace(passage, metadata={"path": "big.txt"}) for passage in expected]
    assert "each of its paragraphs is read as a document" in caplog.text
    assert len(read(write(path, "a\n\n" + "b" * 15))) == 1


def test_a_text_file_of_blank_lines_is_an_empty_corpus(tmp_path: Path) -> None:
    assert "is empty" in error(write(tmp_path / "x.txt", " \n\n"))


def test_a_text_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    assert "line 2: byte 1 is not UTF-8" in error(write(tmp_path / "x.md", b"fine\n\xe4\n"))


def test_text_in_utf16_says_so_by_its_mark(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
        assert read(write(tmp_path / "x.tsv", f"{mark}a\tGröße\n".encode(encoding))) == [Passage("a", "", "Größe")]
    assert "cannot be read" in error(write(tmp_path / "x.tsv", "a\tone".encode("utf-16") + b"\x00\xd8\x01"))


def test_each_file_of_a_folder_of_texts_is_a_document(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "two\n\nparagraphs\n")
    write(tmp_path / "deep er" / "a.md.gz", gzip.compress(b"# Title\n"))
    write(tmp_path / ".hidden" / "c.txt", "no")
    write(tmp_path / "picture.png", "no")

    assert read(tmp_path) == [
        Passage("b.txt", "", "two\n\nparagraphs", {"path": "b.txt"}),
        Document("deep_er/a.md.gz", "Title", "Title", {"path": "deep er/a.md.gz"}, headings=(Heading(0, 1, "Title"),)),
    ]


def test_a_folder_is_read_whole_whatever_is_in_it(tmp_path: Path) -> None:
    write(tmp_path / "part1.jsonl", jsonl({"text": "one"}))
    write(tmp_path / "sub" / "part2.tsv.xz", lzma.compress(b"k\ttwo\n"))
    write(tmp_path / "README.md", "About this collection.")

    datasets.Dataset.from_dict({"text": ["row"]}).save_to_disk(str(tmp_path / "saved"))

    assert [(passage.id, passage.text, passage.metadata["path"]) for passage in read(tmp_path)] == [
        ("README.md", "About this collection.", "README.md"),
        ("part1.jsonl#1", "one", "part1.jsonl"),
        ("saved#1", "row", "saved"),
        ("k", "two", "sub/part2.tsv.xz"),
    ]
    assert [passage.id for passage in read(tmp_path / "saved")] == ["saved#1"]


def test_a_duplicate_id_across_the_files_of_a_folder_is_refused_if_strict(tmp_path: Path) -> None:
    for name in ("1.jsonl", "2.jsonl"):
        write(tmp_path / name, jsonl({"_id": "same", "text": name}))

    unread = Unread()
    assert [passage.text for passage in read_passages(tmp_path, unread=unread)] == ["1.jsonl"]
    reason = f"{tmp_path / '2.jsonl'}, line 1: the id 'same' was used before"
    assert unread.refused == {tmp_path / "2.jsonl": 1}
    assert unread.reasons[0].startswith(reason)
    with pytest.raises(DupmaeError, match=re.escape(reason)):
        list(read_passages(tmp_path, unread=Unread(strict=True)))


def test_a_folder_without_known_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "picture.png", "a,b")

    assert "holds no file of a known type (1 .png)" in error(tmp_path)


def test_a_folder_of_which_nothing_can_be_read_is_refused_with_a_reason(tmp_path: Path) -> None:
    write(tmp_path / "table.csv", "a,b\n1,2\n")

    assert "no text was found in it; not read: 1 fault in one file" in error(tmp_path)
    assert "no column 'text' (the text); its columns are 'a', 'b'" in error(tmp_path)


def test_a_beir_folder_gives_its_corpus_alone(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl.gz", gzip.compress(jsonl({"_id": "a", "title": "T", "text": "one"})))
    write(tmp_path / "queries.jsonl", jsonl({"_id": "q", "text": "query"}))

    assert read(tmp_path) == [Passage("a", "T", "one")]


def test_two_versions_of_a_corpus_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", "")
    write(tmp_path / "corpus.jsonl.gz", "")

    assert "holds both corpus.jsonl and corpus.jsonl.gz" in error(tmp_path)


def test_parquet_is_read_row_by_row(tmp_path: Path) -> None:
    rows = [{"_id": str(i), "title": None, "text": f"text {i}", "vector": [0.5]} for i in range(3_000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")

    assert read(tmp_path / "x.parquet") == [Passage(str(i), "", f"text {i}") for i in range(3_000)]


def test_parquet_without_ids_is_numbered_by_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["one", "two"]}), tmp_path / "x.parquet")

    assert read(tmp_path / "x.parquet", text_field="body") == [
        Passage("x.parquet#1", "", "one"),
        Passage("x.parquet#2", "", "two"),
    ]


def test_bad_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    assert "cannot be read as Parquet" in error(write(path, "no"))
    pq.write_table(pa.table({"id": ["a"], "body": ["one"]}), path)
    assert "no column 'text' (the text); its columns are 'id', 'body'" in error(path)
    pq.write_table(pa.table({"text": ["one", None]}), path)
    assert "row 2: the field 'text' is null" in error(path)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert "is empty" in error(path)
    assert "unknown type" in error(write(tmp_path / "x.parquet.gz", gzip.compress(path.read_bytes())))


def test_a_saved_hugging_face_data_set_is_read(tmp_path: Path) -> None:
    rows = {"_id": ["a", "b"], "text": ["one", "two"], "label": [0, 1]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))

    assert read(tmp_path / "saved") == [Passage("a", "", "one"), Passage("b", "", "two")]
    assert "no column 'body'" in error(tmp_path / "saved", text_field="body")


def test_a_saved_data_set_with_splits_asks_for_one_of_them(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"text": ["one"]})
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(str(tmp_path / "saved"))

    assert "holds a data set with the splits test, train" in error(tmp_path / "saved")
    assert read(tmp_path / "saved" / "train") == [Passage("train#1", "", "one")]


def test_a_damaged_data_set_is_refused(tmp_path: Path) -> None:
    for name in ("dataset_info.json", "state.json"):
        write(tmp_path / name, "{")

    assert "cannot be read as a Hugging Face data set" in error(tmp_path)


def test_a_missing_path_and_an_unknown_type_are_refused_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(DupmaeError, match=r"none\.jsonl does not exist"):
        read_passages(tmp_path / "none.jsonl")
    with pytest.raises(DupmaeError, match=r"x\.png is of an unknown type; known are \.jsonl"):
        read_passages(write(tmp_path / "x.png", "a,b"))


def test_reading_is_lazy(tmp_path: Path) -> None:
    passages = read_passages(write(tmp_path / "x.jsonl", '{"_id": "a", "text": "x"}\nnot JSON\n'))

    assert next(passages).id == "a"
    with pytest.raises(DupmaeError, match="line 2"):
        next(passages)


def test_metadata_fields_keep_their_types(tmp_path: Path) -> None:
    lines = [
        {"_id": "a", "text": "x", "year": 2020, "open": True, "lang": "en", "other": 1},
        {"_id": "b", "text": "y", "year": None, "score": 0.5},
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    first, second = read_passages(tmp_path / "c.jsonl", metadata_fields=["year", "open", "lang", "score"])
    assert first.metadata == {"year": 2020, "open": True, "lang": "en"}
    assert second.metadata == {"score": 0.5}
    assert type(first.metadata["year"]) is int


def test_cells_of_text_become_numbers_where_nothing_is_lost(tmp_path: Path) -> None:
    cells = ["7", "-3", "0.5", "true", "007", "1e5", "+1", "1.50", " ", "9" * 25, "٣", "x"]
    path = write(tmp_path / "x.csv", "text,n\n" + "".join(f"t,{cell}\n" for cell in cells))

    found = [passage.metadata.get("n") for passage in read_passages(path, metadata_fields=["n"])]
    assert found == [7, -3, 0.5, True, "007", "1e5", "+1", "1.50", None, "9" * 25, "٣", "x"]
    assert [type(value) for value in found[:4]] == [int, int, float, bool]


def test_metadata_may_be_nested_as_in_beir(tmp_path: Path) -> None:
    rows = [{"_id": "a", "text": "x", "year": 2020.0, "metadata": {"focus": "bees", "year": "old", "depth": 1.5}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")

    for path in (write(tmp_path / "c.jsonl", jsonl(*rows)), tmp_path / "c.parquet"):
        (passage,) = read_passages(path, metadata_fields=["focus", "year", "depth", "none"])
        assert passage.metadata == {"focus": "bees", "year": 2020.0, "depth": 1.5}


def test_a_metadata_field_that_is_no_plain_value_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "x", "tags": ["t"]}\n', encoding="utf-8")
    with pytest.raises(DupmaeError, match=r"line 1: the field 'tags' is .*, but must be a string"):
        list(read_passages(tmp_path / "c.jsonl", metadata_fields=["tags"]))


def test_links_in_a_folder_are_followed_once_and_never_in_a_circle(tmp_path, caplog):
    texts, far = tmp_path / "texts", tmp_path / "far"
    (texts / "inner").mkdir(parents=True)
    far.mkdir()
    (far / "b.txt").write_text("far", encoding="utf-8")
    (texts / "inner" / "a.txt").write_text("near", encoding="utf-8")
    (texts / "linked.txt").symlink_to(far / "b.txt")
    (texts / "more").symlink_to(far)
    (texts / "more again").symlink_to(far)
    (texts / "inner" / "up").symlink_to("..")
    (far / "back").symlink_to(texts)
    (far / "far").symlink_to(tmp_path)
    unread = Unread()
    ids = [passage.id for passage in read_passages(texts, unread=unread)]
    assert ids == ["inner/a.txt", "linked.txt", "more/b.txt"]
    assert unread.summary() == "4 linked (read already)"


def test_what_is_not_read_of_a_folder_is_counted_by_ending_in_one_line_at_the_end(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    (tmp_path / ".b.txt").write_text("hidden", encoding="utf-8")
    (tmp_path / ".git").mkdir()
    for name in ("1.png", "2.PNG", "LICENSE", "x.tar.gz", "old.2024 final version"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    assert len(list(read_passages(tmp_path))) == 1
    line = f"Not read of {tmp_path}: 2 .png, 2 hidden, 2 without an ending, 1 .tar.gz."
    assert [record.getMessage() for record in caplog.records] == [line]
    list(read_passages(tmp_path))
    assert len(caplog.records) == 1  # a command that reads a corpus twice says it once


def _dead_link(folder: Path) -> None:
    (folder / "c.txt").symlink_to("nowhere")


def _foreign_name(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/c\xff.txt")).write_text("x", encoding="utf-8")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "c.txt")


def _closed(folder: Path) -> None:
    (folder / "c.md").write_text("x", encoding="utf-8")
    (folder / "c.md").unlink()
    (folder / "c.md").symlink_to(folder / "c.md")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_dead_link, "is a link that leads nowhere"),
        (_foreign_name, r"c\xff.txt: its name is not UTF-8: rename it"),
        (_pipe, "is no regular file"),
        (_closed, "is a link that leads nowhere"),
        (lambda folder: write(folder / "c.csv", 'text,n\n"a,1\n'), "line 2: not valid CSV (unexpected end of data)"),
        (lambda folder: write(folder / "c.csv", "id~text\n1~a\n"), "line 1: no column 'text' (the text); its columns"),
        (lambda folder: write(folder / "c.csv", "text,n\na,1,2\n"), "line 2: 3 columns where the heading has 2"),
        (lambda folder: write(folder / "c.txt", b"caf\xe9"), "line 1: byte 4 is not UTF-8"),
        (lambda folder: write(folder / "c.txt", ""), "is empty"),
        (lambda folder: write(folder / "c.html", "<script>x</script><noscript>y</noscript>"), "holds no text: scripts"),
        (lambda folder: write(folder / "c.html", "<div>" * 3000 + "x"), "nested deeper than 2,048"),
        (
            lambda folder: write(folder / "c.json", '{"name": "x"}'),
            "no column 'text' (the text); its columns are 'name'",
        ),
        (lambda folder: write(folder / "c.json", "[1"), "not valid JSON"),
        (lambda folder: write(folder / "c.json", "7"), "holds a number, neither a list of records nor an object"),
        (lambda folder: write(folder / "c.jsonl", '{"text": 1}'), "line 1: the field 'text' is a number"),
        (lambda folder: write(folder / "c.jsonl", "{"), "line 1: not valid JSON"),
        (lambda folder: write(folder / "c.docx", "PK"), "cannot be read as DOCX"),
        (lambda folder: write(folder / "c.epub", "PK"), "cannot be read as EPUB"),
        (lambda folder: write(folder / "c.xlsx", "PK"), "cannot be read as XLSX"),
        (lambda folder: write(folder / "c.pdf", "%PDF-1.4"), "cannot be read as PDF"),
        (lambda folder: write(folder / "c.parquet", "PAR1"), "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_of_a_folder_is_named_and_stops_no_other_unless_strict(tmp_path, caplog, make, reason):
    (tmp_path / "a.txt").write_text("first", encoding="utf-8")
    (tmp_path / "z.txt").write_text("last", encoding="utf-8")
    make(tmp_path)
    assert [passage.text for passage in read_passages(tmp_path)] == ["first", "last"]
    named, line = [record.getMessage() for record in caplog.records]
    assert reason in named
    assert line == f"Not read of {tmp_path}: 1 fault in one file (named above)."
    assert len(named) <= 520
    with pytest.raises(DupmaeError, match=re.escape(reason)):
        list(read_passages(tmp_path, unread=Unread(strict=True)))


def test_records_behind_a_bad_one_are_read(tmp_path, caplog):
    (tmp_path / "x.jsonl").write_text('{"text": "one"}\nno\n{"body": 1}\n{"text": "two"}\n', encoding="utf-8")
    (tmp_path / "y.csv").write_text('text,n\n"one\nline",1\ntwo\n\nthree,3\n"a"b,4\nfour,5\n', encoding="utf-8")
    (tmp_path / "z.tsv").write_text("1\ta\n2\n3\tc\n", encoding="utf-8")
    unread = Unread()
    ids = [passage.id for passage in read_passages(tmp_path, unread=unread)]
    assert ids == ["x.jsonl#1", "x.jsonl#4", "y.csv#2", "y.csv#6", "y.csv#8", "1", "3"]
    assert unread.summary() == "5 faults in 3 files (named above)"
    assert "y.csv, line 4: 1 column where" in caplog.text
    assert "y.csv, line 7: not valid CSV" in caplog.text


def test_of_many_faults_the_first_are_named_and_all_are_counted(tmp_path, caplog):
    (tmp_path / "x.jsonl").write_text('{"text": "one"}\n' + "no\n" * 50, encoding="utf-8")
    assert len(list(read_passages(tmp_path))) == 1
    assert len(caplog.records) == 21
    assert caplog.records[-1].getMessage().endswith(": 50 faults in one file (the first 20 named above).")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr("os.scandir", refuse)
    unread = Unread()
    assert len(list(read_passages(tmp_path, unread=unread))) == 1
    assert "closed cannot be read (permission denied)" in unread.reasons[0]
    with pytest.raises(DupmaeError, match=r"closed cannot be read \(permission denied\)"):
        read_passages(tmp_path, unread=Unread(strict=True))


def test_a_link_into_a_folder_that_may_not_be_entered_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    (tmp_path / "c.txt").symlink_to("a.txt")
    exists = Path.exists

    def refuse(path, **settings):
        if path.name == "c.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path, **settings)

    monkeypatch.setattr(Path, "exists", refuse)
    unread = Unread()
    assert len(list(read_passages(tmp_path, unread=unread))) == 1
    assert "c.txt cannot be read ([Errno 13] Permission denied" in unread.reasons[0]
