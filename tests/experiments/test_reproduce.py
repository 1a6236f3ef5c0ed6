"""The paper's tables on a tiny benchmark."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dupmae.cli import entry as cli
from dupmae.cli import load_recipe
from dupmae.config import Recipe
from dupmae.errors import DupmaeError
from dupmae.experiments import reproduce as reproducing
from dupmae.experiments.paper import ABLATION, PASSAGES, TABLES, VARIANTS, ZERO_SHOT, Column, Variant
from dupmae.experiments.reproduce import Reproduced, as_markdown, reproduce
from dupmae.experiments.variants import train_variants
from dupmae.index.writing import build

ROOT = Path(__file__).parents[2]
SMALL_SCALE = ROOT / "recipes" / "reproduce-small.yaml"


@pytest.fixture(scope="module")
def settings(
    tmp_path_factory: pytest.TempPathFactory,
    write_data: Callable[[Path], Path],
    small_run: dict[str, Any],
    embedder_folder: Path,
) -> list[str]:
    """What makes the small scale's recipe smaller."""
    folder = write_data(tmp_path_factory.mktemp("data") / "scifact")
    settings = small_run | {"stages": 1, "duplex.top_k": 24, "base_model": embedder_folder, "data.benchmark": folder}
    return [f"--{key}={value}" for key, value in settings.items()]


@pytest.fixture(scope="module")
def recipe(settings: list[str]) -> Recipe:
    return load_recipe(SMALL_SCALE, settings)


