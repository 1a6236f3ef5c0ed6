"""Damage files of a format: JSON, YAML, safetensors, compressed files, Parquet; one change inside a valid file each."""

from __future__ import annotations

import gzip
import json
import lzma
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz_damage import changed_line, flip

BIG = 300_000_000
"""Bytes that a bomb unpacks to."""
DEEP = 100_000
"""Brackets around nothing."""
VALUES: list[Any] = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2**31,
    2**63,
    -(2**63),
    2**64,
    10**400,
    1.5,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\x1b[31mred",
    "\u202ebidi",
    "\ud800",
    "a" * 10_000,
    "../outside",
    "/dev/zero",
    "/etc/passwd",
    [],
    {},
    [[]],
    {"a": {}},
    ["a"],
    [1],
    [None],
    "nan",
    "1e999",
    "\x00",
    "~",
    "0x10",
    "1_0",
    "\u0661",
]


# --- of JSON and JSON Lines -------------------------------------------------------------------------------------------


def _places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the ways to all values inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, inner in list(inside)[:60] for place in _places(inner, (*way, key)))]


def _changed_json(path: Path, draw: random.Random, change: Callable[[Any, Any], str]) -> str:
    """Change one value inside a JSON file, or inside a line of a JSON Lines file."""
    try:
        texts = path.read_text("utf-8").splitlines() if ".jsonl" in path.name else [path.read_text("utf-8")]
        at = draw.randrange(len(texts))
        value = json.loads(texts[at])
    except (ValueError, OSError):
        return flip(path, draw)
    places = _places(value)[1:]
    if not places:
        return flip(path, draw)
    way = draw.choice(places)
    holder = value
    for key in way[:-1]:
        holder = holder[key]
    told = change(holder, way[-1])
    texts[at] = json.dumps(value, indent=None if ".jsonl" in path.name else 1)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return f"{'.'.join(map(str, way))} {told}" + (f" (line {at + 1})" if len(texts) > 1 else "")


def drop_key(path: Path, draw: random.Random) -> str:
    def change(holder: Any, key: Any) -> str:
        del holder[key]
        return "missing"

    return _changed_json(path, draw, change)


def change_value(path: Path, draw: random.Random) -> str:
    new = draw.choice(VALUES)

    def change(holder: Any, key: Any) -> str:
        holder[key] = new
        return f"is {str(ascii(new))[:40]}"

    return _changed_json(path, draw, change)


def rename_key(path: Path, draw: random.Random) -> str:
    def change(holder: Any, key: Any) -> str:
        if isinstance(holder, dict):
            holder[draw.choice([f"{key}x", "", "\x1b[1m", "\x00"])] = holder.pop(key)
        return "has another name"

    return _changed_json(path, draw, change)


def nest(path: Path, draw: random.Random) -> str:
    opening, closing = draw.choice([("[", "]"), ('{"a":', "}")])
    text = opening * DEEP + "1" * (opening != "[") + closing * DEEP
    if ".jsonl" in path.name:
        return changed_line(path, draw, lambda line: [text.encode()], "nested deeply")
    path.write_text(text, encoding="utf-8")
    return "nested deeply"


def double_key(path: Path, draw: random.Random) -> str:
    text = path.read_text("utf-8", "replace")
    found = list(re.finditer(r'"(\w+)":', text))
    if not found:
        return flip(path, draw)
    match = draw.choice(found)
    path.write_text(f'{text[: match.start()]}"{match[1]}": 1, {text[match.start() :]}', encoding="utf-8")
    return f"the key {match[1]} twice"


# --- of YAML ----------------------------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)
YAML = {
    "aliases that multiply": BOMB,
    "an alias of itself": "a: &a [*a]\n",
    "a tag of Python": "name: !!python/object/apply:os.system ['touch ran']\n",
    "brackets": "name: " + "[" * 3000 + "]" * 3000 + "\n",
    "a mapping for a key": "{a: b}: c\n? [1, 2]\n: d\n",
    "two documents": "name: a\n---\nname: b\n",
    "a tab": "\tname: a\n",
    "a list": "- name\n- output\n",
    "a text": "just a text\n",
    "a merge": "<<: {name: a}\n",
    "a null key": "~: a\n",
    "many keys": "".join(f"k{n}: {n}\n" for n in range(200_000)),
    "control characters": 'name: "\\e[31m\\0"\n',
    "a huge number": "seed: " + "9" * 5000 + "\n",
    "an open quote": 'name: "a\n',
    "a directive": "%YAML 9.9\n---\nname: a\n",
    "a binary": "name: !!binary aGVsbG8=\n",
}


def add_yaml(path: Path, draw: random.Random) -> str:
    name = draw.choice(sorted(YAML))
    before = path.read_text("utf-8") if draw.random() < 0.5 else ""
    path.write_text(YAML[name] + before if draw.random() < 0.5 else before + YAML[name], encoding="utf-8")
    return f"{name} {'added' if before else 'instead'}"


def change_yaml(path: Path, draw: random.Random) -> str:
    new = draw.choice(
        [
            "null",
            "nan",
            ".inf",
            "-1",
            "0",
            "1e400",
            "true",
            "[]",
            "{}",
            "''",
            "[1, 2]",
            "{a: b}",
            "'\\e'",
            "0x10",
            "1_000",
            "9" * 400,
            "!!float 3",
            "2001-01-01",
            "~/nowhere",
            "$HOME/nowhere",
            "'[bold]x[/]'",
            "&a x",
            "*a",
            "|",
            "1:30",
        ]
    )

    def change(line: bytes) -> list[bytes]:
        return [re.sub(rb"(: |\{\w+: |- )[^,}]*", lambda match: match[1] + new.encode(), line, count=1)]

    return changed_line(path, draw, change, f"the value is {new[:20]}")


