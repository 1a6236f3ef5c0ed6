"""Building an index: what is encoded and when, going on after a kill, what is refused."""

from __future__ import annotations

from dataclasses import replace
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
    passages,
    random_rows,
    ranking,
    rows,
)

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex
from dupmae.index.writing import changes
from dupmae.index.writing.build import build_segments
from dupmae.index.writing.encoding import passages_within
from dupmae.models import Model


def test_a_killed_build_goes_on_without_encoding_finished_segments_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "killed", fail_after=20)
    with pytest.raises(DupmaeError, match=r"unfinished \(20 passages so far\)"):
        DuplexIndex.open(tmp_path / "killed")
    resumed, encoder, _ = build(tmp_path / "killed")
    assert sorted(int(text.split()[0]) for text in encoder.embedded) == [20, 21, 22]
    whole, _, _ = build(tmp_path / "whole")
    assert resumed.manifest == whole.manifest  # file checksums included


def test_passages_are_counted_once_the_folder_is_known_to_be_the_right_one(tmp_path: Path) -> None:
    corpus, counted = passages(23), list[int]()
    vectors = random_rows(np.random.default_rng(0), 23)

    def counting() -> int:
        counted.append(1)
        return 23

    def built(folder: Path, model: str) -> None:
        options: dict[str, Any] = {"model": Model(model), "batch_size": 4, "segment_passages": 10}
        build_segments(folder, FakeEncoder(*vectors), corpus, **options, count=counting)

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("a", encoding="utf-8")
    with pytest.raises(DupmaeError):
        built(tmp_path / "other", "m")
    assert counted == []
    built(tmp_path / "i", "m")
    assert counted == [1]
    with pytest.raises(DupmaeError):
        built(tmp_path / "i", "another")
    built(tmp_path / "i", "m")  # finished: its manifest tells the number
    assert counted == [1]


def test_a_kill_in_the_middle_of_a_segment_leaves_nothing_that_disturbs_the_next_build(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    with pytest.raises(KeyboardInterrupt):
        build(folder, fail_after=10)
    (folder / "segment-000002").mkdir()  # written, but not yet committed
    (folder / "segment-000002" / "vectors.safetensors").write_bytes(b"half")
    (folder / ".segment-000003.99.tmp").mkdir()
    (folder / ".manifest.json.99.tmp").write_text("{", encoding="utf-8")
    index, encoder, _ = build(folder)
    index.verify()
    assert len(encoder.embedded) == 13
    assert sorted(path.name for path in folder.iterdir()) == [
        "lock",
        "manifest.json",
        "segment-000001",
        "segment-000002",
        "segment-000003",
    ]


def test_building_a_finished_index_again_encodes_nothing(tmp_path: Path) -> None:
    build(tmp_path / "i")
    index, encoder, _ = build(tmp_path / "i")
    assert (len(index), encoder.embedded) == (23, [])


def test_passages_are_encoded_longest_first_so_that_batches_are_even(tmp_path: Path) -> None:
    _, encoder, _ = build(tmp_path / "i", count=40, segment=40)
    lengths = [len(text) for text in encoder.embedded]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


@pytest.mark.parametrize("change", ["text", "fewer", "more", "order"])
def test_other_passages_are_refused_and_the_index_stays(tmp_path: Path, change: str) -> None:
    index, encoder, corpus = build(tmp_path / "i", count=20)
    before = (tmp_path / "i" / "manifest.json").read_bytes()
    corpus = {
        "text": [replace(corpus[0], text="0 other"), *corpus[1:]],
        "fewer": corpus[:10],
        "more": [*corpus, Passage("new", "", "1")],
        "order": corpus[::-1],
    }[change]
    with pytest.raises(DupmaeError, match="index of other passages"):
        DuplexIndex.build(tmp_path / "i", encoder, corpus, model="m", batch_size=2)
    assert (tmp_path / "i" / "manifest.json").read_bytes() == before
    index.verify()


def test_a_batch_of_no_passages_is_refused_and_leaves_no_index(tmp_path: Path) -> None:
    encoder = FakeEncoder(*random_rows(np.random.default_rng(0), 5))
    for size in (0, -1):
        with pytest.raises(DupmaeError, match=f"at least one passage, not {size}"):
            DuplexIndex.build(tmp_path / "i", encoder, passages(5), model="m", batch_size=size)
    assert encoder.embedded == []
    assert not (tmp_path / "i" / "manifest.json").exists()


def test_another_models_index_is_refused(tmp_path: Path) -> None:
    _, encoder, corpus = build(tmp_path / "i")
    with pytest.raises(DupmaeError, match="another model"):
        DuplexIndex.build(tmp_path / "i", encoder, corpus, model="other")


def test_an_empty_corpus_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(0), 1)
    with pytest.raises(DupmaeError, match="the corpus is empty"):
        DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), [], model="m")
    assert not (tmp_path / "i").exists()


