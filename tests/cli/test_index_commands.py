"""The index's commands from end to end, with a tiny random model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dupmae.cli import entry as cli
from dupmae.corpus import Passage, unread
from dupmae.duplex import DuplexEncoder
from dupmae.index import DuplexIndex


@pytest.fixture(scope="module")
def model(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    from dupmae.config import DuplexConfig
    from dupmae.duplex import DuplexEncoder

    folder = tmp_path_factory.mktemp("duplex") / "model"
    DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(dense_dimension=16, top_k=10)).save(str(folder))
    return str(folder)


@pytest.fixture
def corpus(tmp_path: Path, texts: list[str]) -> Callable[[str, range], str]:
    """Writes some of the texts, with a language each."""

    def write(name: str, numbers: range) -> str:
        lines = [{"_id": f"p{n}", "text": texts[n], "lang": ["en", "de"][n % 2], "year": 2000 + n} for n in numbers]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return str(tmp_path / name)

    return write


@pytest.fixture
def index(tmp_path: Path, model: str, corpus: Callable[[str, range], str]) -> str:
    words = ["index", "build", "--model", model, "--corpus", corpus("c.jsonl", range(8)), "--output"]
    assert cli.main([*words, str(tmp_path / "index"), "--metadata", "lang", "year"]) == 0
    return str(tmp_path / "index")


def hits(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    capsys.readouterr()
    assert cli.main(["search", *words, "--json", "--k", "20"]) == 0
    return [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("named", [[], ["--metadata", "year"]])
def test_what_is_added_keeps_the_metadata_that_the_index_has_unless_others_are_named(
    named: list[str],
    index: str,
    corpus: Callable[[str, range], str],
    texts: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["index", "add", index, "--corpus", corpus("more.jsonl", range(8, 12)), *named]) == 0
    german = {"p1", "p3", "p5", "p7"} | (set() if named else {"p9", "p11"})
    assert set(hits(capsys, index, texts[3], "--where", "lang=de")) == german


def test_an_index_is_built_changed_and_looked_after(
    index: str, corpus: Callable[[str, range], str], texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["index", "add", index, "--corpus", corpus("more.jsonl", range(6, 12)), "--metadata", "lang"]) == 0
    assert "4 new documents, 2 in the place of earlier ones; it holds 12" in capsys.readouterr().out
    assert cli.main(["index", "delete", index, "--ids", "p0", "nobody"]) == 0
    told = capsys.readouterr().out
    assert "1 documents; it holds 11" in told
    assert "Not there: nobody" in told
    assert set(hits(capsys, index, texts[3])) == {f"p{number}" for number in range(1, 12)}
    assert hits(capsys, index, texts[3])[0] == "p3"
    assert cli.main(["index", "info", index, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["passages"], facts["deleted"], facts["segments"], facts["metadata"]) == (11, 3, 2, ["lang", "year"])
    assert cli.main(["index", "compact", index]) == 0
    assert "2 segments became 1" in capsys.readouterr().out
    assert cli.main(["index", "verify", index]) == 0
    assert "Sound:" in capsys.readouterr().out
    assert cli.main(["index", "info", index]) == 0
    assert "passages: 11" in capsys.readouterr().out


def test_a_metadata_field_that_no_passage_has_is_told_of(
    index: str, corpus: Callable[[str, range], str], caplog: pytest.LogCaptureFixture
) -> None:
    words = ["index", "add", index, "--corpus", corpus("more.jsonl", range(8, 10)), "--metadata", "lang", "yaer"]
    assert cli.main(words) == 0
    assert "No passage of the corpus has a value in the field 'yaer'" in caplog.text
    assert "'lang'" not in caplog.text


@pytest.mark.parametrize("name", ["title", "check"])
def test_reserved_metadata_fields_are_refused_before_anything_is_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--corpus", "nowhere.jsonl", "--metadata", name]
    assert cli.main(["index", "build", "--output", str(tmp_path / "index"), *words]) == 2
    assert f"The metadata field '{name}' is called like a field of every passage" in capsys.readouterr().err
    assert cli.main(["index", "add", "nowhere", *words]) == 2
    assert f"The metadata field '{name}' is called like a field of every passage" in capsys.readouterr().err


def test_passages_that_only_line_numbers_tell_apart_are_not_added(
    index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.jsonl").write_text('{"text": "x"}\n', encoding="utf-8")
    assert cli.main(["index", "add", index, "--corpus", str(tmp_path / "more.jsonl")]) == 2
    assert "more.jsonl, line 1: no field '_id' (the id), and each passage must have one" in capsys.readouterr().err


def test_ids_to_delete_may_stand_in_a_file(index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ids.txt").write_text("p1\r\np2\n\n", encoding="utf-8")
    assert cli.main(["index", "delete", index, "--file", str(tmp_path / "ids.txt")]) == 0
    assert "2 documents; it holds 6" in capsys.readouterr().out
    (tmp_path / "ids.txt").write_bytes(b"p3\n\xff\n")
    assert cli.main(["index", "delete", index, "--file", str(tmp_path / "ids.txt")]) == 2
    assert "ids.txt, line 2: byte 1 is not UTF-8" in capsys.readouterr().err


def test_search_takes_filters_and_approximate_settings(
    index: str, texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(hits(capsys, index, texts[3], "--where", "lang=de")) == {"p1", "p3", "p5", "p7"}
    assert set(hits(capsys, index, texts[3], "--where", "lang=de", "year=2001", "year=2002")) == {"p1"}
    assert hits(capsys, index, texts[3], "--terms", "2", "--candidates", "1")[0] == "p3"
    assert cli.main(["search", index, texts[3], "--terms", "0"]) == 2
    assert "at least 1 term" in capsys.readouterr().err


def test_tune_shows_recall_beside_speed_and_proposes(
    index: str, corpus: Callable[[str, range], str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["index", "tune", index, "--queries", corpus("q.jsonl", range(3)), "--k", "3"]
    assert cli.main(words) == 0
    assert "Proposed:" in capsys.readouterr().out
    assert cli.main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["trials"][0] == {
        "settings": None,
        "recall": 1.0,
        **{key: result["trials"][0][key] for key in ("p50_ms", "p95_ms")},
    }
    assert result["proposed"] in result["trials"]
    assert cli.main([*words, "--recall", "95"]) == 2
    assert "at least 0 and at most 1, not 95" in capsys.readouterr().err


def test_verify_names_a_damaged_file_and_fails(index: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(index) / "segment-000001" / "vectors.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 4
    path.write_bytes(content)
    assert cli.main(["index", "verify", index]) == 2
    assert f"{path} does not have the checksum" in capsys.readouterr().err


def test_a_model_that_did_not_build_the_index_is_refused(
    index: str, bert_folder: Path, corpus: Callable[[str, range], str], capsys: pytest.CaptureFixture[str]
) -> None:
    more = corpus("more.jsonl", range(8, 10))
    assert cli.main(["index", "add", index, "--corpus", more, "--model", str(bert_folder)]) == 2
    assert "is not the one that built the index" in capsys.readouterr().err


def documents(folder: Path, **parts: list[str]) -> str:
    """Writes documents of several texts each."""
    lines = [{"_id": name, "title": "T", "text": "\n\n".join(texts)} for name, texts in parts.items()]
    (folder / "long.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(folder / "long.jsonl")


def test_long_documents_are_cut_found_by_their_chunks_and_replaced_whole(
    model: str, texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long, index = documents(tmp_path, a=texts[:9], b=texts[9:10]), str(tmp_path / "long")
    words = ["index", "build", "--model", model, "--corpus", long, "--output", index]
    assert cli.main([*words, "--chunk_tokens", "20", "--chunk_overlap", "0"]) == 0
    opened = DuplexIndex.open(Path(index))
    assert opened.manifest.chunks == {"tokens": 20, "overlap": 0}
    assert (opened.info()["chunk_tokens"], opened.info()["chunk_overlap"]) == (20, 0)
    whole = "\n\n".join(texts[:9])
    for passage in opened.get(["a"]):
        assert passage.chunk is not None
        assert passage.text == whole[passage.chunk.start : passage.chunk.end]
    before = len(opened)
    assert before > 5
    capsys.readouterr()
    assert cli.main(["search", index, texts[7], "--json", "--k", "9"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {hit["document"] for hit in found} == {"a", "b"}
    hit = next(hit for hit in found if hit["document"] == "a")
    assert hit["id"].startswith("a::")
    assert all(hit["start"] <= start < end <= hit["end"] for start, end in hit["highlights"])
    documents(tmp_path, a=texts[:4], b=texts[9:10])
    assert cli.main(["index", "add", index, "--corpus", long]) == 0
    opened.refresh()
    assert {passage.document for passage in opened} == {"a", "b"}
    shorter = [passage.id for passage in opened.get(["a"])]
    assert shorter == [f"a::{number}" for number in range(1, len(shorter) + 1)]
    assert len(opened) < before
    assert cli.main(["index", "add", index, "--corpus", long, "--chunk_tokens", "0"]) == 0
    opened.refresh()
    assert [passage.id for passage in opened] == ["a", "b"]


def test_texts_that_are_left_whole_and_long_queries_are_said_once_to_be_cut(
    model: str, texts: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "silence", lambda: None)
    unread.warn_once.cache_clear()
    long, index = documents(tmp_path, a=texts[:9], b=texts[9:10]), str(tmp_path / "whole")
    words = ["index", "build", "--model", model, "--corpus", long, "--output", index, "--chunk_tokens"]
    assert cli.main([*words, "0"]) == 0
    assert [record.getMessage()[:60] for record in caplog.records if "reads" in record.getMessage()] == [
        "1 of 2 passages have more than the 62 tokens that the model "
    ]
    assert DuplexIndex.open(Path(index)).manifest.chunks is None
    caplog.clear()
    assert cli.main(["search", index, " ".join(texts[:9])]) == 0
    assert "1 of 1 queries have more than the 62 tokens" in caplog.text
    assert "counts by its whole words alone." in caplog.text
    caplog.clear()
    assert cli.main(["search", index, texts[0][:20]]) == 0
    assert "queries" not in caplog.text


def test_chunks_are_never_longer_than_the_model_reads_and_too_long_ones_are_refused_in_a_sentence(
    model: str, texts: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, whole = DuplexEncoder(model), Passage("a", "T", " ".join(texts[:9]))
    found = list(encoder.chunks([whole], 500, 0))
    assert "chunk_tokens is 500, and the model reads 62 of a document: chunks are that long." in caplog.text
    lengths = [len(encoder.tokenizer(one.full_text)["input_ids"]) for one in found]
    assert 40 < max(lengths) <= 64
    out = tmp_path / "never"
    words = ["index", "build", "--model", model, "--corpus", documents(tmp_path, a=texts[:9]), "--output", str(out)]
    assert cli.main([*words, "--chunk_tokens", "20", "--chunk_overlap", "11"]) == 2
    assert "chunk_overlap is 11: a chunk of 20 tokens repeats at most half of them, 10." in capsys.readouterr().err
    assert not out.exists()


def test_encoded_chunks_say_where_they_stand(model: str, texts: list[str], tmp_path: Path) -> None:
    words = ["encode", "--model", model, "--input", documents(tmp_path, a=texts[:9], b=[texts[9][:25]])]
    assert cli.main([*words, "--output", str(tmp_path / "cut"), "--chunk_tokens", "20"]) == 0
    ids, places = (json.loads((tmp_path / "cut" / name).read_text()) for name in ("ids.json", "chunks.json"))
    assert ids[0] == "a::1"
    assert places[0]["document"] == "a"
    assert places[0]["start"] == 0
    assert [ids[-1], places[-1]] == ["b", None]
    assert cli.main([*words, "--output", str(tmp_path / "whole"), "--chunk_tokens", "0"]) == 0
    assert json.loads((tmp_path / "whole" / "ids.json").read_text()) == ["a", "b"]
    assert not (tmp_path / "whole" / "chunks.json").exists()
