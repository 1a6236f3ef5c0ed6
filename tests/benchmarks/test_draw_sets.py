"""The drawing of several systems on several sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_set_and_system_is_named_and_the_figures_in_the_documents_can_be_drawn(
    tmp_path: Path, run_script: Callable[..., None]
) -> None:
    source = ROOT / "docs" / "results" / "raw" / "pairs-42.json"
    run_script("draw_sets", source, tmp_path / "pairs.svg")
    drawn = (tmp_path / "pairs.svg").read_text(encoding="utf-8")
    for one in json.loads(source.read_text(encoding="utf-8"))["sets"]:
        for name in (one["name"], f"{one['queries']} queries", *one["figures"]):
            assert f">{name}<" in drawn or f"<!-- {name} -->" in drawn, name
