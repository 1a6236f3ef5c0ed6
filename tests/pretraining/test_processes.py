"""`torchrun -m dupmae pretrain`: two processes take the steps that one takes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dupmae import cli

RUN = """
import sys
from dupmae import cli
from dupmae.pretraining import decoder
decoder.DROPOUT = 0.0  # random numbers that each process draws for itself
sys.exit(cli.main())
"""


@pytest.fixture
def command(tmp_path: Path, words: list[str], bert_folder: Path) -> list[str]:
    """A small pre-training, but for its output and what makes up a step of 8 sequences."""
    draw = random.Random(7)
    corpus = tmp_path / "corpus.jsonl"
    texts = [" ".join(draw.choices(words, k=draw.randint(4, 24))) for _ in range(60)]
    corpus.write_text("".join(json.dumps({"_id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)))
    settings = {
        "corpus": corpus, "model": bert_folder, "new_layers_steps": 2, "steps": 3, "batch_size": 4, "max_length": 24,
        "min_length": 4, "eval_steps": 2, "save_steps": 2, "precision": "float32", "encoder_mask_rate": 0.4,
        "learning_rate": 1e-2, "head_learning_rate": 1e-2,
    }  # fmt: skip
    return ["pretrain", *(f"--{name}={value}" for name, value in settings.items())]


def test_two_processes_end_where_one_with_two_micro_batches_ends(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dupmae.pretraining.decoder.DROPOUT", 0.0)
    monkeypatch.setattr(cli, "hush", lambda: None)
    assert cli.main([*command, f"--output={tmp_path / 'one'}", "--gradient_accumulation_steps=2"]) == 0

    (tmp_path / "run.py").write_text(RUN)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    alone = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*launch, str(tmp_path / "run.py"), *command, f"--output={tmp_path / 'two'}"],
        env=os.environ | alone, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Written: ") == 1
    for file in ("metrics.jsonl", "held_out.jsonl"):
        one, two = ([json.loads(line) for line in (tmp_path / run / file).open()] for run in ("one", "two"))
        assert len(one) == len(two) == (5 if file == "metrics.jsonl" else 4)
        for expected, found in zip(one, two, strict=True):
            assert found.pop("phase") == expected.pop("phase")
            assert found == pytest.approx(expected, rel=1e-4), file
    for file in ("model.safetensors", "decoder.safetensors"):
        expected, found = (load_file(tmp_path / run / "model" / file) for run in ("one", "two"))
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            if "key.bias" in name:  # softmax cancels it: its gradient is rounding, which AdamW blows up to full steps
                continue
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)
