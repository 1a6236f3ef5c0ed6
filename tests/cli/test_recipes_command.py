"""Recipes and samples that come with the package are found by name from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dupmae.cli import load_recipe, main
from dupmae.runtime.places import shipped


def test_they_are_listed_and_written_out(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert listed.startswith("adapt-domain ")
    assert "\nscifact " in listed
    assert main(["recipes", "scifact", "--output", "mine.yaml"]) == 0
    assert load_recipe("mine.yaml").name == "scifact"
    assert main(["recipes", "demo"]) == 0
    assert "name: scifact, from dupmae-small" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "hint"), [("scifcat", "did you mean scifact"), ("zzz", "see dupmae recipes")])
def test_an_unknown_one_is_refused(name, hint, capsys) -> None:
    assert main(["recipes", name]) == 2
    assert hint in capsys.readouterr().err


def test_a_recipe_runs_by_name_from_any_folder(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "demo", "--dry_run", "--output", "out"]) == 0
    assert "3-finetune" in capsys.readouterr().out
    assert main(["run", "nowhere", "--dry_run"]) == 2
    assert "nowhere: no such settings file" in capsys.readouterr().err


def test_the_sample_is_found_where_nothing_of_that_name_lies(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["encode", "--model", "dupmae-small", "--input", "data/nothing.jsonl", "--output", "e"]) == 2
    assert "data/nothing.jsonl does not exist" in capsys.readouterr().err
    (tmp_path / "data" / "sample").mkdir(parents=True)
    (tmp_path / "data" / "sample" / "corpus.jsonl").write_text("{")
    assert main(["encode", "--model", "dupmae-small", "--input", "data/sample/corpus.jsonl", "--output", "e"]) == 2
    assert "line 1" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["data/../pyproject.toml", "src/dupmae", "/data/sample", "data/none", ""])
def test_nothing_else_is_found_so(path) -> None:
    assert shipped(path) is None
