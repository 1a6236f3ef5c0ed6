"""Headers and manifests that lie about what follows are refused: no byte outside an array is read or written."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import COMMANDS, Attack
from test_places import seal

Header = dict[str, Any]


def rewrite(path: Path, change: Callable[[Header], Any], size: int | None = None) -> None:
    """Change a safetensors header; a text that `change` returns takes its place."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    text = (change(header) or json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + content[8 + length :])


def first(header: Header) -> Header:
    return next(entry for name, entry in header.items() if name != "__metadata__" and len(entry["shape"]) > 1)


def twice(header: Header) -> str:
    name = next(name for name in header if name != "__metadata__")
    return json.dumps(header)[:-1] + f', "{name}": {json.dumps(header[name])}}}'


def offsets(begin: Any, end: Any) -> Callable[[Header], Any]:
    return lambda header: first(header).update(data_offsets=[begin, end])


def shape(*sizes: Any) -> Callable[[Header], Any]:
    return lambda header: first(header).update(shape=list(sizes))


def overlap(header: Header) -> None:
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    entries[0]["data_offsets"] = entries[-1]["data_offsets"]


HOSTILE: dict[str, tuple[Callable[[Header], Any], int | None]] = {
    "a length of 2^63": (lambda header: None, 1 << 63),
    "a length of 2^64 - 1": (lambda header: None, (1 << 64) - 1),
    "a length beyond the file": (lambda header: None, 10**8),
    "overlap": (overlap, None),
    "negative offsets": (offsets(-8, 8), None),
    "offsets beyond the file": (offsets(0, 1 << 62), None),
    "offsets in reverse": (offsets(64, 0), None),
    "a name twice": (twice, None),
    "a negative shape": (shape(-1, 4), None),
    "a shape whose product overflows": (shape(1 << 62, 8), None),
    "no list": (lambda header: "[]", None),
    "nested deeply": (lambda header: "[" * 200_000 + "]" * 200_000, None),
    "another type": (lambda header: first(header).update(dtype="F64"), None),
    "an unknown type": (lambda header: first(header).update(dtype="X7"), None),
}


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        *(("encode duplex", kind) for kind in HOSTILE),
        *((command, "overlap") for command in COMMANDS),
        *((command, "a length of 2^63") for command in COMMANDS),
        *((command, "offsets beyond the file") for command in COMMANDS),
    ],
)
def test_headers_of_weights(command: str, kind: str, attack: Attack) -> None:
    words, parts = COMMANDS[command]
    attack.lay_out(*parts)
    change, size = HOSTILE[kind]
    rewrite(attack.case / "models" / command.split()[-1] / "model.safetensors", change, size)
    attack.refused(*words)


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_headers_of_a_packed_model(kind: str, attack: Attack) -> None:
    attack.lay_out("models/packed.safetensors", "queries.txt")
    change, size = HOSTILE[kind]
    rewrite(attack.case / "models/packed.safetensors", change, size)
    attack.refused("encode", "--model", "models/packed.safetensors", "--input", "queries.txt", "--output", "out")


# An index whose checksums are right and whose content lies


def describe(index: Path, values: dict[str, Any]) -> None:
    """Give every file's size and checksum to the manifest's values."""
    from dupmae.index.storage.arrays import describe as facts

    for segment in values["segments"]:
        for name in segment["files"]:
            segment["files"][name] = facts(index / segment["name"] / name)
    for further in (values["deleted"], values["clusters"]):
        if further:
            further |= facts(index / further["name"])


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_headers_of_an_index(kind: str, attack: Attack) -> None:
    attack.lay_out("models/duplex", "index")
    index = attack.case / "index"
    change, size = HOSTILE[kind]
    rewrite(index / "segment-000001/vectors.safetensors", change, size)
    seal(index, lambda values: describe(index, values))
    if kind == "a name twice":  # which Python's JSON takes for one: the last
        attack.run("search", "index", "kanad lonat")
    else:
        attack.refused("search", "index", "kanad lonat")


def far_lists(arrays: dict[str, Any]) -> None:
    arrays["starts"][:, 1:] = 2**31


def falling_lists(arrays: dict[str, Any]) -> None:
    arrays["starts"][:, ::2] = arrays["starts"].max()


def far_documents(arrays: dict[str, Any]) -> None:
    arrays["documents"][:] = 65_535


def far_columns(arrays: dict[str, Any]) -> None:
    arrays["column_ids"] = np.full(max(1, len(arrays["column_ids"])), 2**31, np.uint32)
    arrays["columns"] = np.ones(len(arrays["column_ids"]) * len(arrays["high"]), np.int16)


def few_rows(arrays: dict[str, Any]) -> None:
    arrays["high"] = arrays["high"][:1]


