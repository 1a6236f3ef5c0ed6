"""The package as others meet it: light to import, typed, its names in place, its make targets whole."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path

import pytest

import dupmae

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = ("torch", "transformers", "sentence_transformers", "datasets", "numba", "matplotlib", "pyarrow", "scipy")


def loaded_after(statement: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded after the statement."""
    code = f"import sys\n{statement}\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(out.splitlines()[-1].split())


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import dupmae") == set()


def test_the_settings_can_be_had_without_loading_anything_heavy():
    assert loaded_after("from dupmae import Recipe, PretrainConfig, DupmaeError") == set()


@pytest.mark.parametrize("words", ["['--help']", "['pretrain', '--stesp', '3']"])
def test_help_and_refusals_load_nothing_heavy(words):
    assert loaded_after(f"from dupmae.cli.entry import main\nmain({words})") == set()


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="no attribute 'pretraim'"):
        dupmae.pretraim  # noqa: B018


def test_type_checkers_see_the_same_public_names_as_python():
    tree = ast.parse(Path(str(dupmae.__file__)).read_text(encoding="utf-8"))
    declared = {
        (node.module, alias.asname)
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == {(module, name) for name, module in dupmae._HOME_OF.items()}
    assert sorted(str(name) for _, name in declared) == dupmae.__all__
    assert set(dupmae.__all__) <= set(dir(dupmae))


def test_the_package_is_marked_as_typed():
    assert resources.files("dupmae").joinpath("py.typed").is_file()


def test_the_command_is_installed():
    (entry,) = [point for point in metadata.entry_points(group="console_scripts") if point.name == "dupmae"]
    assert entry.value == PROJECT["scripts"]["dupmae"] == "dupmae.cli:main"


def test_torch_is_pinned_where_make_installs_from():
    assert any(
        line.startswith("torch==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    )
    assert "-c constraints.txt" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_changelog_knows_the_version():
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_refuses_a_python_that_is_too_old_in_one_sentence(tmp_path):
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        ["make", "-C", str(tmp_path), "demo", f"PYTHON={old}"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "dupmae needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()
