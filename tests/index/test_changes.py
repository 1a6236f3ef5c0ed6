"""Changing an index: adding, replacing, deleting, compacting; locks, snapshots, kills, damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import D, FakeEncoder, V, build, random_rows, twin

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex, duplex_index
from dupmae.index.storage import arrays
from dupmae.index.writing import changes
from dupmae.index.writing.build import build_segments
from dupmae.index.writing.encoding import passages_within
from dupmae.index.writing.joining import process_of

ROOT = Path(__file__).parents[2]
QUERIES = [str(number) for number in range(6)]


@pytest.fixture
def index(tmp_path: Path) -> DuplexIndex:
    """60 passages in three segments; the text "n ..." of passage pn is embedded as row n of 100."""
    cls, sparse = random_rows(np.random.default_rng(7), 100)
    corpus = [Passage(f"p{n:02}", "", f"{n}", {"parity": "even" if n % 2 == 0 else "odd"}) for n in range(60)]
    return DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), corpus, model="m", segment_passages=25)


def ranking(index: DuplexIndex, k: int = 100, **options: Any) -> tuple[list[list[str]], list[list[float]]]:
    return index.search_embeddings(index.encoder.embed_queries(QUERIES), k, **options)


def expected(index: DuplexIndex, texts: dict[str, int], k: int = 100) -> tuple[list[list[str]], list[list[float]]]:
    """The twin's ranking of passages by id, each embedded as a row."""
    encoder: Any = index.encoder
    documents = np.hstack([encoder.sparse, encoder.cls])
    corpus = [Passage(name, "", "") for name in texts]
    return twin(corpus, documents[list(texts.values())], documents[: len(QUERIES)], k)


def rows(*numbers: int) -> dict[str, int]:
    return {f"p{number:02}": number for number in numbers}


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

    def overtaken(*arguments: Any) -> Any:
        found = search(*arguments)
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


def test_more_files_are_allowed_where_an_index_takes_more_than_a_process_may_have_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = sum(1 for _ in Path("/dev/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 40, hard))
    try:
        index, _, _ = build(tmp_path / "i", count=60, segment=2)  # thirty segments
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > open_now + 40
        monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
        with pytest.raises(DupmaeError, match=r"100 files are open already .* \(dupmae index compact\)"):
            arrays.allow_more_files(index.folder)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_forked_child_of_a_process_that_has_searched_searches_on(index: DuplexIndex) -> None:
    code = (
        "import os, sys\n"
        "from dupmae.index.scoring import threads\n"
        "threads.cores = lambda: 4\n"
        "work = lambda tasks: threads.in_parallel(list, tasks)\n"
        "assert len(work(['a'] * 8)) == 8\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    import signal; signal.alarm(20)\n"
        "    os._exit(len(work(['a'] * 8)) != 8)\n"
        "sys.exit(os.waitpid(child, 0)[1] != 0)\n"
    )
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=False).returncode == 0


def test_embeddings_of_another_model_are_not_added(index: DuplexIndex) -> None:
    index.encoder = FakeEncoder(np.ones((1, D + 1)), np.ones((1, V)))
    with pytest.raises(DupmaeError, match="do not fit the index"):
        index.add([Passage("new", "", "0")])


def test_an_unfinished_index_is_not_changed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "i", fail_after=20)
    for change in (changes.compact_segments, lambda folder: changes.delete_passages(folder, ["d1"])):
        with pytest.raises(DupmaeError, match=r"unfinished \(20 passages so far\)"):
            change(tmp_path / "i")


def test_building_again_does_not_take_back_what_was_changed(tmp_path: Path) -> None:
    index, _, _ = build(tmp_path / "i")
    index.delete(["d1"])
    with pytest.raises(DupmaeError, match="index of other passages"):
        build(tmp_path / "i")