def test_an_id_that_comes_twice_is_refused_across_segments(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(0), 3)
    corpus = [Passage("a", "", "0"), Passage("b", "", "1"), Passage("a", "", "2")]
    with pytest.raises(DupmaeError, match="Two passages have the id 'a'"):
        DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), corpus, model="m", segment_passages=2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_an_embedding_that_cannot_be_stored_is_refused_by_the_passages_id(tmp_path: Path, value: float) -> None:
    cls, sparse = random_rows(np.random.default_rng(0), 4)
    cls[2, 1] = value
    with pytest.raises(DupmaeError, match="passage 'd7' holds numbers"):
        DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), passages(4), model="m")


def test_a_killed_build_encodes_no_passage_twice(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "i", count=80, segment=60, fail_after=40)
    index, encoder, _ = build(tmp_path / "i", count=80, segment=60)
    assert len(encoder.embedded) == 80 - 48  # units of eight batches of two; the third was finished
    whole, _, _ = build(tmp_path / "whole", count=80, segment=60)
    assert index.manifest == whole.manifest


def test_what_another_model_embedded_before_a_kill_is_not_taken_over(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(7), 80)
    corpus = [Passage(f"p{n:02}", "", f"{n}") for n in range(80)]
    with pytest.raises(KeyboardInterrupt):
        DuplexIndex.build(tmp_path / "i", FakeEncoder(-cls, sparse, 40), corpus, model="wrong", batch_size=2)
    assert list((tmp_path / "i" / "spool").rglob("*.safetensors"))
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), corpus, model="right", batch_size=2)
    assert ranking(index) == expected(index, rows(*range(80)))
    assert not (index.folder / "spool").exists()


def test_a_finished_index_is_recognised_while_another_process_holds_its_lock(index: DuplexIndex) -> None:
    corpus = [Passage(f"p{n:02}", "", f"{n}", {"parity": "even" if n % 2 == 0 else "odd"}) for n in range(60)]
    encoder = FakeEncoder(np.ones((1, D)), np.ones((1, V)), fail_after=0)
    with changes.sole_writer(index.folder):
        found = DuplexIndex.build(index.folder, encoder, corpus, model="m", segment_passages=25)
        assert len(found) == 60
        for other in (corpus[:-1], corpus[:50], [*corpus, Passage("p60", "", "60")], corpus[::-1]):
            with pytest.raises(DupmaeError, match="index of other passages"):
                DuplexIndex.build(index.folder, encoder, other, model="m", segment_passages=25)


def test_building_again_does_not_take_back_what_was_changed(tmp_path: Path) -> None:
    index, _, _ = build(tmp_path / "i")
    index.delete(["d1"])
    with pytest.raises(DupmaeError, match="index of other passages"):
        build(tmp_path / "i")


def test_more_memory_makes_larger_segments_up_to_the_largest() -> None:
    assert 55 == passages_within(1) < passages_within(100) < passages_within(500) <= 500_000_000 // 18_000
    assert passages_within(10**30) == 65_536
    for refused in (0, -1, -(10**30)):
        with pytest.raises(DupmaeError, match=r"at least 1 megabyte"):
            passages_within(refused)


def test_files_of_others_are_never_swept_away(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    folder.mkdir()
    (folder / "segment-plan.txt").write_text("mine", encoding="utf-8")
    for process in ((0, 1), (0, 2)):
        with pytest.raises(DupmaeError, match="holds files that are no index"):
            build_segments(
                folder, FakeEncoder(*random_rows(np.random.default_rng(7), 5)), [Passage("a", "", "0")],
                model=Model("m"), batch_size=4, segment_passages=10, process=process,
            )  # fmt: skip
    assert (folder / "segment-plan.txt").read_text(encoding="utf-8") == "mine"


def test_the_model_is_what_the_encoder_was_loaded_from_unless_another_is_named(tmp_path: Path) -> None:
    encoder: Any = FakeEncoder(*random_rows(np.random.default_rng(0), 3))
    with pytest.raises(DupmaeError, match="does not know where its model is"):
        DuplexIndex.build(tmp_path / "none", encoder, passages(3))
    encoder.path = "loaded/from"
    assert DuplexIndex.build(tmp_path / "own", encoder, passages(3)).manifest.model == "loaded/from"
    assert DuplexIndex.build(tmp_path / "named", encoder, passages(3), model="m").manifest.model == "m"
    encoder.path = None
    with pytest.raises(DupmaeError, match="does not know where its model is"):
        DuplexIndex.build(tmp_path / "none", encoder, passages(3))
    assert not (tmp_path / "none").exists()
