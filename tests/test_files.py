"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from dupmae import files
from dupmae.errors import DupmaeError
from dupmae.files import (
    atomic_folder,
    atomic_path,
    atomic_write,
    file_fingerprint,
    file_sha256,
    fingerprint,
    is_full_disk,
    is_standard_output,
    locked,
    refuse_foreign,
    refuse_unwritable,
    refuse_unwritable_file,
    sweep,
    write_json,
)


def with_write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text[:1])
        assert not path.exists() or path.read_text(encoding="utf-8") == "old"
        file.write(text[1:])


def with_path(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.unlink()  # as a library may that writes a file of its own over it
        temporary.touch(mode=0o600)
        temporary.write_text(text, encoding="utf-8")


def with_folder(path: Path, text: str) -> None:
    with atomic_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").touch(mode=0o600)
        (temporary / "inner" / "file").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("write", [with_write, with_path])
def test_a_file_is_put_in_the_place_of_an_older_one(write: Callable[[Path, str], None], tmp_path: Path) -> None:
    for text in ("old", "grün"):
        write(tmp_path / "new" / "file", text)
        assert (tmp_path / "new" / "file").read_text(encoding="utf-8") == text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_folder_is_put_in_the_place_of_an_older_one_with_all_that_it_holds(tmp_path: Path) -> None:
    with_folder(tmp_path / "folder", "old")
    (tmp_path / "folder" / "more").touch()
    with_folder(tmp_path / "folder", "new")
    assert (tmp_path / "folder" / "inner" / "file").read_text(encoding="utf-8") == "new"
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "inner", "file"]


@pytest.mark.parametrize("kept", ["file", "folder/inner/file"])
def test_others_may_read_what_they_may_of_other_new_files(kept: str, tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with_path(tmp_path / "file", "text")
    with_folder(tmp_path / "folder", "text")
    assert stat.S_IMODE((tmp_path / kept).stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


@pytest.mark.parametrize("open_for_writing", [atomic_write, atomic_path, atomic_folder])
def test_what_fails_leaves_nothing_and_an_older_version_alone(
    open_for_writing: Callable[[Path], object], tmp_path: Path
) -> None:
    def fail() -> None:
        with open_for_writing(tmp_path / "x"):  # type: ignore[attr-defined]
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "old"]


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file", "wb") as file:
        file.write(b"\xff\r\n")
    assert (tmp_path / "file").read_bytes() == b"\xff\r\n"


def test_json_is_indented_and_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"a": "ü"})
    assert (tmp_path / "file").read_text(encoding="utf-8") == '{\n  "a": "ü"\n}\n'


def test_only_an_empty_folder_or_an_older_one_of_the_kind_may_be_replaced(tmp_path: Path) -> None:
    refuse_foreign(tmp_path / "nothing", "mine")
    refuse_foreign(tmp_path, "mine")
    (tmp_path / "thesis").touch()
    for place in (tmp_path, tmp_path / "thesis"):
        with pytest.raises(DupmaeError, match="holds something else"):
            refuse_foreign(place, "mine")
    (tmp_path / "mine").touch()
    refuse_foreign(tmp_path, "mine")


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path / "new" / "x")
    refuse_unwritable_file(tmp_path / "new" / "x")
    assert not list(tmp_path.iterdir())  # finding out changes nothing
    (tmp_path / "file").touch()
    for refuse, place in (
        (refuse_unwritable, "file/x"),
        (refuse_unwritable_file, "file/x"),
        (refuse_unwritable, "file"),
        (refuse_unwritable_file, "x" * 300),
        (refuse_unwritable, "new/" + "x" * 300),
    ):
        with pytest.raises(DupmaeError, match=r"cannot be written \(|file name too long"):
            refuse(tmp_path / place)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DupmaeError, match="is a folder: name a file"):
        refuse_unwritable_file(tmp_path / "folder")
    with pytest.raises(DupmaeError, match="names no folder"):
        refuse_unwritable(Path("-"))


