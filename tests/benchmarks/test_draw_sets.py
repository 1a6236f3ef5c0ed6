"""The drawing of several systems on several sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_set_and_system_is_named_and_the_figures_in_the_documents_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "quality")
    import draw_sets

    source = ROOT / "docs" / "results" / "raw" / "pairs-42.json"
    monkeypatch.setattr(sys, "argv", ["draw_sets.py", str(source), str(tmp_path / "pairs.svg")])
    draw_sets.main()
    drawn = (tmp_path / "pairs.svg").read_text()
    for one in json.loads(source.read_text())["sets"]:
        for name in (one["name"], f"{one['queries']} queries", *one["figures"]):
            assert f">{name}<" in drawn or f"<!-- {name} -->" in drawn, name
