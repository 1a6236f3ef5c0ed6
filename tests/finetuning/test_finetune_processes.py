"""`dupmae finetune` under torchrun: two processes take the steps that one with the double batch takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dupmae.cli import entry as cli
from dupmae.corpus import Benchmark

RUN = """
import sys
from dupmae import cli
first = ["--output=" + sys.argv[1], "--mini_batch_size=0"]
second = ["--output=" + sys.argv[2], "--mini_batch_size=2"]
sys.exit(cli.main([*sys.argv[3:], *first]) or cli.main([*sys.argv[3:], *second]))
"""


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
        "save_steps": 1,
    }  # fmt: skip
    return ["finetune", *(f"--{name}={value}" for name, value in settings.items())]


def test_two_processes_end_where_one_with_the_double_batch_ends_in_mini_batches_or_not(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "silence", lambda: None)
    assert cli.main([*command, f"--output={tmp_path / 'one'}", "--batch_size=6"]) == 0

    (tmp_path / "run.py").write_text(RUN)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    alone = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    outputs = [str(tmp_path / "two"), str(tmp_path / "two, in mini-batches")]
    done = subprocess.run(
        [*launch, str(tmp_path / "run.py"), *outputs, *command, "--batch_size=3"],
        env=os.environ | alone, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Written: ") == 2
    for output in outputs:
        assert_equal_runs(tmp_path / "one", Path(output))


def assert_equal_runs(one: Path, two: Path) -> None:
    """The same losses in every step, and the same weights in the end."""
    metrics = [[json.loads(line) for line in (run / "metrics.jsonl").open()] for run in (one, two)]
    assert [len(lines) for lines in metrics] == [7, 7]
    for expected, found in zip(*metrics, strict=True):
        assert found == pytest.approx(expected, rel=1e-3)
    for run in (one, two):  # one process measures
        lines = [json.loads(line) for line in (run / "held_out.jsonl").open()]
        assert [line["step"] for line in lines] == [0, 7]
        kept = json.loads((run / "finetune.json").read_text())["kept"]
        assert kept["step"] == 7  # not the weights that all began with
    for file in ("model.safetensors", "1_DuplexPooling/model.safetensors"):
        weights, again = (load_file(run / "model" / file) for run in (one, two))
        assert weights.keys() == again.keys()
        for name, tensor in weights.items():
            if "key.bias" in name:  # softmax cancels it: its gradient is rounding, which AdamW blows up to full steps
                continue
            torch.testing.assert_close(
                again[name], tensor, rtol=1e-2, atol=1e-4, msg=lambda text, at=name: f"{at}: {text}"
            )
