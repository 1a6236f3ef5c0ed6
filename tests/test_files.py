"""Files and folders appear whole or not at all."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dupmae.errors import DupmaeError
from dupmae.files import (
    atomic_folder,
    atomic_path,
    atomic_write,
    file_fingerprint,
    file_sha256,
    fingerprint,
    locked,
    refuse_foreign,
    refuse_unwritable,
    refuse_unwritable_file,
    write_json,
)


def with_write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text[:1])
        assert not path.exists() or path.read_text(encoding="utf-8") == "old"
        file.write(text[1:])


def with_path(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
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
    assert (tmp_path / "new").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(DupmaeError, match=r"cannot be written \(.*file"):
        refuse_unwritable(tmp_path / "file" / "x")
    with pytest.raises(DupmaeError, match="is a folder: name a file"):
        refuse_unwritable_file(tmp_path / "new")


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
