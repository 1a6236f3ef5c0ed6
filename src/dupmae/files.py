"""Write files and folders whole or not at all, refuse what must not be overwritten, lock, and fingerprint.

An output's links are followed: what they lead to is written, and they stay. Devices, pipes and the standard output
(`-`, `/dev/stdout`) are written into and never replaced, nor is a mount point. While it is made an output lies in a
temporary folder beside its place, one with a random name that is this user's alone and that this process holds a lock
of; where a process was killed, the next one that writes there finds the lock free and sweeps.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dupmae.errors import DupmaeError

with contextlib.suppress(ImportError):  # not on Windows, where nothing is swept
    import fcntl

logger = logging.getLogger(__name__)

STANDARD_OUTPUT = "-"
"""The name of the standard output where a file is asked for."""
_TEMPORARY = re.compile(r"\.dupmae-[0-9a-f]{16}")
_EARLIER = ".earlier"  # what is being replaced, in a temporary folder, where names cannot be exchanged
_DESCRIPTOR = re.compile(r"/dev/(?:fd/(\d+)|std(in|out|err))|/proc/self/fd/(\d+)")
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_DISK_WORDS = ("No space left on device", "Disk quota exceeded", "inline_container.cc", "iostream error")
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_NOT_TO_BE_RENAMED = (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES)  # a mount point, others' in a sticky folder
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
LONGEST_WAIT = 10.0
"""Seconds that a pipe may be without a reader when it is to be written into."""
_NO_FOLDER_FLUSH = (errno.EINVAL, errno.EACCES, errno.EBADF, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EISDIR)


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
    """Yield an empty temporary file of the same name; on success flush it to disk and put it in the place of `path`.

    What cannot be replaced is written into: devices, pipes, the standard output, and a file that is a mount point or
    whose folder is not to be written to.

    Args:
        path: The final name, or `-`. Its folder is created.
    """
    target = _followed(path)
    with _naming(path), contextlib.ExitStack() as stack:
        if isinstance(target, int) or _is_special(target):
            folder = stack.enter_context(_private_folder())
            mode = 0o600
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder = stack.enter_context(_temporary_folder(target.parent))
            except OSError as error:
                if error.errno not in _UNWRITABLE or not os.access(target, os.W_OK):
                    raise
                folder = stack.enter_context(_private_folder())
            mode = 0 if not target.exists() else stat.S_IMODE(target.stat().st_mode)
        temporary = folder / ("output" if isinstance(target, int) else target.name)
        temporary.touch()
        mode = mode or temporary.stat().st_mode
        yield temporary
        if isinstance(target, int) or _is_special(target):
            _write_into(temporary, target)
            return
        _finish_file(temporary, mode)
        try:
            temporary.replace(target)
        except OSError as error:
            if error.errno not in _NOT_TO_BE_RENAMED or not target.exists():
                raise
            _write_into(temporary, target)
        flush_folder(target.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success flush its files and put it in the place of `path`.

    An older folder and the new one change places at once where the system can do that. A folder that is a mount point,
    or that stands in one that is not to be written to, is emptied and filled.
    """
    target = _followed(path)
    if isinstance(target, int):
        raise DupmaeError(f"{path} is no folder, and one is to be written: name a folder.")
    if target.exists() and not target.is_dir():
        raise DupmaeError(f"{path} is a file, and a folder is to be written: name another place.")
    with _naming(path), contextlib.ExitStack() as stack:
        target.parent.mkdir(parents=True, exist_ok=True)
        within = target.is_dir() and (os.path.ismount(target) or not os.access(target.parent, os.W_OK | os.X_OK))
        folder = stack.enter_context(_temporary_folder(target if within else target.parent))
        temporary = folder / (target.name or "folder")
        temporary.mkdir()
        mode = temporary.stat().st_mode & 0o666
        yield temporary
        for file in temporary.rglob("*"):
            if not file.is_symlink():
                flush_folder(file) if file.is_dir() else _finish_file(file, mode)
        flush_folder(temporary)
        if within:
            _fill(target, temporary, folder)
        else:
            try:
                _put_folder(temporary, target, folder / _EARLIER)
            except OSError as error:
                if error.errno not in _NOT_TO_BE_RENAMED or not target.is_dir():
                    raise
                _fill(target, temporary, folder)
        flush_folder(target.parent)


def is_temporary(name: str) -> bool:
    """Tell whether a name is that of a folder in which an output is being made, or was when its process died."""
    return _TEMPORARY.fullmatch(name) is not None


