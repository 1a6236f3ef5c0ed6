"""Checksums of a model's files, written when it is saved and compared when it is opened."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from dupmae.errors import DupmaeError
from dupmae.files import atomic_write, file_sha256

CHECKSUMS_FILE = "SHA256SUMS"
"""SHA-256 of each file that a model's results depend on, in the form that `sha256sum --check` reads."""
SUFFIXES = {".bin", ".json", ".model", ".safetensors", ".txt"}
"""Endings of such files: weights, tokenizer and settings."""


def model_files(folder: Path) -> list[str]:
    """List the files that a model's results depend on, by their paths in its folder."""
    found = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def write_checksums(folder: Path) -> None:
    """Write the checksums of a model that was just saved, into its folder."""
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in model_files(folder)]
    with atomic_write(folder / CHECKSUMS_FILE) as file:
        file.writelines(lines)


def verify_checksums(folder: Path, label: str) -> None:
    """Refuse a model whose files are not those that were saved, if it has checksums.

    Raises:
        DupmaeError: A file is missing or has changed, or the checksums cannot be read.
    """
    for name, sha256 in read_checksums(folder, label).items():
        file = folder / name
        if not file.is_file():
            raise DupmaeError(f"{label} lacks {name}, with which it was saved: fetch or save the model again.")
        if known_sha256(file) != sha256:
            raise DupmaeError(
                f"{label}: {name} is not as it was saved ({CHECKSUMS_FILE}): fetch or save the model again, or, if the "
                f"change is yours, delete {CHECKSUMS_FILE}."
            )


def read_checksums(folder: Path, label: str) -> dict[str, str]:
    """Read a model's checksums by file; empty if it has none.

    Raises:
        DupmaeError: They cannot be read.
    """
    file = folder / CHECKSUMS_FILE
    if not file.exists():
        return {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = [""]
    found = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in lines]
    if not found or None in found:
        raise DupmaeError(f"{label}: {CHECKSUMS_FILE} is damaged: fetch or save the model again, or delete that file.")
    return {match[2]: match[1] for match in found if match}


def known_sha256(file: Path) -> str:
    """Compute a file's SHA-256, once for each state of it."""
    state = file.stat()
    return _sha256(file.resolve(), state.st_size, state.st_ctime_ns, state.st_ino)


@lru_cache(maxsize=1000)
def _sha256(file: Path, size: int, changed: int, inode: int) -> str:
    """Compute a file's SHA-256; what else is given tells its states apart."""
    return file_sha256(file)
