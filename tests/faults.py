"""Let the n-th file operation of a change fail, or let the power go at it, for every n.

    def prepare() -> Path: ...                      # a folder of its own in the old state
    def change(folder: Path) -> None: ...           # what is tried
    def check(folder: Path, fault: Fault) -> None:  # the old state or the new one is there

    assert every_fault(prepare, change, check) > 20

What counts is what Python does below the folder: open, write (of `os` and of file objects), fsync, rename, unlink,
mkdir, rmdir, link, truncate, chmod. An error of the operating system is raised in its place; of a write, half the bytes
are written first. Kinds of faults beside the errors' names:

* `kill`: nothing happens from there on, and what happened before stays: a process that dies;
* `power`: beside that, contents and folders are set back to their last fsync;
* `power, names kept`: contents are set back and names are not, as a file system may that writes its folders first.

A file whose name was made to last but whose content was not is empty then. Reading never counts but for the open.
Libraries that write by themselves (safetensors' and Arrow's own files, numpy's `tofile`) escape being counted, though
not the loss of power.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import itertools
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

ERRORS = ("EIO", "ENOSPC", "EMFILE", "EROFS")
LOSSES = ("kill", "power", "power, names kept")
KINDS = (*ERRORS, *LOSSES)
_OF_OPEN = ("EMFILE",)  # errors that an open alone may have
_NO_CHANGE = ("open to read", "fsync")  # operations that a read-only or full disk lets pass


class LostPowerError(BaseException):
    """Ends the work at the operation at which the process dies or the power goes; nothing is to handle it."""


@dataclass
class Fault:
    """What was made to fail, and how the change took it."""

    kind: str
    """One of `KINDS`."""
    number: int
    """Of the operation, from 1."""
    operation: str = ""
    """The operation and its file, relative to the folder; empty if there were fewer."""
    error: BaseException | None = None
    """What the change raised; None if it finished."""
    done: list[str] = field(default_factory=list)
    """All operations so far."""

    @property
    def lost(self) -> bool:
        """Whether the process died or the power went."""
        return self.kind in LOSSES

    def __str__(self) -> str:
        return f"{self.kind} at operation {self.number} ({self.operation or 'after the last one'}): {self.error!r}"


def every_fault(
    prepare: Callable[[], Path],
    change: Callable[[Path], object],
    check: Callable[[Path, Fault], object],
    kinds: Sequence[str] = KINDS,
    numbers: Sequence[int] | None = None,
) -> int:
    """Run `change` once for each kind and each n, the n-th operation failing; `check` what is left, each time.

    The last run of each kind has no fault, but for the kinds that lose something the loss comes once it has finished.

    Args:
        prepare: Makes a folder in the old state.
        change: What is tried, given the folder.
        check: Asserts that the old state or the new one is there, given the folder and the fault.
        kinds: Some of `KINDS`.
        numbers: Rising n to try instead of every one, for what takes long.

    Returns:
        How many faults there were.
    """
    faults = 0
    for kind in kinds:
        for number in itertools.count(1) if numbers is None else numbers:
            folder = prepare()
            with failing(folder, number, kind) as fault:
                try:
                    change(folder)
                except LostPowerError as error:
                    fault.error = error
                except Exception as error:
                    if not fault.operation:
                        raise
                    fault.error = error
            try:
                check(folder, fault)
            except BaseException as error:
                error.add_note(f"{fault}\nafter {fault.done[-12:]}")
                raise
            if not fault.operation:
                break
            faults += 1
    return faults


@contextlib.contextmanager
def failing(folder: Path, number: int, kind: str) -> Iterator[Fault]:
    """Let the `number`-th operation below `folder` that can fail so fail within the context.

    What is lost with the power is set back when the context is left, whether that operation was reached or not.
    """
    disk = _Disk(folder, Fault(kind, number))
    with contextlib.ExitStack() as stack:
        for owner, name in disk.replaced:
            stack.enter_context(mock.patch.object(owner, name, getattr(disk, f"_{name}")(getattr(owner, name))))
        try:
            yield disk.fault
        finally:
            disk.dead = disk.fault.lost
    try:
        if kind.startswith("power"):
            disk.set_back(names_too=kind == "power")
    finally:
        disk.close()


class _Disk:
    """Count what happens below a folder, and remember what would outlast the loss of power."""

    replaced = (
        (builtins, "open"),
        (io, "open"),
        *(
            (os, name)
            for name in (
                *("open", "write", "writev", "pwrite", "sendfile", "fsync", "fdatasync", "rename", "replace", "unlink"),
                *("remove", "mkdir", "rmdir", "link", "symlink", "truncate", "ftruncate", "chmod", "fchmod"),
            )
            if hasattr(os, name)
        ),
    )

    def __init__(self, folder: Path, fault: Fault) -> None:
        self.folder, self.fault = os.path.realpath(folder), fault
        self.dead = False
        self._count = 0
        self._lock = threading.RLock()
        self._real_open, self._real_os_open, self._real_fsync = io.open, os.open, os.fsync
        self._paths: dict[int, tuple[str, int]] = {}  # descriptor: path and inode
        self._kept: dict[int, int] = {}  # inode: a descriptor, so that no other file gets its number
        self._contents: dict[int, bytes] = {}  # inode of a file: content at its last fsync
        self._entries: dict[int, dict[str, int | str]] = {}  # inode of a folder: names at its last fsync
        for place, _, files in os.walk(self.folder):
            self._remember(place)
            for name in files:
                if not os.path.islink(path := os.path.join(place, name)):  # noqa: PTH118, PTH114
                    self._remember(path)

    # What outlasts a loss of power.

    def _remember(self, path: str | int) -> None:
        """Take what is at a path, or behind a descriptor, as flushed."""
        found = os.stat(path)  # noqa: PTH116
        if found.st_ino not in self._kept:
            place = self._paths[path][0] if isinstance(path, int) else path
            self._kept[found.st_ino] = self._real_os_open(place, os.O_RDONLY)
        own = self._kept[found.st_ino]
        if stat.S_ISDIR(found.st_mode):
            entries: dict[str, int | str] = {}
            with os.scandir(own) as listed:
                for entry in listed:
                    inode = entry.stat(follow_symlinks=False).st_ino
                    entries[entry.name] = os.readlink(entry.name, dir_fd=own) if entry.is_symlink() else inode
                    if not entry.is_symlink() and inode not in self._kept:
                        self._kept[inode] = self._real_os_open(entry.name, os.O_RDONLY, dir_fd=own)
            self._entries[found.st_ino] = entries
        else:
            self._contents[found.st_ino] = os.pread(own, found.st_size, 0)

    def set_back(self, *, names_too: bool) -> None:
        """Make the folder what it would be after the power came back."""
        root = os.stat(self.folder).st_ino  # noqa: PTH116
        if not names_too:
            self._entries = {}
            for place, _, _ in os.walk(self.folder):
                self._remember(place)
        kinds = {inode: stat.S_ISDIR(os.fstat(descriptor).st_mode) for inode, descriptor in self._kept.items()}
        for entry in os.scandir(self.folder):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else Path(entry.path).unlink()

        def write(place: Path, inode: int) -> None:
            for name, what in self._entries.get(inode, {}).items():
                if isinstance(what, str):
                    (place / name).symlink_to(what)
                elif kinds[what]:
                    (place / name).mkdir()
                    write(place / name, what)
                else:
                    (place / name).write_bytes(self._contents.get(what, b""))

        write(Path(self.folder), root)

    def close(self) -> None:
        for descriptor in self._kept.values():
            os.close(descriptor)

    # What counts.

    def _ours(self, path: Any, folder: int | None = None) -> str | None:
        """Resolve what an operation names, a path or a descriptor; None outside the folder."""
        if isinstance(path, int):
            known, inode = self._paths.get(path, ("", 0))
            with contextlib.suppress(OSError):
                return known if known and os.fstat(path).st_ino == inode else None
            return None
        whole = os.fsdecode(path)
        if folder is not None and not os.path.isabs(whole):  # noqa: PTH117
            base = self._ours(folder)
            if base is None:
                return None
            whole = os.path.join(base, whole)  # noqa: PTH118
        parent, name = os.path.split(os.path.abspath(whole))  # noqa: PTH100
        whole = os.path.join(os.path.realpath(parent), name)  # noqa: PTH118
        return whole if whole == self.folder or whole.startswith(self.folder + os.sep) else None

    def _happens(self, operation: str, path: str, half: Callable[[], object] | None = None) -> None:
        """Count an operation, and raise if it is the one that fails; `half` of it is done before."""
        with self._lock:
            if self.dead:
                raise LostPowerError
            fault = self.fault
            if fault.kind in _OF_OPEN and not operation.startswith("open"):
                return
            if fault.kind in ("ENOSPC", "EROFS") and operation in _NO_CHANGE:
                return
            self._count += 1
            name = f"{operation} {os.path.relpath(path, self.folder)}"
            fault.done.append(name)
            if self._count != fault.number:
                return
            fault.operation = name
            if half is not None and fault.kind not in ("EMFILE", "EROFS"):
                half()
            if fault.lost:
                self.dead = True
                raise LostPowerError
            number = getattr(errno, fault.kind)
            raise OSError(number, os.strerror(number), path)

    def _opened(self, descriptor: int, path: str) -> None:
        self._paths[descriptor] = (path, os.fstat(descriptor).st_ino)

    # One function for each function that is replaced: it takes that and returns what stands in for it.

    def _open(self, real: Any) -> Any:
        return self._os_open(real) if real is self._real_os_open else self._file_open(real)

    def _os_open(self, real: Any) -> Any:
        def stand_in(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            ours = self._ours(path, dir_fd)
            if ours is not None:
                writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                self._happens("open" if writes else "open to read", ours)
            descriptor = real(path, flags, mode, dir_fd=dir_fd)
            if ours is not None:
                self._opened(descriptor, ours)
            return int(descriptor)

        return stand_in

    def _file_open(self, real: Any) -> Any:
        def stand_in(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            ours = self._ours(file)
            writes = bool(set(mode) & set("wax+"))
            if ours is not None and not isinstance(file, int) and opener is None:
                self._happens("open" if writes else "open to read", ours)
            if ours is None or not writes:
                opened = real(file, mode, buffering, encoding, errors, newline, closefd, opener)
                if ours is not None:
                    self._opened(opened.fileno(), ours)
                return opened
            raw = _File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            raw.disk, raw.place = self, ours
            self._opened(raw.fileno(), ours)
            if buffering == 0:
                return raw
            buffered: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            if "b" in mode:
                return buffered
            return io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)

        return stand_in

    def _write(self, real: Any) -> Any:
        def stand_in(descriptor: int, data: Any) -> int:
            if (ours := self._ours(descriptor)) is not None:
                view = memoryview(data).cast("B")
                self._happens("write", ours, lambda: real(descriptor, view[: len(view) // 2]))
            return int(real(descriptor, data))

        return stand_in

    def _of_descriptor(self, operation: str, real: Any) -> Any:
        """Stand in for a function whose first argument is a descriptor or a path."""

        def stand_in(target: Any, *arguments: Any, dir_fd: int | None = None, **options: Any) -> Any:
            if (ours := self._ours(target, dir_fd)) is not None:
                self._happens(operation, ours)
            return real(target, *arguments, **options, **({} if dir_fd is None else {"dir_fd": dir_fd}))

        return stand_in

    def _writev(self, real: Any) -> Any:
        return self._of_descriptor("write", real)

    _pwrite = _sendfile = _writev

    def _fsync(self, real: Any) -> Any:
        def stand_in(file: Any) -> None:
            descriptor = file if isinstance(file, int) else file.fileno()
            ours = self._ours(descriptor)
            if ours is not None:
                self._happens("fsync", ours)
            # A real flush takes long, and no power goes here.
            if ours is None:
                real(file)
            else:
                self._remember(descriptor)

        return stand_in

    _fdatasync = _fsync

    def _unlink(self, real: Any) -> Any:
        return self._of_descriptor("unlink", real)

    _remove = _unlink

    def _mkdir(self, real: Any) -> Any:
        return self._of_descriptor("mkdir", real)

    def _rmdir(self, real: Any) -> Any:
        return self._of_descriptor("rmdir", real)

    def _truncate(self, real: Any) -> Any:
        return self._of_descriptor("truncate", real)

    _ftruncate = _truncate

    def _chmod(self, real: Any) -> Any:
        return self._of_descriptor("chmod", real)

    _fchmod = _chmod

    def _of_two(self, operation: str, real: Any) -> Any:
        """Stand in for a function that puts something, its first argument, at its second."""

        def stand_in(source: Any, target: Any, *arguments: Any, **options: Any) -> Any:
            folder = options.get("dst_dir_fd", options.get("dir_fd"))
            ours = self._ours(target, folder) or self._ours(source, options.get("src_dir_fd"))
            if ours is not None:
                self._happens(operation, ours)
            return real(source, target, *arguments, **options)

        return stand_in

    def _rename(self, real: Any) -> Any:
        return self._of_two("rename", real)

    _replace = _rename

    def _link(self, real: Any) -> Any:
        return self._of_two("link", real)

    _symlink = _link


class _File(io.FileIO):
    """A file that is written to; what a buffer above it hands down counts as one operation."""

    disk: _Disk
    place: str

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.disk.dead:
            return len(view)  # a buffer that is closed later must not complain
        self.disk._happens("write", self.place, lambda: super(_File, self).write(view[: len(view) // 2]))
        return int(super().write(view))

    def truncate(self, size: int | None = None) -> int:
        self.disk._happens("truncate", self.place)
        return super().truncate(size)
