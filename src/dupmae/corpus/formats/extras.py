"""Guard files that other programs packed: the extra that reads them, and what they may unpack to."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dupmae.corpus.lines import file_type, refuse_bomb, refuse_irregular
from dupmae.errors import DupmaeError


@contextmanager
def needs(package: str, path: Path) -> Iterator[None]:
    """Say, where a package is missing that reads a kind of file, how it is installed."""
    try:
        yield
    except ImportError:
        raise DupmaeError(
            f"{path}: reading {file_type(path)} takes {package}, which is not installed: pip install "
            "'dupmae[documents]'"
        ) from None


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive whose files unpack to no more than they may.

    Raises:
        DupmaeError: It is damaged, wants a password, or unpacks to too much.
    """
    refuse_irregular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            # Of a file that is longer than the directory has it, zipfile reads no more than that.
            refuse_bomb(path, sum(entry.file_size for entry in archive.infolist()), path.stat().st_size)
            yield archive
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
        raise DupmaeError(f"{path} cannot be read as {file_type(path)[1:].upper()} ({error}).") from None
