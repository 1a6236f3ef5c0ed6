"""Runs of two processes, as `torchrun` starts them, and what two runs should have in common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


def torchrun(script: Path, code: str, *words: str) -> str:
    """Run code in two processes on a processor, and return what they have printed."""
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), *words],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_same_lines(one: Path, other: Path, count: int, rel: float) -> None:
    """Compare two logs: the same steps and phases, and figures that differ by rounding at most."""
    logs = [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in (one, other)]
    assert [len(lines) for lines in logs] == [count, count]
    for expected, found in zip(*logs, strict=True):
        assert found.pop("phase", None) == expected.pop("phase", None)
        assert found == pytest.approx(expected, rel=rel), one.name


def assert_same_weights(one: Path, other: Path, rtol: float, atol: float) -> None:
    """Compare two files of weights."""
    expected, found = load_file(one), load_file(other)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if "key.bias" in name:  # softmax cancels it: its gradient is rounding, which AdamW blows up to full steps
            continue
        torch.testing.assert_close(found[name], tensor, rtol=rtol, atol=atol, msg=lambda text, at=name: f"{at}: {text}")
