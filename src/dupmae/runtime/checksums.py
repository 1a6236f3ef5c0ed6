"""Write checksums of a folder's files beside them, and read them: of models when saved, of checkpoints when whole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from dupmae.files import atomic_write, file_sha256

CHECKSUMS_FILE = "SHA256SUMS"
"""SHA-256 of files by their paths in the folder, in the form that `sha256sum --check` reads."""


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of files into their folder, flushed to disk."""
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in names]
    with atomic_write(folder / CHECKSUMS_FILE) as file:
        file.writelines(lines)


def read_checksums(folder: Path) -> dict[str, str]:
    """Read a folder's checksums by file.

    Raises:
        FileNotFoundError: It has none.
        ValueError: They cannot be read.
    """
    file = folder / CHECKSUMS_FILE
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is no file")
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"([0-9a-f]{64})  ([^\x00-\x1f\x7f]+)", line) for line in lines]
    if not found or None in found:
        raise ValueError(f"{file} holds other lines than checksums")
    return {match[2]: match[1] for match in found if match}


def known_sha256(file: Path) -> str:
    """Compute a file's SHA-256, once for each state of it."""
    state = file.stat()
    return _sha256(file.resolve(), state.st_size, state.st_ctime_ns, state.st_ino)


@lru_cache(maxsize=1000)
def _sha256(file: Path, size: int, changed: int, inode: int) -> str:
    """Compute a file's SHA-256; what else is given tells its states apart."""
    return file_sha256(file)
