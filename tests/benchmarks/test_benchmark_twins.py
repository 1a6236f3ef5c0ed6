"""What the benchmarks compare computes the same thing."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from dupmae.backbones import Backbone
from dupmae.config import PretrainConfig
from dupmae.pretraining.masking import step_generator
from dupmae.pretraining.objective import DupMAE

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "speed"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_the_naive_step_has_the_losses_of_ours() -> None:
    from pretraining_step import NaiveDupMAE

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 50, (4, 12), generator=generator)
    ids[:, 0], ids[:, 9] = 2, 3
    ids[1, 7], ids[1, 8:] = 3, 0
    mask = ids != 0
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    losses = []
    for kind in (DupMAE, NaiveDupMAE):
        torch.manual_seed(0)
        objective = kind(Backbone(BertForMaskedLM(config)), [0, 1, 2, 3, 4], 4, PretrainConfig()).eval()
        losses.append(objective(ids, mask, mask, step_generator(torch.device("cpu"), 1)))
    for part in ("mlm", "cls", "bow", "loss"):
        torch.testing.assert_close(losses[0][part], losses[1][part])


@pytest.mark.parametrize("system", ["dupmae", "naive"])
def test_a_step_of_each_system_is_measured(
    system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pretraining_step

    sizes = ("--batch=4", "--length=24", "--layers=1", "--hidden=64", "--vocabulary=300", "--steps=2", "--warmup=1")
    options = ("--json", "--natural", "--batches=2", f"--system={system}", f"--threads={torch.get_num_threads()}")
    monkeypatch.setattr(sys, "argv", ["pretraining_step.py", *sizes, *options])
    pretraining_step.main()
    row = json.loads(capsys.readouterr().out)
    assert row["system"] == system
    assert row["tokens_per_s_best"] >= row["tokens_per_s_median"] > 0
    assert 0 < row["collate_share"] < 1
    assert row["peak_rss_mb"] > 100


def test_a_fine_tuning_step_in_mini_batches_has_the_gradient_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import finetuning_step

    def in_this_process(commands: dict[str, list[str]], *_: int) -> dict[str, list[dict[str, Any]]]:
        answers = {}
        for name, (_, script, *words) in commands.items():
            monkeypatch.setattr(sys, "argv", [script, *words])
            monkeypatch.setattr(sys, "stdin", io.StringIO("run\n"))
            finetuning_step.main()
            first, last = map(json.loads, capsys.readouterr().out.splitlines())
            answers[name] = [first | last]
        return answers

    sizes = ("--batch=6", "--mini=2", "--length=24", "--layers=1", "--hidden=64", "--vocabulary=500")
    monkeypatch.setattr(sys, "argv", ["finetuning_step.py", *sizes, "--json", f"--threads={torch.get_num_threads()}"])
    monkeypatch.setattr(finetuning_step, "take_turns", in_this_process)
    finetuning_step.main()
    figures = json.loads(capsys.readouterr().out)
    assert figures["mini-batches"]["gradient"] == pytest.approx(figures["whole batch"]["gradient"], rel=1e-4)
    assert figures["mini-batches"]["peak_rss_mb"] > 100


def test_systems_take_turns_and_one_that_ends_early_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    from interleave import take_turns

    def system(name: str) -> list[str]:
        code = f"""
import sys
for number, _ in enumerate(sys.stdin):
    print("{name}", number, file=sys.stderr, flush=True)
    print('{{"number": %d}}' % number, flush=True)
print('{{"peak_rss_mb": 7}}')
"""
        return [sys.executable, "-c", code]

    measured = take_turns({"one": system("one"), "two": system("two")}, 1, 2)
    answers = [{"number": 1}, {"number": 2, "peak_rss_mb": 7}]  # the first one, of the warm-up, does not count
    assert measured == {"one": answers, "two": answers}
    assert capfd.readouterr().err.splitlines() == ["one 0", "two 0", "one 1", "two 1", "one 2", "two 2"]
    with pytest.raises(SystemExit, match="two has ended with status 3"):
        take_turns({"two": [sys.executable, "-c", "raise SystemExit(3)"]}, 0, 1)
