"""Bringing an index in step with a corpus: what is compared, what is encoded, and what a kill leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_index import FakeEncoder, expected, ranking, rows

from dupmae.corpus import Chunk, Document, Heading, Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex
from dupmae.index.writing.sync import is_as_stored


def corpus(*numbers: int, **others: int) -> list[Passage]:
    named = {f"p{number:02}": number for number in numbers} | others
    return [Passage(name, "", str(row), {"parity": "even" if row % 2 == 0 else "odd"}) for name, row in named.items()]


def encoder_of(index: DuplexIndex) -> Any:
    return index.encoder


def test_only_what_is_new_or_changed_is_encoded_and_what_is_gone_is_deleted(index: DuplexIndex) -> None:
    encoder_of(index).embedded.clear()
    synced = index.sync(lambda: corpus(*range(1, 60), p03=70, p80=71))
    difference = synced.difference
    assert (difference.new, difference.changed, difference.gone, difference.same) == (["p80"], ["p03"], ["p00"], 58)
    assert sorted(encoder_of(index).embedded) == ["70", "71"]
    assert synced.encoded == 2
    assert ranking(index) == expected(index, rows(*range(1, 60)) | {"p03": 70, "p80": 71})
    assert index.sync(lambda: corpus(*range(1, 60), p03=70, p80=71)).difference.same == 60


def test_a_renamed_text_is_not_encoded_again_not_even_after_it_was_deleted(index: DuplexIndex) -> None:
    encoder_of(index).embedded.clear()
    assert index.sync(lambda: corpus(*range(2, 60), a=0, b=1)).encoded == 0
    assert ranking(index) == expected(index, rows(*range(2, 60)) | {"a": 0, "b": 1})
    index.delete(["a"])
    assert index.sync(lambda: corpus(*range(2, 60), b=1, c=0)).encoded == 0
    assert encoder_of(index).embedded == []
    assert ranking(index) == expected(index, rows(*range(2, 60)) | {"b": 1, "c": 0})
    index.verify()


def test_other_metadata_is_a_change_that_encodes_nothing(index: DuplexIndex) -> None:
    given = corpus(*range(60))
    given[7] = replace(given[7], metadata={"year": 2020})
    synced = index.sync(lambda: given)
    assert (synced.difference.changed, synced.encoded) == (["p07"], 0)
    assert index.get(["p07"])[0].metadata == {"year": 2020}
    assert index.sync(lambda: given).difference.same == 60


def test_a_dry_run_changes_nothing(index: DuplexIndex) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in index.folder.iterdir()}
    assert index.sync(lambda: corpus(*range(30)), dry_run=True).difference.gone == [f"p{n}" for n in range(30, 60)]
    assert {path.name: path.stat().st_mtime_ns for path in index.folder.iterdir()} == before
    assert len(index) == 60


def test_what_could_not_be_read_is_kept(index: DuplexIndex) -> None:
    kept = {"p01", "p40"}
    synced = index.sync(lambda: corpus(*range(2, 30)), kept=lambda passage: passage.id in kept)
    assert len(synced.difference.gone) == 30
    assert {passage.id for passage in index} == {*kept, *(f"p{number:02}" for number in range(2, 30))}


def test_another_corpus_is_refused_before_anything_is_done(index: DuplexIndex) -> None:
    with pytest.raises(DupmaeError, match="None of the 60 documents of the index is in the corpus"):
        index.sync(lambda: corpus(a=1, b=2))
    assert len(index) == 60


@pytest.mark.parametrize("done", [0, 2, 4, 6])
def test_a_sync_that_was_killed_goes_on(index: DuplexIndex, done: int) -> None:
    whole, wanted = encoder_of(index), corpus(*range(10, 70))
    index.encoder = FakeEncoder(whole.cls, whole.sparse, fail_after=done)
    with pytest.raises(KeyboardInterrupt):
        index.sync(lambda: wanted, batch_size=1)
    opened = DuplexIndex.open(index.folder)
    opened.encoder = whole
    assert {passage.id for passage in opened} >= {f"p{number:02}" for number in range(10, 60)}
    opened.sync(lambda: wanted)
    assert ranking(opened) == expected(opened, rows(*range(10, 70)))


TEXT = "Top\nOne sentence. Two sentences.\nSub\nThree sentences."
DOCUMENT = Document("d", "T", TEXT, {"lang": "en"}, headings=(Heading(0, 1, "Top"), Heading(33, 2, "Sub")))
STORED = [
    Passage(f"d::{number}", "T", TEXT[start:end], {"lang": "en"}, Chunk("d", headings, start, end))
    for number, (start, end, headings) in enumerate([(0, 17, ("Top",)), (4, 32, ("Top",)), (33, 53, ("Top", "Sub"))], 1)
]


def test_a_document_is_as_its_chunks_say() -> None:
    assert is_as_stored(DOCUMENT, STORED)
    assert is_as_stored(replace(DOCUMENT, text=f"{TEXT}\n"), STORED)


@pytest.mark.parametrize(
    "change",
    [
        {"title": "S"},
        {"text": TEXT.replace("Two", "Ten")},
        {"text": f"{TEXT} Four."},
        {"text": TEXT[:-1]},
        {"metadata": {"lang": "de"}},
        {"metadata": {}},
        {"headings": (Heading(0, 1, "Top"), Heading(33, 1, "Sub"))},
    ],
)
def test_every_change_of_a_document_is_seen(change: dict[str, Any]) -> None:
    assert not is_as_stored(replace(DOCUMENT, **change), STORED)


def test_text_between_chunks_that_none_of_them_holds_is_a_change() -> None:
    assert not is_as_stored(DOCUMENT, [STORED[0], STORED[2]])


def test_folders_are_brought_in_step_file_by_file(tmp_path: Path, index: DuplexIndex) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text(str(number))
    from dupmae.corpus import read_passages

    own = DuplexIndex.build(tmp_path / "own", index.encoder, read_passages(folder), model="m")
    (folder / "0.txt").rename(folder / "moved.txt")
    (folder / "1.txt").write_text("9")
    synced = own.sync(lambda: read_passages(folder))
    found = (synced.difference.new, synced.difference.changed, synced.difference.gone, synced.encoded)
    assert found == (["moved.txt"], ["1.txt"], ["0.txt"], 1)
    assert sorted((passage.id, passage.text) for passage in own) == [
        ("1.txt", "9"),
        ("2.txt", "2"),
        ("3.txt", "3"),
        ("moved.txt", "0"),
    ]
