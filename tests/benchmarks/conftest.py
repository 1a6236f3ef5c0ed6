"""What runs the scripts of benchmarks/quality and recipes as the command line would, in this process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def import_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a script by its name."""
    for folder in ("benchmarks/quality", "recipes"):
        monkeypatch.syspath_prepend(ROOT / folder)
    return importlib.import_module


@pytest.fixture
def run_script(import_script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a script by its name with the words of a command line."""

    def run(name: str, *words: object) -> None:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
        import_script(name).main()

    return run
