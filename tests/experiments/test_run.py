"""A recipe end to end on a tiny benchmark: its report, what is skipped, what is refused, and what survives a kill."""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch

from dupmae.cli import entry as cli
from dupmae.cli import load_recipe
from dupmae.config import Recipe
from dupmae.corpus import (
    Benchmark,
    Passage,
    read_benchmark,
    read_qrels,
    read_run,
    split_queries,
    write_benchmark,
)
from dupmae.errors import DupmaeError
from dupmae.evaluation import evaluate_run, per_query
from dupmae.experiments import run as pipeline
from dupmae.experiments import run_folder, stages
from dupmae.experiments.splits import read_data
from dupmae.runtime.resuming import sole_run

RECIPE = Path(__file__).parents[2] / "recipes" / "scifact.yaml"
FULL_RECIPE = RECIPE.with_name("scifact-full.yaml")
PAIRS_RECIPE = RECIPE.with_name("pairs.yaml")
SYSTEMS = {
    "bm25": "9-baselines/bm25",
    "base-model": "9-baselines/base-model",
    "hybrid": "9-baselines/hybrid/hybrid",
    "hybrid-rrf": "9-baselines/hybrid/hybrid-rrf",
    "finetuned-without-pretraining": "9-baselines/finetuned-without-pretraining",
    "duplex": "8-evaluation/duplex",
    "duplex-dense": "8-evaluation/duplex-dense",
    "duplex-lexical": "8-evaluation/duplex-lexical",
    "duplex-words": "8-evaluation/duplex-words",
}
SMALL = {
    "store.max_length": 32,
    "store.min_length": 4,
    "pretrain.warm_start_sequences": 40,
    "pretrain.new_layers_steps": 2,
    "pretrain.steps": 4,
    "pretrain.batch_size": 8,
    "pretrain.save_steps": 2,
    "duplex.top_k": 24,
    "duplex.dense_dimension": 16,
    "duplex.document_max_length": 48,
    "finetune.epochs": 1,
    "finetune.batch_size": 8,
    "finetune.save_steps": 2,
}
"""What makes the recipe small; two phases of 2 and 4 steps, then 4 steps of fine-tuning, a checkpoint every 2."""
PRETRAINING_STEPS = 6
FINETUNING_STEPS = 4
STEPS_OF_TWO_EPOCHS = 9
SEGMENT = 25
"""Passages of a segment of the index, for three segments."""


