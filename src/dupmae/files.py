"""Write files and folders whole or not at all, refuse what must not be overwritten, lock, and fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dupmae.errors import DupmaeError


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears at `path` when it is whole, as :func:`atomic_path` puts it there.

    Args:
        path: The final name. Its folder is created.
        mode: `"w"` for UTF-8 text, `"wb"` for bytes.
    """
    with atomic_path(path) as temporary, temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield an empty temporary neighbour of `path`; on success flush it to disk and rename it over `path`.

    Args:
        path: The final name. Its folder is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        _finish_file(temporary, mode)
        temporary.replace(path)
        flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary neighbour of `path`; on success flush its files and put it in the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    mode = temporary.stat().st_mode & 0o666
    try:
        yield temporary
        for file in temporary.rglob("*"):
            flush_folder(file) if file.is_dir() else _finish_file(file, mode)
        flush_folder(temporary)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
        flush_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_foreign(folder: Path, name: str) -> None:
    """Refuse to replace a folder with anything in it but an older version of what is about to be written there.

    Args:
        folder: Where a folder is about to be put with :func:`atomic_folder`.
        name: Of a file that every folder of this kind holds.

    Raises:
        DupmaeError: `folder` is a file, or it is not empty and holds no file `name`.
    """
    if folder.is_dir() and (not any(folder.iterdir()) or (folder / name).is_file()):
        return
    if folder.exists():
        raise DupmaeError(f"{folder} exists and holds something else: name another folder, or delete it first.")


def refuse_unwritable(path: Path) -> None:
    """Refuse, before long work, a `path` that its result cannot be put at; the folder around it is created.

    Raises:
        DupmaeError: There can be no such folder, or nothing may be written to it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{error.filename}: {(error.strerror or '').lower()}"
    else:
        if os.access(path.parent, os.W_OK | os.X_OK):
            return
        reason = f"{path.parent}: permission denied"
    raise DupmaeError(f"{path} cannot be written ({reason}): name another place.")


def refuse_unwritable_file(file: Path) -> None:
    """Refuse, before long work, a place that its result, a file, cannot be written to.

    Raises:
        DupmaeError: `file` is a folder, or as :func:`refuse_unwritable`.
    """
    if file.is_dir():
        raise DupmaeError(f"{file} is a folder: name a file.")
    refuse_unwritable(file)


@contextmanager
def locked(lock_file: Path, taken: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock, which the system takes back when the process dies.

    Args:
        lock_file: Its file; the folder is there.
        taken: What to say if another process holds it.
        wait: Wait for that process instead.

    Raises:
        DupmaeError: Another process holds the lock, and `wait` is false.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise DupmaeError(taken) from None
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def fingerprint(value: Any) -> str:
    """Fingerprint a JSON-serialisable value in sixteen hexadecimal digits; the order of keys does not matter."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Compute a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_fingerprint(path: Path) -> str:
    """Fingerprint a file's contents: the first sixteen digits of its SHA-256."""
    return file_sha256(path)[:16]


def _finish_file(path: Path, mode: int) -> None:
    """Let others read a file as they may other new ones (safetensors' are its owner's alone), and flush it to disk."""
    path.chmod(mode)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
