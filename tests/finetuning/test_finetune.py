"""Fine-tuning runs: what they learn, how they go on, what they refuse, what they show."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dupmae.corpus import Passage
from dupmae.duplex import DuplexEncoder
from dupmae.errors import DupmaeError
from dupmae.finetuning import finetune, trainer

STEPS = 9


def weights(encoder: DuplexEncoder) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in encoder.state_dict().items()}


def assert_same_weights(one: DuplexEncoder, other: DuplexEncoder) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def metrics(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt training right after the losses of a step are written, half a line of the next one included."""
    log = trainer._Log.on_log

    def dying(self: Any, args: Any, state: Any, *rest: Any, **names: Any) -> None:
        log(self, args, state, *rest, **names)
        if state.global_step == step:
            with self.path.open("a") as file:
                file.write('{"step": ')
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer._Log, "on_log", dying)


def test_loss_of_each_part_goes_down_and_every_part_learns(benchmark, config, make_encoder, tmp_path):
    start = make_encoder()
    before = weights(make_encoder())
    config = replace(config, epochs=8, dropout=0.0, learning_rate=1e-3, head_learning_rate=3e-3)
    model = finetune(start, benchmark, tmp_path / "run", config)
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, 25))
    for part in ("loss", "contrastive", "contrastive_cls", "contrastive_ot"):
        first, last = ([line[part] for line in some] for some in (lines[:6], lines[-6:]))
        assert sum(last) < 0.8 * sum(first), part
    after = weights(model)
    for name in ("1.cls_projection.weight", "1.transform.0.weight", "1.output.weight", "1.ot_log_scale"):
        assert not torch.equal(before[name], after[name]), name
    # the loss is the sum of its parts
    for line in lines:
        parts = [value for key, value in line.items() if key.startswith("contrastive")]
        assert line["loss"] == pytest.approx(sum(parts), abs=2e-4)


