"""`dupmae sync` from end to end, with a tiny random model."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dupmae.cli import entry as cli
from dupmae.index import DuplexIndex


@pytest.fixture
def folder(tmp_path: Path, texts: list[str]) -> Path:
    """A folder of six files, one of them long enough for chunks, and one that is not read."""
    made = tmp_path / "files"
    (made / "sub").mkdir(parents=True)
    for number in range(5):
        (made / f"{number}.txt").write_text(texts[number], encoding="utf-8")
    (made / "sub" / "long.md").write_text("# One\n\n" + "\n\n".join(texts[5:]), encoding="utf-8")
    (made / "picture.png").write_bytes(b"\x89PNG")
    return made


@pytest.fixture
def index(tmp_path: Path, duplex_folder: Path, folder: Path) -> str:
    words = ["index", "build", "--model", str(duplex_folder), "--corpus", str(folder), "--chunk_tokens", "40"]
    assert cli.main([*words, "--output", str(tmp_path / "index")]) == 0
    return str(tmp_path / "index")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert cli.main(["sync", *words]) == 0
    return capsys.readouterr().out.strip()


def test_a_folder_that_changed_is_followed(
    index: str, folder: Path, texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, index, str(folder)).endswith("0 new, 0 changed, 0 gone, 6 as they are; passages encoded: 0")
    before = {passage.id for passage in DuplexIndex.open(Path(index)) if passage.document == "sub/long.md"}
    assert len(before) > 3
    (folder / "sub" / "long.md").rename(folder / "moved.md")
    (folder / "1.txt").write_text("another " + texts[1], encoding="utf-8")
    (folder / "2.txt").unlink()
    assert said(capsys, index, str(folder), "--dry_run").splitlines()[:-1] == [
        "new: moved.md",
        "changed: 1.txt",
        "gone: 2.txt",
        "gone: sub/long.md",
    ]
    done = said(capsys, index, str(folder))
    assert done.endswith("1 new, 1 changed, 2 gone, 3 as they are; passages encoded: 1")
    held = {passage.document for passage in DuplexIndex.open(Path(index))}
    assert held == {"0.txt", "1.txt", "3.txt", "4.txt", "moved.md"}


def test_a_file_that_cannot_be_read_keeps_what_the_index_holds_of_it(
    index: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "3.txt").write_bytes(b"\xff\xff\xff")
    (folder / "0.txt").unlink()
    assert "0 new, 0 changed, 1 gone, 4 as they are" in said(capsys, index, str(folder))
    assert "3.txt" in DuplexIndex.open(Path(index))
    assert cli.main(["sync", index, str(folder), "--strict"]) == 2
    assert "3.txt" in capsys.readouterr().err


def test_another_folder_is_refused(index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("else")
    assert cli.main(["sync", index, str(tmp_path / "other")]) == 2
    assert "None of the 6 documents of the index is in the corpus" in capsys.readouterr().err
    assert DuplexIndex.open(Path(index)).snapshot.documents == 6


def test_watching_does_it_again_until_it_is_interrupted(
    index: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) > 1:
            raise KeyboardInterrupt
        (folder / "new.txt").write_text("ba de")

    monkeypatch.setattr(time, "sleep", wait)
    capsys.readouterr()
    assert cli.main(["sync", index, str(folder), "--watch", "7"]) == 130
    assert waited == [7, 7]
    lines = [line for line in capsys.readouterr().out.splitlines() if "In step" in line]
    assert [line.split(": ", 2)[2].split(",")[0] for line in lines] == ["0 new", "1 new"]
