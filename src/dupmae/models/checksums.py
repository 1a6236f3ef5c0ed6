"""Checksums of a model's files, written when it is saved and compared when it is opened."""

from __future__ import annotations

from pathlib import Path

from dupmae.errors import DupmaeError
from dupmae.runtime import checksums
from dupmae.runtime.checksums import CHECKSUMS_FILE, known_sha256

SUFFIXES = {".bin", ".json", ".model", ".safetensors", ".txt"}
"""Endings of the files that a model's results depend on: weights, tokenizer and settings."""


def model_files(folder: Path) -> list[str]:
    """List the files that a model's results depend on, by their paths in its folder."""
    found = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def write_checksums(folder: Path) -> None:
    """Write the checksums of a model that was just saved, into its folder."""
    checksums.write_checksums(folder, model_files(folder))


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
    try:
        return checksums.read_checksums(folder)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise DupmaeError(
            f"{label}: {CHECKSUMS_FILE} is damaged: fetch or save the model again, or delete that file."
        ) from None
