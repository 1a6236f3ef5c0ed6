"""Named arrays in one safetensors file, memory-mapped when read, with a checksum of the whole file.

The format is safetensors' own. It is written here because only Python's files tell of every write that fails (and
because the library would hold a second copy of a segment), and read here because every number of the header is checked
before an array is made of it.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from dupmae.errors import DupmaeError
from dupmae.runtime.json_text import parse_json

CHUNK = 1 << 24
"""Bytes hashed at a time."""
MOST_HEADER = 1 << 20
"""Bytes of a file's header, at most: a segment's takes less than a thousand."""

_TYPES = {"I8": np.int8, "U8": np.uint8, "I16": np.int16, "U16": np.uint16, "U32": np.uint32, "F32": np.float32}
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}


def arrow_rows(rows: NDArray[np.int64]) -> pa.Array:
    """Hand numbers of rows to Arrow; `pa.array` would first import pandas, to see whether they are some of its own."""
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows, np.int64))])


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of the types this module reads to a new safetensors file."""
    header, position = dict[str, Any](), 0
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)  # so that every number is aligned
    for name, array in ordered:
        offsets = [position, position + array.nbytes]
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        position += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            if array.size:
                file.write(np.ascontiguousarray(array).data.cast("B"))


def refuse_links(folder: Path, name: str) -> None:
    """Refuse a part of an index that is a link: nothing outside the folder is read, replaced or deleted.

    Args:
        folder: The index, which may be a link itself.
        name: A path below it.
    """
    path = folder
    for part in Path(name).parts:
        path /= part
        if path.is_symlink():
            raise DupmaeError(f"{path} is a link, and an index holds its files itself: copy them there (cp -rL).")


def _mapped(path: Path, size: int) -> memoryview:
    """Map a file; the mapping outlives the open file, so however many there are, they do not count as open ones."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise damaged(path, "is no file")
        if found.st_size != size:
            raise damaged(path, f"has {found.st_size} bytes instead of {size}")
        with pa.memory_map(str(path)) as file:
            mapped = memoryview(file.read_buffer())
    except (FileNotFoundError, NotADirectoryError):
        raise damaged(path, "is missing") from None
    except OSError as error:  # Arrow's names the file in its text alone
        number = error.errno or errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error
    if len(mapped) != size:
        raise damaged(path, f"has {len(mapped)} bytes instead of {size}")
    return mapped


class MappedFile:
    """A file of an index, mapped whole when it is opened, so that later changes to the folder do not matter."""

    def __init__(self, folder: Path, name: str, expected: Mapping[str, Any]) -> None:
        """Open a file, unless it is missing, a link, or not of the `bytes` that the manifest tells, with its `xxh3`."""
        self.path = folder / name
        self._expected = expected
        self.sound = False
        """Whether the content was compared with its checksum."""
        refuse_links(folder, name)
        self.data = _mapped(self.path, expected["bytes"])

    def check(self) -> None:
        """Refuse a content that differs from its checksum; what was found sound is not read again."""
        if not self.sound:
            self.verify()

    def verify(self) -> None:
        """Refuse a content that differs from its checksum, whether it was read before or not."""
        if checksum(self.data) != self._expected["xxh3"]:
            raise damaged(self.path, "does not have the checksum it was written with")
        self.sound = True

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Read the arrays of a safetensors file, unless its header is damaged: views of the mapping."""
        try:
            length = int.from_bytes(self.data[:8], "little")
            if length > min(MOST_HEADER, len(self.data) - 8):
                raise ValueError(f"of {length} bytes")
            header = parse_json(bytes(self.data[8 : 8 + length]))
            content = self.data[8 + length :]
            return {name: _array(entry, content) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise damaged(self.path, f"has a damaged header ({str(error)[:100]})") from error


def _array(entry: Mapping[str, Any], content: memoryview) -> NDArray[Any]:
    """View one array as the header describes it, unless that does not fit the bytes that follow the header."""
    kind, shape, (first, last) = np.dtype(_TYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
        raise ValueError("a number that is none, or negative")
    if last > len(content) or last - first != math.prod(shape) * kind.itemsize:
        raise ValueError("an array that is not where it says")
    return np.frombuffer(content[first:last], kind).reshape(shape)


def refuse_other_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], wanted: Mapping[str, tuple[Any, tuple[int, ...]]]
) -> None:
    """Refuse a file that holds other arrays than it should.

    Args:
        path: The file.
        arrays: What it holds.
        wanted: For each name, type and shape.
    """
    for name, (kind, shape) in wanted.items():
        if name not in arrays:
            raise damaged(path, f"has no {name!r}")
        if arrays[name].dtype != kind or arrays[name].shape != shape:
            found = f"{arrays[name].dtype} {arrays[name].shape}"
            raise damaged(path, f"has {name!r} as {found} instead of {np.dtype(kind)} {shape}")


def describe(path: Path) -> dict[str, Any]:
    """Tell size in bytes and checksum of a file, as the manifest keeps them."""
    size = path.stat().st_size
    return {"bytes": size, "xxh3": checksum(_mapped(path, size))}


def checksum(data: memoryview) -> str:
    """Compute sixteen hexadecimal digits of the 64-bit XXH3 of a buffer."""
    hasher = xxhash.xxh3_64()
    for start in range(0, len(data), CHUNK):
        hasher.update(data[start : start + CHUNK])
    return hasher.hexdigest()


def damaged(path: Path, what: str) -> DupmaeError:
    """Make the error for a file that is not as it was written."""
    return DupmaeError(f"{path} {what}: the index is damaged, build it again from its passages.")
