"""The benchmark of a recipe's variants on a tiny benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dupmae.corpus import Benchmark, Run
from dupmae.duplex import DuplexEncoder
from dupmae.finetuning.validation import rank_weighted
from dupmae.finetuning.weights import FACTORS
from dupmae.index import Weights

ROOT = Path(__file__).parents[2]


@pytest.fixture
def arguments(
    tmp_path: Path, write_data: Callable[[Path], Path], small_run: dict[str, Any], embedder_folder: Path
) -> list[str]:
    """The recipe for folders of pairs, made small."""
    data = {"data.benchmark": write_data(tmp_path / "toy"), "data.dev_fraction": 0.3}
    settings = small_run | data | {"base_model": embedder_folder, "output": tmp_path / "out"}
    return [str(ROOT / "recipes" / "pairs-encoder.yaml"), *(f"--{key}={value}" for key, value in settings.items())]


@pytest.fixture
def variants(import_script: Callable[[str], Any]) -> Any:
    """The script as a module."""
    return import_script("variants")


@pytest.fixture
def run(arguments: list[str], tmp_path: Path, run_script: Callable[..., None]) -> Callable[..., dict[str, Any]]:
    """Runs the script with further words and reads what it wrote."""

    def run(*words: object) -> dict[str, Any]:
        run_script("variants", *arguments, *words)
        record: dict[str, Any] = json.loads((tmp_path / "out" / "variants.json").read_text(encoding="utf-8"))
        return record

    return run


def test_variants_are_ranked_with_their_halves_and_compared_with_the_full_method(
    run: Callable[..., dict[str, Any]],
    variants: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--test", "--only", "768:0", "linear", "none"]
    record = run(*words)
    shown = capsys.readouterr().out
    for title, count in (("held out", 5), ("test", 8)):
        assert f"{count} queries, {title}" in shown
        rows = record[title]
        assert list(rows) == [
            "bm25",
            "the start as it comes",
            "hybrid",
            "hybrid-rrf",
            "both",
            "768:0",
            "linear",
            "none",
        ]
        assert all(f"{row['ndcg@10']:.4f}" in shown for row in rows.values())
        assert rows["both"]["p"] == 1.0
        for half in ("ndcg@10 [CLS]", "ndcg@10 OT"):
            lacking = {"768:0"} if half.endswith("OT") else set()  # it has words beside its dense half
            assert {name for name, row in rows.items() if half in row} == {"both", "768:0", "linear", "none"} - lacking
    monkeypatch.setattr(variants, "OURS", variants.OURS | {"none": variants.OURS["768:0"]})
    again = run(*words)  # what is done is not done again, and what was the same is found again
    assert again["test"]["none"] == again["test"]["768:0"] == record["test"]["768:0"]


def test_held_out_queries_may_look_among_fewer_passages(
    run: Callable[..., dict[str, Any]], variants: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []
    compare = variants.compare
    monkeypatch.setattr(variants, "compare", lambda *a, **k: searched.append(len(a[1][0].corpus)) or compare(*a, **k))
    record = run("--pool", 12, "--only", "both")
    assert searched == [12]
    assert list(record["held out"])[2:] == ["hybrid", "hybrid-rrf", "both"]


def test_the_lexical_weight_is_tuned_on_other_queries_than_it_is_measured_on(
    run: Callable[..., dict[str, Any]], variants: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked = []

    def rank(model: str, queries: Benchmark, folder: Path) -> list[Run]:
        runs = weighted_runs(model, queries, folder)
        ranked.append(
            (runs, rank_weighted(DuplexEncoder(model), queries, [Weights(lexical=factor) for factor in FACTORS]))
        )
        return runs

    weighted_runs = variants.weighted_runs
    monkeypatch.setattr(variants, "weighted_runs", rank)
    rows = run("--tune_weights", "--only", "768:0")["held out"]
    assert list(rows) == ["bm25", "the start as it comes", "hybrid", "hybrid-rrf", "both", "both, balanced", "768:0"]
    assert 0 < rows["both, balanced"]["ndcg@10"] <= 1
    ((indexed, naive),) = ranked
    assert len(indexed) == len(naive) == len(FACTORS)
    for found, other in zip(indexed, naive, strict=True):
        assert list(found) == list(other)
        assert all(found[query] == pytest.approx(other[query], abs=1e-3) for query in found)

    # The first ranking is right for two queries, the second for the two others: what is chosen on either is wrong.
    names = variants.random.Random(0).sample(list("abcd"), 4)
    right, wrong = (lambda name: {name: 1.0}), (lambda name: {next(x for x in "abcd" if x != name): 1.0})
    runs = [{n: (right if (n in names[:2]) == first else wrong)(n) for n in "abcd"} for first in (True, False)]
    assert variants.tuned_ndcg(runs, {name: {name: 1} for name in "abcd"}, 0) == dict.fromkeys("abcd", 0.0)