# --- of safetensors ---------------------------------------------------------------------------------------------------


def _parts(path: Path) -> tuple[dict[str, Any], bytes] | None:
    content = path.read_bytes()
    try:
        size = struct.unpack("<Q", content[:8])[0]
        return json.loads(content[8 : 8 + size]), content[8 + size :]
    except (struct.error, ValueError):
        return None


def _write_parts(path: Path, header: str, data: bytes, size: int | None = None) -> None:
    text = header.encode()
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + data)


def change_header(path: Path, draw: random.Random) -> str:
    found = _parts(path)
    if found is None:
        return flip(path, draw)
    header, data = found
    names = [name for name in header if name != "__metadata__"]
    if not names:
        return flip(path, draw)
    name = draw.choice(names)
    entry, size, told = header[name], None, ""
    match draw.randrange(12):
        case 0:
            size, told = draw.choice([2**63, 2**64 - 1, 0, 10**9, len(json.dumps(header)) - 5]), "the header's length"
        case 1:
            del header[name]
            told = f"the tensor {name} missing"
        case 2:
            header[f"{name}.other"] = header.pop(name)
            told = f"the tensor {name} has another name"
        case 3:
            entry["data_offsets"] = draw.choice([[0, 2**62], [-4, 4], [8, 4], [0, 0], [0], "0", [0.5, 8]])
            told = f"the offsets of {name} are {entry['data_offsets']}"
        case 4:
            entry["shape"] = draw.choice(
                [[], [-1], [2**62, 8], [0], [10**6, 10**6], "a", list(reversed(entry["shape"]))]
            )
            told = f"the shape of {name} is {entry['shape']}"
        case 5:
            entry["dtype"] = draw.choice(["F64", "I8", "BOOL", "X", 5, "F16", "F8_E4M3"])
            told = f"the type of {name} is {entry['dtype']}"
        case 6:
            other = header[draw.choice(names)]
            entry["data_offsets"] = other["data_offsets"]
            told = f"{name} overlaps another tensor"
        case 7:
            header["__metadata__"] = draw.choice([{}, {"format": "pt"}, {"format": "tf"}, {"format": 3}, [], "x"])
            told = f"the metadata are {header['__metadata__']}"
        case 8:
            text = json.dumps(header)
            _write_parts(path, text[:-1] + f', "{name}": {json.dumps(entry)}}}', data)
            return f"{name} twice"
        case 9:
            begin, end = entry["data_offsets"]
            bad = struct.pack("<f", draw.choice([float("nan"), float("inf"), 1e38])) * ((end - begin) // 4)
            data = data[:begin] + bad + data[begin + len(bad) :]
            told = f"{name} is not finite"
        case 10:
            told = "tensors in another order, data shifted by 8 bytes"
            data = b"\x00" * 8 + data
        case _:
            _write_parts(path, "[" * DEEP + "]" * DEEP, data)
            return "a header nested deeply"
    _write_parts(path, json.dumps(header), data, size)
    return told


def flip_header(path: Path, draw: random.Random) -> str:
    content = bytearray(path.read_bytes())
    size = min(len(content), 8 + int.from_bytes(content[:8], "little"))
    place = draw.randrange(max(1, size))
    content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))
    return f"a bit changed in byte {place} of the header"


# --- of compressed files and Parquet ----------------------------------------------------------------------------------


def bomb(path: Path, draw: random.Random) -> str:
    block = draw.choice([b"a" * 1_000_000, b"\n" * 1_000_000, b'{"_id": 1}\n' * 100_000])
    open_bomb: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix)
    if open_bomb is not None:
        with open_bomb(path, "wb") as file:
            for _ in range(BIG // len(block)):
                file.write(block)
    else:
        import pyarrow as pa

        with pa.output_stream(str(path), compression="zstd") as file:
            for _ in range(BIG // len(block)):
                file.write(block)
    return f"{BIG} bytes when unpacked, {block[:10]!r}"


def other_compression(path: Path, draw: random.Random) -> str:
    content = path.read_bytes()
    name, changed = draw.choice(
        [
            ("compressed twice", gzip.compress(content)),
            ("xz", lzma.compress(content)),
            ("plain", b'{"text": "a"}\n' * 9),
            ("two streams", content + content),
            ("garbage behind", content + b"garbage"),
        ]
    )
    path.write_bytes(changed)
    return name


def change_table(path: Path, draw: random.Random) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 30
    columns: dict[str, Any] = {"_id": [f"p{n}" for n in range(rows)], "text": ["kanad lonat"] * rows}
    odd = {
        "whole numbers": list(range(rows)),
        "lists": [["a"]] * rows,
        "objects": [{"a": 1}] * rows,
        "nulls": [None] * rows,
        "bytes": [b"\xff\xfe"] * rows,
        "some nulls": [None, "a"] * (rows // 2),
        "floats": [0.5] * rows,
        "control characters": ["\x1b[31m\x00\u202e"] * rows,
        "empty texts": [""] * rows,
        "truths": [True] * rows,
    }
    name, column = draw.choice(sorted(odd)), draw.choice(["_id", "text", "title", "metadata"])
    columns[column] = odd[name]
    table = pa.table(columns)
    if draw.random() < 0.2:
        table, name = pa.table({column: pa.array(["a" * 100_000] * 5000).dictionary_encode()}), "500 MB of one text"
    elif draw.random() < 0.2:
        table, name = table.slice(0, 0), "no rows"
    elif draw.random() < 0.2:
        table, name = table.rename_columns([f"{n}\x1b[1m" for n in table.column_names]), "odd names of columns"
    pq.write_table(table, path)
    return f"the column {column}: {name}"