def test_a_filter_limits_what_is_found_before_the_top_k_is_formed(index: DuplexIndex) -> None:
    odd = rows(*range(1, 60, 2))
    assert ranking(index, 4, where={"parity": "odd"}) == expected(index, odd, 4)
    assert ranking(index, 4, where={"parity": ["odd", "even"]}) == ranking(index, 4)
    assert ranking(index, 4, where={"parity": "none"})[0] == [[]] * 6
    index.delete(["p01"])
    assert ranking(index, 4, where={"parity": "odd"}) == expected(index, rows(*range(3, 60, 2)), 4)
    (hits,) = index.search(["2"], 3, where={"parity": "even"})
    assert [hit.metadata for hit in hits] == [{"parity": "even"}] * 3


def test_numbers_and_truth_values_of_a_filter_are_compared_as_they_are_stored(index: DuplexIndex) -> None:
    index.add([Passage("new", "", "70", {"year": "2020", "open": "true"})])
    assert ranking(index, where={"year": 2020})[0] == ranking(index, where={"year": 2020.0})[0] == [["new"]] * 6
    assert ranking(index, where={"open": True, "year": [2019, 2020]})[0] == [["new"]] * 6
    assert ranking(index, where={"open": True, "parity": "odd"})[0] == [[]] * 6


def test_a_field_that_no_passage_has_is_refused(index: DuplexIndex) -> None:
    with pytest.raises(DupmaeError, match="no metadata field 'language'; it has parity"):
        ranking(index, where={"language": "en"})


def test_a_metadata_field_may_not_be_called_like_a_passages_own(index: DuplexIndex) -> None:
    with pytest.raises(DupmaeError, match="metadata field 'title'"):
        index.add([Passage("new", "", "1", {"title": "x"})])


