"""What a process refuses, and what it keeps to, where there could be several."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from dupmae.config import MiningConfig, TeacherConfig
from dupmae.corpus import Benchmark, Passage
from dupmae.errors import DupmaeError
from dupmae.experiments.run_folder import RunFolder
from dupmae.finetuning.mining import mine
from dupmae.finetuning.teacher import train_teacher
from dupmae.runtime.processes import on_one_device


def test_what_one_process_does_is_refused_to_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    passages = {name: Passage(name, "", f"a lamp {name}") for name in "ab"}
    benchmark = Benchmark("b", "train", passages, {"q": "lamp"}, {"q": {"a": 1}})
    with pytest.raises(DupmaeError, match="A run of all stages is the work of one process: start it without torchrun"):
        RunFolder(tmp_path / "run", "identity", []).carry_out([], {})
    with pytest.raises(DupmaeError, match="Mining is the work of one process"):
        mine(None, benchmark, tmp_path / "mined", MiningConfig(source="bm25"))
    with pytest.raises(DupmaeError, match="A teacher's training is the work of one process"):
        train_teacher("encoder", benchmark, tmp_path / "lists.jsonl", tmp_path / "teacher", TeacherConfig())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("found", [1, 4])
def test_a_process_trains_on_one_of_several_gpus_and_says_so(
    found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    caplog.set_level(logging.WARNING)
    arguments = TrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=3)
    assert arguments.train_batch_size == 3 * found
    assert on_one_device(arguments).train_batch_size == 3
    assert ("one of 4 GPUs: pretrain and finetune take all under torchrun --nproc-per-node 4" in caplog.text) == (
        found == 4
    )
