"""The fixture of failing file operations counts what it says, and finds what a careless writer does wrong."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import ERRORS, KINDS, Fault, every_fault, failing

from dupmae.files import atomic_path, atomic_write


def prepared(tmp_path: Path) -> Callable[[], Path]:
    numbers = itertools.count()

    def prepare() -> Path:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        (folder / "file").write_text("old", encoding="utf-8")
        return folder

    return prepare


def careful(folder: Path) -> None:
    with atomic_write(folder / "file") as file:
        file.write("new")


def in_place(folder: Path) -> None:
    (folder / "file").write_text("new", encoding="utf-8")


def unflushed(folder: Path) -> None:
    (folder / "next").write_text("new", encoding="utf-8")
    (folder / "next").replace(folder / "file")


def flushed_too_late(folder: Path) -> None:
    unflushed(folder)
    for path in (folder / "file", folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def check(folder: Path, fault: Fault) -> None:
    assert (folder / "file").read_text(encoding="utf-8") in (("new",) if fault.error is None else ("old", "new"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_flushed_and_then_renamed_is_old_or_new_whatever_fails(kind: str, tmp_path: Path) -> None:
    assert every_fault(prepared(tmp_path), careful, check, [kind]) >= 2


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (in_place, "ENOSPC"),
        (in_place, "kill"),
        (in_place, "power"),
        (unflushed, "power"),
        (unflushed, "power, names kept"),
        (flushed_too_late, "power, names kept"),
    ],
)
def test_careless_writers_are_found_out(change: Callable[[Path], None], kind: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        every_fault(prepared(tmp_path), change, check, [kind])
    assert caught.value.__notes__[0].startswith(kind)


def test_every_operation_is_counted_through_files_descriptors_and_paths(tmp_path: Path) -> None:
    folder = prepared(tmp_path)()

    def change() -> None:
        with (folder / "a").open("wb") as file:
            file.write(b"1")
            file.flush()
            os.fsync(file)
            file.truncate(0)
        descriptor = os.open(folder / "b", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"2")
        os.close(descriptor)
        (folder / "b").rename(folder / "c")
        os.link(folder / "c", folder / "d")
        (folder / "inner").mkdir()
        (folder / "inner").rmdir()
        (folder / "d").chmod(0o600)
        (folder / "d").unlink()
        (folder / "c").read_bytes()
        (tmp_path / "outside").write_text("not counted", encoding="utf-8")

    with failing(folder, 0, "EIO") as fault:
        change()
    assert fault.done == [
        *("open a", "write a", "fsync a", "truncate a", "open b", "write b", "rename c", "link d", "mkdir inner"),
        *("rmdir inner", "chmod d", "unlink d", "open to read c"),
    ]


@pytest.mark.parametrize("kind", ERRORS)
def test_the_error_is_the_operating_systems_own(kind: str, tmp_path: Path) -> None:
    folder = prepared(tmp_path)()
    with failing(folder, 1, kind), pytest.raises(OSError, match=r"\[Errno") as caught:
        in_place(folder)
    assert caught.value.errno == getattr(__import__("errno"), kind)
    assert caught.value.filename == str((folder / "file").resolve())


def test_nothing_happens_once_the_power_is_gone(tmp_path: Path) -> None:
    folder = prepared(tmp_path)()

    def change() -> None:
        with atomic_path(folder / "file") as temporary:
            temporary.write_text("new", encoding="utf-8")  # its cleaning up finds no disk any more

    with failing(folder, 3, "kill"), pytest.raises(BaseException, match=r"^$"):
        change()
    assert sorted(path.name for path in folder.iterdir())[-1] == "file"
    assert len(list(folder.iterdir())) == 2
