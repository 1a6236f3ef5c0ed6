"""The vocabulary head that is solved for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dupmae.config import PretrainConfig
from dupmae.pretraining.checkpoint import load_for_pretraining
from dupmae.pretraining.data import collator
from dupmae.pretraining.objective import DupMAE
from dupmae.pretraining.warm_start import _states, warm_start_head

KINDS = ["bert", "distilbert", "roberta", "xlm-roberta", "mpnet", "electra", "deberta", "modernbert"]


def share_named(objective: DupMAE, store: Any) -> float:
    """Share of the ordinary tokens of clean text that the head reads off their own states."""
    batch = collator(0, 40, 32)(list(store))
    ordinary = batch["input_ids"] > 4
    objective.eval()
    with torch.no_grad():
        states = objective.backbone.states(batch["input_ids"], batch["attention_mask"])[ordinary]
        logits = objective.backbone.transform(states) @ objective.backbone.output_weight.T
        logits += objective.backbone.output_bias
    return (logits.argmax(-1) == batch["input_ids"][ordinary]).float().mean().item()


@pytest.mark.parametrize("kind", KINDS)
def test_the_solved_head_names_most_tokens_of_any_familys_encoder(
    kind: str, store: Any, checkpoint: Callable[[str], Path]
) -> None:
    config = PretrainConfig(precision="float32", dropout=0.0)
    objective, _ = load_for_pretraining(str(checkpoint(f"{kind}-without-head")), config)
    encoder = [parameter.clone() for parameter in objective.backbone.encoder_parameters()]
    warm_start_head(objective, store, 0, 30, seed=1)
    assert share_named(objective, store) > (0.3 if kind == "electra" else 0.8)  # 8 directions for 40 tokens
    assert all(map(torch.equal, encoder, objective.backbone.encoder_parameters()))


def test_a_linear_head_is_solved_for_on_the_states_that_it_reads(store: Any, checkpoint: Callable[[str], Path]) -> None:
    config = PretrainConfig(precision="float32", dropout=0.0, lexical_projection="linear")
    objective, _ = load_for_pretraining(str(checkpoint("bert-without-head")), config)
    with torch.no_grad():  # a transform that says nothing of the states, as one has that nothing has trained
        objective.backbone.head_dense.weight.zero_()
    batch = collator(0, 40, 32)(list(store))
    states, ordinary = _states(objective, batch)
    raw = objective.backbone.states(batch["input_ids"], batch["attention_mask"])
    assert torch.allclose(states[ordinary], raw[ordinary], atol=1e-6)


def test_the_solution_depends_on_the_seed_alone(store: Any, checkpoint: Callable[[str], Path]) -> None:
    heads = []
    for seed in (1, 1, 2):
        objective, _ = load_for_pretraining(str(checkpoint("bert-without-head")), PretrainConfig(precision="float32"))
        warm_start_head(objective, store, 0, 10, seed)
        heads.append(objective.backbone.output_weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