def is_standard_output(path: str | Path | None) -> bool:
    """Tell whether an output is to go where a command prints, so that nothing else may be printed there."""
    return path is not None and _descriptor(Path(path)) == 1


def sweep(folder: Path) -> None:
    """Delete what processes that died have left in a folder where they were writing.

    That is what has a temporary folder's name, belongs to this user and is locked by nobody: a living process holds the
    lock of its own. Where the disk keeps no locks nothing can be told, and nothing is deleted. A process that died
    between two renames of a folder has left none at its place; the new one is put there.
    """
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        left = [Path(entry.path) for entry in entries if is_temporary(entry.name)]
        for place in left:
            with contextlib.suppress(OSError):
                _sweep_one(place)


def made_folder(folder: Path) -> bool:
    """Make a folder and those on the way to it; tell whether this process, and no other, has made it just now."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
        return False
    return True


@contextmanager
def new_or_untouched(folder: Path) -> Iterator[None]:
    """Delete a folder that was not there before if the work in it is refused or fails."""
    new = not folder.exists()
    try:
        yield
    except Exception:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def refuse_foreign(folder: Path, name: str) -> None:
    """Refuse to replace a folder with anything in it but an older version of what is about to be written there.

    Args:
        folder: Where a folder is about to be put with :func:`atomic_folder`.
        name: Of a file that every folder of this kind holds.

    Raises:
        DupmaeError: `folder` is a file, or it is not empty and holds no file `name`.
    """
    if folder.is_dir():
        found = {path.name for path in folder.iterdir() if not is_temporary(path.name)}
        if not found or name in found:
            return
    if folder.exists():
        raise DupmaeError(f"{folder} exists and holds something else: name another folder, or delete it first.")


def refuse_unwritable(path: Path) -> None:
    """Refuse, before long work, a `path` that its result, a folder, cannot be put at; nothing is left changed.

    Raises:
        DupmaeError: There can be no such folder, or nothing may be written to it.
    """
    if isinstance(_descriptor(path), int):
        raise DupmaeError(
            f"{path} names no folder: name one{' (./- is one of that name)' if str(path) == '-' else ''}."
        )
    _try_to_write(path, folder=True)


def refuse_unwritable_file(file: Path) -> None:
    """Refuse, before long work, a place that its result, a file, cannot be written to; nothing is left changed.

    Raises:
        DupmaeError: `file` is a folder, or as :func:`refuse_unwritable`.
    """
    if os.path.isdir(file):  # noqa: PTH112 - that of Path raises where a name is too long
        raise DupmaeError(f"{file} is a folder: name a file.")
    _try_to_write(file, folder=False)


@contextmanager
def locked(
    lock_file: Path, taken: str, *, wait: bool = False, alone: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Hold a lock, which the system takes back when the process dies.

    Args:
        lock_file: Its file; the folder is there.
        taken: What to say if another process holds it.
        wait: Wait for that process instead.
        alone: Called where the disk keeps no locks: whether no other process can be at work, such as in a folder that
            this one has just made. Then the work goes on after a warning.

    Raises:
        DupmaeError: Another process holds the lock, and `wait` is false; or the disk keeps no locks.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise DupmaeError(taken) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        _without_locks(lock_file.parent, alone=alone())
        yield
        return
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_folder(folder: Path, taken: str) -> Iterator[None]:
    """Hold a lock of a folder itself, where no file can be made beside it: a mount point, or somebody else's.

    Raises:
        DupmaeError: Another process holds it, with `taken` as the sentence; or the disk keeps no locks.
    """
    lock = _lock_folder(folder)
    if lock is None:
        raise DupmaeError(taken)
    if lock < 0:
        _without_locks(folder, alone=False)
    try:
        yield
    finally:
        os.close(lock)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_write(path, "wb") as file:
        # Half a surrogate pair stands for a byte of a file's name that is not UTF-8; \udcc3 is what JSON calls it, too.
        file.write(text.encode("utf-8", "backslashreplace"))


def fingerprint(value: Any) -> str:
    """Fingerprint a JSON-serialisable value in sixteen hexadecimal digits; the order of keys does not matter."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Compute a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_fingerprint(path: Path) -> str:
    """Fingerprint a file's contents: the first sixteen digits of its SHA-256."""
    return file_sha256(path)[:16]


def flush_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can flush folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, and one may be to be written to but not to be listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise
    finally:
        os.close(descriptor)


