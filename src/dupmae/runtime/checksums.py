"""Write checksums of a folder's files beside them, and read them: of models when saved, of checkpoints when whole."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from dupmae.errors import DupmaeError
from dupmae.files import atomic_write, file_sha256, write_json
from dupmae.runtime.json_text import parse_json
from dupmae.runtime.places import cache_folder

CHECKSUMS_FILE = "SHA256SUMS"
"""SHA-256 of files by their paths in the folder, in the form that `sha256sum --check` reads."""
KNOWN_FILE = "sha256.json"
"""Name of the file in the user's cache with the checksums of large files, by what tells their states apart."""
MOST_KNOWN = 200
"""Checksums that it holds, at most."""
LARGE = 1 << 20
"""Bytes of a file from which on its checksum is remembered."""
SETTLED = 2_000_000_000
"""Nanoseconds since a file's last change after which another change would show in its dates, however coarse."""


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
    """Compute a file's SHA-256, once for each state of it.

    Those of large files are remembered in the user's cache, so that the next process need not read them again.
    """
    state = file.stat()
    return _sha256(file.resolve(), state.st_size, state.st_ctime_ns, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=1000)
def _sha256(file: Path, size: int, *state: int) -> str:
    """Compute a file's SHA-256, or look it up; what else is given tells its states apart."""
    if size < LARGE:
        return file_sha256(file)
    key = " ".join(map(str, (*state, size, file)))
    if (known := _remembered().get(key)) is None:
        known = file_sha256(file)
        if state[0] < time.time_ns() - SETTLED:
            _remember(key, known)
    return known


def _remembered() -> dict[str, str]:
    """Read the checksums of large files that were computed before; none if they cannot be read."""
    try:
        found = parse_json((cache_folder() / KNOWN_FILE).read_text(encoding="utf-8"))
        return {key: value for key, value in found.items() if re.fullmatch("[0-9a-f]{64}", value)}
    except (OSError, ValueError, AttributeError, TypeError, DupmaeError):
        return {}


def _remember(key: str, sha256: str) -> None:
    """Add a checksum to those of before, the last `MOST_KNOWN` of which are kept; if it fails, no harm is done."""
    with contextlib.suppress(OSError, DupmaeError):
        kept = dict(list(_remembered().items())[1 - MOST_KNOWN :]) | {key: sha256}
        write_json(cache_folder() / KNOWN_FILE, kept)
