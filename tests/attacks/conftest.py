"""A case that is laid out and attacked, and every command that opens a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import forked
from hostile import COMMANDS, Attack


@pytest.fixture
def attack() -> Attack:
    """An empty case beside a secret folder."""
    return Attack(forked())


@pytest.fixture(params=list(COMMANDS))
def door(request: pytest.FixtureRequest, attack: Attack) -> tuple[list[str], Path]:
    """Each command that opens a model, laid out: its words and the model's folder."""
    words, parts = COMMANDS[request.param]
    attack.lay_out(*parts)
    kind = request.param.split()[-1]
    return words, attack.case / "models" / kind


@pytest.fixture
def change_json() -> Callable[..., None]:
    """Changes values of a JSON file: dotted keys, numbers among them for places in lists."""

    def change(path: Path, **values: Any) -> None:
        content = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(content | values), encoding="utf-8")

    return change
