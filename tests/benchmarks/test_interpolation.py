"""The benchmark of how much of what fine-tuning changed is kept, on a tiny benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dupmae.cli import load_recipe
from dupmae.experiments.run import run_recipe

ROOT = Path(__file__).parents[2]


def test_alpha_one_is_the_fine_tuned_model_and_alpha_zero_another(
    tmp_path: Path,
    write_data: Callable[[Path], Path],
    small_run: dict[str, Any],
    embedder_folder: Path,
    run_script: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = {"data.benchmark": write_data(tmp_path / "toy"), "data.dev_fraction": 0.3, "finetune.interpolation": 1.0}
    data |= {"duplex.top_k": 24, "duplex.dense_dimension": 16, "finetune.learning_rate": 0.05, "finetune.epochs": 4}
    settings = small_run | data | {"base_model": embedder_folder, "output": tmp_path / "run"}
    words = [f"--{key}={value}" for key, value in settings.items()]
    recipe = ROOT / "recipes" / "pairs-encoder.yaml"
    run = run_recipe(load_recipe(recipe, words))
    models = ["--checkpoint", run / "2-pretrain" / "model", "--model", run / "3-finetune" / "model"]
    run_script("interpolation", recipe, *models, "--alphas", 0, 1, "--json", tmp_path / "alphas.json", *words)
    shown = capsys.readouterr().out
    rows = json.loads((tmp_path / "alphas.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["alpha"], row["queries"]) for row in rows] == [(a, q) for a in (0, 1) for q in ("held out", "test")]
    assert all(f"{row[part]:.4f}" in shown for row in rows for part in ("both", "dense", "lexical"))
    systems = {
        row["name"]: row["ndcg@10"] for row in json.loads((run / "report.json").read_text(encoding="utf-8"))["systems"]
    }
    assert [rows[3][part] for part in ("both", "dense", "lexical")] == [
        systems[name] for name in ("duplex", "duplex-dense", "duplex-lexical")
    ]
    assert rows[1]["both"] != rows[3]["both"] or rows[1]["lexical"] != rows[3]["lexical"]