@pytest.mark.parametrize("file", ["vectors.safetensors", "ids.arrow"])
def test_a_search_never_answers_from_a_flipped_bit(index: DuplexIndex, file: str) -> None:
    path, queries = index.folder / index.manifest.segments[1].name / file, index.encoder.embed_queries(QUERIES)
    content = path.read_bytes()
    for place in range(0, len(content), len(content) // 23):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(DupmaeError, match=r"segment-000002/.*damaged"):
            DuplexIndex.open(index.folder).search_embeddings(queries, 5)
        with pytest.raises(DupmaeError, match=r"segment-000002/.*damaged"):
            DuplexIndex.open(index.folder).verify()


def test_a_hit_never_shows_a_text_with_a_flipped_bit(index: DuplexIndex) -> None:
    path = index.folder / index.manifest.segments[1].name / "texts.arrow"
    content = path.read_bytes()
    wanted = [[hit.text for hit in hits] for hits in index.search(QUERIES, 60)]
    refused = 0
    for place in range(0, len(content), max(1, len(content) // 40)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(DupmaeError, match="damaged"):
            DuplexIndex.open(index.folder).verify()
        opened = DuplexIndex.open(index.folder)
        opened.encoder = index.encoder
        try:
            assert [[hit.text for hit in hits] for hits in opened.search(QUERIES, 60)] == wanted  # padding was hit
        except DupmaeError:
            refused += 1
    assert refused > 10


def test_a_damaged_manifest_or_list_of_deletions_is_refused(index: DuplexIndex) -> None:
    index.delete(["p01"])
    assert index.manifest.deleted is not None
    for path in (index.folder / "manifest.json", index.folder / index.manifest.deleted["name"]):
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[-20] ^= 2
        path.write_bytes(damaged)
        with pytest.raises(DupmaeError, match="damaged"):
            DuplexIndex.open(index.folder)
        path.write_bytes(content)


def test_each_of_several_processes_encodes_its_share_and_the_last_joins_them(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(7), 100)
    corpus = [Passage(f"p{n:02}", "", f"{n}") for n in range(50)]
    folder, embedded = tmp_path / "i", []

    def run(rank: int, processes: int = 3) -> None:
        encoder = FakeEncoder(cls, sparse)
        options = {"model": "m", "batch_size": 4, "segment_passages": 10, "process": (rank, processes)}
        build_segments(folder, encoder, corpus, **options)
        embedded.append(sorted(int(text) for text in encoder.embedded))

    run(0)
    with pytest.raises(DupmaeError, match="unfinished"):
        DuplexIndex.open(folder)
    run(2)
    run(1)
    assert embedded == [list(range(rank, 50, 3)) for rank in (0, 2, 1)]
    index = DuplexIndex.open(folder)
    index.encoder = FakeEncoder(cls, sparse)
    assert ranking(index) == expected(index, rows(*range(50)))
    index.verify()
    assert not list(folder.glob("process-*"))
    run(1)  # the finished index is recognised, and nothing is encoded
    assert embedded[-1] == []
    index.add([Passage("p70", "", "70")])
    assert ranking(index) == expected(index, rows(*range(50), 70))


def test_processes_that_finish_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(7), 20)
    corpus = [Passage(f"p{n:02}", "", f"{n}") for n in range(20)]
    folder = tmp_path / "i"
    options: Any = {"model": "m", "batch_size": 4, "segment_passages": 10}
    build_segments(folder, FakeEncoder(cls, sparse), corpus, process=(0, 2), **options)
    with ThreadPoolExecutor(1) as threads:
        with changes.sole_writer(folder):
            last = threads.submit(build_segments, folder, FakeEncoder(cls, sparse), corpus, process=(1, 2), **options)
            with pytest.raises(TimeoutError):
                last.result(timeout=0.5)
        last.result(timeout=60)
    index = DuplexIndex.open(folder)
    assert len(index) == 20
    index.verify()
    assert not list(folder.glob("process-*"))


def test_an_id_in_the_shares_of_two_processes_is_refused(tmp_path: Path) -> None:
    cls, sparse = random_rows(np.random.default_rng(7), 5)
    corpus = [Passage("a", "", "0"), Passage("a", "", "1")]
    options: Any = {"model": "m", "batch_size": 4, "segment_passages": 10}
    build_segments(tmp_path / "i", FakeEncoder(cls, sparse), corpus, process=(0, 2), **options)
    with pytest.raises(DupmaeError, match="Two passages have the id 'a'"):
        build_segments(tmp_path / "i", FakeEncoder(cls, sparse), corpus, process=(1, 2), **options)


def test_the_environment_of_torchrun_says_which_process_this_is() -> None:
    assert process_of({"RANK": "3", "WORLD_SIZE": "8", "HOME": "/"}) == (3, 8)
    assert process_of({}) == (0, 1)


def test_more_memory_makes_larger_segments_up_to_the_largest() -> None:
    assert 1 == passages_within(0) < passages_within(100) < passages_within(500) <= 500_000_000 // 16_000
    assert passages_within(10**6) == 65_536


def test_opening_loads_neither_an_encoder_nor_torch(index: DuplexIndex) -> None:
    code = (
        "import sys; from pathlib import Path; from dupmae import DuplexIndex;"
        f"print(len(DuplexIndex.open(Path({str(index.folder)!r}))), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["60", "False"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills and file size limits are tried on Unix")
def test_kills_and_failing_writes_lose_nothing_and_readers_see_committed_states_alone() -> None:
    """A few rounds of what the benchmark does 200 times."""
    script = ROOT / "benchmarks" / "reliability" / "index_crashes.py"
    words = ["--kills", "4", "--failures", "4", "--readers", "2", "--changes", "6"]
    run = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    result = json.loads(run.stdout)
    assert sum(result["kills"].values()) == 4
    assert sum(result["failing_writes"].values()) == 4
    assert result["states_read_during_changes"] > 2
    assert result["second_writer_refused"] is True


def test_files_of_others_are_never_swept_away(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    folder.mkdir()
    (folder / "segment-plan.txt").write_text("mine")
    for process in ((0, 1), (0, 2)):
        with pytest.raises(DupmaeError, match="holds files that are no index"):
            build_segments(
                folder, FakeEncoder(*random_rows(np.random.default_rng(7), 5)), [Passage("a", "", "0")],
                model="m", batch_size=4, segment_passages=10, process=process,
            )  # fmt: skip
    assert (folder / "segment-plan.txt").read_text() == "mine"
