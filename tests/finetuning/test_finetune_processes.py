"""`torchrun -m dupmae finetune`: two processes take the steps that one with the double batch takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dupmae import cli
from dupmae.corpus import Benchmark


@pytest.fixture
def command(tmp_path: Path, benchmark: Benchmark, bert_folder: Path) -> list[str]:
    """A small fine-tuning with held-out queries, but for its output and its batch."""
    folder = tmp_path / "toy"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": passage.id, "text": passage.text} for passage in benchmark.corpus.values()]
    queries = [{"_id": query, "text": text} for query, text in benchmark.queries.items()]
    for name, records in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = [
        f"{query}\t{name}\t{grade}\n" for query, grades in benchmark.qrels.items() for name, grade in grades.items()
    ]
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    settings = {
        "benchmark": folder, "model": bert_folder, "dev_fraction": 0.2, "epochs": 3, "max_length": 24, "eval_steps": 50,
        "negative_depth": 4, "top_k": 20, "document_max_length": 48, "precision": "float32", "learning_rate": 1e-3,
    }  # fmt: skip
    return ["finetune", *(f"--{name}={value}" for name, value in settings.items())]


@pytest.mark.parametrize("mini_batch_size", [0, 2])
def test_two_processes_end_where_one_with_the_double_batch_ends(
    mini_batch_size: int, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "hush", lambda: None)
    assert cli.main([*command, f"--output={tmp_path / 'one'}", "--batch_size=6"]) == 0

    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dupmae"]
    alone = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    halved = ["--batch_size=3", f"--mini_batch_size={mini_batch_size}"]
    done = subprocess.run(
        [*launch, *command, f"--output={tmp_path / 'two'}", *halved],
        env=os.environ | alone, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Written: ") == 1
    one, two = ([json.loads(line) for line in (tmp_path / run / "metrics.jsonl").open()] for run in ("one", "two"))
    assert len(one) == len(two) == 7
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, rel=1e-3)
    for run in ("one", "two"):  # one process measures
        lines = [json.loads(line) for line in (tmp_path / run / "held_out.jsonl").open()]
        assert [line["step"] for line in lines] == [0, 7]
    for file in ("model.safetensors", "1_DuplexPooling/model.safetensors"):
        expected, found = (load_file(tmp_path / run / "model" / file) for run in ("one", "two"))
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            if "key.bias" in name:  # softmax cancels it: its gradient is rounding, which AdamW blows up to full steps
                continue
            torch.testing.assert_close(
                found[name], tensor, rtol=1e-2, atol=1e-4, msg=lambda text, at=name: f"{at}: {text}"
            )
