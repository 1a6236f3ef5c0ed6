"""Files that were changed by someone who knows the checksums: the same answers or one sentence, nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fake_index import SPACE, FakeEncoder, random_rows, ranking, wordy

from dupmae.corpus import Chunk, Passage
from dupmae.errors import DupmaeError
from dupmae.files import fingerprint
from dupmae.index import Approximate, DuplexIndex
from dupmae.index.storage.arrays import MappedFile, describe, write_arrays

ROWS = random_rows(np.random.default_rng(7), 100)


def chunk(number: int) -> Chunk | None:
    """Four passages a document in the second segment."""
    place = 10 * (number % 4)
    return None if number < 32 else Chunk(f"c{number // 4}", ("a", "b")[: number % 3], place, place + 12)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two segments, of chunks the second, deleted passages and, where faiss is installed, clusters."""
    folder = tmp_path_factory.mktemp("sound") / "i"
    corpus = [Passage(f"p{n:02}", "", wordy(n), {"parity": str(n % 2)}, chunk(n)) for n in range(60)]
    index = DuplexIndex.build(folder, FakeEncoder(*ROWS, space=SPACE), corpus, model="m", segment_passages=32)
    index.delete(["p03", "c10"])
    try:
        index.cluster()
    except DupmaeError as error:
        assert "faiss" in str(error)  # noqa: PT017 (it is no more than an optional part)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "i"))


def seal(folder: Path, change: Callable[[dict[str, Any]], object] = lambda values: None) -> None:
    """Give the manifest the present sizes and checksums, and its own fingerprint, after a change of its values."""
    values = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    head = {key: values.pop(key) for key in ("format", "format_version", "check")}
    for segment in values["segments"]:
        for name, entry in segment["files"].items():
            if (path := folder / segment["name"] / name).stat().st_size:
                entry.update(describe(path))
    for file in filter(None, (values["deleted"], values["clusters"])):
        if (path := folder / file["name"]).stat().st_size:
            file.update(describe(path))
    change(values)
    text = json.dumps(head | {"check": fingerprint(values)} | values)
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def opened(folder: Path) -> DuplexIndex:
    index = DuplexIndex.open(folder)
    index.encoder = FakeEncoder(*ROWS, space=SPACE)
    return index


def answers(folder: Path) -> Any:
    """Everything an index tells of its passages."""
    index = opened(folder)
    index.verify()
    found: list[Any] = [ranking(index), [[hit.text for hit in hits] for hits in index.search(["1", "2"], 60)]]
    found.append([[hit.id for hit in hits] for hits in index.search(["1"], 60, {"parity": "1"})])
    if index.manifest.clusters is not None:
        found.append(ranking(index, 5, approximate=Approximate(4, 20, 2)))
    return found


def refused(folder: Path, match: str = "damaged") -> None:
    for work in (answers, lambda place: opened(place).search(["1"], 5), lambda place: opened(place).compact()):
        with pytest.raises(DupmaeError, match=match) as caught:
            work(folder)
        assert len(str(caught.value)) <= 500


def rewrite(
    folder: Path, change: Callable[[dict[str, Any]], object], file: str = "segment-000002/vectors.safetensors"
) -> None:
    """Change arrays of a file and seal it."""
    path = folder / file
    arrays = {name: array.copy() for name, array in MappedFile(folder, file, describe(path)).arrays().items()}
    change(arrays)
    write_arrays(path, arrays)
    seal(folder)


