import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dupmae.corpus import Passage, read_passages
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

    assert read(path) == [Passage("1", "", "one"), Passage("3", "", "three")]


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
    assert read(write(tmp_path / "x.tsv", "text\none\ntwo\n")) == [Passage("2", "", "one"), Passage("3", "", "two")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\tc\td\n", "line 1: 4 columns; without a header that names 'text' there must be two (id, text) or three"),
        ("lonely\n", "line 1: 1 column;"),
        ("1\tone\n2\ttwo\tmore\n", "line 2: 3 columns where the first line has 2"),
        (
            "doc_id\tcontents\n1\tone\n",
            "line 1: a heading ('doc_id') without a column 'text': call the text's column so",
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
def test_each_paragraph_of_a_text_file_is_a_passage(tmp_path: Path, ending: str) -> None:
    data = COMPRESS[ending](b"\n\nfirst line\nsecond line\n \n\nlast")
    name = f"my notes.txt{ending}"

    assert read(write(tmp_path / name, data)) == [
        Passage(f"my_notes.txt{ending}#1", "", "first line\nsecond line"),
        Passage(f"my_notes.txt{ending}#2", "", "last"),
    ]


def test_a_text_file_of_blank_lines_is_an_empty_corpus(tmp_path: Path) -> None:
    assert "is empty" in error(write(tmp_path / "x.txt", " \n\n"))


def test_a_text_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    assert "line 2: byte 1 is not UTF-8" in error(write(tmp_path / "x.md", b"fine\n\xe4\n"))


def test_each_file_of_a_folder_of_texts_is_a_passage(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "two\n\nparagraphs\n")
    write(tmp_path / "deep er" / "a.md.gz", gzip.compress(b"# Title\n"))
    write(tmp_path / ".hidden" / "c.txt", "no")
    write(tmp_path / "picture.png", "no")

    assert read(tmp_path) == [Passage("b.txt", "", "two\n\nparagraphs"), Passage("deep_er/a.md.gz", "", "# Title")]


def test_text_files_beside_data_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "part1.jsonl", jsonl({"text": "one"}))
    write(tmp_path / "sub" / "part2.tsv.xz", lzma.compress(b"k\ttwo\n"))
    write(tmp_path / "README.md", "About this collection.")

    assert read(tmp_path) == [Passage("part1.jsonl:1", "", "one"), Passage("k", "", "two")]


def test_a_duplicate_id_across_the_files_of_a_folder_is_refused(tmp_path: Path) -> None:
    for name in ("1.jsonl", "2.jsonl"):
        write(tmp_path / name, jsonl({"_id": "same", "text": name}))

    assert f"{tmp_path / '2.jsonl'}, line 1: the id 'same' was used before" in error(tmp_path)


def test_a_folder_without_known_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "table.csv", "a,b")

    assert "holds no file of a known type" in error(tmp_path)


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

    assert read(tmp_path / "x.parquet", text_field="body") == [Passage("1", "", "one"), Passage("2", "", "two")]


def test_bad_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    assert "cannot be read as Parquet" in error(write(path, "no"))
    pq.write_table(pa.table({"id": ["a"], "body": ["one"]}), path)
    assert "no column 'text' (the text); its columns are id, body" in error(path)
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
    assert read(tmp_path / "saved" / "train") == [Passage("1", "", "one")]


def test_a_damaged_data_set_is_refused(tmp_path: Path) -> None:
    for name in ("dataset_info.json", "state.json"):
        write(tmp_path / name, "{")

    assert "cannot be read as a Hugging Face data set" in error(tmp_path)


def test_a_missing_path_and_an_unknown_type_are_refused_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(DupmaeError, match=r"none\.jsonl does not exist"):
        read_passages(tmp_path / "none.jsonl")
    with pytest.raises(DupmaeError, match=r"x\.csv is of an unknown type; known are \.jsonl"):
        read_passages(write(tmp_path / "x.csv", "a,b"))


def test_reading_is_lazy(tmp_path: Path) -> None:
    passages = read_passages(write(tmp_path / "x.jsonl", '{"_id": "a", "text": "x"}\nnot JSON\n'))

    assert next(passages).id == "a"
    with pytest.raises(DupmaeError, match="line 2"):
        next(passages)


def test_metadata_fields_are_kept_as_strings(tmp_path: Path) -> None:
    lines = [
        {"_id": "a", "text": "x", "year": 2020, "open": True, "lang": "en", "other": 1},
        {"_id": "b", "text": "y", "year": None, "score": 0.5},
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    first, second = read_passages(tmp_path / "c.jsonl", metadata_fields=["year", "open", "lang", "score"])
    assert first.metadata == {"year": "2020", "open": "true", "lang": "en"}
    assert second.metadata == {"score": "0.5"}


def test_metadata_may_be_nested_as_in_beir_and_whole_numbers_have_no_fraction(tmp_path: Path) -> None:
    rows = [{"_id": "a", "text": "x", "year": 2020.0, "metadata": {"focus": "bees", "year": "old", "depth": 1.5}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")

    for path in (write(tmp_path / "c.jsonl", jsonl(*rows)), tmp_path / "c.parquet"):
        (passage,) = read_passages(path, metadata_fields=["focus", "year", "depth", "none"])
        assert passage.metadata == {"focus": "bees", "year": "2020", "depth": "1.5"}


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
    ids = [passage.id for passage in read_passages(texts)]
    assert ids == ["inner/a.txt", "linked.txt", "more/b.txt"]
    assert "more again, a link to the folder" in caplog.text


def test_what_is_not_read_of_a_folder_is_named(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    (tmp_path / ".b.txt").write_text("hidden", encoding="utf-8")
    assert len(list(read_passages(tmp_path))) == 1
    assert "1 hidden files, such as .b.txt" in caplog.text
    (tmp_path / "c.txt").symlink_to("nowhere")
    with pytest.raises(DupmaeError, match=r"c\.txt is a link that leads nowhere"):
        read_passages(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DupmaeError, match=r"closed cannot be read \(permission denied\)"):
        read_passages(tmp_path)
