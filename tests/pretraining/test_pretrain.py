"""A whole pre-training run: schedule, checkpoint, interruption, refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, TrainerCallback

from dupmae.config import DuplexConfig, PretrainConfig
from dupmae.duplex import DuplexEncoder
from dupmae.errors import DupmaeError
from dupmae.pretraining import pretrain, trainer
from dupmae.pretraining.checkpoint import load_for_pretraining
from dupmae.pretraining.phase import PhaseTrainer
from dupmae.runtime.precision import bfloat16_pays
from dupmae.runtime.resuming import sole_run


def settings(**changes: Any) -> PretrainConfig:
    small: dict[str, Any] = {
        "new_layers_steps": 3, "steps": 6, "batch_size": 4, "save_steps": 2, "precision": "float32",
        "learning_rate": 1e-3, "head_learning_rate": 1e-2, "new_layers_learning_rate": 1e-2,
    }  # fmt: skip
    return PretrainConfig(**small | changes)


def metrics(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors") | {
        f"decoder.{name}": tensor for name, tensor in load_file(folder / "decoder.safetensors").items()
    }


def raise_interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def kill_in_step(monkeypatch: pytest.MonkeyPatch, step: int, *run: Any) -> None:
    """Pre-train, and stop, as Ctrl-C would, in the last micro-batch of a step, counted over both phases."""
    calls = step * run[-1].gradient_accumulation_steps
    training_step = PhaseTrainer.training_step

    def dying(*arguments: Any, **named: Any) -> torch.Tensor:
        nonlocal calls
        calls -= 1
        if calls == 0:
            raise KeyboardInterrupt
        return training_step(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(PhaseTrainer, "training_step", dying)
        with pytest.raises(KeyboardInterrupt):
            pretrain(*run)


def test_the_checkpoint_loads_everywhere_and_pretraining_can_go_on_from_it(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = pretrain(store, str(checkpoint("bert-without-head")), tmp_path / "run", settings())
    assert folder == tmp_path / "run" / "model"
    masked_lm, report = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert torch.equal(AutoModel.from_pretrained(folder).embeddings.word_embeddings.weight,
                       masked_lm.bert.embeddings.word_embeddings.weight)  # fmt: skip
    assert AutoTokenizer.from_pretrained(folder).mask_token_id == 4
    record = json.loads((folder / "dupmae.json").read_text(encoding="utf-8"))
    assert record["dense_pooling"] == "cls"
    assert record["lexical_projection"] == "mlm_head"
    assert record["steps"] == {"new_layers": 3, "joint": 6}
    assert set(record["losses"]) == {"mlm", "cls", "bow", "loss"}
    objective, _ = load_for_pretraining(str(folder), settings())
    saved = load_file(folder / "decoder.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in objective.decoder.state_dict().items())


def test_every_step_is_logged_with_losses_by_term_and_learning_rates(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    pretrain(store, str(checkpoint("bert")), tmp_path / "run", settings(bow_weight=0.5))
    lines = metrics(tmp_path / "run")
    assert [(line["phase"], line["step"]) for line in lines] == [
        *(("new_layers", step) for step in range(1, 4)),
        *(("joint", step) for step in range(1, 7)),
    ]
    for line in lines:
        assert line["loss"] == pytest.approx(line["mlm"] + line["cls"] + 0.5 * line["bow"], rel=1e-5)
    assert "learning_rate_encoder" not in lines[0]
    assert max(line["learning_rate_encoder"] for line in lines[3:]) == pytest.approx(1e-3)
    assert max(line["learning_rate_head"] for line in lines[3:]) == pytest.approx(1e-2)


def test_the_first_phase_leaves_the_encoder_as_it_is(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    base_model = checkpoint("bert-without-head")
    folder = pretrain(store, str(base_model), tmp_path / "run", settings(steps=0))
    before, after = load_file(base_model / "model.safetensors"), weights(folder)
    for name, tensor in before.items():
        if not name.startswith("pooler"):
            assert torch.equal(after[f"bert.{name}"], tensor), name
    words = before["embeddings.word_embeddings.weight"]
    assert not torch.equal(after["cls.predictions.decoder.weight"], words)


def test_training_lowers_every_loss(store: Any, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    config = settings(new_layers_steps=0, steps=80, batch_size=16, learning_rate=1e-2, save_steps=100)
    pretrain(store, str(checkpoint("bert")), tmp_path / "run", config)
    lines = metrics(tmp_path / "run")
    for term in ("mlm", "cls", "bow"):
        first, last = (sum(line[term] for line in part) for part in (lines[:5], lines[-5:]))
        assert last < 0.9 * first, term


@pytest.mark.parametrize(("accumulation", "keep", "anchor"), [(1, "probe", 0.0), (2, "loss", 5.0)])
def test_a_run_killed_in_both_phases_and_between_them_ends_as_one_that_was_not(
    large_store: Any,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    accumulation: int,
    keep: str,
    anchor: float,
) -> None:
    store, base_model = large_store, str(checkpoint("bert-without-head"))
    config = settings(
        gradient_accumulation_steps=accumulation, keep=keep, anchor_weight=anchor, eval_steps=2, save_steps=2
    )
    whole = pretrain(store, base_model, tmp_path / "whole", config)
    for step in (3, 2, 5):  # the first phase's third; its third again, then the joint phase's first; its fifth
        kill_in_step(monkeypatch, step, store, base_model, tmp_path / "cut", config)
        assert not (tmp_path / "cut" / "model").exists()
        torch.manual_seed(999)
    resumed = pretrain(store, base_model, tmp_path / "cut", config)
    expected, actual = weights(whole), weights(resumed)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    for file in ("metrics.jsonl", "held_out.jsonl", "model/dupmae.json"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_a_run_killed_after_its_best_measurement_still_keeps_it(
    large_store: Any, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, base_model = large_store, str(checkpoint("bert"))
    rising = settings(new_layers_steps=0, learning_rate=0.3, head_learning_rate=0.3, eval_steps=1, save_steps=5)
    whole = pretrain(store, base_model, tmp_path / "whole", rising)
    kept = json.loads((whole / "dupmae.json").read_text(encoding="utf-8"))["kept"]
    assert kept["step"] < 4  # the kill comes after the best state, and before the first checkpoint
    kill_in_step(monkeypatch, 5, store, base_model, tmp_path / "cut", rising)
    resumed = pretrain(store, base_model, tmp_path / "cut", rising)
    assert json.loads((resumed / "dupmae.json").read_text(encoding="utf-8"))["kept"] == kept
    assert all(torch.equal(weights(whole)[name], tensor) for name, tensor in weights(resumed).items())


def test_a_run_killed_while_it_writes_its_result_ends_as_one_that_was_not(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_model, config = str(checkpoint("bert")), settings(keep="last")
    whole = pretrain(store, base_model, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_result", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(store, base_model, tmp_path / "cut", config)
    resumed = pretrain(store, base_model, tmp_path / "cut", config)
    for file in ("dupmae.json", "README.md"):
        assert (resumed / file).read_bytes() == (whole / file).read_bytes()
    assert json.loads((resumed / "dupmae.json").read_text(encoding="utf-8"))["kept"] == {"phase": "joint", "step": 6}


def test_half_a_checkpoint_is_not_resumed_from(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_model = str(checkpoint("bert"))
    whole = pretrain(store, base_model, tmp_path / "whole", settings())
    kill_in_step(monkeypatch, 8, store, base_model, tmp_path / "cut", settings())
    half = tmp_path / "cut" / "checkpoints" / "joint" / "checkpoint-5"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"torn")
    (half.with_name("checkpoint-4") / "scheduler.pt").unlink()
    resumed = pretrain(store, base_model, tmp_path / "cut", settings())
    assert all(torch.equal(weights(whole)[name], tensor) for name, tensor in weights(resumed).items())


def test_a_run_that_goes_on_saves_as_often_as_is_asked_for_now(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (store, str(checkpoint("bert")), tmp_path / "run")
    config = settings(new_layers_steps=0, steps=9, save_steps=4)
    kill_in_step(monkeypatch, 6, *run, config)
    kill_in_step(monkeypatch, 3, *run, replace(config, save_steps=1))  # the fourth is there; the seventh is not reached
    saved = (tmp_path / "run" / "checkpoints" / "joint").glob("checkpoint-*")
    assert sorted(checkpoint.name for checkpoint in saved) == ["checkpoint-5", "checkpoint-6"]


def test_a_store_with_one_text_too_long_is_refused_before_the_first_step(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "lengths", np.append(store.lengths[:-1], 4_000))
    monkeypatch.setattr(trainer, "warm_start_head", None)
    with pytest.raises(DupmaeError, match="sequences of 4000 tokens, but the encoder has positions for"):
        pretrain(store, str(checkpoint("bert-without-head")), tmp_path / "run", settings())


def test_a_finished_run_returns_at_once(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_model = str(checkpoint("bert"))
    folder = pretrain(store, base_model, tmp_path / "run", settings())
    monkeypatch.setattr(trainer, "load_for_pretraining", None)
    assert pretrain(store, base_model, tmp_path / "run", settings(save_steps=77)) == folder


def test_pretraining_goes_on_from_a_checkpoint_with_its_head_and_its_decoder(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pretrain(store, str(checkpoint("bert-without-head")), tmp_path / "first", settings())
    monkeypatch.setattr(trainer, "warm_start_head", None)
    still = {"learning_rate": 0.0, "head_learning_rate": 0.0, "new_layers_steps": 0}
    second = pretrain(store, str(first), tmp_path / "second", settings(**still, steps=1))
    before, after = weights(first), weights(second)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    third = pretrain(store, str(second), tmp_path / "third", settings(new_layers_steps=0))
    assert not any(torch.equal(before[name], weights(third)[name]) for name in before if "dense.weight" in name)


def test_another_runs_folder_is_refused(store: Any, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    base_model = str(checkpoint("bert"))
    pretrain(store, base_model, tmp_path / "run", settings(steps=1))
    with pytest.raises(DupmaeError, match="other settings"):
        pretrain(store, base_model, tmp_path / "run", settings(steps=2))
    (tmp_path / "foreign" / "model").mkdir(parents=True)
    with pytest.raises(DupmaeError, match="other results"):
        pretrain(store, base_model, tmp_path / "foreign", settings())


def test_a_folder_that_another_run_is_at_work_in_is_refused(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with sole_run(tmp_path / "run"), pytest.raises(DupmaeError, match="Another process is at work"):
        pretrain(store, str(checkpoint("bert")), tmp_path / "run", settings(steps=1))
    assert not list(tmp_path.glob("*run*"))
    assert pretrain(store, str(checkpoint("bert")), tmp_path / "run", settings(steps=1)).is_dir()


def test_a_start_whose_head_is_another_is_another_run(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    encoder = DuplexEncoder.from_encoder(str(checkpoint("bert")), DuplexConfig(top_k=8))
    encoder.save(str(tmp_path / "start"))
    pretrain(store, str(tmp_path / "start"), tmp_path / "run", settings(steps=1))
    with torch.no_grad():
        encoder.pooling.ot_log_scale.add_(1.0)
    encoder.save(str(tmp_path / "start"))
    with pytest.raises(DupmaeError, match="other settings"):
        pretrain(store, str(tmp_path / "start"), tmp_path / "run", settings(steps=1))


def test_an_empty_store_and_an_empty_objective_are_refused(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    class Empty(list[Any]):
        fingerprint = "empty"

    with pytest.raises(DupmaeError, match="empty"):
        pretrain(Empty(), "nowhere", tmp_path, settings())
    with pytest.raises(DupmaeError, match="loss weights"):
        pretrain(Empty([1]), "nowhere", tmp_path, settings(mlm_weight=0, cls_weight=0, bow_weight=0))


def test_weights_are_not_spread_over_one_process(store: Any, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(DupmaeError, match="there is one: start several with torchrun"):
        pretrain(store, str(checkpoint("bert")), tmp_path / "run", settings(shard=True))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_a_number_stops_the_run(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    diverging = settings(new_layers_steps=0, steps=20, learning_rate=1e30, head_learning_rate=1e30)
    with pytest.raises(DupmaeError, match=r"of phase joint is not a (finite )?number"):
        pretrain(store, str(checkpoint("bert")), tmp_path / "run", diverging)
    assert not (tmp_path / "run" / "model").exists()


def test_bfloat16_is_really_used_when_asked_for(store: Any, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    base_model = str(checkpoint("bert"))
    losses = []
    for precision in ("float32", "bfloat16", "float32"):
        output = tmp_path / f"{precision}{len(losses)}"
        pretrain(store, base_model, output, settings(new_layers_steps=0, steps=1, precision=precision))
        losses.append(metrics(output)[0]["loss"])
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert not bfloat16_pays("float32")
    assert bfloat16_pays("bfloat16")


def test_recomputing_the_layers_in_the_backward_pass_changes_nothing_but_memory(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.bert.modeling_bert import BertAttention

    base_model, calls = str(checkpoint("bert")), []
    forward = BertAttention.forward
    monkeypatch.setattr(BertAttention, "forward", lambda *a, **k: (calls.append(1), forward(*a, **k))[1])
    folders = {}
    for saving in (False, True):
        calls.clear()
        config = settings(new_layers_steps=0, steps=2, held_out_texts=0, gradient_checkpointing=saving, dropout=0.1)
        folders[saving] = weights(pretrain(store, base_model, tmp_path / str(saving), config))
        assert len(calls) == 2 * 3 * (1 + saving)  # layers, steps and the trial, passes
    assert all(torch.equal(folders[False][name], tensor) for name, tensor in folders[True].items())


def test_a_tracker_gets_losses_rates_and_held_out_figures_by_phase(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, dict[str, float]]] = []

    class Recorder(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            seen.append((state.global_step, dict(logs)))

    monkeypatch.setattr(trainer, "tracker", lambda name, output: [Recorder()] if name == "trackio" else [])
    config = settings(new_layers_steps=0, steps=12, eval_steps=12, save_steps=50, report_to="trackio")
    pretrain(store, str(checkpoint("bert")), tmp_path / "run", config)
    lines = metrics(tmp_path / "run")
    reported = {step: logs for step, logs in seen if "joint/loss" in logs}
    assert sorted(reported) == [10, 12]
    for step, logs in reported.items():
        for name in ("mlm", "cls", "bow", "loss", "learning_rate_encoder"):
            assert logs[f"joint/{name}"] == lines[step - 1][name]
    assert [step for step, logs in seen if "eval_joint/bow_recall" in logs] == [0, 12]


def test_tensorboard_gets_them_in_the_runs_folder(
    store: Any, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, dict[int, float]] = {}

    class Writer:
        def __init__(self, log_dir: str) -> None:
            assert log_dir == str(tmp_path / "run" / "tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.setdefault(name, {})[step] = value

        def add_text(self, *_: Any) -> None: ...

        flush = close = add_text

    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: True)
    config = settings(new_layers_steps=2, steps=2, eval_steps=2, save_steps=2, report_to="tensorboard")
    pretrain(store, str(checkpoint("bert")), tmp_path / "run", config)
    lines = metrics(tmp_path / "run")
    assert seen["train/new_layers/bow"] == {2: lines[1]["bow"]}
    assert seen["train/joint/loss"] == {2: lines[3]["loss"]}
    assert seen["eval/new_layers/mlm_accuracy"].keys() == {0, 2}
    assert seen["eval/joint/mlm_accuracy"].keys() == {2}


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    for library in ("trackio", "wandb"):
        monkeypatch.setattr(f"transformers.integrations.integration_utils.is_{library}_available", lambda: False)
    with pytest.raises(DupmaeError, match=rf"pip install 'dupmae\[{name}\]'"):
        trainer.tracker(name, tmp_path)
    assert trainer.tracker("none", tmp_path) == []


@pytest.mark.parametrize("kind", ["mpnet", "electra", "deberta", "modernbert"])
def test_a_run_from_an_encoder_without_head_goes_through_both_phases(
    kind: str, store: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    base_model, rate = checkpoint(f"{kind}-without-head"), 1e-4
    config = PretrainConfig(
        warm_start_sequences=10, new_layers_steps=1, steps=1, batch_size=4, precision="bfloat16", learning_rate=rate
    )
    folder = pretrain(store, str(base_model), tmp_path / "run", config)
    assert json.loads((folder / "dupmae.json").read_text(encoding="utf-8"))["steps"] == {"new_layers": 1, "joint": 1}
    _, report = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    before, after = (AutoModel.from_pretrained(place).state_dict() for place in (base_model, folder))
    moved = {name: (after[name] - tensor).abs().max().item() for name, tensor in before.items() if "pooler" not in name}
    assert 0.5 * rate < max(moved.values()) < 1.5 * rate  # AdamW's one step; what is not a number is not below
    assert sum(step > 0 for step in moved.values()) > len(moved) / 2
