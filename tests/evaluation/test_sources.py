"""Where benchmarks come from, with stand-ins for the two libraries."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.evaluation.benchmarks import DEFINITIONS
from dupmae.evaluation.sources import differences, fetch, find_benchmark, read_parts


def write_folder(folder: Path, *, title: str = "T", split: str = "test") -> Path:
    """Two passages and a judged query in BEIR layout."""
    (folder / "qrels").mkdir(parents=True)
    records = [{"_id": f"p{n}", "title": title, "text": f"text {n}"} for n in (1, 2)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "text"}) + "\n", encoding="utf-8")
    (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tp1\t1\n", encoding="utf-8")
    return folder


class FakeSet:
    """What `ir_datasets.load` gives: documents, queries (one without judgements) and judgements."""

    def __init__(self, name: str) -> None:
        self.name = name

    def docs_iter(self) -> Iterator[Any]:
        yield SimpleNamespace(doc_id="D1", title="Title", text=f"text of {self.name}")
        yield SimpleNamespace(doc_id="D2", url="http://", title="Title", body="body")

    def docs_count(self) -> int:
        return 2

    def queries_iter(self) -> Iterator[Any]:
        yield SimpleNamespace(query_id=f"q-{self.name}", text="first")
        yield SimpleNamespace(query_id="unjudged", text="second")

    def qrels_iter(self) -> Iterator[Any]:
        yield SimpleNamespace(query_id=f"q-{self.name}", doc_id="D1", relevance=2)
        yield SimpleNamespace(query_id=f"q-{self.name}", doc_id="D2", relevance=0)


@pytest.fixture
def ir_datasets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    fake = ModuleType("ir_datasets")
    fake.load = FakeSet  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ir_datasets", fake)
    return fake


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str | None], dict[str, list[dict[str, Any]]]]:
    """What `datasets.load_dataset` finds, by repository and subset."""
    import datasets

    found: dict[tuple[str, str | None], dict[str, list[dict[str, Any]]]] = {}

    def load_dataset(name: str, subset: str | None = None) -> dict[str, list[dict[str, Any]]]:
        if (name, subset) not in found:
            raise ConnectionError("no network")
        return found[name, subset]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return found


def test_a_folder_is_taken_as_it_is_with_the_rules_of_its_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "quora")
    definition, found = find_benchmark(str(folder), None, tmp_path / "elsewhere")
    assert (definition.name, definition.drop_self, found) == ("quora", True, folder)
    (benchmark,) = read_parts(definition, found)
    assert benchmark.corpus["p1"] == Passage("p1", "", "text 1")  # Quora has no titles


def test_titles_stay_where_the_rules_do_not_say_otherwise(tmp_path: Path) -> None:
    definition, folder = find_benchmark(str(write_folder(tmp_path / "nfcorpus")), None, tmp_path)
    assert read_parts(definition, folder)[0].corpus["p1"].title == "T"


def test_a_known_name_is_found_in_the_data_folder_by_folder_and_split(tmp_path: Path) -> None:
    write_folder(tmp_path / "msmarco-passage", split="dl19")
    definition, folder = find_benchmark("msmarco-passage-dl19", None, tmp_path)
    assert (definition.split, folder) == ("dl19", tmp_path / "msmarco-passage")
    assert read_parts(definition, folder)[0].queries == {"q1": "text"}


def test_another_edition_than_the_published_one_is_told(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scifact")
    definition, _ = find_benchmark(str(folder), None, tmp_path)
    assert differences(definition, read_parts(definition, folder)) == (
        "Not the published SciFact: 2 passages instead of 5,183 and 1 queries instead of 300."
    )
    definition, folder = find_benchmark(str(write_folder(tmp_path / "mine")), None, tmp_path)
    assert differences(definition, read_parts(definition, folder)) == ""


def test_parts_are_read_one_by_one_and_a_missing_one_is_named(tmp_path: Path) -> None:
    forums = DEFINITIONS["cqadupstack"].parts
    for forum in forums:
        write_folder(tmp_path / "cqadupstack" / forum)
    definition, folder = find_benchmark(str(tmp_path / "cqadupstack"), None, tmp_path)
    assert [part.name for part in read_parts(definition, folder)] == list(forums)
    (folder / "gis").rename(tmp_path / "gis")
    with pytest.raises(DupmaeError, match="lacks the parts gis of cqadupstack"):
        read_parts(definition, folder)


def test_a_set_fetched_through_ir_datasets_is_a_beir_folder_with_checksums(tmp_path: Path, ir_datasets: Any) -> None:
    definition, folder = find_benchmark("nfcorpus", None, tmp_path)
    (benchmark,) = read_parts(definition, folder)
    name = "beir/nfcorpus/test"
    assert benchmark.corpus == {
        "D1": Passage("D1", "Title", f"text of {name}"),
        "D2": Passage("D2", "Title", "body"),
    }
    assert benchmark.queries == {f"q-{name}": "first"}
    assert benchmark.qrels == {f"q-{name}": {"D1": 2, "D2": 0}}
    record = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    assert (record["source"], record["passages"]) == (f"ir_datasets: {name}", 2)
    assert set(record["sha256"]) == {"corpus.jsonl", "queries.jsonl", "qrels/test.tsv"}


@pytest.mark.parametrize("content", ["", "[]", '{"sha256": 3}', "[" * 100_000])
def test_a_record_of_a_fetched_set_that_is_damaged_is_told(content: str, tmp_path: Path, ir_datasets: Any) -> None:
    definition, folder = find_benchmark("nfcorpus", None, tmp_path)
    (folder / "source.json").write_text(content, encoding="utf-8")
    with pytest.raises(DupmaeError, match=r"source\.json is damaged: delete .*nfcorpus to fetch it again"):
        read_parts(definition, folder)


def test_a_fetched_file_that_has_changed_is_refused(tmp_path: Path, ir_datasets: Any) -> None:
    definition, folder = find_benchmark("nfcorpus", None, tmp_path)
    with (folder / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"_id": "new", "text": "x"}\n')
    with pytest.raises(DupmaeError, match=r"queries\.jsonl is not what was fetched: delete .*nfcorpus to fetch"):
        read_parts(definition, folder)


def test_judgements_over_one_collection_are_fetched_together(tmp_path: Path, ir_datasets: Any) -> None:
    find_benchmark("msmarco-document-dl20", None, tmp_path)
    splits = sorted(path.name for path in (tmp_path / "msmarco-document" / "qrels").iterdir())
    assert splits == ["dev.tsv", "dl19.tsv", "dl20.tsv", "train.tsv"]
    definition, folder = find_benchmark("msmarco-document-dev", None, tmp_path)
    assert list(read_parts(definition, folder)[0].queries) == ["q-msmarco-document/dev"]


def test_a_fetch_that_broke_off_goes_on_with_the_missing_parts(tmp_path: Path, ir_datasets: Any) -> None:
    definition = DEFINITIONS["cqadupstack"]
    folder = tmp_path / "cqadupstack"
    fetch(definition, folder)
    (folder / "tex" / "mark").write_text("", encoding="utf-8")
    (folder / "unix").rename(tmp_path / "unix")
    assert find_benchmark("cqadupstack", None, tmp_path)[1] == folder
    assert (folder / "tex" / "mark").exists()
    assert (folder / "unix" / "corpus.jsonl").exists()


def test_where_ir_datasets_fails_the_hub_is_asked(tmp_path: Path, ir_datasets: Any, hub: Any) -> None:
    def load(name: str) -> None:
        raise RuntimeError("moved")

    ir_datasets.load = load
    hub["BeIR/scifact", "corpus"] = {"corpus": [{"_id": "7", "title": None, "text": "text"}]}
    hub["BeIR/scifact", "queries"] = {"queries": [{"_id": "q", "text": "query"}, {"_id": "x", "text": "unjudged"}]}
    hub["BeIR/scifact-qrels", None] = {"test": [{"query-id": "q", "corpus-id": 7, "score": 1}], "train": []}
    definition, folder = find_benchmark("scifact", None, tmp_path)
    (benchmark,) = read_parts(definition, folder)
    assert benchmark.corpus == {"7": Passage("7", "", "text")}
    assert (benchmark.queries, benchmark.qrels) == ({"q": "query"}, {"q": {"7": 1}})
    assert json.loads((folder / "source.json").read_text(encoding="utf-8"))["source"] == "the hub: BeIR/scifact"


def test_nanobeir_takes_its_split_of_each_subset(tmp_path: Path, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    name = "sentence-transformers/NanoBEIR-en"
    hub[name, "corpus"] = {"NanoNQ": [], "NanoSciFact": [{"_id": "p", "text": "text"}]}
    hub[name, "queries"] = {"NanoNQ": [], "NanoSciFact": [{"_id": "q", "text": "query"}]}
    hub[name, "qrels"] = {"NanoNQ": [], "NanoSciFact": [{"query-id": "q", "corpus-id": "p"}]}
    definition, folder = find_benchmark("nano-scifact", None, tmp_path)
    assert read_parts(definition, folder)[0].qrels == {"q": {"p": 1}}


def test_what_cannot_be_had_is_named_with_the_reason_of_each_source(
    tmp_path: Path, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(
        DupmaeError,
        match=r"fiqa cannot be had: not from ir_datasets \(not installed.*, nor from the hub \(no network\)",
    ):
        find_benchmark("fiqa", None, tmp_path)
    with pytest.raises(DupmaeError, match="robust04 cannot be fetched: its documents are distributed under a licence"):
        find_benchmark("robust04", None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_taken_for_a_source_that_fails(tmp_path: Path, ir_datasets: Any) -> None:
    def load(name: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    ir_datasets.load = load
    with pytest.raises(OSError, match="No space left"):
        find_benchmark("fiqa", None, tmp_path)