def one_at(name: str, place: int, value: float) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name].ravel()[place] = value

    return change


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a list begins beyond the end": one_at("starts", 7, 2**32 - 1),
    "the lists end before the end": one_at("starts", -1, 3),
    "a list ends before it begins": one_at("starts", 0, 5),
    "a passage is not in the block": one_at("documents", 0, 65_535),
    "a list does not rise": lambda arrays: arrays.update(documents=arrays["documents"][::-1].copy()),
    "a column is no term": lambda arrays: arrays.update(
        column_ids=np.array([2**31], np.uint32), columns=np.zeros(len(arrays["high"]), np.int16)
    ),
    "a unit is no number": one_at("ot_units", 3, np.nan),
    "a bound is negative": one_at("slack", 0, -1),
    "vectors are narrower": lambda arrays: arrays.update(high=arrays["high"][:, :-1]),
    "there are fewer vectors": lambda arrays: arrays.update(low=arrays["low"][:-1]),
    "there are more weights than passages": lambda arrays: arrays.update(weights=np.zeros(5, np.int16)),
    "numbers are of another type": lambda arrays: arrays.update(documents=arrays["documents"].astype(np.uint32)),
    "an array is missing": lambda arrays: arrays.pop("slack"),
    "words are missing": lambda arrays: arrays.pop("word_ids"),
    "a block's words begin beyond the end": one_at("word_borders", 1, 2**32 - 1),
    "a block's words begin late": one_at("word_borders", 0, 1),
    "the words end before the end": one_at("word_borders", -1, 3),
    "a word has no dimension": one_at("word_ids", -1, 2**22),
    "a word stands twice": lambda arrays: one_at("word_ids", 1, arrays["word_ids"][0])(arrays),
    "a word's list begins beyond the end": one_at("word_starts", 2, 2**32 - 1),
    "the words' lists end before the end": one_at("word_starts", -1, 3),
    "a word's list is empty": lambda arrays: one_at("word_starts", 1, 0)(arrays),
    "a word's passage is not in the block": one_at("word_documents", 0, 65_535),
    "a word's list does not rise": lambda arrays: arrays.update(word_documents=arrays["word_documents"][::-1].copy()),
    "a word is in a passage 0 times": one_at("word_frequencies", 5, 0),
    "there are fewer frequencies": lambda arrays: arrays.update(word_frequencies=arrays["word_frequencies"][:-1]),
    "words are of another type": lambda arrays: arrays.update(word_starts=arrays["word_starts"].astype(np.float32)),
}


@pytest.mark.parametrize("lie", LIES)
def test_numbers_that_lead_out_of_an_array_are_refused(lie: str, folder: Path) -> None:
    rewrite(folder, LIES[lie])
    refused(folder)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "I8", "shape": [10**12, 8], "data_offsets": [0, 8 * 10**12]},
        {"dtype": "I8", "shape": [-1, 8], "data_offsets": [0, 8]},
        {"dtype": "I8", "shape": [28, 8], "data_offsets": [-224, 0]},
        {"dtype": "I8", "shape": [2**62, 4], "data_offsets": [0, 0]},
        {"dtype": "I8", "shape": [0, 10**30], "data_offsets": [0, 0]},
        {"dtype": "I8", "shape": [28.0, 8], "data_offsets": [0, 224]},
        {"dtype": ["I8"], "shape": [28, 8], "data_offsets": [0, 224]},
        {"dtype": "I8", "shape": "28", "data_offsets": [0, 224, 1]},
        None,
    ],
)
def test_headers_that_lie_are_refused(entry: Any, folder: Path) -> None:
    path = folder / "segment-000002" / "vectors.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length]) | {"high": entry}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    seal(folder)
    refused(folder)


@pytest.mark.parametrize(
    "text", [b"", b"[" * 5000, b"9" * 5000, b'{"high": ' * 3000, b"\xff\xff", b"{}", b"[]", b"null"]
)
def test_headers_that_are_none_are_refused(text: bytes, folder: Path) -> None:
    path = folder / "segment-000002" / "vectors.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    seal(folder)
    refused(folder)
    path.write_bytes((2**63).to_bytes(8, "little") + text)
    seal(folder)
    refused(folder)


def arrow(path: Path, table: pa.Table, **options: Any) -> None:
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer,
    ):
        writer.write_table(table)


def strings(*values: str | None) -> pa.Array:
    return pa.array(values, pa.large_string())


def not_text() -> pa.Array:
    bitmap, offsets, _ = strings(*IDS).buffers()
    return pa.Array.from_buffers(pa.large_string(), len(IDS), [bitmap, offsets, pa.py_buffer(b"\xff" * 84)])