@pytest.fixture(scope="module")
def benchmark_folder(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    """60 passages, each about two words that no other has together; 40 train and 10 test queries ask for them."""
    draw = random.Random(3)
    folder = tmp_path_factory.mktemp("benchmarks") / "scifact"
    passages, queries, qrels = [], dict[str, str](), dict[str, dict[str, int]]()
    for number in range(60):
        subject = [words[number], words[60 + number]]
        text = draw.choices(words, k=70 if number % 10 == 0 else draw.randint(8, 16)) + 3 * subject
        draw.shuffle(text)
        passages.append(Passage(f"p{number}", " ".join(subject), " ".join(text) + " ."))
        if number < 50:
            queries[f"q{number}"] = " ".join([*subject, draw.choice(words)])
            qrels[f"q{number}"] = {f"p{number}": 1}
    judged = list(qrels.items())
    write_benchmark(folder, passages, queries, {"train": dict(judged[:40]), "test": dict(judged[40:])})
    return folder


@pytest.fixture(scope="module")
def overrides(benchmark_folder: Path, embedder_folder: Path) -> Callable[..., list[str]]:
    """The words of the command line that make the SciFact recipe a matter of seconds, with an output folder."""

    def build(folder: Path, /, **changes: Any) -> list[str]:
        settings = SMALL | {"output": folder, "base_model": embedder_folder, "data.benchmark": benchmark_folder}
        settings |= {key.replace("__", "."): value for key, value in changes.items()}
        return [f"--{key}={value}" for key, value in settings.items()]

    return build


@pytest.fixture(scope="module")
def small_recipe(overrides: Callable[..., list[str]]) -> Callable[..., Recipe]:
    return lambda folder, /, **changes: load_recipe(RECIPE, overrides(folder, **changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small_recipe: Callable[..., Recipe]) -> Path:
    """A run folder that nothing interrupted, its index in segments of `SEGMENT` passages."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patch:
        cut_into_segments(patch)
        assert pipeline.run_recipe(small_recipe(folder)) == folder
    return folder


@pytest.fixture
def finished_copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def cut_into_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make indexes commit every `SEGMENT` passages."""
    from dupmae.index import duplex_index

    build = duplex_index.build_segments
    monkeypatch.setattr(duplex_index, "build_segments", lambda *a, **k: build(*a, **k | {"segment_passages": SEGMENT}))


def systems(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "report.json").read_text())["systems"]


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every stage's work an error."""

    def work(*_: Any, **__: Any) -> None:
        raise AssertionError("a stage ran")

    for name in ("bm25_run", "dense_run", "duplex_run"):
        monkeypatch.setattr(pipeline, name, work)
    monkeypatch.setattr(stages, "build_token_store", work)
    monkeypatch.setattr("dupmae.pretraining.pretrain", work)
    monkeypatch.setattr("dupmae.finetuning.finetune", work)
    monkeypatch.setattr("dupmae.index.DuplexIndex.build", work)


def test_the_report_holds_the_computed_systems_and_the_quoted_ones(finished):
    computed = [row for row in systems(finished) if not row["quoted"]]
    assert [row["name"] for row in computed] == list(SYSTEMS)
    quoted = {row["name"]: row["ndcg@10"] for row in systems(finished) if row["quoted"]}
    assert quoted == {"BM25 (paper)": 0.665, "DupMAE (paper)": 0.699, "DupMAE† (paper)": 0.725}


def test_the_reports_figures_are_those_of_the_rankings_beside_it(finished, benchmark_folder):
    qrels = read_qrels(benchmark_folder / "qrels" / "test.tsv")
    for row in systems(finished)[: len(SYSTEMS)]:
        run = read_run(finished / SYSTEMS[row["name"]] / "run.trec")
        assert set(run) == set(qrels)
        metrics = {name: row[name] for name in ("ndcg@10", "mrr@10", "recall@100")}
        assert metrics == evaluate_run(run, qrels)
        if row["name"] != "bm25":
            assert row["recall@100"] == 1.0  # all 60 passages are ranked


def test_bm25_finds_what_the_benchmark_was_made_to_ask_for(finished):
    assert systems(finished)[0]["ndcg@10"] > 0.9


def test_the_reports_pictures_and_words_are_there(finished):
    report = json.loads((finished / "report.json").read_text())
    words = (finished / "report.md").read_text()
    assert len(report["figures"]) == 3
    for figure in report["figures"]:
        assert (finished / figure).is_file()
        assert figure in words
    assert all(f"| {name} |" in words for name in SYSTEMS)
    assert "6 of 60 passages were cut at 48 tokens" in words


def test_the_mixtures_are_those_of_bm25_and_the_base_model_which_encodes_once(
    small_recipe, benchmark_folder, embedder_folder, finished, tmp_path, monkeypatch
):
    from dupmae.retrievers import bm25_run, dense_run, hybrid_run

    test = read_benchmark(benchmark_folder, "test")
    lexical, dense = bm25_run(test, 1000), dense_run(str(embedder_folder), test, 1000)
    for form in ("hybrid", "hybrid-rrf"):
        run = read_run(finished / "9-baselines" / "hybrid" / form / "run.trec")
        for query, expected in hybrid_run(lexical, dense, candidates=1000, form=form).items():
            assert run[query] == pytest.approx(expected, abs=1e-5)
    asked = []
    monkeypatch.setattr(pipeline, "dense_run", lambda *words, **more: asked.append(words) or dense_run(*words, **more))
    begin_like(finished, tmp_path / "run", "1-store", "2-pretrain", "3-finetune", monkeypatch=monkeypatch)
    folder = pipeline.run_recipe(small_recipe(tmp_path / "run", baselines="[base-model, hybrid]"))
    assert [words[2] for words in asked] == [1000]
    assert contents(folder / "9-baselines", "*.trec") == {
        name: text for name, text in contents(finished / "9-baselines", "*.trec").items() if name[:3] in ("bas", "hyb")
    }
    assert not list((folder / "9-baselines").rglob("vectors*"))


def test_the_report_says_how_far_the_result_is_from_the_best_baseline(finished, benchmark_folder):
    qrels = read_qrels(benchmark_folder / "qrels" / "test.tsv")
    names = ["bm25", "base-model", "hybrid", "hybrid-rrf"]
    values = {name: per_query(read_run(finished / SYSTEMS[name] / "run.trec"), qrels, "ndcg@10") for name in names}
    own = per_query(read_run(finished / SYSTEMS["duplex"] / "run.trec"), qrels, "ndcg@10")
    best = max(names, key=lambda name: fmean(values[name].values()))
    before, after = fmean(values[best].values()), fmean(own.values())
    better = sum(own[query] > value for query, value in values[best].items())
    worse = sum(own[query] < value for query, value in values[best].items())
    said = (
        f"Against the best of bm25, base-model, hybrid, hybrid-rrf: {best}. On the test queries duplex has NDCG@10 "
        f"{after:.3f}, {best} {before:.3f}: {after - before:+.3f}, better in {better} queries and worse in {worse}, p "
    )
    assert said in (finished / "report.md").read_text()


def test_what_is_compared_with_may_be_chosen_before_and_afterwards(finished_copy, monkeypatch, small_recipe):
    forbid(monkeypatch)
    pipeline.run_recipe(small_recipe(finished_copy, baselines="[bm25]"))
    assert [row["name"] for row in systems(finished_copy) if not row["quoted"]] == [
        "bm25",
        "duplex",
        "duplex-dense",
        "duplex-lexical",
        "duplex-words",
    ]
    assert [row["stage"] for row in json.loads((finished_copy / "gains.json").read_text())] == ["stage-1"]
    pipeline.run_recipe(small_recipe(finished_copy))
    assert [row["name"] for row in systems(finished_copy) if not row["quoted"]] == list(SYSTEMS)


def test_a_second_call_does_nothing_again(finished_copy, monkeypatch, overrides, capsys):
    before = contents(finished_copy, "report.json")
    forbid(monkeypatch)
    monkeypatch.setattr(cli, "silence", lambda: None)
    assert cli.main(["run", str(RECIPE), *overrides(finished_copy)]) == 0
    assert capsys.readouterr().out == f"Written: {finished_copy}\n"
    assert systems(finished_copy) == json.loads(before["report.json"])["systems"]


@pytest.mark.parametrize("change", [{"seed": 43}, {"data__dev_fraction": 0.2}, {"data__hold_out": "passages"}])
def test_the_folder_of_a_run_with_other_queries_held_out_is_refused_and_left_alone(finished_copy, small_recipe, change):
    before = contents(finished_copy, "*.json")
    with pytest.raises(DupmaeError, match=r"other data: choose another output or delete it$") as refusal:
        pipeline.run_recipe(small_recipe(finished_copy, **change))
    assert "\n" not in str(refusal.value)
    assert contents(finished_copy, "*.json") == before


@pytest.mark.parametrize(
    "change",
    [
        {"pretrain__shard": "true", "pretrain__gradient_checkpointing": "true", "pretrain__report_to": "wandb"},
        {"finetune__mini_batch_size": 4, "finetune__save_steps": 7, "teacher__save_steps": 7},
    ],
)
def test_settings_that_change_no_result_do_no_stage_again(finished_copy, monkeypatch, small_recipe, change):
    forbid(monkeypatch)
    pipeline.run_recipe(small_recipe(finished_copy, **change))


def stage_states(folder: Path, recipe: Recipe) -> dict[str, str]:
    """Stage -> why it is done or to be done."""
    run = pipeline._checked(recipe)
    return {one.stage.name: one.why for one in run.stages.plan(run.all_stages())}


def test_a_changed_setting_does_again_what_depends_on_it_alone(finished_copy, small_recipe, tmp_path, capsys):
    recipe, before = small_recipe(finished_copy, finetune__epochs=2), contents(finished_copy, "*")
    kept = ("1-store/", "2-pretrain/", "9-baselines/bm25/", "9-baselines/base-model/", "9-baselines/hybrid/")
    assert stage_states(finished_copy, recipe) == {
        "1-store": "done before",
        "2-pretrain": "done before",
        "3-finetune": "finetune.epochs: 1.0 -> 2.0",
        "index": "after 3-finetune",
        "8-evaluation": "after index",
        "9-baselines/bm25": "done before",
        "9-baselines/base-model": "done before",
        "9-baselines/hybrid": "done before",
        "9-baselines/finetuned-without-pretraining": "finetune.epochs: 1.0 -> 2.0",
    }
    assert pipeline.run_recipe(recipe, dry_run=True) == finished_copy
    shown = capsys.readouterr().out
    assert "finetune.epochs: 1.0 -> 2.0" in shown.replace("\n", " ")
    assert contents(finished_copy, "*") == before  # a dry run does nothing

    pipeline.run_recipe(recipe)
    told = capsys.readouterr().err
    assert "Stage 3 of 9: Fine-tune" in told
    assert "Done again: 3-finetune (finetune.epochs: 1.0 -> 2.0)" in told.replace("\n", " ")
    after = contents(finished_copy, "*")
    assert {name: data for name, data in after.items() if name.startswith(kept)} == {
        name: data for name, data in before.items() if name.startswith(kept)
    }
    assert len((finished_copy / "3-finetune" / "metrics.jsonl").read_text().splitlines()) == STEPS_OF_TWO_EPOCHS
    fresh = pipeline.run_recipe(small_recipe(tmp_path / "fresh", finetune__epochs=2))
    for pattern in ("*.safetensors", "*.trec"):
        assert contents(finished_copy, pattern) == contents(fresh, pattern)
    assert systems(finished_copy) == systems(fresh)
    assert not (finished_copy / ".next").exists()
    assert json.loads((finished_copy / "run.json").read_text())["recipe"]["finetune"]["epochs"] == 2
    assert set(stage_states(finished_copy, recipe).values()) == {"done before"}


def answers(folder: Path) -> list[str]:
    """What a run's index finds."""
    from dupmae.index import DuplexIndex

    return [hit.id for hit in DuplexIndex.open(folder / "index").search(["be"], k=5)[0]]


def test_a_run_killed_while_it_is_done_again_leaves_the_earlier_result(finished_copy, small_recipe, monkeypatch):
    from dupmae.finetuning.trainer import _Trainer as FinetuneTrainer

    before, found = contents(finished_copy, "*"), answers(finished_copy)
    recipe = small_recipe(finished_copy, finetune__epochs=2)
    with monkeypatch.context() as patched:
        # in stage 1, two steps after a checkpoint; in the index; at its search; in the baseline
        losses = Killer(patched, FinetuneTrainer, "training_step", {4, 16})
        Killer(patched, pipeline, "build_index", {1})
        Killer(patched, pipeline, "duplex_run", {2})
        for _ in range(4):
            with pytest.raises(KeyboardInterrupt):
                pipeline.run_recipe(recipe)
            now = contents(finished_copy, "*")
            assert {name: data for name, data in now.items() if not name.startswith(".next/")} == before
            assert answers(finished_copy) == found
        pipeline.run_recipe(recipe)
        assert losses.calls == 2 * STEPS_OF_TWO_EPOCHS + 2 + 1  # and the steps since a checkpoint once more
    assert not (finished_copy / ".next").exists()
    assert len((finished_copy / "3-finetune" / "metrics.jsonl").read_text().splitlines()) == STEPS_OF_TWO_EPOCHS
    assert answers(finished_copy)


def test_a_run_killed_while_results_change_places_is_put_in_place_by_the_next_call(
    finished_copy, small_recipe, monkeypatch, tmp_path
):
    recipe = small_recipe(finished_copy, finetune__epochs=0.5, baselines="[]")
    whole = pipeline.run_recipe(small_recipe(tmp_path / "whole", finetune__epochs=0.5, baselines="[]"))
    replace_path, moves = Path.replace, []

    def dying(path: Path, target: Any) -> Path:
        if (finished_copy / ".next" / run_folder.REPLACED_FILE).exists():
            moves.append(path)
            if len(moves) in (2, 5, 9):
                raise KeyboardInterrupt
        return replace_path(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dying)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                pipeline.run_recipe(recipe)
        forbid(patched)
        pipeline.run_recipe(recipe)
    assert contents(finished_copy / "3-finetune", "*.safetensors") == contents(whole / "3-finetune", "*.safetensors")
    assert contents(finished_copy / "8-evaluation", "*.trec") == contents(whole / "8-evaluation", "*.trec")
    assert systems(finished_copy) == systems(whole)
    assert not (finished_copy / ".next").exists()


def test_what_was_begun_with_other_settings_is_dropped_with_a_word(finished_copy, small_recipe, monkeypatch, capsys):
    from dupmae.finetuning.trainer import _Trainer as FinetuneTrainer

    for epochs, step in ((2, 4), (3, 2)):
        with monkeypatch.context() as patched:
            Killer(patched, FinetuneTrainer, "training_step", {step})
            with pytest.raises(KeyboardInterrupt):
                pipeline.run_recipe(small_recipe(finished_copy, finetune__epochs=epochs))
    told = capsys.readouterr().err.replace("\n", "")
    assert f"Deleted: {finished_copy / '.next' / '3-finetune'}, which was begun with other settings" in told
    forbid(monkeypatch)
    before = contents(finished_copy, "*.safetensors")
    pipeline.run_recipe(small_recipe(finished_copy))  # back to the first settings: nothing is to be done
    assert f"Deleted: {finished_copy / '.next'}, which" in capsys.readouterr().err.replace("\n", "")
    assert not (finished_copy / ".next").exists()
    assert contents(finished_copy, "*.safetensors").items() <= before.items()


def test_a_first_run_that_was_broken_off_goes_on_with_other_settings(small_recipe, tmp_path, monkeypatch):
    from dupmae.finetuning.trainer import _Trainer as FinetuneTrainer

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        Killer(patched, FinetuneTrainer, "training_step", {4})
        with pytest.raises(KeyboardInterrupt):
            pipeline.run_recipe(small_recipe(folder, baselines="[]"))
    with monkeypatch.context() as patched:
        patched.setattr("dupmae.pretraining.pretrain", lambda *_: pytest.fail("pre-trains again"))
        pipeline.run_recipe(small_recipe(folder, baselines="[]", finetune__epochs=0.5))
    assert len((folder / "3-finetune" / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_folder_of_a_run_of_0_1_is_refused_in_a_sentence(finished_copy, small_recipe):
    record = json.loads((finished_copy / "run.json").read_text())
    del record["stages"]
    (finished_copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(DupmaeError, match=r"holds a run of dupmae 0\.1: its index and its models open as before"):
        pipeline.run_recipe(small_recipe(finished_copy))


def test_the_recipe_for_any_folder_of_pairs_validates_on_a_split_of_its_own(overrides, benchmark_folder, tmp_path):
    own = Path(shutil.copytree(benchmark_folder, tmp_path / "lighthouses"))
    head, *lines = (own / "qrels" / "test.tsv").read_text().splitlines()
    (own / "qrels" / "dev.tsv").write_text("\n".join([head, *lines[:4]]) + "\n")
    changes = {"data__benchmark": own, "data__dev_split": "dev", "finetune__epochs": 0.4}
    recipe = load_recipe(PAIRS_RECIPE, overrides(tmp_path / "run", **changes))
    pipeline.run_recipe(recipe)
    words = (tmp_path / "run" / "report.md").read_text()
    assert words.startswith("# run: lighthouses test")
    assert "trained on 40 pairs of 40 queries; 4 queries held out; 10 test queries" in words
    assert set(read_run(tmp_path / "run" / "8-evaluation" / "duplex" / "dev.trec")) == {"q40", "q41", "q42", "q43"}
    steps = (tmp_path / "run" / "3-finetune" / "metrics.jsonl").read_text().splitlines()
    assert len(steps) == 2  # of 5 in an epoch
    (own / "qrels" / "dev.tsv").write_text("\n".join([head, *lines[:3]]) + "\n")
    with pytest.raises(DupmaeError, match="another base model or other data"):
        pipeline.run_recipe(recipe)


def test_train_and_dev_queries_of_a_recipe_share_no_passage_unless_it_says_so(small_recipe, benchmark_folder, tmp_path):
    own = Path(shutil.copytree(benchmark_folder, tmp_path / "shared"))
    file = own / "qrels" / "train.tsv"
    lines = file.read_text().splitlines()
    more = [f"q{number}\tp{number - 1}\t1" for number in range(1, 40, 2)]  # queries in pairs
    file.write_text("\n".join([*lines, *more]) + "\n")

    def shared(**changes: Any) -> set[str]:
        recipe = small_recipe(tmp_path / "run", data__benchmark=own, data__dev_fraction=0.3, **changes)
        splits = read_data(recipe.data, recipe.seed)
        train, dev = splits.train, splits.dev
        assert dev.queries
        assert train.corpus is dev.corpus is splits.test.corpus  # in memory once
        return {name for grades in train.qrels.values() for name in grades} & {
            name for grades in dev.qrels.values() for name in grades
        }

    assert not shared(data__hold_out="passages")
    assert shared()  # SciFact's recipe holds out queries


def test_the_folder_of_a_run_with_other_held_out_judgements_is_refused(
    finished_copy, small_recipe, benchmark_folder, tmp_path
):
    changed = Path(shutil.copytree(benchmark_folder, tmp_path / "scifact"))
    recipe = small_recipe(finished_copy, data__benchmark=changed)
    held_out = next(iter(read_data(recipe.data, recipe.seed).dev.queries))
    with (changed / "qrels" / "train.tsv").open("a") as file:
        file.write(f"{held_out}\tp50\t1\n")
    assert held_out in read_data(recipe.data, recipe.seed).dev.queries
    with pytest.raises(DupmaeError, match="another base model or other data"):
        pipeline.run_recipe(recipe)


def test_a_half_that_is_left_out_is_not_reported(small_recipe, tmp_path):
    folder = pipeline.run_recipe(
        small_recipe(
            tmp_path / "run", duplex__top_k=0, duplex__words="none", finetune__lexical_loss_weight=0, baselines="[]"
        )
    )
    assert [row["name"] for row in systems(folder) if not row["quoted"]] == ["duplex"]


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv"])
def test_the_folder_of_a_run_on_other_data_is_refused(finished_copy, small_recipe, benchmark_folder, tmp_path, file):
    changed = Path(shutil.copytree(benchmark_folder, tmp_path / "scifact"))
    lines = (changed / file).read_text().splitlines()
    lines[5] = lines[5].replace(" .", " more .").replace('"text": "', '"text": "another ').replace("\tp4\t", "\tp5\t")
    (changed / file).write_text("\n".join(lines) + "\n")
    with pytest.raises(DupmaeError, match="another base model or other data"):
        pipeline.run_recipe(small_recipe(finished_copy, data__benchmark=changed))


def test_a_known_benchmark_is_read_and_measured_by_its_rules(small_recipe, benchmark_folder, tmp_path):
    quora = Path(shutil.copytree(benchmark_folder, tmp_path / "quora"))  # no titles, and queries are passages
    walk = pipeline._checked(small_recipe(tmp_path / "run", data__benchmark=quora))
    assert not any(passage.title for passage in walk.test.corpus.values())
    assert walk.train.corpus is walk.dev.corpus is walk.test.corpus
    query = next(iter(walk.test.queries))
    (right,) = walk.test.qrels[query]
    assert walk._save(tmp_path / "run", {query: {query: 2.0, right: 1.0}})["mrr@10"] == 1 / len(walk.test.queries)
    assert read_run(tmp_path / "run" / "run.trec") == {query: {right: 1.0}}
    walk.rules = replace(walk.rules, relevant_from=2)
    assert walk._save(tmp_path / "run", {query: {right: 1.0}})["mrr@10"] == 0
    asked = {}

    def search(index: Any, benchmark: Benchmark, depth: int) -> Any:
        asked.update(depth=depth)
        return {name: {name: 2.0, "p1": 1.0} for name in benchmark.queries}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pipeline, "duplex_run", search)
        walk._rank_dev(None, tmp_path / "run")
    assert asked == {"depth": 101}
    assert all(ranking == {"p1": 1.0} for ranking in read_run(tmp_path / "run" / "dev.trec").values())


def test_a_folder_of_other_files_is_refused(small_recipe, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DupmaeError, match="holds other files"):
        pipeline.run_recipe(small_recipe(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_another_run_is_at_work_in_is_refused(finished_copy, small_recipe):
    with sole_run(finished_copy), pytest.raises(DupmaeError, match="Another process is at work"):
        pipeline.run_recipe(small_recipe(finished_copy))
    pipeline.run_recipe(small_recipe(finished_copy))  # the same one may go on when the other has ended


@pytest.mark.parametrize(("key", "sentence"), [("output", "no output folder"), ("data__benchmark", "no benchmark")])
def test_a_recipe_that_lacks_a_place_is_refused(small_recipe, tmp_path, key, sentence):
    with pytest.raises(DupmaeError, match=sentence):
        pipeline.run_recipe(small_recipe(tmp_path / "run", **{key: ""}))
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_pretrains_for_another_representation_is_refused_before_any_work(small_recipe, tmp_path):
    recipe = small_recipe(tmp_path / "run", duplex__dense_pooling="cls")
    with pytest.raises(DupmaeError, match=r"pretrain\.dense_pooling is mean and duplex\.dense_pooling is cls"):
        pipeline.run_recipe(recipe)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stages": 2, "hard_negatives__negatives": 60}, r"hard_negatives\.negatives is 60, more than the 50"),
        ({"finetune__batch_size": 99}, r"fewer than one batch of 99: lower finetune\.batch_size"),
        ({"stages": 2, "hard_negatives__batch_size": 99}, r"of 99: lower hard_negatives\.batch_size"),
        ({"data__dev_split": "test"}, "two are the same"),
        ({"data__test_split": "train"}, "two are the same"),
        (
            {"stages": 3, "distil__negative_depth": 2},
            r"distil\.negatives is 7, more than the 2",
        ),
        ({"stages": 3, "teacher__epochs": 0}, "name it in teacher_model"),
        ({"stages": 3, "distil__negatives": 0}, r"distil\.negatives is 0"),
        ({"stages": 2, "mining__first": 9, "mining__last": 5}, r"mining\.first is 9 and mining\.last 5"),
        ({"stages": 3, "teacher_model": "./nowhere"}, r"there is no model folder teacher_model \./nowhere"),
    ],
)
def test_a_recipe_whose_later_stages_cannot_work_is_refused_before_any_work(changes, sentence, small_recipe, tmp_path):
    with pytest.raises(DupmaeError, match=sentence):
        pipeline.run_recipe(small_recipe(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_unknown_judgements_are_refused_unless_allowed(small_recipe, benchmark_folder, tmp_path, monkeypatch):
    changed = Path(shutil.copytree(benchmark_folder, tmp_path / "scifact"))
    with (changed / "qrels" / "train.tsv").open("a") as file:
        file.write("q1\tnowhere\t1\n")
    with pytest.raises(DupmaeError, match=r"train\.tsv: 1 judgements .*'nowhere'"):
        pipeline.run_recipe(small_recipe(tmp_path / "run", data__benchmark=changed))
    assert not (tmp_path / "run").exists()

    def reached(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "build_token_store", reached)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run_recipe(small_recipe(tmp_path / "run", data__benchmark=changed, data__allow_unknown="true"))


def test_the_runs_index_answers_with_both_halves_and_the_entries_that_matched(finished, monkeypatch, capsys):
    monkeypatch.setattr(cli, "silence", lambda: None)
    query = json.loads((finished / "run.json").read_text())["recipe"]["data"]["benchmark"]
    query = json.loads(Path(query, "queries.jsonl").read_text().splitlines()[45])["text"]
    assert cli.main(["search", str(finished / "index"), query, "--k", "3", "--json"]) == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {hit["query"] for hit in hits} == {query}
    ranked = read_run(finished / "8-evaluation" / "duplex" / "run.trec")["q45"]
    assert {hit["id"]: hit["score"] for hit in hits} == pytest.approx(
        dict(sorted(ranked.items(), key=lambda row: -row[1])[:3]), rel=1e-3
    )
    for hit in hits:
        assert hit["score"] == pytest.approx(hit["dense_score"] + hit["lexical_score"] + hit["word_score"], rel=1e-3)
        assert hit["lexical_score"] == pytest.approx(sum(match["contribution"] for match in hit["matches"]), rel=1e-3)
        assert hit["text"].endswith(" .")


class Killer:
    """Counts the calls of a function and raises `KeyboardInterrupt` instead of some of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, kills: set[int]) -> None:
        self.calls = 0
        original = getattr(owner, name)

        @functools.wraps(original)
        def counted(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls in kills:
                raise KeyboardInterrupt
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, counted)


def test_a_run_killed_at_every_stage_ends_as_one_that_was_not(finished, small_recipe, tmp_path, monkeypatch):
    from dupmae.finetuning.trainer import _Trainer as FinetuneTrainer
    from dupmae.index.writing import build
    from dupmae.pretraining.phase import PhaseTrainer

    cut_into_segments(monkeypatch)
    # The last step of each stage, two steps after a checkpoint, and the second of three segments.
    pretraining = Killer(monkeypatch, PhaseTrainer, "training_step", {PRETRAINING_STEPS})
    finetuning = Killer(monkeypatch, FinetuneTrainer, "training_step", {FINETUNING_STEPS, 2 * FINETUNING_STEPS + 2})
    segments = Killer(monkeypatch, build, "write_segment", {2})
    searching = Killer(monkeypatch, pipeline, "duplex_run", {3})
    folder = tmp_path / "killed"
    recipe = small_recipe(folder)
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            pipeline.run_recipe(recipe)
        assert not (folder / "report.json").exists()
    pipeline.run_recipe(recipe)

    assert pretraining.calls == PRETRAINING_STEPS + 2  # two steps twice, not all of them
    assert finetuning.calls == 2 * (FINETUNING_STEPS + 2)
    assert segments.calls == 3 + 1 + 3
    assert searching.calls == 3 + 5 + 1
    weights = contents(folder, "*.safetensors")
    assert {"2-pretrain/model/decoder.safetensors", "3-finetune/model/1_DuplexPooling/model.safetensors"} < set(weights)
    expected = contents(finished, "*.safetensors")
    assert [name for name in expected if weights.get(name) != expected[name]] == []
    for pattern in ("*.arrow", "*.trec"):
        assert contents(folder, pattern) == contents(finished, pattern)
    assert systems(folder) == systems(finished)


FULL = {
    "finetune.eval_steps": 2,
    "finetune.dev_pool_size": 30,
    "mining.last": 8,
    "mining.relative_margin": "null",
    "hard_negatives.epochs": 1,
    "hard_negatives.batch_size": 8,
    "hard_negatives.negatives": 2,
    "teacher.epochs": 1,
    "teacher.negatives": 2,
    "distil.epochs": 1,
    "distil.batch_size": 8,
    "distil.negatives": 3,
}
"""What makes the recipe of three stages small: 4 steps in each."""


@pytest.fixture(scope="module")
def full_recipe(overrides: Callable[..., list[str]]) -> Callable[..., Recipe]:
    return lambda folder, /, **changes: load_recipe(FULL_RECIPE, overrides(folder, **FULL | changes))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, full_recipe: Callable[..., Recipe]) -> Path:
    """A run folder of all three stages that nothing interrupted."""
    return pipeline.run_recipe(full_recipe(tmp_path_factory.mktemp("runs") / "full"))


def test_three_stages_each_start_where_the_one_before_ended_and_report_what_they_gained(full, benchmark_folder):
    places = {
        "base-model": "9-baselines/base-model",
        "stage-1": "3-finetune/evaluation",
        "stage-2": "5-hard-negatives/evaluation",
        "stage-3": "8-evaluation/duplex",
    }
    qrels = read_qrels(benchmark_folder / "qrels" / "test.tsv")
    values = {name: per_query(read_run(full / place / "run.trec"), qrels, "ndcg@10") for name, place in places.items()}
    gains = json.loads((full / "gains.json").read_text())
    assert [row["stage"] for row in gains] == list(places)
    assert [row["test"] for row in gains] == pytest.approx([fmean(each.values()) for each in values.values()])
    assert [row["dev"] is None for row in gains] == [True, False, False, False]
    for before, row in itertools.pairwise(gains):
        assert row["gain"] == pytest.approx(row["test"] - before["test"])
        pair = [list(values[name].values()) for name in (row["stage"], before["stage"])]
        expected = 1.0 if pair[0] == pair[1] else naive_paired_p(*pair)
        assert row["p"] == pytest.approx(expected, abs=2e-3)
    words = (full / "report.md").read_text()
    for row in gains:
        assert f"| {row['stage']} | " in words
    names = [row["name"] for row in systems(full) if not row["quoted"]]
    assert names == [*list(SYSTEMS)[:5], "stage-1", "stage-2", *list(SYSTEMS)[5:]]
    assert len(json.loads((full / "report.json").read_text())["figures"]) == 5
    for stage, loss in (("3-finetune", "contrastive"), ("5-hard-negatives", "contrastive"), ("7-distil", "distil")):
        lines = [json.loads(line) for line in (full / stage / "metrics.jsonl").read_text().splitlines()]
        assert len(lines) == FINETUNING_STEPS
        assert loss in lines[0]
        held_out = [json.loads(line) for line in (full / stage / "held_out.jsonl").read_text().splitlines()]
        assert [line["step"] for line in held_out] == [0, 2, 4]
        kept = json.loads((full / stage / "finetune.json").read_text())["kept"]
        assert kept == max(held_out, key=lambda line: line["ndcg@10"])


def test_a_teacher_is_compared_with_its_student_on_the_held_out_queries(full, full_recipe, benchmark_folder):
    examined = json.loads((full / "6-teacher" / "done.json").read_text())["metrics"]
    student = read_run(full / "5-hard-negatives" / "evaluation" / "dev.trec")
    teacher = read_run(full / "6-teacher" / "dev.trec")
    recipe = full_recipe(full)
    pairs = read_benchmark(benchmark_folder, "train")
    _, dev = split_queries(pairs, recipe.data.dev_fraction, recipe.seed, recipe.data.hold_out)
    for name, run in (("student", student), ("teacher", teacher)):
        assert run.keys() == dev.queries.keys()
        assert examined[name] == pytest.approx(evaluate_run(run, dev.qrels))
    assert all(teacher[query].keys() == student[query].keys() for query in student)
    assert (
        f"the teacher ranks the best 8 passages anew: NDCG@10 {examined['teacher']['ndcg@10']:.3f}"
        in (full / "report.md").read_text()
    )


def naive_paired_p(one: list[float], other: list[float]) -> float:
    """Two-sided p of the paired t-test, the tail of Student's density added up in small steps."""
    differences = [x - y for x, y in zip(one, other, strict=True)]
    n = len(differences)
    t = abs(fmean(differences)) / (stdev(differences) / math.sqrt(n))
    degrees = n - 1
    scale = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))
    width = 1e-3
    middle = sum(
        scale * (1 + ((step + 0.5) * width) ** 2 / degrees) ** (-(degrees + 1) / 2) * width
        for step in range(int(t / width))
    )
    return 1 - 2 * middle


BEGINNING = ("1-store", "2-pretrain", "9-baselines/bm25", "9-baselines/base-model", "9-baselines/hybrid")
"""Stages that fine-tuning has no part in."""


def begin_like(full: Path, folder: Path, *stages: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy a run's finished stages to another folder, which the next run may take over whatever its settings are."""
    for stage in stages:
        shutil.copytree(full / stage, folder / stage, dirs_exist_ok=True)
    monkeypatch.setattr(run_folder.RunFolder, "_refuse_other_run", lambda _: None)


def test_three_stages_killed_in_each_end_as_if_they_had_not_been(full, full_recipe, tmp_path, monkeypatch):
    from dupmae.finetuning import mining, teacher
    from dupmae.finetuning.trainer import _Trainer as FinetuneTrainer

    Killer(monkeypatch, mining, "write_lists", {1})
    Killer(monkeypatch, teacher, "write_scores", {1})
    # The last step of stage 2 and of stage 3, each two steps after a checkpoint.
    Killer(monkeypatch, FinetuneTrainer, "training_step", {FINETUNING_STEPS, 2 * FINETUNING_STEPS + 2})
    folder = tmp_path / "killed"
    recipe = full_recipe(folder)
    begin_like(full, folder, *BEGINNING, "3-finetune", monkeypatch=monkeypatch)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            pipeline.run_recipe(recipe)
    pipeline.run_recipe(recipe)
    for pattern in ("*.safetensors", "*.trec", "negatives.jsonl", "teacher.jsonl"):
        expected = contents(full, pattern)
        assert expected
        assert contents(folder, pattern) == expected
    assert systems(folder) == systems(full)
    forbid(monkeypatch)
    pipeline.run_recipe(recipe)


def test_a_ready_teacher_is_taken_as_it_is(full, full_recipe, tmp_path, monkeypatch):
    ready = full / "6-teacher" / "training" / "model"
    folder = tmp_path / "ready"
    begin_like(full, folder, *BEGINNING, "3-finetune", "4-mine", "5-hard-negatives", monkeypatch=monkeypatch)
    pipeline.run_recipe(full_recipe(folder, teacher_model=ready, teacher__epochs=0))
    assert not (folder / "6-teacher" / "training").exists()
    assert contents(folder, "*.trec") == contents(full, "*.trec")


def test_an_embedder_may_be_the_ready_teacher(full, full_recipe, embedder_folder, tmp_path, monkeypatch):
    folder = tmp_path / "embedder"
    begin_like(full, folder, *BEGINNING, "3-finetune", "4-mine", "5-hard-negatives", monkeypatch=monkeypatch)
    pipeline.run_recipe(full_recipe(folder, teacher_model=embedder_folder, teacher__epochs=0))
    assert sorted(path.name for path in (folder / "6-teacher").iterdir()) == [
        "dev.trec",
        "done.json",
        "scores.json",
        "teacher.jsonl",
    ]
    ranked = read_run(folder / "6-teacher" / "dev.trec")
    assert ranked != read_run(full / "6-teacher" / "dev.trec")
    assert all(-20.01 < max(ranking.values()) < 20.01 for ranking in ranked.values())


def test_the_teacher_of_a_run_without_pretraining_begins_with_the_start(full, full_recipe, tmp_path):
    start, nothing = full / "3-finetune" / "model", {"pretrain__new_layers_steps": 0, "pretrain__steps": 0}
    folder = pipeline.run_recipe(full_recipe(tmp_path / "run", base_model=start, baselines="[]", **nothing))
    assert not (folder / "2-pretrain").exists()
    assert json.loads((folder / "6-teacher" / "training" / "teacher.json").read_text())["start"] == str(start)
    assert (folder / "report.md").is_file()


def test_two_stages_end_with_the_mined_negatives(full, full_recipe, tmp_path, monkeypatch):
    folder = tmp_path / "two"
    begin_like(full, folder, *BEGINNING, monkeypatch=monkeypatch)
    pipeline.run_recipe(full_recipe(folder, stages=2, data__dev_fraction=0))
    assert not (folder / "6-teacher").exists()
    assert [row["stage"] for row in json.loads((folder / "gains.json").read_text())] == [
        "base-model",
        "stage-1",
        "stage-2",
    ]
    assert all(row["dev"] is None for row in json.loads((folder / "gains.json").read_text()))
    assert "5-hard-negatives" in json.loads((folder / "index" / "manifest.json").read_text())["model"]


def test_a_duplex_start_keeps_what_it_is_and_is_fine_tuned_as_it_comes(
    finished, small_recipe, benchmark_folder, tmp_path
):
    from dupmae.duplex import DuplexEncoder

    start = finished / "3-finetune" / "model"
    without = {"pretrain.new_layers_steps": 0, "pretrain.steps": 0, "finetune.learning_rate": 0.0}
    without |= {"finetune.head_learning_rate": 0.0, "finetune.scale_learning_rate": 0.0, "duplex.top_k": 5}
    without |= {"pretrain.dense_pooling": "cls"}  # not the start's, but nothing is pre-trained
    run = pipeline.run_recipe(small_recipe(tmp_path / "run", base_model=start, **without))
    assert not (run / "2-pretrain").exists()
    assert [row["name"] for row in systems(run) if not row["quoted"]] == [
        "bm25",
        "base-model",
        "hybrid",
        "hybrid-rrf",
        "duplex",
        "duplex-dense",
        "duplex-lexical",
        "duplex-words",
    ]
    assert DuplexEncoder(str(run / "3-finetune" / "model")).pooling.top_k == 24
    rankings = [read_run(run / place / "run.trec") for place in ("9-baselines/base-model", "8-evaluation/duplex")]
    assert rankings[0] == rankings[1] == read_run(finished / "8-evaluation" / "duplex" / "run.trec")
    assert "48 tokens" in (run / "report.md").read_text()

    # its dense half is mixed with BM25, also where its own ranking is not asked for
    from dupmae.retrievers import bm25_run, hybrid_run

    before = contents(run / "9-baselines" / "hybrid", "*.trec")
    mixed = hybrid_run(
        bm25_run(read_benchmark(benchmark_folder, "test"), 1000),
        read_run(run / "8-evaluation" / "duplex-dense" / "run.trec"),
        candidates=1000,
    )
    found = read_run(run / "9-baselines" / "hybrid" / "hybrid" / "run.trec")
    assert found == {query: pytest.approx(scores, abs=1e-4) for query, scores in mixed.items()}
    shutil.rmtree(run / "9-baselines")
    pipeline.run_recipe(small_recipe(run, base_model=start, **without, baselines="[hybrid]"))
    assert contents(run / "9-baselines" / "hybrid", "*.trec") == before
    folders = sorted(path.name for path in (run / "9-baselines").rglob("*") if path.is_dir())
    assert folders == ["hybrid", "hybrid", "hybrid-rrf"]
    assert "Against the best of hybrid, hybrid-rrf: " in (run / "report.md").read_text()


def test_a_duplex_start_is_pre_trained_from_its_own_head_and_keeps_its_scales(finished, small_recipe, tmp_path):
    from dupmae.duplex import DuplexEncoder

    start = finished / "3-finetune" / "model"
    run = pipeline.run_recipe(small_recipe(tmp_path / "run", base_model=start, pretrain__steps=2))
    before, after = (DuplexEncoder(str(folder)).pooling for folder in (start, run / "3-finetune" / "model"))
    first, last = before.output.weight.flatten(), after.output.weight.flatten()
    assert torch.cosine_similarity(first, last, dim=0) > 0.95
    assert 0.8 < last.norm() / first.norm() < 1.25
    assert (before.cls_projection.weight - after.cls_projection.weight).abs().max() < 0.01
    assert "finetuned-without-pretraining" in {row["name"] for row in systems(run)}


def test_an_anchors_vectors_are_computed_once_for_a_run_whatever_else_of_its_pretraining_changes(
    small_recipe: Callable[..., Recipe], embedder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dupmae.pretraining import anchor_vectors

    anchor = {"pretrain.anchor_model": embedder_folder, "pretrain.anchor_weight": 3}
    with pytest.raises(DupmaeError, match="anchor_weight is 0"):
        pipeline.run_recipe(small_recipe(tmp_path / "run", **anchor | {"pretrain.anchor_weight": 0}))
    assert not (tmp_path / "run").exists()
    pipeline.pretrain_recipe(small_recipe(tmp_path / "run", **anchor))
    (block,) = (tmp_path / "run" / "1-store" / "vectors").rglob("*.npy")
    assert (tmp_path / "run" / "1-store" / "store" / "texts.arrow").is_file()
    before = block.stat().st_mtime_ns
    monkeypatch.setattr(anchor_vectors, "_encoder", None)
    pipeline.pretrain_recipe(small_recipe(tmp_path / "run", **anchor | {"pretrain.steps": 3}))
    assert block.stat().st_mtime_ns == before
    lines = (tmp_path / "run" / "2-pretrain" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert ["anchor" in json.loads(line) for line in lines] == [False] * 2 + [True] * 3
