"""Stages and an index that record what reaches them, with the signatures of the real ones."""

from __future__ import annotations

import io
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock, create_autospec

import pytest

from dupmae.cli import entry as cli
from dupmae.index import DuplexIndex, Hit


@pytest.fixture(autouse=True)
def _loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the process's warnings and environment as other tests expect them."""
    monkeypatch.setattr(cli, "silence", lambda: None)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Mock]:
    """Puts an autospec in the place of what a dotted name means: calls must fit the real signature."""

    def replace(name: str, **behaviour: Any) -> Mock:
        mock: Mock = create_autospec(pkgutil.resolve_name(name), **behaviour)
        monkeypatch.setattr(name, mock)
        return mock

    return replace


@pytest.fixture
def run_recipe(stand_in: Callable[..., Mock]) -> Mock:
    """Stands in for what runs a recipe."""
    return stand_in("dupmae.experiments.run.run_recipe", side_effect=lambda recipe, **_: Path(recipe.output))


@pytest.fixture
def opened(stand_in: Callable[..., Mock]) -> Mock:
    """An index that finds as many passages as it is asked for; opening any folder gives it."""
    index = create_autospec(DuplexIndex, instance=True)
    matches = [("vitamin", 1.5), ("##d", 0.5)]
    words = [("vitamin", 0.25)]
    passage = ("On [bold]bones", "Vitamin D and fractures.", {"lang": "en"})
    index.encoder.words = None
    index.queries = index.encoder
    index.search.side_effect = lambda queries, k, **_: [
        [
            Hit(f"p{rank}", 3.25, 1.0, 2.0, 0.25, matches, words, *passage, f"p{rank}", (), 0, 24)
            for rank in range(1, k + 1)
        ]
        for _ in queries
    ]
    stand_in("dupmae.index.DuplexIndex.open", return_value=index)
    return index


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    """Writes a file and returns its path."""

    def write_file(name: str, text: str) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write_file


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Makes bytes the standard input, in a locale that knows ASCII alone."""

    def pipe_in(content: bytes) -> None:
        text = io.TextIOWrapper(io.BytesIO(content), encoding="ascii", errors="surrogateescape")
        monkeypatch.setattr(sys, "stdin", text)

    return pipe_in