def few_units(arrays: dict[str, Any]) -> None:
    arrays["ot_units"] = arrays["ot_units"][:0]


def no_numbers(arrays: dict[str, Any]) -> None:
    arrays["cls_units"][:] = np.nan


def narrow(arrays: dict[str, Any]) -> None:
    arrays["low"] = arrays["low"][:, :3]


def no_array(arrays: dict[str, Any]) -> None:
    del arrays["weights"]


def other_type(arrays: dict[str, Any]) -> None:
    arrays["documents"] = arrays["documents"].astype(np.int16)


LIES = [
    far_lists,
    falling_lists,
    far_documents,
    far_columns,
    few_rows,
    few_units,
    no_numbers,
    narrow,
    no_array,
    other_type,
]
SEARCH, COMPACT = ["search", "index", "kanad lonat mitad"], ["index", "compact", "index"]


@pytest.mark.parametrize(
    ("words", "lie"),
    [
        *((SEARCH, lie) for lie in LIES),
        *((COMPACT, lie) for lie in LIES),
        *(([*SEARCH, "--terms", "3"], lie) for lie in LIES[:4]),
        *((["explain", "index", "kanad lonat"], lie) for lie in LIES[:4]),
    ],
)
def test_arrays_of_an_index_that_lead_outside(words: list[str], lie: Callable[..., None], attack: Attack) -> None:
    from safetensors.numpy import load_file, save_file

    attack.lay_out("models/duplex", "index")
    index = attack.case / "index"
    path = index / "segment-000001/vectors.safetensors"
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    lie(arrays)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    seal(index, lambda values: describe(index, values))
    attack.refused(*words)


@pytest.mark.parametrize("file", ["ids.arrow", "texts.arrow"])
@pytest.mark.parametrize("lie", ["other rows", "other types", "no rows", "offsets", "nulls"])
def test_passages_of_an_index_that_are_not_its_vectors(lie: str, file: str, attack: Attack) -> None:
    import pyarrow as pa

    attack.lay_out("models/duplex", "index")
    index = attack.case / "index"
    path = index / "segment-000001" / file
    table = pa.ipc.open_file(str(path)).read_all()
    if lie == "other rows":
        table = table.slice(0, 2)
    elif lie == "no rows":
        table = table.slice(0, 0)
    elif lie == "other types":
        table = pa.table({name: pa.array([1] * len(table)) for name in table.column_names})
    elif lie == "nulls":
        table = pa.table({name: pa.nulls(len(table), table.schema.field(name).type) for name in table.column_names})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(pa.record_batch([pa.concat_arrays(c.chunks) for c in table.columns], schema=table.schema))
    if lie == "offsets":  # of the first column's texts: they lead far beyond the file
        ends = np.cumsum([0, *(len(text.encode()) for text in table.column(0).to_pylist())]).astype(np.int64)
        content = path.read_bytes()
        true = ends.tobytes()
        assert true in content
        ends[1:] = 2**40
        path.write_bytes(content.replace(true, ends.tobytes()))
    seal(index, lambda values: describe(index, values))
    attack.refused("search", "index", "kanad lonat", "--where", "lang=de")


MANIFESTS: dict[str, Any] = {
    "cls_dimension": [10**12, -1, "8", None, 7],
    "vocabulary_size": [10**12, -1, 0, "a", 3],
    "top_k": [-1, "a", None, []],
    "segment_passages": [10**12, -1, "a", None],
    "segments": [[{}], [1], "a", None, {}],
    "deleted": [1, [], "a", {}],
    "clusters": [1, [], "a", {}],
    "model": [1, None, [], "\x1b[31m"],
    "model_relative": [1, [], "\x00"],
    "model_fingerprint": [1, None, []],
    "next_number": ["a", None, -1, 1.5],
    "complete": [1, "a", None],
}


@pytest.mark.parametrize("key", list(MANIFESTS))
def test_manifests_of_an_index(key: str, attack: Attack) -> None:
    attack.lay_out("models/duplex", "index", "more.jsonl")
    for value in MANIFESTS[key]:
        seal(attack.case / "index", lambda values, value=value: values.update({key: value}))
        attack.run("search", "index", "kanad lonat")
    attack.run("index", "add", "index", "--corpus", "more.jsonl")


@pytest.mark.parametrize(
    "changes",
    [
        {"passages": 10**9},
        {"passages": -1},
        {"deleted": 10**6},
        {"files": {}},
        {"name": 3},
        {"passages": "a"},
        {"files": {"vectors.safetensors": 3}},
    ],
)
def test_entries_of_segments(changes: dict[str, Any], attack: Attack) -> None:
    attack.lay_out("models/duplex", "index")
    seal(attack.case / "index", lambda values: values["segments"][0].update(changes))
    attack.refused("search", "index", "kanad lonat")
