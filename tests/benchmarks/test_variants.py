"""The benchmark of a recipe's variants on a tiny benchmark."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SMALL = {
    "store.max_length": 32,
    "store.min_length": 4,
    "pretrain.warm_start_sequences": 20,
    "pretrain.new_layers_steps": 1,
    "pretrain.steps": 1,
    "pretrain.batch_size": 8,
    "duplex.document_max_length": 48,
    "finetune.epochs": 1,
    "finetune.batch_size": 8,
    "data.dev_fraction": 0.3,
}


@pytest.fixture
def arguments(tmp_path: Path, words: list[str], embedder_folder: Path) -> list[str]:
    """The recipe for folders of pairs, made small: 30 passages, 16 train and 8 test queries."""
    draw = random.Random(5)
    texts = [" ".join(draw.sample(words, 12)) for _ in range(30)]
    folder = tmp_path / "toy"
    (folder / "qrels").mkdir(parents=True)
    records: dict[str, list[dict[str, str]]] = {
        "corpus": [{"_id": f"p{n}", "text": text} for n, text in enumerate(texts)],
        "queries": [{"_id": f"q{n}", "text": " ".join(text.split()[:3])} for n, text in enumerate(texts[:24])],
    }
    for name, lines in records.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for split, numbers in (("train", range(16)), ("test", range(16, 24))):
        judged = "".join(f"q{n}\tp{n}\t1\n" for n in numbers)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    settings = SMALL | {"start": embedder_folder, "data.benchmark": folder, "output": tmp_path / "out"}
    return [str(ROOT / "recipes" / "pairs.yaml"), *(f"--{key}={value}" for key, value in settings.items())]


def test_variants_are_ranked_with_their_halves_and_compared_with_the_full_method(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import variants

    monkeypatch.setattr(sys, "argv", ["variants.py", *arguments, "--test", "--only", "768:0", "linear", "none"])
    variants.main()
    shown = capsys.readouterr().out
    record: dict[str, Any] = json.loads((tmp_path / "out" / "variants.json").read_text())
    for title, count in (("held out", 5), ("test", 8)):
        assert f"{count} queries, {title}" in shown
        rows = record[title]
        assert list(rows) == ["bm25", "the start as it comes", "both", "768:0", "linear", "none"]
        assert all(f"{row['ndcg@10']:.4f}" in shown for row in rows.values())
        assert rows["both"]["p"] == 1.0
        assert {name for name, row in rows.items() if "ndcg@10 OT" in row} == {"both", "linear", "none"}
    monkeypatch.setattr(variants, "OURS", variants.OURS | {"none": variants.OURS["768:0"]})
    variants.main()  # what is done is not done again, and what was the same is found again
    again: dict[str, Any] = json.loads((tmp_path / "out" / "variants.json").read_text())
    assert again["test"]["none"] == again["test"]["768:0"] == record["test"]["768:0"]
