"""Whole checkpoints: sealed, verified, and the one before taken where the last one is not whole."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dupmae.errors import DupmaeError
from dupmae.runtime import checkpoints
from dupmae.runtime.checkpoints import SealCheckpoints, last_checkpoint, seal
from dupmae.runtime.checksums import CHECKSUMS_FILE

FILES = {
    "1_Pooling/config.json": b"{}\n",
    "model.safetensors": b"weights" * 50,
    "optimizer.pt": b"moments" * 50,
    "rng_state.pth": b"random" * 50,
    "scheduler.pt": b"steps" * 50,
    "trainer_state.json": b'{"global_step": 4}\n',
}
REQUIRED = ["model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FAULTS: list[Callable[[Path], None]] = [cut, empty, flip, Path.unlink, pipe]


def write(folder: Path, *steps: int) -> Path:
    """Write sealed checkpoints as the Trainer and the callback do."""
    for step in steps:
        checkpoint = folder / f"checkpoint-{step}"
        for name, content in FILES.items():
            file = checkpoint / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content + str(step).encode())
        args, state = SimpleNamespace(output_dir=str(folder)), SimpleNamespace(global_step=step)
        SealCheckpoints().on_save(args, state, None)
    return folder


def test_the_last_one_and_the_one_before_it_stay(tmp_path: Path) -> None:
    folder = write(tmp_path, 2, 4, 6, 100)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-100", "checkpoint-6"]
    assert last_checkpoint(folder) == (100, folder / "checkpoint-100")
    assert last_checkpoint(tmp_path / "nowhere") == (0, None)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", [*FILES, CHECKSUMS_FILE])
def test_whichever_file_is_damaged_the_one_before_is_taken_and_told(
    name: str, fault: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path, 2, 4)
    if name == CHECKSUMS_FILE and fault is cut:
        fault = flip  # a missing line end is no damage
    fault(folder / "checkpoint-4" / name)
    with caplog.at_level(logging.WARNING, "dupmae"):
        assert last_checkpoint(folder) == (2, folder / "checkpoint-2")
    (line,) = caplog.messages
    assert str(folder / "checkpoint-4") in line
    assert "goes on from checkpoint-2" in line
    assert [path.name for path in folder.iterdir()] == ["checkpoint-2"]
    fault(folder / "checkpoint-2" / name)
    assert last_checkpoint(folder) == (0, None)
    assert "from the beginning" in caplog.messages[-1]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_where_none_is_whole_the_folder_to_delete_is_named_and_nothing_is_touched(
    fault: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = write(tmp_path, 2, 4)
    for step, name in ((2, "model.safetensors"), (4, "optimizer.pt")):
        fault(folder / f"checkpoint-{step}" / name)
    for _ in range(2):
        with pytest.raises(DupmaeError, match=f"No checkpoint in {folder} is whole .*: delete this folder, and"):
            last_checkpoint(folder)
    assert len(list(folder.iterdir())) == 2
    shutil.rmtree(folder)
    assert last_checkpoint(folder) == (0, None)


@pytest.mark.parametrize("name", REQUIRED)
def test_no_part_is_ever_left_out(name: str, tmp_path: Path) -> None:
    whole = write(tmp_path, 2, 4) / "checkpoint-4"
    (whole / name).unlink()
    with pytest.raises(DupmaeError, match="was written without its"):
        seal(whole, processes=1)
    lines = (whole / CHECKSUMS_FILE).read_text(encoding="utf-8").splitlines(keepends=True)
    (whole / CHECKSUMS_FILE).write_text("".join(line for line in lines if name not in line), encoding="utf-8")
    assert last_checkpoint(tmp_path) == (2, tmp_path / "checkpoint-2")


def test_each_process_has_its_own_random_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write(tmp_path, 2) / "checkpoint-2"
    (whole / "rng_state.pth").rename(whole / "rng_state_0.pth")
    with pytest.raises(DupmaeError, match="without its random states"):
        seal(whole, processes=2)
    (whole / "rng_state_1.pth").write_bytes(b"random")
    seal(whole, processes=2)


def test_checksums_come_last_when_everything_else_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(tmp_path, 2) / "checkpoint-2"
    (whole / CHECKSUMS_FILE).unlink()
    flushed: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(checkpoints.os, "fsync", noting)
    seal(whole, processes=1)
    sums = next(place for place, path in enumerate(flushed) if CHECKSUMS_FILE in path)
    assert {str(whole / name) for name in FILES} | {str(whole / "1_Pooling")} <= set(flushed[:sums])
    assert flushed[sums + 1 :] == [str(whole), str(tmp_path)]
