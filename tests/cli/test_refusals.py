"""A command that is refused has changed nothing, and the same command with its fault mended is not refused for that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dupmae.cli import entry as cli

SMALL = ["--max_length", "24", "--min_length", "3", "--steps", "1", "--new_layers_steps", "0", "--batch_size", "4"]
SMALL += ["--warm_start_sequences", "4"]
SCRATCH = ["--from_scratch", "--layers", "1", "--width", "16", "--heads", "2", "--vocabulary_size", "80"]


@pytest.fixture
def corpus(texts: list[str], tmp_path: Path) -> str:
    (tmp_path / "texts.txt").write_text("\n\n".join(texts), encoding="utf-8")
    return str(tmp_path / "texts.txt")


def outcome(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(words) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--mlm_weight", "0", "--cls_weight", "0", "--bow_weight", "0"], "All three loss weights are 0"),
        (["--max_length", "70"], "positions for"),
        (["--shard", "true"], "there is one"),
        (["--report_to", "wandb"], "not installed"),
        (["--anchor_model", "nowhere/at/all", "--anchor_weight", "1"], "anchor_model nowhere/at/all"),
        (["--anchor_model", "dupmae-small"], "anchor_weight is 0"),
        (["--anchor_model", "dupmae-small", "--anchor_weight", "1"], "anchor_model dupmae-small is a duplex model"),
        (["--min_length", "24", "--max_length", "20"], "lower min_length"),
        (["--corpus", "nowhere.txt"], "nowhere.txt does not exist"),
    ],
)
@pytest.mark.parametrize("scratch", [False, True])
def test_pretraining_that_is_refused_leaves_nothing_and_its_correction_runs(
    wrong: list[str],
    sentence: str,
    scratch: bool,
    corpus: str,
    bert_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stand_in: Callable[..., Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dupmae.pretraining.checks.find_spec", lambda name: None)
    train = stand_in("dupmae.pretraining.pretrain")
    start = [*SCRATCH, "--positions", "64"] if scratch else ["--model", str(bert_folder)]
    words = ["pretrain", *start, "--output", "out", *SMALL]
    if "70" in wrong:  # a text that takes so much
        Path(corpus).write_text(" ".join(Path(corpus).read_text(encoding="utf-8").split()), encoding="utf-8")
    assert sentence in outcome([*words, "--corpus", corpus, *wrong], capsys)
    assert not Path("out").exists()
    train.assert_not_called()
    assert cli.main([*words, "--corpus", corpus]) == 0


BAD_PAIRS = '{"query": "a"}\n'


@pytest.mark.parametrize(
    "command",
    [
        ["finetune", "--model", "MODEL", "--pairs", "bad.jsonl"],
        ["finetune", "--model", "nowhere/at/all", "--pairs", "pairs.jsonl"],
        ["finetune", "--model", "MODEL", "--pairs", "pairs.jsonl", "--lists", "bad.jsonl"],
        ["mine", "--source", "bm25", "--pairs", "bad.jsonl"],
        ["mine", "--source", "duplex", "--pairs", "pairs.jsonl"],
        ["mine", "--source", "bm25", "--pairs", "pairs.jsonl", "--first", "9", "--last", "3"],
        ["teach", "--model", "MODEL", "--lists", "bad.jsonl", "--pairs", "pairs.jsonl"],
        ["teach", "--model", "nowhere/at/all", "--lists", "bad.jsonl", "--pairs", "pairs.jsonl"],
        ["encode", "--model", "MODEL", "--input", "bad.jsonl"],
        ["encode", "--model", "nowhere/at/all", "--input", "texts.txt"],
        ["index build", "--model", "MODEL", "--corpus", "bad.jsonl"],
        ["index build", "--model", "MODEL", "--corpus", "texts.txt", "bad.jsonl"],
        ["index build", "--model", "nowhere/at/all", "--corpus", "texts.txt"],
        ["pretrain", "--model", "nowhere/at/all", "--corpus", "texts.txt"],
        ["adapt", "bad.jsonl"],
        ["adapt", "texts.txt", "--model", "nowhere/at/all"],
        ["run", "recipe.yaml", "--data.benchmark", "nowhere"],
        ["adapt", "texts.txt", "--model", "MODEL", "--pretrain.anchor_model", "no", "--pretrain.anchor_weight", "1"],
        ["evaluate", "--model", "nowhere/at/all", "--benchmark", "nowhere"],
        ["evaluate", "--run", "bad.jsonl", "--qrels", "bad.jsonl"],
        ["rerank", "--model", "nowhere/at/all", "--run", "bad.jsonl", "--benchmark", "nowhere"],
    ],
    ids=" ".join,
)
def test_what_is_refused_leaves_no_trace(
    command: list[str],
    corpus: str,
    duplex_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text(BAD_PAIRS, encoding="utf-8")
    Path("pairs.jsonl").write_text('{"query": "a", "positive": "b"}\n', encoding="utf-8")
    Path("recipe.yaml").write_text("base_model: nowhere/at/all\n", encoding="utf-8")
    before = set(tmp_path.rglob("*"))
    given = [str(duplex_folder) if word == "MODEL" else word for word in command]
    outcome([*given[0].split(), *given[1:], "--output", "new/deep/out"], capsys)
    assert set(tmp_path.rglob("*")) == before


def test_an_encoder_from_nothing_gives_way_until_a_run_has_begun_with_it(
    corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], stand_in: Callable[..., Any]
) -> None:
    stand_in("dupmae.pretraining.pretrain")
    words = ["pretrain", *SCRATCH, "--corpus", corpus, "--output", str(tmp_path / "out"), *SMALL]
    assert cli.main(words) == 0  # as if killed before the run had its record
    assert cli.main([*words, "--layers", "2", "--max_length", "20"]) == 0
    (tmp_path / "out" / "pretrain.json").write_text("{}", encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert "other settings" in outcome(words, capsys)
    assert "other settings" in outcome([*words, "--layers", "2"], capsys)  # the store is that of another length
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
