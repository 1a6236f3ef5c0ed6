"""The commands around fine-tuning from end to end, with tiny random models."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dupmae.cli import entry as cli
from dupmae.cli.commands import train as train_commands
from dupmae.corpus import read_benchmark, read_run, write_run
from dupmae.evaluation import evaluate_run
from dupmae.finetuning.candidates import read_lists, read_scores
from dupmae.retrievers import bm25_run


@pytest.fixture(autouse=True)
def not_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the process's warnings and environment as other tests expect them."""
    monkeypatch.setattr(cli, "silence", lambda: None)


@pytest.fixture
def folder(toy_folder: Path) -> str:
    """The benchmark's folder as an argument."""
    return str(toy_folder)


def test_negatives_are_mined_a_teacher_is_trained_and_reranks(
    folder: str, bert_folder: Path, make_encoder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_encoder().save_pretrained(str(tmp_path / "model"))
    index, mined, taught = (str(tmp_path / name) for name in ("index", "mined", "taught"))
    words = ["index", "build", "--model", str(tmp_path / "model"), "--corpus", folder, "--output", index]
    assert cli.main(words) == 0
    words = ["mine", "--index", index, "--benchmark", folder, "--output", mined, "--last", "5", "--source", "both"]
    assert cli.main(words) == 0
    assert f"Written: {mined}/negatives.jsonl" in capsys.readouterr().out

    words = ["teach", "--model", str(bert_folder), "--lists", f"{mined}/negatives.jsonl", "--benchmark", folder]
    assert cli.main([*words, "--output", taught, "--epochs", "1", "--batch_size", "6", "--negatives", "2"]) == 0
    train = read_benchmark(folder, "train")
    lists = read_lists(Path(mined) / "negatives.jsonl", train)
    scores = read_scores(Path(taught) / "teacher.jsonl", lists)
    again = str(tmp_path / "again")
    words[2] = f"{taught}/model"
    assert cli.main([*words, "--ready", "--output", again]) == 0
    assert not (tmp_path / "again" / "model").exists()
    assert read_scores(tmp_path / "again" / "teacher.jsonl", lists) == scores

    ranked = bm25_run(train, 10)
    write_run(tmp_path / "run.trec", ranked, "bm25")
    capsys.readouterr()
    words = ["rerank", "--model", f"{taught}/model", "--run", str(tmp_path / "run.trec"), "--benchmark", folder]
    assert cli.main([*words, "--split", "train", "--output", str(tmp_path / "new.trec")]) == 0
    told, reranked = capsys.readouterr().out, read_run(tmp_path / "new.trec")
    assert {query: set(row) for query, row in reranked.items()} == {query: set(row) for query, row in ranked.items()}
    for run in (ranked, reranked):
        assert f"{evaluate_run(run, train.qrels)['ndcg@10']:.4f}" in told


@pytest.mark.parametrize("command", ["mine", "teach"])
def test_either_a_benchmark_or_pairs_are_needed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [command, "--output", "o"] + (["--model", "m", "--lists", "l"] if command == "teach" else [])
    assert cli.main(words) == 2
    assert f"dupmae {command} trains on either --benchmark FOLDER or --pairs FILE" in capsys.readouterr().err
    assert cli.main([*words, "--benchmark", "b", "--pairs", "p"]) == 2


def test_a_folder_without_a_model_is_no_teacher_and_leaves_no_trace(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    words = ["teach", "--ready", "--model", str(tmp_path / "empty"), "--lists", "l", "--benchmark", folder]
    assert cli.main([*words, "--output", str(tmp_path / "taught")]) == 2
    assert "empty holds no model" in capsys.readouterr().err
    assert not (tmp_path / "taught").exists()


def test_reranking_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rerank", "--model", "m", "--run", "r", "--benchmark", "b", "--output", "o", "--depth", "0"]
    assert cli.main(words) == 2
    assert "--depth counts the passages to score" in capsys.readouterr().err


def test_pairs_in_a_sheet_are_trained_on_and_the_held_out_ones_end_in_a_table(
    folder: str, make_encoder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_commands, "FEW_QUERIES", 4)
    make_encoder().save_pretrained(str(tmp_path / "model"))
    train = read_benchmark(folder, "train")
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        sheet = csv.writer(file)
        sheet.writerow(["Ask", "Answer", "Negative"])
        others = list(train.corpus.values())
        for number, (query, grades) in enumerate(train.qrels.items()):
            positive = next(passage for passage, grade in grades.items() if grade > 0)
            negative = others[number - 1].text if others[number - 1].id not in grades else ""
            sheet.writerow([train.queries[query], train.corpus[positive].text, negative])
    words = [
        "finetune",
        "--model",
        str(tmp_path / "model"),
        "--pairs",
        str(tmp_path / "pairs.csv"),
        "--query_field",
        "Ask",
    ]
    words += ["--output", str(tmp_path / "run"), "--epochs", "1", "--batch_size", "3", "--eval_steps", "2"]
    assert cli.main([*words, "--hold_out", "queries"]) == 0
    told = capsys.readouterr().out
    assert re.search(rf"^Held out: \d of {len(train.queries)} queries, .*--dev_fraction 0 trains on all", told, re.M)
    lines = [json.loads(line) for line in (tmp_path / "run" / "held_out.jsonl").read_text().splitlines()]
    best = max(line["ndcg@10"] for line in lines)
    rows = {row.split()[1]: row for row in told.splitlines() if row.startswith(("│ before", "│ after", "│ bm25"))}
    assert f"{lines[0]['ndcg@10']:.4f}" in rows["before"]
    assert f"{best:.4f}" in rows["after"]
    assert rows.keys() == {"before", "after", "bm25"}
    assert f"{tmp_path / 'run' / 'model'}" in told
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "Fine-tuned from `model` on" in card
    assert f"{lines[0]['ndcg@10']:.3f} before, {best:.3f} after" in card
    assert str(tmp_path) not in card
    trained = json.loads((tmp_path / "run" / "finetune.json").read_text(encoding="utf-8"))["trained_on"]
    assert trained["stage"] == 1
    assert trained["queries"] < len(train.queries)
