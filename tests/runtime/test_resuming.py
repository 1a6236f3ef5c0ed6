"""The record of a run: refusing, going on, finishing, and taking it back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dupmae.errors import DupmaeError
from dupmae.runtime.resuming import RecordedRun, recorded_run, sole_run

DETAILS = {"fingerprint": "mine", "settings": {"steps": 3}}


def begin(output: Path, **details: Any) -> Any:
    return recorded_run(output / "run.json", DETAILS | details, "toy", result=output / "model")


def record_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "run.json").read_text(encoding="utf-8"))
    return found


def finish(output: Path) -> RecordedRun:
    with begin(output) as run:
        if not run.finished:
            (output / "model").mkdir()
    return run


def test_a_run_is_unfinished_until_its_work_is_done_and_then_says_what_it_found(tmp_path: Path) -> None:
    with begin(tmp_path / "run") as run:
        assert record_of(tmp_path / "run") == {**DETAILS, "finished": False}
        assert not run.finished
        for name in ("model", "checkpoints", "kept"):
            (tmp_path / "run" / name).mkdir()
        run.record["factor"] = 2
    assert record_of(tmp_path / "run") == {**DETAILS, "factor": 2, "finished": True}
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["model", "run.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # and no lock


def test_a_finished_run_is_not_done_again_unless_its_result_is_gone(tmp_path: Path) -> None:
    finish(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    assert finish(tmp_path).finished
    assert (tmp_path / "run.json").read_bytes() == before
    (tmp_path / "model").rmdir()
    assert not finish(tmp_path).finished


@pytest.mark.parametrize("there", [False, True])
def test_work_that_fails_before_it_leaves_a_trace_leaves_the_folder_as_it_was(tmp_path: Path, there: bool) -> None:
    output = tmp_path / "run"
    if there:
        output.mkdir()
    with pytest.raises(ValueError, match="refused"), begin(output):
        raise ValueError("refused")
    assert output.exists() == there
    with begin(output, fingerprint="another's"):
        pass


@pytest.mark.parametrize("trace", ["model", "metrics.jsonl", "held_out.jsonl", "checkpoints", "kept"])
def test_work_that_fails_after_it_has_left_a_trace_keeps_its_record(tmp_path: Path, trace: str) -> None:
    def work() -> None:
        (tmp_path / trace).mkdir()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"), begin(tmp_path):
        work()
    with pytest.raises(DupmaeError, match="holds a toy run with other settings"), begin(tmp_path, fingerprint="other"):
        pass
    (tmp_path / "run.json").unlink()
    with pytest.raises(DupmaeError, match="holds other results"), begin(tmp_path):
        pass


def test_two_runs_are_not_at_work_in_one_folder(tmp_path: Path) -> None:
    with (
        begin(tmp_path / "run"),
        pytest.raises(DupmaeError, match="Another process is at work"),
        begin(tmp_path / "run"),
    ):
        pass


def test_only_the_first_of_several_processes_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with begin(tmp_path / "run") as run:
        assert not run.finished
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"{", b"[]", b'"a"', b'{"fingerprint": "mine"}', b"\xff\xfe{\x00", None])
def test_a_damaged_record_is_told_with_what_to_do(content: bytes | None, tmp_path: Path) -> None:
    if content is None:
        os.mkfifo(tmp_path / "run.json")
    else:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(DupmaeError, match=r"run\.json is damaged: delete the folder"), begin(tmp_path):
        pass


def test_a_run_in_a_folder_beside_which_nothing_may_be_written_locks_the_folder_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "mounted"
    output.mkdir()
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    with sole_run(output):
        assert [path.name for path in tmp_path.iterdir()] == ["mounted"]
        with pytest.raises(DupmaeError, match="Another process is at work"), sole_run(output):
            pass
    with sole_run(output):
        assert not list(output.iterdir())


def test_a_run_that_was_killed_before_it_did_anything_is_not_in_the_way_of_another(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), begin(tmp_path / "run"):
        raise KeyboardInterrupt
    with begin(tmp_path / "run", fingerprint="another") as run:
        assert not run.finished
    with pytest.raises(DupmaeError, match="other settings"), begin(tmp_path / "run"):
        pass