IDS = [f"p{n:02}" for n in range(32, 60)]
TABLES: dict[str, Callable[[], pa.Table]] = {
    "fewer": lambda: pa.table({"id": strings(*IDS[:-1])}),
    "more": lambda: pa.table({"id": strings(*IDS, "q")}),
    "another type": lambda: pa.table({"id": pa.array(IDS, pa.string())}),
    "numbers": lambda: pa.table({"id": pa.array(range(28))}),
    "no ids": lambda: pa.table({"name": strings(*IDS)}),
    "an id that is none": lambda: pa.table({"id": strings(*IDS[:-1], None)}),
    "ids that fall": lambda: pa.table({"id": strings(*IDS[::-1])}),
    "an id twice": lambda: pa.table({"id": strings(*IDS[:-1], IDS[-2])}),
    "texts as metadata": lambda: pa.table({"id": strings(*IDS), "text": strings(*IDS)}),
    "a column twice": lambda: pa.Table.from_arrays([strings(*IDS)] * 3, ["id", "parity", "parity"]),
    "no text": lambda: pa.table({"id": not_text()}),
}


@pytest.mark.parametrize("table", TABLES)
def test_ids_of_another_form_are_refused(table: str, folder: Path) -> None:
    arrow(folder / "segment-000002" / "ids.arrow", TABLES[table]())
    seal(folder)
    refused(folder)


def places(**columns: Any) -> pa.Table:
    """Places of chunks as the second segment has them, but for some columns."""
    chunks = [asdict(found) for number in range(32, 60) if (found := chunk(number)) is not None]
    kinds = {
        "document": pa.large_string(),
        "headings": pa.large_list(pa.large_string()),
        "start": pa.int64(),
        "end": pa.int64(),
    }
    table = {name: pa.array([one[name] for one in chunks], kind) for name, kind in kinds.items()}
    return pa.table({name: columns.get(name, column) for name, column in table.items()})


HEADINGS = pa.large_list(pa.large_string())
PLACES: dict[str, Callable[[], pa.Table]] = {
    "fewer": lambda: places().slice(1),
    "a column is missing": lambda: places().drop_columns(["end"]),
    "another column": lambda: places().append_column("more", strings(*IDS)),
    "starts are texts": lambda: places(start=strings(*IDS)),
    "a document is missing": lambda: places(document=strings(None, *IDS[1:])),
    "a start is missing": lambda: places(start=pa.array([None, *[0] * 27], pa.int64())),
    "a start is negative": lambda: places(start=pa.array([-1, *[0] * 27], pa.int64())),
    "an end stands before its start": lambda: places(end=pa.array([0] * 28, pa.int64())),
    "headings are missing": lambda: places(headings=pa.array([None, *[[]] * 27], HEADINGS)),
    "a heading is none": lambda: places(headings=pa.array([[None], *[[]] * 27], HEADINGS)),
    "no text": lambda: places(document=not_text()),
}


def test_the_same_places_of_chunks_are_accepted(folder: Path, sound: Path) -> None:
    arrow(folder / "segment-000002" / "chunks.arrow", places())
    seal(folder)
    assert answers(folder) == answers(sound)


@pytest.mark.parametrize("table", PLACES)
def test_places_of_chunks_of_another_form_are_refused(table: str, folder: Path) -> None:
    arrow(folder / "segment-000002" / "chunks.arrow", PLACES[table]())
    seal(folder)
    refused(folder)


@pytest.mark.parametrize("file", ["ids.arrow", "texts.arrow"])
def test_what_might_unpack_to_anything_is_refused_before_it_does(file: str, folder: Path) -> None:
    long = strings(*("x" * 10**5 for _ in IDS))
    columns = {"id": strings(*IDS), "more": long}
    if file == "texts.arrow":
        columns = {"title": long, "text": long, "check": pa.array([0] * len(IDS), pa.uint64())}
    arrow(folder / "segment-000002" / file, pa.table(columns), compression="zstd")
    seal(folder)
    with pytest.raises(DupmaeError, match="compressed"):
        answers(folder)


