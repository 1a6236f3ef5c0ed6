"""Damaged models give the same numbers or one sentence: a sample of benchmarks/reliability/damaged_models.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "reliability"
SAMPLES = {"duplex": 131, "unsealed": 83, "encoder": 71, "embedder": 89, "cross-encoder": 89, "packed": 9}
"""Kind -> every how many-th damage is tried."""
UNKNOWABLE = (
    "flipped",
    "swapped",
    "post_processor",
    "layer_norm_eps",
    "hidden_act",
    "num_attention_heads",
    "pre_tokenizer",
)
"""What nothing but a checksum can tell: weights and settings that are possible ones, of other values."""


@pytest.fixture(scope="module")
def script() -> Any:
    """The script, imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("damaged_models")


@pytest.fixture(scope="module")
def models(script: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each kind."""
    return dict(script.write_models(tmp_path_factory.mktemp("models")))


@pytest.mark.skipif(sys.platform == "win32", reason="tries each in a fork")
@pytest.mark.parametrize("kind", SAMPLES)
def test_a_damaged_model_gives_the_same_or_one_sentence(
    kind: str, script: Any, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    what, whole = script.outcome(kind, models[kind], None, work)
    assert what == "opened", whole
    faults = {}
    tried = list(script.damages(models[kind]))[:: SAMPLES[kind]]
    for name, damage in tried:
        told = script.outcome(kind, models[kind], damage, work)
        verdict = script.verdict(told, whole)
        if verdict not in ("same", "refused") and not (
            verdict == "another result" and any(w in name for w in UNKNOWABLE)
        ):
            faults[name] = verdict, told[1]
    assert not faults
    assert len(tried) > 5
