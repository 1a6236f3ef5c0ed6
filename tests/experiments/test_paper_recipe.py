"""`recipes/paper.yaml`: the paper's form and nothing else, run small."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForMaskedLM

from dupmae.cli import load_recipe
from dupmae.duplex import DuplexEncoder
from dupmae.experiments.run import run_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "paper.yaml"
SMALL = {
    "data.test_split": "test", "store.max_length": 32, "store.min_length": 4, "pretrain.steps": 2,
    "pretrain.batch_size": 4, "pretrain.gradient_accumulation_steps": 1, "duplex.dense_dimension": 8,
    "duplex.top_k": 24, "duplex.document_max_length": 24, "finetune.epochs": 1, "finetune.batch_size": 8,
    "finetune.mini_batch_size": 4, "mining.last": 6, "hard_negatives.epochs": 1, "hard_negatives.batch_size": 8,
    "hard_negatives.negatives": 2, "hard_negatives.negative_depth": 6, "teacher.epochs": 1, "teacher.batch_size": 4,
    "teacher.negatives": 2, "distil.epochs": 1, "distil.batch_size": 8, "distil.negatives": 2,
    "distil.negative_depth": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(
    write_data: Callable[[Path], Path],
    bert_config: Any,
    write_tokenizer: Callable[[Path], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a small run of all three stages, from a tiny BERT as BERT begins."""
    folder = tmp_path_factory.mktemp("paper")
    torch.manual_seed(0)
    BertForMaskedLM(type(bert_config)(**bert_config.to_dict() | {"initializer_range": 0.02})).save_pretrained(
        folder / "bert"
    )
    write_tokenizer(folder / "bert")
    data = write_data(folder / "toy")
    settings = SMALL | {"base_model": folder / "bert", "data.benchmark": data, "output": folder / "run"}
    return run_recipe(load_recipe(RECIPE, [f"--{key}={value}" for key, value in settings.items()]))


def metrics(run: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_each_loss_is_the_papers_alone(run: Path) -> None:
    rates = {"step", "phase"}
    names = {
        stage: {name for name in metrics(run, stage)[0] if name not in rates and "learning_rate" not in name}
        for stage in ("2-pretrain", "3-finetune", "5-hard-negatives", "7-distil")
    }
    assert names == {
        "2-pretrain": {"mlm", "cls", "bow", "loss"},
        "3-finetune": {"loss", "contrastive"},
        "5-hard-negatives": {"loss", "contrastive"},
        "7-distil": {"loss", "distil"},
    }
    first = metrics(run, "2-pretrain")[0]
    assert first["loss"] == pytest.approx(first["mlm"] + first["cls"] + first["bow"], rel=1e-5)


@pytest.mark.parametrize(("stage", "candidates"), [("3-finetune", 8), ("5-hard-negatives", 24)])
def test_the_first_contrastive_loss_is_near_chance(run: Path, stage: str, candidates: int) -> None:
    assert metrics(run, stage)[0]["loss"] == pytest.approx(math.log(candidates), rel=0.1)


def test_scores_are_the_plain_sums_of_products_and_no_scale_has_moved(run: Path) -> None:
    pooling = DuplexEncoder(str(next((run / "7-distil").rglob("modules.json")).parent)).pooling
    assert (pooling.normalize, pooling.lexical_activation, pooling.query_terms) == (False, "none", "logits")
    assert (pooling.lexical_projection, pooling.dense_pooling) == ("linear", "cls")
    for name, parameter in pooling.named_parameters():
        if "log_scale" in name:
            assert not parameter.any(), name
