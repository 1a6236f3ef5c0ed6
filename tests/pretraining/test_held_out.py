"""What is held out, what is measured on it, and which state of a run is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from dupmae.config import PretrainConfig
from dupmae.errors import DupmaeError
from dupmae.evaluation import evaluate_run
from dupmae.pretraining import pretrain
from dupmae.pretraining.checkpoint import load_for_pretraining
from dupmae.pretraining.data import LengthBuckets, collator, shuffled
from dupmae.pretraining.held_out import SEED, HeldOut, split
from dupmae.pretraining.masking import decoder_visibility, step_generator
from dupmae.pretraining.objective import DupMAE
from dupmae.pretraining.probe import known_item_pairs, mean_reciprocal_rank, probe

COLLATE = collator(0, 40, 32)


@pytest.fixture
def objective(checkpoint: Callable[[str], Path]) -> DupMAE:
    loaded, _ = load_for_pretraining(str(checkpoint("bert")), PretrainConfig(precision="float32", bow_weight=0.5))
    torch.nn.init.normal_(loaded.backbone.output_bias)
    return loaded.train()


def settings(**changes: Any) -> PretrainConfig:
    small: dict[str, Any] = {"new_layers_steps": 2, "steps": 6, "batch_size": 4, "eval_steps": 2, "save_steps": 3}
    rates = {"learning_rate": 1e-3, "head_learning_rate": 1e-2, "new_layers_learning_rate": 1e-2}
    return PretrainConfig(**small | rates | {"precision": "float32"} | changes)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def item(*ids: int, starts: str) -> dict[str, np.ndarray]:
    """A chunk of ordinary tokens between the special ones; an x where a word starts."""
    words = np.array([False, *(mark == "x" for mark in starts), False])
    return {"input_ids": np.array([2, *ids, 3]), "word_starts": words}


@pytest.mark.parametrize("asked", [3, 1000])
def test_whole_texts_are_held_out_and_at_most_a_tenth_of_them(store: Any, asked: int) -> None:
    store.begins = np.arange(30) % 3 != 2
    held = split(store, asked)
    texts = store.begins.cumsum() - 1
    assert len(held.measured) == len(set(texts[held.measured])) == 2  # of 20
    assert store.begins[held.measured].all()
    assert held.left_out.tolist() == [row for row in range(30) if texts[row] in texts[held.measured]]


def test_nothing_is_held_out_of_few_texts_or_when_nothing_is_asked_for(store: Any) -> None:
    assert len(split(store, 0).left_out) == 0
    store.begins = np.arange(30) < 9
    assert len(split(store, 5).left_out) == 0


def test_a_pass_holds_every_chunk_but_those_left_out(store: Any) -> None:
    left_out = np.array([0, 7, 8, 29])
    order = list(LengthBuckets(store, 13, 52, [1], left_out))
    assert sorted(order) == sorted([row for row in range(30) if row not in left_out] * 2)


@pytest.mark.parametrize("count", [1, 2, 3, 30, 1000])
def test_a_shuffle_that_nobody_writes_down_holds_every_number_once(count: int) -> None:
    orders = [shuffled(np.arange(count), count, seed).tolist() for seed in ([1], [1], [2])]
    assert sorted(orders[0]) == list(range(count))
    assert orders[0] == orders[1]
    assert shuffled(np.array([count - 1]), count, [1]).tolist() == orders[0][-1:]
    if count == 1000:
        assert orders[0] != orders[2]
        assert abs(np.corrcoef(orders[0], range(count))[0, 1]) < 0.1


def test_what_is_measured_is_what_the_readable_twin_finds(store: Any, objective: DupMAE) -> None:
    measured = HeldOut(store, np.arange(6), 0, objective, batch_size=6)
    figures = measured.measure(objective)

    objective.eval()
    batch = COLLATE(measured.items)
    ids, attention = batch["input_ids"], batch["attention_mask"]
    losses = objective(**batch, generator=step_generator(torch.device("cpu"), SEED, 0))
    for name, loss in losses.items():
        assert figures[name] == pytest.approx(loss.item(), rel=1e-5), name
    generator = step_generator(torch.device("cpu"), SEED, 0)
    masked, selected, ordinary = objective.mask(**batch, generator=generator)
    states = objective.backbone.states(masked, attention)
    logits = objective.backbone.model(masked, attention_mask=attention).logits
    assert figures["mlm_accuracy"] == pytest.approx((logits.argmax(-1) == ids)[selected].double().mean().item())
    rebuilt = objective.rebuild(states, ids, attention, decoder_visibility(attention, 0.5, generator))
    hits = objective.backbone.model.cls(rebuilt).argmax(-1) == ids
    assert figures["cls_accuracy"] == pytest.approx(hits[ordinary].double().mean().item())
    recalls = []
    for row in range(6):
        bag = set(ids[row][ordinary[row]].tolist())
        mu = logits[row][(ordinary & ~selected)[row]].amax(0)
        mu[objective.special] = -torch.inf
        recalls.append(len(bag & set(mu.topk(len(bag)).indices.tolist())) / len(bag))
    assert figures["bow_recall"] == pytest.approx(np.mean(recalls))


def test_measuring_changes_neither_the_model_nor_the_next_random_number(store: Any, objective: DupMAE) -> None:
    measured = HeldOut(store, np.arange(9), 0, objective, batch_size=4)
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    figures = measured.measure(objective)
    assert torch.equal(torch.rand(3), expected)
    assert objective.training
    assert all(torch.equal(before[name], tensor) for name, tensor in objective.state_dict().items())
    assert measured.measure(objective) == figures


def test_losses_of_several_batches_are_means_over_all_held_out_tokens(store: Any, objective: DupMAE) -> None:
    objective.settings.encoder_mask_rate = 0.0  # no mask depends on the number of the batch
    objective.settings.decoder_mask_rate = 0.0
    objective.settings.mlm_weight = 0.0
    one, many = (HeldOut(store, np.arange(9), 0, objective, size).measure(objective) for size in (9, 2))
    assert one == pytest.approx(many, rel=1e-5)
    assert "mlm" not in one
    assert one["loss"] == pytest.approx(one["cls"] + 0.5 * one["bow"])


def test_a_query_is_the_title_or_else_the_first_quarter_and_its_passage_is_the_rest() -> None:
    titled = item(5, 6, 7, 8, 9, 10, starts="x-xxxx")
    untitled = item(*range(5, 17), starts="xx-x-xxxxxxx")
    short = item(5, 6, 7, starts="xxx")
    pairs = known_item_pairs([titled, untitled, short], [3, 0, 1])
    assert [[part["input_ids"].tolist() for part in pair] for pair in pairs] == [
        [[2, 5, 6, 7, 3], [2, 8, 9, 10, 3]],
        [[2, 5, 6, 7, 3], [2, *range(8, 17), 3]],
    ]
    assert pairs[1][0]["word_starts"].tolist() == [False, True, True, False, False]


def test_the_probe_ranks_by_centred_cosines(store: Any, objective: DupMAE) -> None:
    items = [store[row] for row in range(30) if len(store[row]["input_ids"]) > 8]
    pairs = known_item_pairs(items, [0] * len(items))
    objective.eval()
    figures = probe(objective, pairs, COLLATE, batch_size=4)

    halves: list[list[Any]] = [[], []]
    with torch.no_grad():
        for side in (0, 1):
            states = [objective.backbone.states(*_clean(pair[side])) for pair in pairs]
            dense = torch.stack([state[0, 0] for state in states])
            mu = torch.stack([objective.backbone.model.cls(state)[0, 1:-1].amax(0) for state in states])
            for half, vectors in zip(halves, (dense - dense.mean(0), (mu - mu.mean(0)).relu().log1p()), strict=True):
                half.append(F.normalize(vectors, dim=1))
    scores = {"mrr_cls": halves[0][0] @ halves[0][1].T, "mrr_ot": halves[1][0] @ halves[1][1].T}
    scores["mrr_both"] = scores["mrr_cls"] + scores["mrr_ot"]
    for name, matrix in scores.items():
        ranks = (matrix > matrix.diag()[:, None]).sum(1) + 1
        assert figures[name] == pytest.approx(torch.where(ranks <= 10, 1 / ranks, 0.0).mean().item(), abs=1e-6), name
    assert figures.keys() == scores.keys()


@pytest.mark.parametrize("count", [1, 2, 9, 40])
@pytest.mark.parametrize("values", [1, 3, 1000])
def test_the_mean_reciprocal_rank_is_that_of_the_metric_library_ties_included(count: int, values: int) -> None:
    scores = torch.randint(values, (count, count), generator=torch.Generator().manual_seed(count)) / values
    run = {
        str(query): {str(passage): score for passage, score in enumerate(row)}
        for query, row in enumerate(scores.tolist())
    }
    expected = evaluate_run(run, {query: {query: 1} for query in run}, ["mrr@10"])["mrr@10"]
    assert mean_reciprocal_rank(scores) == pytest.approx(expected, abs=1e-12)


def test_scores_that_are_not_numbers_rank_behind_all() -> None:
    assert mean_reciprocal_rank(torch.full((20, 20), torch.nan)) == 0


def _clean(part: Any) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.from_numpy(part["input_ids"])[None]
    return ids, torch.ones_like(ids)


def test_a_run_is_measured_before_its_first_step_every_few_steps_and_after_each_phase(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = pretrain(store, str(checkpoint("bert")), tmp_path / "run", settings(steps=5))
    measured = lines(tmp_path / "run" / "held_out.jsonl")
    expected = [("new_layers", 0), ("new_layers", 2), ("joint", 2), ("joint", 4), ("joint", 5)]
    assert [(line.pop("phase"), line.pop("step")) for line in measured] == expected
    record = json.loads((folder / "dupmae.json").read_text(encoding="utf-8"))
    best = min((line for line in measured[1:]), key=lambda line: line["loss"])
    assert record["held_out"] == best
    assert record["kept"] == dict(zip(("phase", "step"), expected[measured.index(best)], strict=True))
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "kept").exists()


@pytest.mark.parametrize(
    ("keep", "figure", "values", "kept"),
    [
        ("loss", "loss", [1, 5, 4, 3, 7], 3),  # what was measured before the first step does not count
        ("loss", "loss", [9, 5, 3, 3, 7], 2),  # of equals the first
        ("probe", "mrr_both", [0.9, 0.1, 0.7, 0.7, 0.6], 2),
        ("probe", "mrr_cls", [0.9, 0.1, 0.5, 0.6, 0.4], 3),
        ("last", "loss", [1, 5, 4, 3, 7], 4),
    ],
)
def test_the_state_that_is_kept_is_the_one_that_measured_best(
    store: Any,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keep: str,
    figure: str,
    values: list[float],
    kept: int,
) -> None:
    base_model = str(checkpoint("bert"))
    biases: list[torch.Tensor] = []

    def scripted(self: HeldOut, model: DupMAE) -> dict[str, float]:
        biases.append(model.backbone.output_bias.detach().clone())
        return {figure: float(values[len(biases) - 1])}

    monkeypatch.setattr(HeldOut, "measure", scripted)
    if figure != "loss":
        monkeypatch.setattr("dupmae.pretraining.held_out.known_item_pairs", lambda *_: [(None, None)] * 2)
    config = settings(new_layers_steps=0, steps=8, keep=keep)
    folder = pretrain(store, base_model, tmp_path / "run", config)
    assert len(biases) == 5  # at steps 0, 2, 4, 6, 8
    saved = load_file(folder / "model.safetensors")
    assert torch.equal(saved["cls.predictions.bias"], biases[kept])
    record = json.loads((folder / "dupmae.json").read_text(encoding="utf-8"))
    assert record["kept"] == {"phase": "joint", "step": 2 * kept}


def test_keeping_by_a_probe_that_has_nothing_to_look_for_is_refused(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(DupmaeError, match="keep is probe, but 0 held-out texts"):
        pretrain(store, str(checkpoint("bert")), tmp_path / "run", settings(keep="probe", held_out_texts=0))


def test_the_card_says_what_was_done_and_shows_the_curves(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = pretrain(store, str(checkpoint("bert")), tmp_path / "run", settings())
    card = ModelCard.load(folder / "README.md")
    record = json.loads((folder / "dupmae.json").read_text(encoding="utf-8"))
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "fill-mask"
    assert card.data.base_model is None  # a folder on somebody's disk
    assert str(tmp_path) not in card.content
    assert "20 texts in 30 chunks" in card.text
    assert "2 of the texts were held out" in card.text
    assert f"{record['held_out']['mlm_accuracy']:.3f}" in card.text
    assert f"{record['losses']['bow']:.3f}" in card.text
    assert "batch_size: 4" in card.text
    assert "![Losses over the steps](curves.png)" in card.text
    assert (folder / "curves.png").is_file()
