"""Damage a file or a folder in one of some eighty ways, chosen by its kind and at random."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 90868376\n" % (b"5" * 64)
HTML = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body><h1>Not found</h1></body></html>\n"
INSERTED = [
    b"\x00", b"\x1b[31m\x1b]0;title\x07", b"\x07\x08\x7f", "\u202e".encode(), "\u2066\u200b\ufeff".encode(),
    b"\xed\xa0\x80", b"\xff\xfe", b"\xc3", "\u2028\u0085".encode(), b"\r", b"\x0c", "\U0001f9d1\u200d\U0001f680".encode(),
    b"a\xcc\x81" * 300, b"9" * 5000, b"[bold]x[/bold][/]", b"$\\frac{1}{0}$", b"{{ 7 * 7 }}", b"<script>alert(1)</script>",
]  # fmt: skip
BIG = 300_000_000
"""Bytes that a bomb unpacks to."""
DEEP = 100_000
"""Brackets around nothing."""
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2**31, 2**63, -(2**63), 2**64, 10**400, 1.5, -0.0, float("nan"), float("inf"), "", " ",
    "\x1b[31mred", "\u202ebidi", "\ud800", "a" * 10_000, "../outside", "/dev/zero", "/etc/passwd", [], {}, [[]], {"a": {}},
    ["a"], [1], [None], "nan", "1e999", "\x00", "~", "0x10", "1_0", "\u0661",
]  # fmt: skip

Mutation = Callable[[Path, random.Random], str]
"""Changes what is at a path, and tells how, shortly."""


# --- of any file ------------------------------------------------------------------------------------------------------


def truncate(path: Path, draw: random.Random) -> str:
    content = path.read_bytes()
    size = draw.choice([0, 1, len(content) // 2, max(0, len(content) - 1), draw.randrange(len(content) + 1)])
    path.write_bytes(content[:size])
    return f"cut from {len(content)} to {size} bytes"


def extend(path: Path, draw: random.Random) -> str:
    content = path.read_bytes()
    more = draw.choice([b"\x00" * 64, draw.randbytes(100), content, b"\n\n\n", b"}", b"garbage"])
    path.write_bytes(content + more)
    return f"{len(more)} bytes added at the end ({more[:12]!r})"


def flip(path: Path, draw: random.Random) -> str:
    content = bytearray(path.read_bytes())
    places = sorted(draw.randrange(len(content)) for _ in range(draw.choice([1, 1, 2, 8, 40]))) if content else []
    for place in places:
        content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))
    return f"a bit changed in bytes {places[:8]}"


def zeros(path: Path, draw: random.Random) -> str:
    content = path.read_bytes()
    start = draw.randrange(len(content) + 1)
    size = draw.choice([1, 8, 64, len(content)])
    path.write_bytes(content[:start] + b"\x00" * len(content[start : start + size]) + content[start + size :])
    return f"{size} bytes from {start} are zero"


def insert(path: Path, draw: random.Random) -> str:
    content = path.read_bytes()
    place, what = draw.randrange(len(content) + 1), draw.choice(INSERTED)
    path.write_bytes(content[:place] + what + content[place:])
    return f"{what[:20]!r} inserted at byte {place}"


def encode_otherwise(path: Path, draw: random.Random) -> str:
    encoding = draw.choice(["utf-16", "utf-8-sig", "utf-32", "utf-16-be", "cp037"])
    path.write_bytes(path.read_bytes().decode("utf-8", "replace").encode(encoding, "replace"))
    return f"encoded as {encoding}"


def replace_content(path: Path, draw: random.Random) -> str:
    name, content = draw.choice([
        ("a Git LFS pointer", LFS), ("an HTML page", HTML), ("nothing", b""), ("one line feed", b"\n"),
        ("null", b"null"), ("[]", b"[]"), ("{}", b"{}"), ("a number", b"17"), ("random bytes", draw.randbytes(500)),
        ("a PNG", b"\x89PNG\r\n\x1a\n" + draw.randbytes(60)), ("a zip", b"PK\x03\x04" + draw.randbytes(60)),
        ("a pickle", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s."),
        ("half a download", path.read_bytes()[: path.stat().st_size // 3]),
    ])  # fmt: skip
    path.write_bytes(content)
    return f"its content is {name}"


def swap(path: Path, draw: random.Random) -> str:
    others = sorted(other for other in Path().rglob("*") if other.is_file() and other != path)
    if not others:
        return truncate(path, draw)
    other = draw.choice(others)
    shutil.copyfile(other, path)
    return f"its content is that of {other}"


def delete(path: Path, draw: random.Random) -> str:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return "deleted"


def folder_instead(path: Path, draw: random.Random) -> str:
    path.unlink()
    path.mkdir()
    return "a folder in its place"


def link(path: Path, draw: random.Random) -> str:
    target = draw.choice(["nowhere", path.name, "/dev/zero", "/dev/null", "/proc/self/mem", ".", "/"])
    path.unlink()
    path.symlink_to(target)
    return f"a link to {target} in its place"


def link_to_copy(path: Path, draw: random.Random) -> str:
    outside = Path("elsewhere")
    outside.mkdir(exist_ok=True)
    shutil.move(path, outside / path.name)
    path.symlink_to((outside / path.name).resolve())
    return "a link to itself elsewhere in its place"


def fifo(path: Path, draw: random.Random) -> str:
    path.unlink()
    os.mkfifo(path)
    return "a FIFO in its place"


def unreadable(path: Path, draw: random.Random) -> str:
    place = draw.choice([path, path.parent]) if path.parent != Path() else path
    place.chmod(0)
    return f"{'its folder' if place != path else 'it'} may not be read"


# --- of text ----------------------------------------------------------------------------------------------------------


def _changed_line(path: Path, draw: random.Random, change: Callable[[bytes], list[bytes]], how: str) -> str:
    lines = path.read_bytes().split(b"\n")
    place = draw.randrange(len(lines))
    lines[place : place + 1] = change(lines[place])
    path.write_bytes(b"\n".join(lines))
    return f"line {place + 1}: {how}"


def double_line(path: Path, draw: random.Random) -> str:
    return _changed_line(path, draw, lambda line: [line, line], "twice")


def drop_line(path: Path, draw: random.Random) -> str:
    return _changed_line(path, draw, lambda line: [], "missing")


def long_line(path: Path, draw: random.Random) -> str:
    what = draw.choice([b"kanad ", b"a", b"\t", b" ", b'"', "\u4e2d".encode()])
    return _changed_line(path, draw, lambda line: [line + what * (6_000_000 // len(what))], f"6 MB of {what!r} added")


def change_field(path: Path, draw: random.Random) -> str:
    what = draw.choice([
        b"nan", b"inf", b"1e999", b"-1", b"1_0", b"0x1", b"9" * 400, b"", b"1.5", b"\x1b[2J", b"a b", b"\xc2\xa0",
        "\u0663".encode(), b"-0", b"+1", b"1e400", b"99999999999999999999", b"\xff", b"[/bold]",
    ])  # fmt: skip

    def change(line: bytes) -> list[bytes]:
        fields = re.split(rb"([\t ])", line)
        fields[2 * draw.randrange((len(fields) + 1) // 2)] = what
        return [b"".join(fields)]

    return _changed_line(path, draw, change, f"a field is {what[:20]!r}")


def change_columns(path: Path, draw: random.Random) -> str:
    sign = draw.choice([b"\t", b" ", b",", b'"', b"\r", b"\t\t\t"])
    return _changed_line(path, draw, lambda line: [line.replace(b"\t", sign) + draw.choice([b"", sign])], f"{sign!r}")


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
        return _changed_line(path, draw, lambda line: [text.encode()], "nested deeply")
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
    "control characters": "name: \"\\e[31m\\0\"\n",
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
    new = draw.choice([
        "null", "nan", ".inf", "-1", "0", "1e400", "true", "[]", "{}", "''", "[1, 2]", "{a: b}", "'\\e'", "0x10", "1_000",
        "9" * 400, "!!float 3", "2001-01-01", "~/nowhere", "$HOME/nowhere", "'[bold]x[/]'", "&a x", "*a", "|", "1:30",
    ])  # fmt: skip

    def change(line: bytes) -> list[bytes]:
        return [re.sub(rb"(: |\{\w+: |- )[^,}]*", lambda match: match[1] + new.encode(), line, count=1)]

    return _changed_line(path, draw, change, f"the value is {new[:20]}")


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
            entry["shape"] = draw.choice([[], [-1], [2**62, 8], [0], [10**6, 10**6], "a", list(reversed(entry["shape"]))])
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
    open_bomb = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix)
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
    name, changed = draw.choice([
        ("compressed twice", gzip.compress(content)), ("xz", lzma.compress(content)), ("plain", b'{"text": "a"}\n' * 9),
        ("two streams", content + content), ("garbage behind", content + b"garbage"),
    ])  # fmt: skip
    path.write_bytes(changed)
    return name


def change_table(path: Path, draw: random.Random) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 30
    columns: dict[str, Any] = {"_id": [f"p{n}" for n in range(rows)], "text": ["kanad lonat"] * rows}
    odd = {
        "whole numbers": list(range(rows)), "lists": [["a"]] * rows, "objects": [{"a": 1}] * rows, "nulls": [None] * rows,
        "bytes": [b"\xff\xfe"] * rows, "some nulls": [None, "a"] * (rows // 2), "floats": [0.5] * rows,
        "control characters": ["\x1b[31m\x00\u202e"] * rows, "empty texts": [""] * rows, "truths": [True] * rows,
    }  # fmt: skip
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


ANY: list[Mutation] = [
    truncate, truncate, extend, flip, flip, zeros, insert, replace_content, replace_content, swap, delete, folder_instead,
    link, link_to_copy, fifo, unreadable,
]  # fmt: skip
TEXT: list[Mutation] = [insert, insert, encode_otherwise, double_line, drop_line, long_line, change_field, change_field]
JSON: list[Mutation] = [drop_key, drop_key, change_value, change_value, change_value, rename_key, nest, double_key]
TENSORS: list[Mutation] = [change_header] * 6 + [flip_header] * 2
VALUES_CHANGE = {
    "truncate", "flip", "zeros", "insert", "extend", "change_value", "change_field", "double_key", "bomb",
    "other_compression", "change_table", "change_columns", "double_line", "drop_line", "long_line", "encode_otherwise",
}  # fmt: skip
"""Mutations that may leave another file of the same kind, from which other results are right unless it has checksums."""


def mutations_of(path: Path) -> list[Mutation]:
    """List the mutations that suit a file; those of its kind as often as those of any."""
    name = path.name
    own: list[Mutation] = []
    if name.endswith((".gz", ".xz", ".zst")):
        own = [bomb, other_compression, flip, truncate]
    elif name.endswith((".json", ".jsonl")):
        own = [*JSON, *TEXT[:3]]
    elif name.endswith((".yaml", ".yml")):
        own = [add_yaml, add_yaml, change_yaml, change_yaml, *TEXT[:3]]
    elif name.endswith(".safetensors"):
        own = TENSORS
    elif name.endswith(".parquet"):
        own = [change_table, flip, truncate]
    elif name.endswith((".tsv", ".trec")):
        own = [*TEXT, change_columns, change_field, change_field]
    elif name.endswith((".txt", ".md")):
        own = TEXT
    return own
