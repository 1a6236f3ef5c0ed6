"""`torchrun -m dupmae pretrain`: two processes take the steps that one takes, with all weights each or with half."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType
from transformers import AutoModelForMaskedLM
from two_processes import assert_same_lines, assert_same_weights, torchrun

from dupmae.cli import entry as cli
from dupmae.errors import DupmaeError
from dupmae.pretraining import anchor_vectors
from dupmae.pretraining.sharding import refuse_unshardable

IN_TWO_PROCESSES = """
import json, sys
from accelerate.state import DistributedType, PartialState
from dupmae import cli
from dupmae.pretraining import anchor_vectors, result
from dupmae.pretraining.phase import PhaseTrainer

anchor_vectors.BLOCK = 16
result.draw_curves = lambda path, *_: path.touch()
begin, compute_loss = PartialState.__init__, PhaseTrainer.compute_loss
parts = 0

def begin_as_on_gpus(state, *arguments, **named):  # accelerate spreads nothing over processors, though torch can
    begin(state, *arguments, **named)
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU

def die_once_in_step_4_of_the_joint_phase(trainer, *arguments, **named):
    global parts
    parts += trainer.phase.name == "joint" and trainer.state.global_step == 3
    if parts == 2:
        parts += 1
        raise KeyboardInterrupt
    return compute_loss(trainer, *arguments, **named)

for name, words in json.loads(sys.argv[1]).items():
    PartialState.__init__ = begin_as_on_gpus if "--shard=true" in words else begin
    if name == "killed":
        PhaseTrainer.compute_loss = die_once_in_step_4_of_the_joint_phase
        assert cli.main(words) == 130
    assert cli.main(words) == 0
"""


@pytest.fixture(scope="module")
def runs(
    words: list[str], bert_folder: Path, embedder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The folders of small runs of 8 sequences a step: two in one process, the others in two."""
    folder, draw = tmp_path_factory.mktemp("runs"), random.Random(7)
    corpus = folder / "corpus.jsonl"
    texts = [" ".join(draw.choices(words, k=draw.randint(4, 24))) for _ in range(60)]
    lines = [json.dumps({"_id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)]
    corpus.write_text("".join(lines), encoding="utf-8")
    settings = {
        "corpus": corpus, "new_layers_steps": 2, "steps": 4, "max_length": 24, "min_length": 4, "eval_steps": 2,
        "save_steps": 2, "precision": "float32", "encoder_mask_rate": 0.4, "learning_rate": 1e-2,
        "head_learning_rate": 1e-2,
    }  # fmt: skip
    tied = {**settings, "model": bert_folder, "batch_size": 4, "keep": "last"}
    untied = {**settings, "model": embedder_folder, "batch_size": 2, "dense_pooling": "mean", "warm_start_sequences": 9}
    off = {"mlm_weight": 0, "cls_weight": 0, "bow_weight": 0}
    drawn = {**tied, **off, "anchor_model": embedder_folder, "anchor_weight": 5}
    alone = {
        "tied": {**tied, "gradient_accumulation_steps": 2},
        "drawn alone": {**drawn, "gradient_accumulation_steps": 2},
        "untied": {**untied, "gradient_accumulation_steps": 4},
    }
    shared = {**untied, "gradient_accumulation_steps": 2, "shard": "true"}
    together = {
        "whole": tied,
        "drawn": drawn,
        "shared": {**tied, "shard": "true", "gradient_checkpointing": "true"},
        "shared and untied": shared,
        "killed": shared,
    }
    commands = {
        name: ["pretrain", f"--output={folder / name}", *(f"--{key}={value}" for key, value in run.items())]
        for name, run in (alone | together).items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "silence", lambda: None)
        patch.setattr(anchor_vectors, "BLOCK", 16)
        assert [cli.main(commands[name]) for name in alone] == [0, 0, 0]
    shared_words = json.dumps({name: commands[name] for name in together})
    told = torchrun(folder / "run.py", IN_TWO_PROCESSES, shared_words)
    assert told.count("Written: ") == len(together)
    return {name: folder / name for name in commands}


def assert_same_run(
    found: Path, expected: Path, rtol: float = 1e-3, atol: float = 1e-5, lines: tuple[int, int] = (6, 4)
) -> None:
    """The same losses in every step and in every measurement, and the same weights at the end."""
    for file, count in zip(("metrics.jsonl", "held_out.jsonl"), lines, strict=True):
        assert_same_lines(expected / file, found / file, count, rtol / 10)
    for file in ("model.safetensors", "decoder.safetensors"):
        assert_same_weights(expected / "model" / file, found / "model" / file, rtol, atol)


def test_two_processes_end_where_one_with_two_micro_batches_ends(runs: dict[str, Path]) -> None:
    assert_same_run(runs["whole"], runs["tied"])


def test_two_processes_that_draw_vectors_to_anothers_compute_each_some_and_end_where_one_ends(
    runs: dict[str, Path],
) -> None:
    assert_same_run(runs["drawn"], runs["drawn alone"], lines=(4, 3))
    names = [sorted(path.name for path in runs[name].rglob("0*.npy")) for name in ("drawn", "drawn alone")]
    assert names[0] == names[1] == [f"{start:09d}.npy" for start in (0, 16, 32, 48)]


@pytest.mark.parametrize(("shared", "alone"), [("shared", "tied"), ("shared and untied", "untied")])
def test_two_processes_that_share_the_weights_end_where_one_ends(
    shared: str, alone: str, runs: dict[str, Path]
) -> None:
    assert_same_run(runs[shared], runs[alone], atol=1e-4)  # a hundredth of AdamW's largest step
    _, report = AutoModelForMaskedLM.from_pretrained(runs[shared] / "model", output_loading_info=True)
    assert not report["missing_keys"]


def test_two_processes_that_share_the_weights_and_were_killed_end_where_others_end(runs: dict[str, Path]) -> None:
    assert_same_run(runs["killed"], runs["shared and untied"], rtol=0, atol=0)


def test_weights_are_not_spread_over_processors() -> None:
    with pytest.raises(DupmaeError, match="compute on processors"):
        refuse_unshardable(SimpleNamespace(num_processes=2, distributed_type=DistributedType.MULTI_CPU))
