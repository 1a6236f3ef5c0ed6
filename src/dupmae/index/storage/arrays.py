"""Named arrays in one safetensors file, memory-mapped when read, with a checksum of the whole file."""

from __future__ import annotations

import errno
import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dupmae.errors import DupmaeError

CHUNK = 1 << 24
"""Bytes hashed at a time."""
MOST_FILES = 1 << 16
"""How many open files a process is allowed at most, where its own limit turns out too low."""

_TYPES = {"I8": np.int8, "U8": np.uint8, "I16": np.int16, "U16": np.uint16, "U32": np.uint32, "F32": np.float32}


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of the types this module reads to a new safetensors file."""
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def _mapped(path: Path, size: int) -> mmap.mmap:
    """Map a file; a mapping counts as an open file as long as it lasts."""
    try:
        with path.open("rb") as file:
            found = file.seek(0, 2)
            if found != size:
                raise damaged(path, f"has {found} bytes instead of {size}")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise damaged(path, "is missing") from None


def allow_more_files(path: Path) -> None:
    """Raise the number of files that this process may have open, or refuse if it is as high as it gets."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft >= wanted:
        raise DupmaeError(
            f"{path} cannot be opened, {soft} files are open already and an index takes three a segment: raise the "
            "limit (ulimit -n), or join its segments (dupmae index compact)."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class MappedFile:
    """A file of an index, mapped whole when it is opened, so that later changes to the folder do not matter."""

    def __init__(self, path: Path, expected: Mapping[str, Any]) -> None:
        """Open a file, unless it is missing or is not of the `bytes` that the manifest tells, with its `xxh3`."""
        self.path = path
        self._expected = expected
        self.sound = False
        """Whether the content was compared with its checksum."""
        try:
            self.data = _mapped(path, expected["bytes"])
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            allow_more_files(path)
            self.data = _mapped(path, expected["bytes"])

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
            start = 8 + int.from_bytes(self.data[:8], "little")
            header = json.loads(self.data[8:start])
            return {name: self._array(entry, start) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(self.path, f"has a damaged header ({error})") from error

    def _array(self, entry: Mapping[str, Any], start: int) -> NDArray[Any]:
        """View one array as the header describes it; the arrays begin at `start`."""
        shape = tuple(entry["shape"])
        count, offset = int(np.prod(shape)), start + entry["data_offsets"][0]
        if count == 0:
            offset = 0  # the end of the file is no place for numpy to begin
        return np.frombuffer(self.data, _TYPES[entry["dtype"]], count, offset).reshape(shape)


def describe(path: Path) -> dict[str, Any]:
    """Tell size in bytes and checksum of a file, as the manifest keeps them."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return {"bytes": len(data), "xxh3": checksum(data)}


def checksum(data: Any) -> str:
    """Compute sixteen hexadecimal digits of the 64-bit XXH3 of a buffer."""
    hasher = xxhash.xxh3_64()
    with memoryview(data) as view:
        for start in range(0, len(view), CHUNK):
            hasher.update(view[start : start + CHUNK])
    return hasher.hexdigest()


def damaged(path: Path, what: str) -> DupmaeError:
    """Make the error for a file that is not as it was written."""
    return DupmaeError(f"{path} {what}: the index is damaged, build it again from its passages.")