def is_full_disk(error: BaseException) -> bool:
    """Tell whether an exception says that a disk, or what a user may have of it, is full.

    Libraries written in Rust or C++ say it in words of their own exceptions, PyTorch's of a file that could not be
    written.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL_DISK
    text = str(error)
    return any(words in text for words in _FULL_DISK_WORDS)


def _followed(path: Path) -> Path | int:
    """Follow the links of an output to the place that is to be written, or to a descriptor of this process."""
    place = Path(path)
    for _ in range(40):  # as many as Linux follows
        found = _descriptor(place)
        if found is not None:
            return found
        if not place.is_symlink():
            return Path(os.path.realpath(place))
        place = place.parent / place.readlink()
    raise DupmaeError(f"{path} is a link that leads back to itself: delete it, or name another place.")


def _descriptor(path: Path) -> int | None:
    """Find the descriptor of this process that a path names: `-`, `/dev/stdout`, `/dev/fd/63`."""
    if str(path) == STANDARD_OUTPUT:
        return 1
    match = _DESCRIPTOR.fullmatch(str(path))
    if match is None:
        return None
    number, stream, of_process = match.groups()
    return {"in": 0, "out": 1, "err": 2}[stream] if stream else int(number or of_process)


def _is_special(path: Path) -> bool:
    """Tell whether something stands at a path that is neither a file nor a folder: a device, a pipe, a socket.

    Raises:
        DupmaeError: It is a disk.
    """
    if not path.exists():
        return False
    mode = path.stat().st_mode
    if stat.S_ISBLK(mode):
        raise DupmaeError(f"{path} is a disk, and all that is on it would be lost: name a file.")
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _write_into(source: Path, target: Path | int) -> None:
    """Write a file's content into what stays where it is, and flush it if it is a file."""
    with source.open("rb") as content:
        if target == 1 and sys.stdout is not None and hasattr(sys.stdout, "buffer"):
            sys.stdout.flush()
            shutil.copyfileobj(content, sys.stdout.buffer)
            sys.stdout.flush()
            return
        if isinstance(target, Path) and target.is_fifo():
            opened = os.fdopen(_open_pipe(target), "wb")
        else:
            opened = os.fdopen(os.dup(target), "wb") if isinstance(target, int) else target.open("wb")
        with opened as file:
            shutil.copyfileobj(content, file)
            file.flush()
            if not isinstance(target, int) and target.is_file():
                os.fsync(file.fileno())


def _open_pipe(pipe: Path) -> int:
    """Open a pipe to write into it, once it has a reader; to open it as a file would wait for one for ever.

    Raises:
        DupmaeError: It has none after :data:`LONGEST_WAIT` seconds.
    """
    end = time.monotonic() + LONGEST_WAIT
    while True:
        try:
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        else:
            os.set_blocking(descriptor, True)
            return descriptor
        if time.monotonic() > end:
            raise DupmaeError(f"{pipe} is a pipe that nobody reads: start its reader first, or name a file.")
        time.sleep(0.05)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors name the output, not where it is being made; a full disk is that of the output."""
    try:
        yield
    except OSError as error:
        if (is_full_disk(error) and error.filename is None) or _is_within_temporary(error.filename):
            error.filename = str(path)
        raise
    except DupmaeError:
        raise
    except Exception as error:
        if is_full_disk(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _is_within_temporary(place: Any) -> bool:
    """Tell whether a path is that of a temporary folder or leads through one."""
    return isinstance(place, str | os.PathLike) and any(map(is_temporary, Path(place).parts))


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """Make a temporary folder within `folder`, after sweeping what others have left; hold its lock, and delete it."""
    sweep(folder)
    lock: int | None = None
    while lock is None:
        place = folder / f".dupmae-{secrets.token_hex(8)}"
        place.mkdir(mode=0o700)  # fails if anything is there, a link, too
        try:
            lock = _lock_folder(place)
        except OSError:
            place.rmdir()
            raise
    try:
        yield place
    finally:
        try:
            shutil.rmtree(place, ignore_errors=True)
        finally:
            if lock >= 0:
                os.close(lock)


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Make a temporary folder where the system keeps them, for what is going to be copied into its place."""
    with tempfile.TemporaryDirectory(prefix="dupmae-") as folder:
        yield Path(folder)