@pytest.fixture(scope="module")
def finished(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `dupmae run` by that recipe."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert cli.main(["run", str(SMALL_SCALE), *settings, "--output", str(folder)]) == 0
    return folder


def forbid(*_: Any, **__: Any) -> None:
    raise AssertionError("something was trained")


def test_the_papers_figures_are_complete() -> None:
    for table in TABLES.values():
        assert all(len(values) == len(table.columns) for values in table.rows.values())
    means = {name: sum(values) / len(values) for name, values in ZERO_SHOT.rows.items()}
    assert means == pytest.approx({"BM25": 0.423, "DupMAE": 0.477, "DupMAE†": 0.491}, abs=0.0006)
    assert VARIANTS.keys() == ABLATION.rows.keys()


def test_both_recipes_hold_known_settings() -> None:
    for name in reproducing.RECIPES.values():
        found = load_recipe(ROOT / "recipes" / name)
        assert found.stages == 3
        assert found.pretrain.dense_pooling == found.duplex.dense_pooling


def test_the_command_takes_the_recipe_of_the_scale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken: list[tuple[Recipe, str]] = []

    def reproduce(names: Any, recipe: Recipe, scale: str, output: Path, data: Path) -> list[Reproduced]:
        taken.append((recipe, scale))
        return []

    monkeypatch.setattr(reproducing, "reproduce", reproduce)
    for scale in ("small", "full"):
        assert cli.main(["reproduce", "all", "--scale", scale, "--recipes", str(ROOT / "recipes")]) == 0
    assert taken == [
        (load_recipe(SMALL_SCALE), "small"),
        (load_recipe(ROOT / "recipes" / "reproduce-full.yaml"), "full"),
    ]


def test_tables_one_to_three_of_a_run_that_was_put_there_are_written_beside_the_papers(
    recipe: Recipe,
    finished: Path,
    write_data: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_data(tmp_path / "data" / "nfcorpus")
    shutil.copytree(finished, tmp_path / "out" / "run")
    for place in (
        "dupmae.pretraining.pretrain",
        "dupmae.finetuning.finetune",
        "dupmae.experiments.stages.build_token_store",
    ):
        monkeypatch.setattr(place, forbid)
    encoded = []
    encode_window = build.encode_window

    def counted(folder: Path, encoder: Any, window: list[Any], *rest: Any, words: bool) -> Any:
        encoded.append(len(window))
        return encode_window(folder, encoder, window, *rest, words=words)

    monkeypatch.setattr(build, "encode_window", counted)
    results = reproduce(["table1", "table2", "table3"], recipe, "small", tmp_path / "out", tmp_path / "data")
    assert encoded == []  # the run has an index of the passages, which are those of the other set and too short to cut
    passages, documents, zero_shot = results
    assert list(passages.rows) == [
        "BM25",
        "the base model as it comes",
        "BM25 mixed with it, scaled scores",
        "BM25 mixed with it, reciprocal ranks",
        "ours, stage 1",
    ]
    assert list(passages.rows["BM25"]) == [
        Column("scifact", "mrr@10"),
        Column("scifact", "recall@1000"),
        Column("scifact", "ndcg@10"),
    ]
    assert passages.rows["BM25"][Column("scifact", "mrr@10")] > 0.5
    assert list(documents.rows) == [
        "BM25, from the beginning",
        "ours, stage 1, from the beginning",
        "BM25, best chunk",
        "ours, stage 1, best chunk",
    ]
    assert zero_shot.columns == [Column("nfcorpus", "ndcg@10"), Column("scifact", "ndcg@10")]
    assert list(zero_shot.rows) == ["BM25", "BM25, title and text apart", "ours, stage 1"]
    assert all(len(row) == 2 for row in zero_shot.rows.values())
    notes = " ".join(zero_shot.notes)
    assert "trained on queries of SciFact: its figure there is not zero-shot" in notes
    assert "has none of them: trec-covid, bioasq, nq," in notes
    assert "robust04" in notes
    assert "No figure of ours is comparable" in notes
    assert "Not the published NFCorpus" in notes
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| DupMAE, stage 3 (paper) | .426 | .989 | .751 |  |  |  |" in report
    assert report.count("## Table") == 3
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [table["name"] for table in record["tables"]] == ["table1", "table2", "table3"]
    assert {row["source"] for row in record["tables"][0]["rows"]} == {"paper", "computed"}
    assert (tmp_path / "out" / "table2.md").is_file()


def test_variants_differ_in_what_they_say_and_share_the_rest_with_each_other_and_the_recipes_run(
    recipe: Recipe, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dupmae import DuplexEncoder, pretraining

    variants = {
        "both": Variant(),
        "dense": Variant(dense=1.0, terms=0.0),
        "words": Variant(dense=0.0, terms=1.0),
        "retro": Variant(pretrain={"bow_weight": 0.0}, dense=1.0, terms=0.0),
        "none": Variant(pretrain=None, duplex={"lexical_activation": "relu"}),
    }
    weights: list[float] = []
    genuine = pretraining.pretrain

    def pretrain(store: Any, start: str, output: Path, config: Any, **more: Any) -> Path:
        weights.append(config.bow_weight)
        return genuine(store, start, output, config, **more)

    monkeypatch.setattr(pretraining, "pretrain", pretrain)
    recipe = replace(recipe, output=str(shutil.copytree(finished, tmp_path / "run")))
    models = train_variants(recipe, tmp_path / "ablation", variants)
    assert weights == [0.0]  # the others share the recipe's own
    assert not list((tmp_path / "ablation").glob("finetune-*/held_out.jsonl"))  # nothing is measured on the way
    shapes = {name: DuplexEncoder(model).pooling for name, model in models.items()}
    assert {name: (pooling.dense_dimension, pooling.top_k) for name, pooling in shapes.items()} == {
        "both": (16, 16),
        "dense": (32, 0),
        "words": (0, 32),
        "retro": (32, 0),
        "none": (16, 16),
    }
    assert {name for name, pooling in shapes.items() if pooling.lexical_activation == "relu"} == {"none"}
    assert train_variants(recipe, tmp_path / "ablation", variants) == models
    assert weights == [0.0]
    other = replace(recipe, seed=7)
    with pytest.raises(DupmaeError, match=r"run holds the results of a run with another base model or other data"):
        train_variants(other, tmp_path / "ablation", variants)
    monkeypatch.setattr("dupmae.experiments.variants.pretrain_recipe", lambda recipe: tmp_path / "run")
    with pytest.raises(DupmaeError, match=r"ablation holds the results of a run with another base model or other data"):
        train_variants(other, tmp_path / "ablation", variants)


def test_a_duplex_start_has_no_variants(recipe: Recipe, finished: Path, tmp_path: Path) -> None:
    recipe = replace(recipe, base_model=str(finished / "3-finetune" / "model"), output=str(tmp_path / "run"))
    with pytest.raises(DupmaeError, match="keeps its representation: vary one from an encoder"):
        train_variants(recipe, tmp_path / "ablation", {"both": Variant()})
    assert not list(tmp_path.iterdir())


def test_the_ablation_begins_the_recipes_run_if_there_is_none(recipe: Recipe, tmp_path: Path) -> None:
    from dupmae import DuplexEncoder

    recipe = replace(recipe, output=str(tmp_path / "run"))
    (model,) = train_variants(recipe, tmp_path / "ablation", {"both": Variant()}).values()
    assert DuplexEncoder(model).pooling.top_k == 16
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["1-store", "2-pretrain", "run.json"]


def test_the_ablation_has_the_papers_rows(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = iter(["bm25", "bm25-fields"] * 4)
    monkeypatch.setattr(
        reproducing, "train_variants", lambda recipe, folder, variants: {name: next(models) for name in variants}
    )
    (result,) = reproduce(["table4"], recipe, "small", tmp_path, tmp_path)
    assert list(result.rows) == [f"ours: {name}" for name in ABLATION.rows]
    assert "384:260 is 16:11" in " ".join(result.notes)


def test_at_full_scale_the_columns_are_the_papers_and_missing_sets_are_named(
    recipe: Recipe, write_data: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def find(name: str, split: str | None, data: Path) -> Any:
        asked.append(name)
        raise DupmaeError(f"{name} cannot be had: no network")

    monkeypatch.setattr(reproducing, "find_benchmark", find)
    monkeypatch.setattr(reproducing.Reproduction, "stages", {"stage 1": "model"})
    (result,) = reproduce(["table3"], recipe, "full", tmp_path, tmp_path)
    assert asked == [column.benchmark for column in ZERO_SHOT.columns]
    assert "hotpotqa cannot be had: no network" in " ".join(result.notes)
    assert reproducing.Reproduction(recipe, "full", tmp_path, tmp_path).columns(PASSAGES) == PASSAGES.columns


def test_a_table_of_the_papers_columns_has_them_once_and_many_columns_are_turned_round() -> None:
    column = PASSAGES.columns[0]
    result = Reproduced(table=PASSAGES, columns=PASSAGES.columns, rows={"ours": {column: 0.4}}, notes=["A note."])
    text = as_markdown(result)
    assert text.startswith(
        "## Table 1: MS MARCO passages\n\n|  | MS MARCO passage dev MRR@10 | MS MARCO passage dev R@1000 |"
    )
    assert "| ours | .400 |  |  |" in text
    assert text.endswith("\n\nA note.")
    turned = as_markdown(Reproduced(table=ZERO_SHOT, columns=ZERO_SHOT.columns))
    assert "| SciFact NDCG@10 | .665 | .699 | .725 |" in turned


def test_an_unknown_table_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", "table9"]) == 2
    assert "takes one of table1, table2, table3, table4, all, not 'table9'" in capsys.readouterr().err