@pytest.mark.parametrize("write", [with_write, with_path])
def test_a_file_goes_where_links_lead_and_the_links_stay(write: Callable[[Path, str], None], tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").write_text("old", encoding="utf-8")
    (tmp_path / "link").symlink_to("second")
    (tmp_path / "second").symlink_to("far/file")
    (tmp_path / "dangling").symlink_to("far/new/file")
    write(tmp_path / "link", "new")
    write(tmp_path / "dangling", "new")
    assert all((tmp_path / name).is_symlink() for name in ("link", "second", "dangling"))
    assert (tmp_path / "far" / "file").read_text(encoding="utf-8") == "new"
    assert (tmp_path / "far" / "new" / "file").read_text(encoding="utf-8") == "new"


def test_a_link_that_leads_back_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for try_it in (refuse_unwritable, refuse_unwritable_file, lambda path: write_json(path, 1)):
        with pytest.raises(DupmaeError, match="leads back to itself"):
            try_it(tmp_path / "one")


def test_a_folder_goes_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "old").touch()
    (tmp_path / "link").symlink_to("far")
    with_folder(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["inner"]


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text(encoding="utf-8")))
    reader.start()
    write_json(tmp_path / "pipe", [1])
    reader.join()
    assert json.loads(read[0]) == [1]
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_pipe_that_nobody_reads_is_told_instead_of_waited_for(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(files, "LONGEST_WAIT", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DupmaeError, match="pipe is a pipe that nobody reads"):
        write_json(tmp_path / "pipe", [1])


@pytest.mark.parametrize("device", ["/dev/null", "link"])
def test_a_device_is_written_into_and_never_replaced(device: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    write_json(tmp_path / device, [1])
    assert stat.S_ISCHR((tmp_path / device).stat().st_mode)
    assert (tmp_path / "link").is_symlink()


def test_a_device_that_is_full_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="/dev/full") as raised:
        write_json(Path("/dev/full"), [1])
    assert is_full_disk(raised.value)


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_the_standard_output_has_several_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("/dev/stdout")
    write_json(Path(name), {"a": "ü"})
    assert json.loads(capsys.readouterr().out) == {"a": "ü"}
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    assert is_standard_output(name) or name == "link"
    with pytest.raises(DupmaeError, match="is no folder"), atomic_folder(Path(name)):
        pass


def test_another_descriptor_is_written_into(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        log.write("before ")
        log.flush()
        write_json(Path(f"/dev/fd/{log.fileno()}"), 1)
    assert (tmp_path / "log").read_text(encoding="utf-8") == "before 1\n"


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV])
def test_a_mount_point_is_filled(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.rename
    mounts = {str(tmp_path / name) for name in ("folder", "file")}

    def rename(source: Any, target: Any, **options: Any) -> None:
        if mounts & {os.fspath(source), os.fspath(target)}:
            raise OSError(code, os.strerror(code), source, None, target)
        real(source, target, **options)

    monkeypatch.setattr("os.rename", rename)
    monkeypatch.setattr("os.replace", rename)
    monkeypatch.setattr("dupmae.files._exchange", lambda one, other: rename(one, other))
    with_folder(tmp_path / "new", "old")
    for name in ("folder", "file"):
        (tmp_path / name).mkdir() if name == "folder" else (tmp_path / name).write_text("old", encoding="utf-8")
    (tmp_path / "folder" / "inner").mkdir()
    (tmp_path / "folder" / "earlier").touch()
    inodes = [(tmp_path / name).stat().st_ino for name in ("folder", "file")]
    with_folder(tmp_path / "folder", "new")
    with_path(tmp_path / "file", "new")
    assert (tmp_path / "folder" / "inner" / "file").read_text(encoding="utf-8") == "new"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["inner"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "new"
    assert [(tmp_path / name).stat().st_ino for name in ("folder", "file")] == inodes


def test_an_older_file_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o640)
    with_path(tmp_path / "file", "new")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_there_at_every_moment_or_comes_back(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an exchange of names a kill may come when there is none; the next call puts the new one there."""
    if not exchanges:
        monkeypatch.setattr("dupmae.files._exchange", lambda *_: False)
    with_folder(tmp_path / "folder", "old")
    kill = textwrap.dedent(
        f"""
        import os, sys
        from pathlib import Path
        from dupmae import files
        if not {exchanges}:
            files._exchange = lambda *_: False
        names = ("rename", "replace") if {exchanges} else ("rename",)
        real = os.rename
        def rename(source, target, **_):
            if str(target).endswith("folder") and "{exchanges}" == "False":
                os.kill(os.getpid(), 9)
            real(source, target)
        os.rename = rename
        with files.atomic_folder(Path(sys.argv[1])) as temporary:
            (temporary / "new").touch()
        """
    )
    subprocess.run([sys.executable, "-c", kill, str(tmp_path / "folder")], check=False)
    if not exchanges:
        assert not (tmp_path / "folder").exists()
        sweep(tmp_path)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_makes_is_not(tmp_path: Path) -> None:
    kill = "import os, sys; from pathlib import Path; from dupmae.files import atomic_path\n"
    kill += "with atomic_path(Path(sys.argv[1])) as file: file.write_text('half'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", kill, str(tmp_path / "file")], check=False)
    (left,) = tmp_path.iterdir()
    foreign = [tmp_path / ".dupmae-notes", tmp_path / ".dupmae-0123456789abcdef.txt"]
    for path in foreign:
        path.mkdir()
    (tmp_path / ".dupmae-0123456789abcdef").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with atomic_write(tmp_path / "living") as file:
        write_json(tmp_path / "file", 1)
        assert not left.exists()
        file.write("whole")
    assert (tmp_path / "living").read_text(encoding="utf-8") == "whole"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*(path.name for path in foreign), ".dupmae-0123456789abcdef", "elsewhere", "file", "living"}


def test_a_temporary_name_is_private_and_differs_each_time(tmp_path: Path) -> None:
    seen = set()
    for _ in range(2):
        with atomic_path(tmp_path / "file") as temporary:
            seen.add(temporary.parent.name)
            assert stat.S_IMODE(temporary.parent.stat().st_mode) == 0o700
    assert len(seen) == 2


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("iostream error")])
def test_a_full_disk_is_the_one_of_the_output(error: Exception, tmp_path: Path) -> None:
    for write in (atomic_path, atomic_folder):
        with pytest.raises(OSError, match="No space left") as raised, write(tmp_path / "x"):
            raise error
        assert raised.value.filename == str(tmp_path / "x")
        if isinstance(error, OSError):
            error.filename = None


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES])
def test_a_folder_that_cannot_be_flushed_is_written_all_the_same(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.fsync", refuse)
    with_folder(tmp_path / "folder", "new")
    with_path(tmp_path / "file", "new")
    monkeypatch.setattr("os.fsync", mock.Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        with_path(tmp_path / "file", "new")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_one_writer_goes_on_where_it_is_certain_to_be_alone(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files._warn_of_no_locks.cache_clear()
    monkeypatch.setattr("fcntl.flock", mock.Mock(side_effect=OSError(code, os.strerror(code))))
    with_path(tmp_path / "file", "new")
    with pytest.raises(DupmaeError, match="keeps no file locks"), locked(tmp_path / "lock", "taken"):
        pass
    for _ in range(2):
        with locked(tmp_path / "lock", "taken", alone=lambda: True):
            pass
    assert caplog.text.count("no file locks") == 1


def test_a_name_that_is_not_utf_8_can_be_recorded_and_read_again(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / name, {"corpus": name, "é": 1})
    assert json.loads((tmp_path / name).read_text(encoding="utf-8")) == {"corpus": name, "é": 1}
    assert fingerprint(name) != fingerprint("café")


def test_a_lock_that_is_held_is_told_of_and_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            locked(tmp_path / "lock", "taken"),
            pytest.raises(DupmaeError, match="taken"),
            locked(tmp_path / "lock", "taken"),
        ):
            pass


def test_fingerprints_follow_the_value_and_not_the_order_of_keys(tmp_path: Path) -> None:
    digits = "ae8a9a5052464275"  # printf '{"a": 1, "b": [2]}' | sha256sum
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) == digits
    assert fingerprint({"a": 1, "b": [3]}) != fingerprint({"a": 1, "b": [2]})
    (tmp_path / "file").write_bytes(b"abc")
    digits = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180-2
    assert (file_sha256(tmp_path / "file"), file_fingerprint(tmp_path / "file")) == (digits, digits[:16])
