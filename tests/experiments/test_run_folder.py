"""What a run's folder believes of its own records, which may be damaged or another's work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dupmae.errors import DupmaeError
from dupmae.experiments.run_folder import NEXT_FOLDER, REPLACED_FILE, RUN_FILE, RunFolder, Stage


def work(root: Path) -> dict[str, Any]:
    (root / "1-one").mkdir(parents=True, exist_ok=True)
    (root / "1-one" / "result.txt").write_text("made", encoding="utf-8")
    return {"chunks": 3}


STAGE = Stage(name="1-one", title="Make one", work=work, settings={"length": 8})


def carry_out(folder: Path) -> RunFolder:
    run = RunFolder(folder, "identity", [])
    run.carry_out([STAGE], {})
    return run


@pytest.fixture
def done(tmp_path: Path) -> Path:
    carry_out(tmp_path / "run")
    return tmp_path / "run"


def renamed(text: str) -> str:
    return text.replace('"chunks"', '"chunk"')


def cut(text: str) -> str:
    return text[: len(text) // 2]


@pytest.mark.parametrize("file", [RUN_FILE, "1-one/done.json"])
@pytest.mark.parametrize("damage", ["", "[]", "null", "{}", '{"stages": 1, "fingerprint": []}', "[" * 9999, cut])
def test_a_damaged_record_is_one_sentence(done: Path, file: str, damage: str | Callable[[str], str]) -> None:
    path = done / file
    path.write_text(damage(path.read_text(encoding="utf-8")) if callable(damage) else damage, encoding="utf-8")
    with pytest.raises(DupmaeError) as error:
        carry_out(done)
    assert str(path.name) in str(error.value) or str(done) in str(error.value)
    assert len(str(error.value)) < 500


def test_a_record_in_another_encoding_is_one_sentence(done: Path) -> None:
    path = done / "1-one" / "done.json"
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16-be"))
    with pytest.raises(DupmaeError, match=r"done\.json is damaged"):
        carry_out(done)


def test_figures_that_were_not_written_so_are_noticed_and_older_records_are_believed(done: Path) -> None:
    path = done / "1-one" / "done.json"
    written = path.read_text(encoding="utf-8")
    path.write_text(renamed(written), encoding="utf-8")
    with pytest.raises(DupmaeError, match="its content is not what was written"):
        carry_out(done)
    record = json.loads(written)
    del record["check"]
    path.write_text(json.dumps(record), encoding="utf-8")
    assert carry_out(done).metrics("1-one") == {"chunks": 3}
    path.unlink()
    assert carry_out(done).metrics("1-one") == {"chunks": 3}


@pytest.mark.parametrize(
    "name", ["../victim", "1-one/../../victim", "/victim", "", ".", "a/b/c", "a\\..\\b", ".hidden", 3, None, ["x"]]
)
def test_what_changes_places_lies_within_the_run(done: Path, tmp_path: Path, name: Any) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "dear.txt").write_text("dear", encoding="utf-8")
    (done / NEXT_FOLDER).mkdir()
    (done / NEXT_FOLDER / REPLACED_FILE).write_text(json.dumps([name]), encoding="utf-8")
    with pytest.raises(DupmaeError, match=r"replaced\.json is damaged"):
        carry_out(done)
    assert (victim / "dear.txt").read_text(encoding="utf-8") == "dear"
    assert (done / "1-one" / "result.txt").is_file()


def test_what_a_first_write_left_that_was_killed_is_nobodys_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.123.tmp").write_text("{", encoding="utf-8")
    assert carry_out(tmp_path / "run").metrics("1-one") == {"chunks": 3}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DupmaeError, match="holds other files"):
        carry_out(tmp_path / "other")


def test_a_link_that_cannot_be_made_while_taking_over_is_one_sentence(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    second = Stage(name="2-two", title="Make two", work=lambda root: (root / "2-two").mkdir(parents=True) or {})
    RunFolder(done, "identity", []).carry_out([STAGE, second], {})
    changed = Stage(name="2-two", title="Make two", work=second.work, settings={"other": 1})
    monkeypatch.setattr("dupmae.experiments.run_folder._link", fail)
    with pytest.raises(DupmaeError, match=r"result\.txt cannot be taken over|done\.json cannot be taken over"):
        RunFolder(done, "identity", []).carry_out([STAGE, changed], {})
