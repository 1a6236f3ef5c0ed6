"""The anchor: what it measures, that it learns nothing itself, that it holds what it should; another's projection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dupmae.config import PretrainConfig
from dupmae.pretraining import pretrain
from dupmae.pretraining.anchor import isometry
from dupmae.pretraining.checkpoint import load_for_pretraining
from dupmae.pretraining.data import collator
from dupmae.pretraining.masking import step_generator
from dupmae.pretraining.objective import DupMAE

V = 40


def loaded(folder: Path, **settings: Any) -> DupMAE:
    """The objective, whose anchor would be another if it were taken now."""
    config = PretrainConfig(dense_pooling="mean", precision="float32", **settings)
    torch.manual_seed(0)  # draws the decoder
    objective = load_for_pretraining(str(folder), config)[0].eval()
    with torch.no_grad():
        for parameter in objective.backbone.encoder.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return objective


def batch_of(store: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = collator(0, V, 34)([store[row] for row in range(4)])
    return found


def test_it_is_the_distance_between_a_masked_texts_vector_and_the_clean_ones_before(
    store: Any, checkpoint: Callable[[str], Path]
) -> None:
    folder, batch = checkpoint("bert"), batch_of(store)
    plain, anchored = loaded(folder), loaded(folder, anchor_weight=3.0)
    without, found = (model(**batch, generator=step_generator(torch.device("cpu"), 7)) for model in (plain, anchored))
    before = load_for_pretraining(str(folder), plain.settings)[0].eval()
    masked_ids, *_ = plain.mask(**batch, generator=step_generator(torch.device("cpu"), 7))
    means = []
    for model, ids in ((plain, masked_ids), (before, batch["input_ids"])):
        states = model.backbone.states(ids, batch["attention_mask"])
        rows = [state[mask.bool()].mean(dim=0) for state, mask in zip(states, batch["attention_mask"], strict=True)]
        means.append(torch.stack(rows))
    expected = torch.stack([1 - F.cosine_similarity(now, then, dim=0) for now, then in zip(*means, strict=True)]).mean()
    torch.testing.assert_close(found["anchor"], expected)
    torch.testing.assert_close(found["loss"], without["loss"] + 3 * expected)
    parameters = list(plain.backbone.encoder.parameters())
    naive = torch.autograd.grad(without["loss"] + 3 * expected, parameters, allow_unused=True)
    ours = torch.autograd.grad(found["loss"], list(anchored.backbone.encoder.parameters()), allow_unused=True)
    for a, b in zip(ours, naive, strict=True):
        torch.testing.assert_close(a, b)


def test_the_distances_of_a_batchs_parts_add_up_to_the_batchs(store: Any, checkpoint: Callable[[str], Path]) -> None:
    model, batch = loaded(checkpoint("bert"), anchor_weight=3.0), batch_of(store)
    device = torch.device("cpu")
    drawn = model.mask(**batch, generator=step_generator(device, 0))
    totals = model.counts(**batch, generator=step_generator(device, 0))

    def of(rows: slice, totals: torch.Tensor | None) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "mask", lambda *_: tuple(part[rows] for part in drawn))
            part = {name: tensor[rows] for name, tensor in batch.items()}
            anchor: torch.Tensor = model(**part, generator=step_generator(device, 0), totals=totals)["anchor"]
        return anchor

    torch.testing.assert_close(of(slice(1), totals) + of(slice(1, 4), totals), of(slice(4), None))


def test_it_neither_learns_nor_is_saved(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("bert")
    plain, anchored = loaded(folder), loaded(folder, anchor_weight=3.0)
    assert anchored.state_dict().keys() == plain.state_dict().keys()
    assert len(list(anchored.parameters())) == len(list(plain.parameters()))


def test_a_frozen_encoder_has_nothing_to_be_held(store: Any, checkpoint: Callable[[str], Path]) -> None:
    model = loaded(checkpoint("bert"), anchor_weight=3.0)
    model.learn({"head", "decoder"})
    assert "anchor" not in model(**batch_of(store), generator=step_generator(torch.device("cpu"), 0))


def test_dense_vectors_move_less_with_it(store: Any, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    base_model, batch = checkpoint("bert"), batch_of(store)
    moved = []
    for weight in (0.0, 20.0):
        config = PretrainConfig(
            new_layers_steps=0, steps=30, batch_size=8, learning_rate=5e-3, dense_pooling="mean", precision="float32",
            held_out_texts=0, anchor_weight=weight,
        )  # fmt: skip
        model = pretrain(store, str(base_model), tmp_path / f"weight-{weight:g}", config)
        vectors = []
        for folder in (base_model, model):
            objective = load_for_pretraining(str(folder), config)[0].eval()
            with torch.no_grad():
                states = objective.backbone.states(batch["input_ids"], batch["attention_mask"])
                vectors.append(objective.h_cls(states, batch["attention_mask"]))
        moved.append(float((1 - F.cosine_similarity(*vectors)).mean()))
    assert moved[1] < 0.2 * moved[0], moved


def test_of_the_encoders_own_vectors_the_projection_is_the_identity() -> None:
    own = torch.randn(50, 6)
    torch.testing.assert_close(isometry(own, 3 * own), torch.eye(6, dtype=torch.float64))


def test_wider_vectors_keep_as_much_of_their_length_as_they_can_and_are_turned_to_the_encoders() -> None:
    own, theirs = torch.randn(50, 4), torch.randn(300, 9) * torch.arange(1, 10)
    found = isometry(own, theirs)
    torch.testing.assert_close(found @ found.T, torch.eye(4, dtype=torch.float64))
    unit = F.normalize(theirs.double(), dim=1)
    most = torch.linalg.svdvals(unit)[:4].square().sum()
    torch.testing.assert_close((unit @ found.T).square().sum(), most)
    near = (F.normalize(own.double(), dim=1) * (unit[:50] @ found.T)).sum()
    for turn in torch.linalg.qr(torch.randn(20, 4, 4, dtype=torch.float64)).Q:
        assert (F.normalize(own.double(), dim=1) * (unit[:50] @ found.T @ turn)).sum() < near


def test_narrower_vectors_keep_their_cosines() -> None:
    own, theirs = torch.randn(50, 9), torch.randn(50, 4)
    moved = theirs.double() @ isometry(own, theirs).T
    assert moved.shape == (50, 9)
    torch.testing.assert_close(moved @ moved.T, (theirs @ theirs.T).double(), atol=1e-5, rtol=1e-5)
