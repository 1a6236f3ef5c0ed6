"""Damage any file: cut it, change bytes, put something else in its place; and lines and fields of text files."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 90868376\n" % (b"5" * 64)
HTML = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body><h1>Not found</h1></body></html>\n"
INSERTED = [
    b"\x00",
    b"\x1b[31m\x1b]0;title\x07",
    b"\x07\x08\x7f",
    "\u202e".encode(),
    "\u2066\u200b\ufeff".encode(),
    b"\xed\xa0\x80",
    b"\xff\xfe",
    b"\xc3",
    "\u2028\u0085".encode(),
    b"\r",
    b"\x0c",
    "\U0001f9d1\u200d\U0001f680".encode(),
    b"a\xcc\x81" * 300,
    b"9" * 5000,
    b"[bold]x[/bold][/]",
    b"$\\frac{1}{0}$",
    b"{{ 7 * 7 }}",
    b"<script>alert(1)</script>",
]
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
    name, content = draw.choice(
        [
            ("a Git LFS pointer", LFS),
            ("an HTML page", HTML),
            ("nothing", b""),
            ("one line feed", b"\n"),
            ("null", b"null"),
            ("[]", b"[]"),
            ("{}", b"{}"),
            ("a number", b"17"),
            ("random bytes", draw.randbytes(500)),
            ("a PNG", b"\x89PNG\r\n\x1a\n" + draw.randbytes(60)),
            ("a zip", b"PK\x03\x04" + draw.randbytes(60)),
            ("a pickle", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s."),
            ("half a download", path.read_bytes()[: path.stat().st_size // 3]),
        ]
    )
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


def changed_line(path: Path, draw: random.Random, change: Callable[[bytes], list[bytes]], how: str) -> str:
    lines = path.read_bytes().split(b"\n")
    place = draw.randrange(len(lines))
    lines[place : place + 1] = change(lines[place])
    path.write_bytes(b"\n".join(lines))
    return f"line {place + 1}: {how}"


def double_line(path: Path, draw: random.Random) -> str:
    return changed_line(path, draw, lambda line: [line, line], "twice")


def drop_line(path: Path, draw: random.Random) -> str:
    return changed_line(path, draw, lambda line: [], "missing")


def long_line(path: Path, draw: random.Random) -> str:
    what = draw.choice([b"kanad ", b"a", b"\t", b" ", b'"', "\u4e2d".encode()])
    return changed_line(path, draw, lambda line: [line + what * (6_000_000 // len(what))], f"6 MB of {what!r} added")


def change_field(path: Path, draw: random.Random) -> str:
    what = draw.choice(
        [
            b"nan",
            b"inf",
            b"1e999",
            b"-1",
            b"1_0",
            b"0x1",
            b"9" * 400,
            b"",
            b"1.5",
            b"\x1b[2J",
            b"a b",
            b"\xc2\xa0",
            "\u0663".encode(),
            b"-0",
            b"+1",
            b"1e400",
            b"99999999999999999999",
            b"\xff",
            b"[/bold]",
        ]
    )

    def change(line: bytes) -> list[bytes]:
        fields = re.split(rb"([\t ])", line)
        fields[2 * draw.randrange((len(fields) + 1) // 2)] = what
        return [b"".join(fields)]

    return changed_line(path, draw, change, f"a field is {what[:20]!r}")


def change_columns(path: Path, draw: random.Random) -> str:
    sign = draw.choice([b"\t", b" ", b",", b'"', b"\r", b"\t\t\t"])
    return changed_line(path, draw, lambda line: [line.replace(b"\t", sign) + draw.choice([b"", sign])], f"{sign!r}")