def _lock_folder(place: Path) -> int | None:
    """Lock a folder itself.

    Returns:
        The descriptor that holds the lock until it is closed; -1 where there are no locks; None if another process
        holds it, or has deleted the folder before the lock was taken.
    """
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return -1
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(place.stat(), os.fstat(descriptor)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:  # no locks on this disk, so that nobody can sweep it, either
        os.close(descriptor)
        return -1
    os.close(descriptor)
    return None


def _sweep_one(place: Path) -> None:
    """Delete a temporary folder that is ours and that nobody holds."""
    found = place.lstat()
    own = hasattr(os, "geteuid") and found.st_uid == os.geteuid()  # Windows has no such ids, and no locks of folders
    if not (own and stat.S_ISDIR(found.st_mode)):
        return
    lock = _lock_folder(place)
    if lock is None or lock < 0:
        return
    try:
        if (place / _EARLIER).exists():
            for new in place.iterdir():
                if new.name != _EARLIER and not (place.parent / new.name).exists():
                    new.rename(place.parent / new.name)
        shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(lock)


def _put_folder(new: Path, target: Path, earlier: Path) -> None:
    """Put a folder at its place; an older one that is there takes the new one's name, or goes aside first."""
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        target.rename(earlier)
        try:
            new.rename(target)
        except OSError:
            earlier.rename(target)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places at once; false where the system or the disk cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or an old C library
        return False
    working_folder, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(working_folder, os.fsencode(one), working_folder, os.fsencode(other), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _fill(target: Path, new: Path, temporary: Path) -> None:
    """Put a folder's content in the place of another one's that has to stay where it is."""
    aside = temporary / _EARLIER if temporary.parent == target else target / f".dupmae-{secrets.token_hex(8)}"
    aside.mkdir(mode=0o700)
    moved: list[tuple[Path, Path]] = []
    try:
        for source, place in ((target, aside), (new, target)):
            for path in [path for path in source.iterdir() if not is_temporary(path.name)]:
                shutil.move(path, place / path.name)  # a copy, where a rename would lead to another disk
                moved.append((path, place / path.name))
    except OSError:
        for path, place in reversed(moved):
            shutil.move(place, path)
        raise
    for file in target.rglob("*"):
        if file.is_file() and not file.is_symlink():
            _flush_file(file)
    flush_folder(target)
    shutil.rmtree(aside, ignore_errors=True)


def _try_to_write(path: Path, *, folder: bool) -> None:
    """Find out whether an output can be written, and leave no trace of that."""
    try:
        target = _followed(path)
        if isinstance(target, int):
            os.fstat(target)
        elif _is_special(target):
            if folder:
                raise OSError(errno.ENOTDIR, "is no folder", str(path))
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        elif folder and target.is_file():
            raise OSError(errno.ENOTDIR, "is a file", str(path))
        else:
            _try_to_write_near(target, folder=folder)
    except OSError as error:
        if is_full_disk(error):
            raise
        place = str(error.filename or path)
        shown = place if path.is_absolute() else os.path.relpath(place)
        reason = f"{shown}: {(error.strerror or str(error)).lower()}"
        raise DupmaeError(f"{path} cannot be written ({reason}): name another place.") from None


def _try_to_write_near(target: Path, *, folder: bool) -> None:
    """Make a temporary folder where an output is to be made, and delete it."""
    exists = _exists(target)
    there = target if folder and exists else next(place for place in target.parents if _exists(place))
    for part in target.relative_to(there).parts:
        _exists(there / part)  # raises if the name is too long
    try:
        with _temporary_folder(there):
            pass
    except OSError as error:
        if error.errno not in _UNWRITABLE or folder or not os.access(target, os.W_OK):
            raise OSError(error.errno, error.strerror, str(there)) from None  # and not the temporary name


def _exists(place: Path) -> bool:
    """Tell whether something stands at a path; a file on the way to it is told of when that is tried."""
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _without_locks(folder: Path, *, alone: bool) -> None:
    """Refuse to work in a folder on a disk without locks, or warn."""
    if not alone:
        raise DupmaeError(
            f"The disk of {folder} keeps no file locks, so another process may be at work there: name a new output, "
            "or work on a local disk and copy the result."
        )
    _warn_of_no_locks(folder.stat().st_dev)


@functools.cache
def _warn_of_no_locks(device: int) -> None:
    """Warn once of a disk without locks."""
    logger.warning("The disk of the output keeps no file locks: give no other command the same output meanwhile.")


def _finish_file(path: Path, mode: int) -> None:
    """Let others read a file as they may other new ones (safetensors' are its owner's alone), and flush it to disk."""
    _flush_file(path)
    path.chmod(mode)


def _flush_file(path: Path) -> None:
    """Flush a file to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