KEYS = [
    "model",
    "model_relative",
    "model_fingerprint",
    "cls_dimension",
    "vocabulary_size",
    "top_k",
    "complete",
    "deleted",
]
KEYS += ["segment_passages", "next_number", "segments", "clusters", "precision", "passages", "words", "chunks"]
VALUES = [
    -1,
    0,
    10**12,
    10**30,
    1.5,
    float("nan"),
    "",
    "x",
    "../../etc",
    "/etc/passwd",
    "a\0b",
    [],
    [1],
    {},
    [{}],
    True,
]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_a_manifest_has_a_type_and_a_range(key: str, folder: Path, sound: Path) -> None:
    wanted, manifest = answers(sound), (folder / "manifest.json").read_text(encoding="utf-8")
    refusals = 0
    for value in VALUES:
        (folder / "manifest.json").write_text(manifest, encoding="utf-8")
        seal(folder, lambda values, value=value: values.update({key: value}))  # type: ignore[misc]
        try:
            found = answers(folder)
        except DupmaeError as error:
            refusals += len(str(error)) <= 500
        else:
            assert found == wanted
    assert refusals >= 10
    if key not in ("precision", "chunks"):  # which older ones do not have
        (folder / "manifest.json").write_text(manifest, encoding="utf-8")
        seal(folder, lambda values: values.pop(key))
        refused(folder)


SEGMENT = [("name", "../i/segment-000002"), ("name", "/etc"), ("name", "segment-1"), ("passages", 10**12)]
SEGMENT += [("passages", 31), ("passages", -1), ("passages", 28.0), ("deleted", 0), ("deleted", 28), ("files", {})]


@pytest.mark.parametrize(("key", "value"), SEGMENT)
def test_what_a_manifest_says_of_a_segment_is_checked(key: str, value: Any, folder: Path) -> None:
    seal(folder, lambda values: values["segments"][1].update({key: value}))
    refused(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes are tried on Unix")
@pytest.mark.parametrize("file", ["segment-000002", "segment-000002/ids.arrow", "manifest.json", "lock"])
def test_nothing_is_read_through_links_and_pipes(file: str, folder: Path, tmp_path: Path) -> None:
    path, outside = folder / file, tmp_path / "outside"
    path.rename(outside)
    kept = outside.read_bytes() if outside.is_file() else b""
    path.symlink_to(outside)
    with pytest.raises(DupmaeError, match="link"):
        opened(folder).delete(["p00"])
    if outside.is_file():
        assert outside.read_bytes() == kept
        path.unlink()
        if file != "lock":
            os.mkfifo(path)
            with pytest.raises(DupmaeError, match="no file"):
                opened(folder)


def test_links_among_leftovers_are_swept_and_what_they_lead_to_stays(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine").touch()
    (folder / "segment-000099").symlink_to(tmp_path / "outside")
    opened(folder).delete(["p00"])
    assert not (folder / "segment-000099").is_symlink()
    assert (tmp_path / "outside" / "mine").exists()


@pytest.mark.parametrize("seed", range(8))
def test_random_damage_is_answered_rightly_or_refused(seed: int, folder: Path, sound: Path) -> None:
    """With right checksums only what the bytes mean tells; numbers and texts that are still possible may be others."""
    rng = random.Random(seed)
    files = sorted(path for path in folder.rglob("*.*") if path.is_file() and path.name != "manifest.json")
    for path in files:
        original = path.read_bytes()
        content = bytearray(original)
        place = rng.randrange(len(content)) if seed % 2 else rng.randrange(min(len(content), 400))
        kind = rng.choice(["cut", "grow", "flip", "zero", "ones"])
        if kind == "cut":
            content = content[: place + 1]
        elif kind == "grow":
            content += rng.randbytes(9)
        elif kind == "flip":
            content[place] ^= 1 << rng.randrange(8)
        else:
            content[place : place + 8] = (b"\0" if kind == "zero" else b"\xff") * len(content[place : place + 8])
        path.write_bytes(content)
        with pytest.raises(DupmaeError) if content != original else pytest.MonkeyPatch.context():
            answers(folder)
        seal(folder)
        with contextlib.suppress(DupmaeError):
            answers(folder)
            opened(folder).compact()
        shutil.rmtree(folder)
        shutil.copytree(sound, folder)
