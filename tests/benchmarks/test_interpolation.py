"""The benchmark of how much of what fine-tuning changed is kept, on a tiny benchmark."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dupmae.cli import load_recipe
from dupmae.experiments.run import run_recipe

ROOT = Path(__file__).parents[2]


def test_the_whole_share_is_the_fine_tuned_model_and_a_part_lies_before_it(
    tmp_path: Path,
    write_data: Callable[[Path], Path],
    small_run: dict[str, Any],
    embedder_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "quality")
    import interpolation

    data = {"data.benchmark": write_data(tmp_path / "toy"), "data.dev_fraction": 0.3, "finetune.interpolation": 1.0}
    data |= {"duplex.top_k": 24, "duplex.dense_dimension": 16, "finetune.learning_rate": 0.05, "finetune.epochs": 4}
    settings = small_run | data | {"base_model": embedder_folder, "output": tmp_path / "run"}
    words = [f"--{key}={value}" for key, value in settings.items()]
    recipe = ROOT / "recipes" / "pairs-encoder.yaml"
    run = run_recipe(load_recipe(recipe, words))
    parts = ["--checkpoint", str(run / "2-pretrain" / "model"), "--model", str(run / "3-finetune" / "model")]
    more = ["--shares", "0", "1", "--json", str(tmp_path / "shares.json")]
    monkeypatch.setattr(sys, "argv", ["shares.py", str(recipe), *parts, *more, *words])
    interpolation.main()
    shown = capsys.readouterr().out
    rows = json.loads((tmp_path / "shares.json").read_text())["rows"]
    assert [(row["share"], row["queries"]) for row in rows] == [(s, q) for s in (0, 1) for q in ("held out", "test")]
    assert all(f"{row[part]:.4f}" in shown for row in rows for part in ("both", "dense", "lexical"))
    systems = {row["name"]: row["ndcg@10"] for row in json.loads((run / "report.json").read_text())["systems"]}
    assert [rows[3][part] for part in ("both", "dense", "lexical")] == [
        systems[name] for name in ("duplex", "duplex-cls", "duplex-ot")
    ]
    assert rows[1]["both"] != rows[3]["both"] or rows[1]["lexical"] != rows[3]["lexical"]
