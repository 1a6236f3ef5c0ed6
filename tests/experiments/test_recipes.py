"""The recipes of `dupmae pretrain`: each is run small, and says what it claims to be."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from dupmae.cli import entry as cli
from dupmae.cli.parsing import parse_command
from dupmae.config import PretrainConfig

ROOT = Path(__file__).parents[2]
FOR_RUN = {
    "base.yaml",
    "demo.yaml",
    "pairs-encoder.yaml",
    "pairs.yaml",
    "paper.yaml",
    "reproduce-full.yaml",
    "reproduce-small.yaml",
    "scifact-full.yaml",
    "scifact.yaml",
}
FOR_ADAPT = {"small.yaml"}
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if path.name not in FOR_RUN | FOR_ADAPT)
SMALL = "--max_length 24 --batch_size 4 --steps 2 --save_steps 2 --precision float32"


def settings(name: str) -> tuple[dict[str, Any], PretrainConfig]:
    """A recipe's arguments as the command line reads them, and its training settings among them."""
    _, keyword, _ = parse_command("pretrain", cli.COMMANDS["pretrain"], ["--config", str(ROOT / "recipes" / name)])
    return keyword, keyword["settings"]


@pytest.fixture
def corpus(tmp_path: Path, words: list[str]) -> Path:
    """Sixty short passages."""
    draw = random.Random(4)
    file = tmp_path / "corpus.jsonl"
    texts = (" ".join(draw.choices(words, k=draw.randint(12, 20))) for _ in range(60))
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_small(recipe: Path, corpus: Path, tmp_path: Path, bert_folder: Path) -> None:
    written = yaml.safe_load(recipe.read_text())
    words = ["--config", str(recipe), "--corpus", str(corpus), "--output", str(tmp_path / "run"), *SMALL.split()]
    if written.get("from_scratch"):
        words += ["--layers", "1", "--width", "16", "--heads", "2", "--vocabulary_size", "90", "--positions", "32"]
    else:
        words += ["--model", str(bert_folder)]
    if written["new_layers_steps"]:
        words += ["--new_layers_steps", "1"]
    assert cli.main(["pretrain", *words]) == 0
    record = json.loads((tmp_path / "run" / "model" / "dupmae.json").read_text())
    assert record["steps"] == {"new_layers": min(1, written["new_layers_steps"]), "joint": 2}
    losses = {"mlm", "cls", "bow", "anchor"}
    losses -= {term for term in losses if not written.get(f"{term}_weight", term != "anchor")}
    assert set(record["losses"]) == losses | {"loss"}
    assert record["dense_pooling"] == written["dense_pooling"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_explains_itself_and_says_how_it_is_called(recipe: Path) -> None:
    lines = recipe.read_text().splitlines()
    (call,) = [line.strip("# ") for line in lines if "dupmae pretrain --config" in line]
    assert f"--config recipes/{recipe.name}" in call
    parse_command(
        "pretrain",
        cli.COMMANDS["pretrain"],
        call.replace("recipes/", f"{ROOT}/recipes/").partition("pretrain ")[2].split(),
    )
    assert sum("#" in line for line in lines) >= 8


def test_the_published_settings_are_those_of_the_authors() -> None:
    general, training = settings("pretrain-general.yaml")
    assert (general["store"].max_length, training.batch_size) == (512, 32)
    marco, of_marco = settings("pretrain-msmarco.yaml")
    assert (marco["store"].max_length, of_marco.batch_size) == (150, 128)
    for config in (training, of_marco):
        assert config.learning_rate == config.head_learning_rate == 1e-4
        assert (config.weight_decay, config.warmup_ratio, config.new_layers_steps) == (0.01, 0.1, 0)
        assert (config.encoder_mask_rate, config.decoder_mask_rate, config.bow_weight) == (0.3, 0.5, 0.1)
        assert (config.mask_token_fraction, config.random_token_fraction) == (0.8, 0.1)
        assert (config.dense_pooling, config.lexical_projection, config.dropout) == ("cls", "mlm_head", 0.1)


def test_retromae_is_the_general_recipe_without_the_bag_of_words() -> None:
    general, retromae = (yaml.safe_load((ROOT / "recipes" / f"pretrain-{name}.yaml").read_text())
                         for name in ("general", "retromae"))  # fmt: skip
    assert {key for key in general if general[key] != retromae.get(key)} == {
        "output",
        "bow_weight",
        "lexical_projection",
    }
    assert retromae["bow_weight"] == 0
    assert "lexical_projection" not in retromae  # it says how ordinary tokens reach a vocabulary that nothing asks for


def test_every_recipe_stands_in_the_guide() -> None:
    guide = (ROOT / "docs" / "recipes.md").read_text()
    assert all(f"recipes/{path.name}" in guide for path in (ROOT / "recipes").glob("*.yaml"))
