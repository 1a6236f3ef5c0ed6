"""`dupmae finetune` under torchrun: two processes take the steps that one with the double batch takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from two_processes import assert_same_lines, assert_same_weights, torchrun

from dupmae.cli import entry as cli

RUN = """
import sys
from dupmae import cli
first = ["--output=" + sys.argv[1], "--mini_batch_size=0"]
second = ["--output=" + sys.argv[2], "--mini_batch_size=2"]
sys.exit(cli.main([*sys.argv[3:], *first]) or cli.main([*sys.argv[3:], *second]))
"""


@pytest.fixture
def command(toy_folder: Path, bert_folder: Path) -> list[str]:
    """A small fine-tuning with held-out queries, but for its output and its batch."""
    settings = {
        "benchmark": toy_folder, "model": bert_folder, "dev_fraction": 0.2, "epochs": 3, "max_length": 24,
        "eval_steps": 50, "negative_depth": 4, "top_k": 20, "document_max_length": 48, "precision": "float32",
        "learning_rate": 1e-3, "save_steps": 1,
    }  # fmt: skip
    return ["finetune", *(f"--{name}={value}" for name, value in settings.items())]


def test_two_processes_end_where_one_with_the_double_batch_ends_in_mini_batches_or_not(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "silence", lambda: None)
    assert cli.main([*command, f"--output={tmp_path / 'one'}", "--batch_size=6"]) == 0

    outputs = [tmp_path / "two", tmp_path / "two, in mini-batches"]
    told = torchrun(tmp_path / "run.py", RUN, *map(str, outputs), *command, "--batch_size=3")
    assert told.count("Written: ") == 2
    for output in outputs:
        assert_equal_runs(tmp_path / "one", output)


def assert_equal_runs(one: Path, two: Path) -> None:
    """The same losses in every step, and the same weights in the end."""
    assert_same_lines(one / "metrics.jsonl", two / "metrics.jsonl", 7, rel=1e-3)
    for run in (one, two):  # one process measures
        lines = [json.loads(line) for line in (run / "held_out.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [line["step"] for line in lines] == [0, 7]
        kept = json.loads((run / "finetune.json").read_text(encoding="utf-8"))["kept"]
        assert kept["step"] == 7  # not the weights that all began with
    for file in ("model.safetensors", "1_DuplexPooling/model.safetensors"):
        assert_same_weights(one / "model" / file, two / "model" / file, rtol=1e-2, atol=1e-4)