def test_killed_and_resumed_run_ends_like_an_uninterrupted_one(benchmark, config, make_encoder, tmp_path, monkeypatch):
    whole = finetune(make_encoder(), benchmark, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        kill_at(5, patch)
        with pytest.raises(KeyboardInterrupt):
            finetune(make_encoder(), benchmark, tmp_path / "killed", config)
    assert [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()] == ["checkpoint-4"]
    begun = []
    begin = trainer._Log.on_train_begin
    monkeypatch.setattr(
        trainer._Log,
        "on_train_begin",
        lambda self, args, state, *rest, **names: begun.append(state.global_step) or begin(self, args, state, *rest),
    )
    resumed = finetune(make_encoder(), benchmark, tmp_path / "killed", replace(config, save_steps=50))
    assert begun == [4]
    assert_same_weights(resumed, whole)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert len(metrics(tmp_path / "whole")) == STEPS
    assert not (tmp_path / "killed" / "checkpoints").exists()


def test_run_killed_before_its_first_checkpoint_starts_again(benchmark, config, make_encoder, tmp_path, monkeypatch):
    config = replace(config, epochs=1)
    whole = finetune(make_encoder(), benchmark, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        kill_at(1, patch)
        with pytest.raises(KeyboardInterrupt):
            finetune(make_encoder(), benchmark, tmp_path / "killed", config)
    # and once more while a checkpoint is written
    (tmp_path / "killed" / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "killed" / "checkpoints" / "checkpoint-2" / "trainer_state.json").write_text('{"global_')
    assert_same_weights(finetune(make_encoder(), benchmark, tmp_path / "killed", config), whole)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_finished_run_gives_its_model_at_once_and_other_runs_are_refused(
    benchmark, config, make_encoder, tmp_path, monkeypatch
):
    config = replace(config, epochs=1)
    model = finetune(make_encoder(), benchmark, tmp_path / "run", config)
    assert isinstance(model, DuplexEncoder)
    assert_same_weights(DuplexEncoder(str(tmp_path / "run" / "model")), model)
    monkeypatch.setattr(trainer, "make_examples", lambda *_: pytest.fail("trains again"))
    assert_same_weights(finetune(make_encoder(), benchmark, tmp_path / "run", replace(config, save_steps=9)), model)

    other_start = make_encoder()
    with torch.no_grad():
        next(other_start.parameters())[7, 7] += 1e-6
    passage = Passage("p0a", "", "baba")
    qrels = benchmark.qrels | {"q0": {"p0a": 1, "p0b": 1}}
    for encoder, data, settings in (
        (make_encoder(), benchmark, replace(config, seed=1)),
        (make_encoder(top_k=19), benchmark, config),
        (make_encoder(document_max_length=30), benchmark, config),
        (other_start, benchmark, config),
        (make_encoder(), replace(benchmark, qrels=qrels), config),
        (make_encoder(), replace(benchmark, queries=benchmark.queries | {"q1": "baba"}), config),
        (make_encoder(), replace(benchmark, corpus=benchmark.corpus | {"p0a": passage}), config),
    ):
        with pytest.raises(DupmaeError, match="with other settings, another start or other data"):
            finetune(encoder, data, tmp_path / "run", settings)
    assert_same_weights(DuplexEncoder(str(tmp_path / "run" / "model")), model)


def test_folder_with_other_results_is_refused(benchmark, config, make_encoder, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(DupmaeError, match="holds other results"):
        finetune(make_encoder(), benchmark, tmp_path, config)
    (tmp_path / "finetune.json").write_text("{")
    with pytest.raises(DupmaeError, match=r"finetune\.json is damaged"):
        finetune(make_encoder(), benchmark, tmp_path, config)


def test_refused_settings_leave_no_trace(benchmark, config, make_encoder, tmp_path):
    with pytest.raises(DupmaeError, match="fewer than one batch"):
        finetune(make_encoder(), benchmark, tmp_path / "run", replace(config, batch_size=100))
    assert not (tmp_path / "run").exists()


def test_loss_that_is_no_number_stops_the_run(benchmark, config, make_encoder, tmp_path):
    encoder = make_encoder()
    encoder.pooling.ot_log_scale.data.fill_(float("nan"))
    with pytest.raises(DupmaeError, match="not a number at step 1: lower the learning rates"):
        finetune(encoder, benchmark, tmp_path / "run", config)
    assert not (tmp_path / "run" / "model").exists()


def test_model_keeps_its_lengths_whatever_was_trained_at(benchmark, config, make_encoder, tmp_path):
    encoder = make_encoder(query_max_length=10, document_max_length=48)
    model = finetune(encoder, benchmark, tmp_path / "run", replace(config, epochs=1, max_length=16))
    assert (model[0].query_length, model[0].document_length, model.max_seq_length) == (10, 48, 48)


def test_every_parameter_has_the_learning_rate_of_its_kind(benchmark, config, make_encoder, tmp_path, monkeypatch):
    rates: dict[str, float] = {}

    def only_look(self: Any, **_: Any) -> None:
        numbers = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for group in self.create_optimizer().param_groups:
            rates.update({numbers[id(parameter)]: group["lr"] for parameter in group["params"]})

    monkeypatch.setattr(trainer._Trainer, "train", only_look)
    config = replace(config, learning_rate=1.0, head_learning_rate=2.0, scale_learning_rate=3.0)
    finetune(make_encoder(), benchmark, tmp_path / "run", config)
    kinds = {name: rate for name, rate in rates.items() if name.startswith("1.")}
    assert {rate for name, rate in rates.items() if name.startswith("0.")} == {1.0}
    assert kinds == {
        "1.cls_projection.weight": 2.0,
        "1.transform.0.weight": 2.0,
        "1.transform.0.bias": 2.0,
        "1.transform.2.weight": 2.0,
        "1.transform.2.bias": 2.0,
        "1.output.weight": 2.0,
        "1.output.bias": 3.0,
        "1.cls_log_scale": 3.0,
        "1.ot_log_scale": 3.0,
        "1.entry_log_scale": 3.0,
    }


def test_run_shows_one_bar_and_nothing_else(benchmark, config, make_encoder, tmp_path, capfd):
    encoder = make_encoder()
    capfd.readouterr()
    finetune(encoder, benchmark, tmp_path / "run", replace(config, epochs=1, save_steps=1))
    shown = capfd.readouterr()
    assert shown.out == ""
    lines = [line for line in shown.err.replace("\r", "\n").splitlines() if line.strip()]
    assert lines
    assert [line for line in lines if not line.startswith("fine-tuning: ")] == []
    assert "3/3" in lines[-1]
