"""Changing an index: adding, replacing, deleting, compacting; locks and the states that readers see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import (
    D,
    FakeEncoder,
    V,
    build,
    expected,
    ranking,
    rows,
)

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex, duplex_index
from dupmae.index.writing import changes


def test_added_passages_are_found_and_one_with_a_known_id_takes_its_place(index: DuplexIndex) -> None:
    assert index.add([Passage("p70", "", "70"), Passage("p03", "", "71")]) == 2
    state = rows(*range(60), 70) | {"p03": 71}
    assert len(index) == 61
    assert ranking(index) == expected(index, state)
    opened = DuplexIndex.open(index.folder)
    opened.encoder = index.encoder
    assert ranking(opened) == expected(index, state)


def test_a_passage_may_be_replaced_again_and_again(index: DuplexIndex) -> None:
    for row in (61, 62, 63):
        index.add([Passage("p03", "", str(row))])
    assert len(index) == 60
    assert ranking(index) == expected(index, rows(*range(60)) | {"p03": 63})


def test_deleted_passages_are_found_no_more_and_unknown_ids_are_told(index: DuplexIndex) -> None:
    assert index.delete(["p05", "nobody", "p59", "p05"]) == ["nobody"]
    assert ranking(index) == expected(index, rows(*(n for n in range(60) if n not in (5, 59))))
    assert index.delete(["p05"]) == ["p05"]
    index.add([Passage("p05", "", "5")])
    assert ranking(index) == expected(index, rows(*(n for n in range(60) if n != 59)))


def test_compacting_gives_space_back_and_changes_no_score(index: DuplexIndex) -> None:
    index.delete([f"p{number:02}" for number in range(0, 40)])
    index.add([Passage("p70", "", "70")])
    before, facts = ranking(index), index.info()
    assert (facts["passages"], facts["deleted"], facts["segments"]) == (21, 40, 4)
    index.compact()
    after = index.info()
    assert (after["passages"], after["deleted"], after["segments"]) == (21, 0, 1)
    assert after["bytes_of_texts"] < facts["bytes_of_texts"]
    assert ranking(index) == before
    index.verify()
    left = {path.name for path in index.folder.iterdir()}
    assert left == {"manifest.json", "lock", index.manifest.segments[0].name}


def test_full_segments_are_left_alone_by_compaction(index: DuplexIndex) -> None:
    full = [entry.name for entry in index.manifest.segments[:2]]
    index.add([Passage("p70", "", "70")])
    index.compact()
    assert [entry.name for entry in index.manifest.segments[:2]] == full
    assert len(index.manifest.segments) == 3
    names = [entry.name for entry in index.manifest.segments]
    index.compact()  # nothing to do
    assert [entry.name for entry in index.manifest.segments] == names


def test_an_index_may_lose_all_its_passages_and_get_new_ones(index: DuplexIndex) -> None:
    index.delete([f"p{number:02}" for number in range(60)])
    assert ranking(index) == ([[]] * 6, [[]] * 6)
    index.compact()
    assert ranking(index) == ([[]] * 6, [[]] * 6)
    assert (len(index), len(DuplexIndex.open(index.folder))) == (0, 0)
    index.add([Passage("p01", "", "1")])
    assert ranking(index) == expected(index, rows(1))


def test_a_reader_keeps_its_state_while_the_index_changes_under_it(index: DuplexIndex) -> None:
    reader = DuplexIndex.open(index.folder)
    reader.encoder = index.encoder
    before = ranking(index)
    index.delete(["p00", "p01"])
    index.add([Passage("p70", "", "70")])
    index.compact()
    assert ranking(reader) == before
    assert len(reader.search(["3"], 60)[0]) == 60  # texts of segments that are gone from the folder
    reader.verify()
    reader.refresh()
    assert ranking(reader) == ranking(index) != before


def test_a_search_keeps_to_the_state_it_began_with_when_another_thread_moves_on(
    index: DuplexIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = duplex_index.top_k
    before = ranking(index)

    def overtaken(*arguments: Any, **options: Any) -> Any:
        found = search(*arguments, **options)
        index.delete([f"p{number:02}" for number in range(30)])
        index.compact()
        return found

    monkeypatch.setattr(duplex_index, "top_k", overtaken)
    assert ranking(index) == before
    monkeypatch.undo()
    assert ranking(index) == expected(index, rows(*range(30, 60)))


def test_a_reader_that_opens_between_manifest_and_files_gets_the_newer_state(
    index: DuplexIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dupmae.index.scoring import snapshot

    read, stale = snapshot.Manifest.read, [snapshot.Manifest.read(index.folder)]
    index.delete(["p00"])
    index.compact()
    monkeypatch.setattr(snapshot.Manifest, "read", lambda folder: stale.pop() if stale else read(folder))
    assert len(DuplexIndex.open(index.folder)) == 59


def test_a_second_writer_is_refused(index: DuplexIndex) -> None:
    with changes.sole_writer(index.folder):
        for change in (
            lambda: index.delete(["p00"]),
            lambda: index.add([Passage("new", "", "1")]),
            index.compact,
        ):
            with pytest.raises(DupmaeError, match="Another process is changing the index"):
                change()
    assert index.delete(["p00"]) == []
    with pytest.raises(KeyboardInterrupt):
        build(index.folder.with_name("unfinished"), fail_after=20)
    with (
        changes.sole_writer(index.folder.with_name("unfinished")),
        pytest.raises(DupmaeError, match="Another process is changing the index"),
    ):
        build(index.folder.with_name("unfinished"))


def test_an_id_twice_in_one_call_is_refused_and_nothing_is_added(index: DuplexIndex) -> None:
    with pytest.raises(DupmaeError, match="Two passages have the id 'new'"):
        index.add([Passage("new", "", "1"), Passage("new", "", "2")])
    far_apart = [Passage(f"n{number}", "", "1") for number in range(30)] + [Passage("n0", "", "2")]
    with pytest.raises(DupmaeError, match="Two passages have the id 'n0'"):
        index.add(far_apart)  # the first window of 25 is committed by then
    with pytest.raises(DupmaeError, match="no passages to add"):
        index.add([])


def test_an_interrupted_add_goes_on_and_encodes_nothing_twice(index: DuplexIndex) -> None:
    more = [Passage(f"q{number}", "", str(60 + number)) for number in range(40)]
    encoder: Any = index.encoder
    encoder.embedded, encoder.fail_after = [], 30
    with pytest.raises(KeyboardInterrupt):
        index.add(more, batch_size=1)
    done, encoder.fail_after = list(encoder.embedded), None
    index.add(more, batch_size=1)
    assert sorted(encoder.embedded) == sorted(passage.text for passage in more)
    assert len(done) == 33  # a window of 25, and a unit of eight batches of the next
    assert ranking(index) == expected(index, rows(*range(60)) | {f"q{n}": 60 + n for n in range(40)})
    assert not (index.folder / "spool").exists()


def test_embeddings_of_another_model_are_not_added(index: DuplexIndex) -> None:
    index.encoder = FakeEncoder(np.ones((71, D + 1)), np.ones((71, V)))
    with pytest.raises(DupmaeError, match="do not fit the index"):
        index.add([Passage("new", "", "70")])


def test_an_unfinished_index_is_not_changed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "i", fail_after=20)
    for change in (changes.compact_segments, lambda folder: changes.delete_documents(folder, ["d1"])):
        with pytest.raises(DupmaeError, match=r"unfinished \(20 passages so far\)"):
            change(tmp_path / "i")
